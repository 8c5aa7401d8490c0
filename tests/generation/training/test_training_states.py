"""States and checkpoints of a training: damage, full disks, numbers that are not finite."""

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import generation.training.loop.state_files
from generation.families import load_training_recipe
from generation.families.pixel_unet.checkpoint import load_checkpoint, save_checkpoint
from generation.families.pixel_unet.checkpoint_files import HASHED_FILES
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.generator import NOT_FINITE, Screened, as_levels
from generation.networks.placement import Placement
from generation.pretrained.components import to_uint8
from generation.pretrained.diffusers_weights import tensor_file
from generation.training.loop.state_files import PREVIOUS_FILE, STATE_FILE, TrainingStates
from release.errors import UserError
from tests.models.tiny_network import tiny_network
from tests.models.train_tiny import tiny_data, train_stage

STATE = {"step": 3, "weights": torch.arange(500.0), "names": ["a", "b"]}


def quiet(*_: object) -> None:
    pass


# ---------------------------------------------------------------- damage


def flipped(content: bytes, share: float) -> bytes:
    place = int(share * (len(content) - 1))
    return content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content[:-1],
    lambda content: bytes(len(content)),
    *(lambda content, s=s: flipped(content, s) for s in (0.3, 0.5, 0.7, 0.9)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_noticed_and_the_one_before_it_is_taken_up(
    tmp_path: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    states = TrainingStates(tmp_path)
    states.write(STATE | {"step": 1})
    states.write(STATE | {"step": 2})
    last = tmp_path / STATE_FILE
    last.write_bytes(damage(last.read_bytes()))
    states = TrainingStates(tmp_path)
    found = states.read()
    assert found is not None
    assert found["step"] == 1
    said = capsys.readouterr().err
    assert f"{last} is cut or damaged" in said
    assert f"going on from {PREVIOUS_FILE}" in said
    states.write(STATE | {"step": 3})  # the damaged one takes no good one's place
    for name, step in ((STATE_FILE, 3), (PREVIOUS_FILE, 1)):
        assert torch.load(tmp_path / name, weights_only=True)["step"] == step


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """Those in the gaps that align the archive's parts change nothing, all others are noticed."""
    states = TrainingStates(tmp_path)
    states.write(STATE)
    last, noticed = tmp_path / STATE_FILE, 0
    whole = last.read_bytes()
    for place in range(0, len(whole), 11):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        try:
            found = TrainingStates(tmp_path).read()
        except UserError:
            noticed += 1
            continue
        assert found is not None
        assert torch.equal(found.pop("weights"), STATE["weights"]), place
        assert found == {name: value for name, value in STATE.items() if name != "weights"}, place
    assert noticed > len(whole) / 11 / 2


def test_a_training_whose_states_are_all_damaged_ends_in_one_line(tmp_path: Path) -> None:
    for name in (STATE_FILE, PREVIOUS_FILE):
        (tmp_path / name).write_bytes(b"half a st")
    with pytest.raises(UserError, match=r"no state is left .*remove state.pt and state-previous"):
        train_stage(
            tiny_network(),
            tiny_data(tiny_network()),
            PixelUNetTraining(steps=1),
            tmp_path,
            quiet,
            quiet,
        )


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    network, config = tiny_network(), PixelUNetTraining(steps=1, batch=2, warmup=0)
    data = tiny_data(network)
    train_stage(network, data, config, tmp_path, quiet, quiet, key="one")
    with pytest.raises(UserError, match="holds the state of another training"):
        train_stage(tiny_network(), data, config, tmp_path, quiet, quiet, key="other")
    wider = tiny_network(low_resolution=4)
    with pytest.raises(UserError, match="holds the state of another training"):
        train_stage(wider, tiny_data(wider), config, tmp_path, quiet, quiet, key="one")


@pytest.mark.parametrize("room", [0, 100, 1500])
def test_a_full_disk_keeps_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    class Full:
        def __init__(self) -> None:
            self.taken = 0

        def write(self, content: memoryview) -> int:
            self.taken += len(content)
            if self.taken > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(content)

        def flush(self) -> None:
            pass

    states = TrainingStates(tmp_path)
    states.write(STATE)

    def write(_: Path, put: Callable[[Any], None]) -> None:
        put(Full())

    monkeypatch.setattr(generation.training.loop.state_files, "write_stream_atomically", write)
    with pytest.raises(OSError, match="No space left") as caught:
        states.write(STATE | {"step": 4})
    assert caught.value.errno == errno.ENOSPC  # what commands say in one line
    found = TrainingStates(tmp_path).read()
    assert found is not None
    assert found["step"] == 3


# ---------------------------------------------------------------- numbers that are not finite


def test_a_training_stops_at_the_first_loss_that_is_not_finite(tmp_path: Path) -> None:
    config = PixelUNetTraining(steps=9, batch=4, warmup=0, save_every=1)
    config = config.model_copy(update={"learning_rate": 1e30})
    network = tiny_network()
    with pytest.raises(UserError, match=r"diverged|not finite") as caught:
        train_stage(network, tiny_data(network), config, tmp_path, quiet, quiet)
    assert "step" in str(caught.value)
    states = TrainingStates(tmp_path).read()
    assert states is None or all(math.isfinite(loss) for loss in states["losses"]["loss"])


def test_the_step_whose_loss_is_not_finite_is_named_and_the_last_state_stays(
    tmp_path: Path,
) -> None:
    network = tiny_network()
    config = PixelUNetTraining(steps=9, batch=4, warmup=0, save_every=2)

    def poison(_: int, count: list[int] = [0]) -> None:  # noqa: B006
        count[0] += 1
        if count[0] == 4:  # step 3 is done: the fourth sees it
            network.unet.conv_in.weight.data.fill_(torch.nan)

    with pytest.raises(UserError, match="the loss of step 4 is nan"):
        train_stage(network, tiny_data(network), config, tmp_path, poison, quiet)
    kept = TrainingStates(tmp_path).read()
    assert kept is not None
    assert kept["step"] == 2


def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    """The loss of a step is of the weights before its update."""
    network = tiny_network()
    config = PixelUNetTraining(steps=2, batch=4, warmup=0)
    steps = iter(range(9))

    def poison(_: int) -> None:
        if next(steps) == 2:
            network.unet.conv_in.weight.data[0, 0, 0, 0] = torch.inf

    with pytest.raises(UserError, match=r"network\.unet\.conv_in\.weight holds numbers that are"):
        train_stage(network, tiny_data(network), config, tmp_path, poison, quiet)
    assert TrainingStates(tmp_path).read() is None


@pytest.mark.parametrize("rate", ["inf", "nan", "1e30", "0.0", "-1e-3", "1.5"])
def test_a_learning_rate_out_of_bounds_is_refused(tmp_path: Path, rate: str) -> None:
    from generation.training.recipe import BUILTIN

    text = (BUILTIN / "fashion-mnist-16.toml").read_text()
    (tmp_path / "bad.toml").write_text(
        text.replace("learning_rate = 1e-3", f"learning_rate = {rate}")
    )
    with pytest.raises(UserError, match=r"training\.learning_rate"):
        load_training_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_that_is_not_finite_is_neither_saved_nor_loaded_nor_placed(
    tmp_path: Path, value: float
) -> None:
    network = tiny_network()
    save_checkpoint(network, tmp_path / "good", torch.float16)
    weights = network.unet.state_dict()
    weights["conv_out.bias"][0] = value
    with pytest.raises(UserError, match=r"conv_out\.bias holds numbers that are not finite"):
        save_checkpoint(network, tmp_path / "bad", torch.float16)
    assert not (tmp_path / "bad").exists()
    (tmp_path / "good" / HASHED_FILES[1]).write_bytes(tensor_file(weights))
    with pytest.raises(UserError, match=r"good: its tensor conv_out\.bias holds"):
        load_checkpoint(tmp_path / "good")
    layer = nn.Linear(2, 2)
    layer.weight.data[1, 1] = value
    with pytest.raises(UserError, match="Linear: its tensor weight"):
        Placement("cpu", torch.float32).place(layer)


def test_weights_beyond_half_precision_are_not_saved_as_infinite(tmp_path: Path) -> None:
    network = tiny_network()
    network.unet.conv_out.bias.data.fill_(1e5)
    with pytest.raises(UserError, match=r"as torch\.float16: its tensor conv_out\.bias"):
        save_checkpoint(network, tmp_path / "bad", torch.float16)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_image_that_is_not_finite_is_refused_and_the_others_are_not(value: float) -> None:
    images = np.full((3, 4, 4, 3), 100.4, np.float32)
    images[1, 2, 3, 0] = value
    made = as_levels(images.copy())
    signal = torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2)
    for found in (made, to_uint8(signal)):
        assert isinstance(found, Screened)
        assert list(found.reasons) == [None, NOT_FINITE, None]
        assert (found.images[::2] == 100).all()
    assert isinstance(as_levels(images[::2].copy()), np.ndarray)


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", HASHED_FILES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_a_checkpoint_is_one_line(tmp_path: Path, name: str, share: float) -> None:
    save_checkpoint(tiny_network(), tmp_path, torch.float16)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    network = tiny_network()
    save_checkpoint(network, tmp_path, torch.float16)
    weights = network.unet.state_dict()
    del weights["conv_in.weight"]
    (tmp_path / HASHED_FILES[1]).write_bytes(tensor_file(weights))
    with pytest.raises(UserError, match=r"no tensor that fits conv_in\.weight"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", ["x", {}, [], -1, 2.5])
def test_a_setting_of_a_checkpoint_is_refused_or_runs(tmp_path: Path, value: Any) -> None:
    save_checkpoint(tiny_network(), tmp_path, torch.float16)
    good = json.loads((tmp_path / "config.json").read_text())
    for name in good:
        (tmp_path / "config.json").write_text(json.dumps({**good, name: value}))
        try:
            network = load_checkpoint(tmp_path)
        except UserError as refusal:
            refused = str(refusal)
        else:
            network(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
            continue
        assert str(tmp_path) in refused
        assert "\n" not in refused


def test_equal_tensors_make_equal_files_whatever_their_order() -> None:
    tensors: dict[str, Tensor] = {f"layer.{i}": torch.full((3,), float(i)) for i in range(30)}
    backwards = dict(reversed(tensors.items()))
    assert tensor_file(tensors) == tensor_file(backwards)
