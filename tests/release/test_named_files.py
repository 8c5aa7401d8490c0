"""Files, modules, folders and devices that a user names: what is said of wrong ones."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.accept import rule_source
from builder.cluster.cluster import ClusterOptions
from builder.planning.recipe import BUILTIN, load_recipe
from builder.shards.shard import load_generator
from generation.families import generator_source
from generation.families.pixel_unet.generator import unconditional
from generation.networks.placement import chosen_device
from generation.pretrained.source_files import read_tensors
from release.classes.class_list import load_classes, select_classes
from release.commands.named_files import named_file, require_folder
from release.errors import UserError
from release.files.storage import split_release
from release.real_sources import hub
from release.real_sources.opening import open_source


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UserError) as refused:
        function(*arguments)
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["mine.tml", "sub/mine", "/no/mine", "mine.toml", "a\0b.toml"])
def test_a_missing_file_is_a_file_and_no_unknown_name(name: str):
    text = refusal(load_recipe, name)
    assert text.startswith(f"recipe {name} does not exist: there is no such file")
    assert "known" not in text


def test_the_nearest_file_or_recipe_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").touch()
    assert refusal(load_recipe, "mine.tml").endswith("; did you mean 'mine.toml'?")
    assert refusal(load_recipe, "fashion-mnst.toml").endswith("did you mean 'fashion-mnist'?")
    assert refusal(load_recipe, "fashion-mnst").endswith("; did you mean 'fashion-mnist'?")


def test_a_name_reaches_no_file_outside_the_built_in_ones(tmp_path: Path):
    (tmp_path / "secret.toml").touch()
    for name in ("../recipes/fashion-mnist", str(tmp_path / "secret")):
        assert "does not exist" in refusal(named_file, "recipe", BUILTIN, ".toml", name)


def test_a_file_of_any_suffix_is_read(stand_in_recipe: Path, tmp_path: Path):
    other = tmp_path / "recipe.txt"
    other.write_bytes(stand_in_recipe.read_bytes())
    assert load_recipe(str(other)).name == "stand-in"


def test_a_byte_order_mark_is_no_fault_and_utf_16_is_named(stand_in_recipe: Path, tmp_path: Path):
    text = stand_in_recipe.read_text()
    path = tmp_path / "saved.toml"
    path.write_text(text, encoding="utf-8-sig")
    assert load_recipe(str(path)) == load_recipe(str(stand_in_recipe))
    path.write_text(text, encoding="utf-16")
    assert refusal(load_recipe, str(path)).endswith("is not valid TOML: it is not text in UTF-8")


@pytest.mark.parametrize("place", ["name", "checkpoint", "classes"])
def test_a_nul_in_a_recipe_is_named(stand_in_recipe: Path, tmp_path: Path, place: str):
    lines = stand_in_recipe.read_text().splitlines()
    changed = [f'{place} = "a\\u0000b"' if x.startswith(f"{place} = ") else x for x in lines]
    path = tmp_path / "nul.toml"
    path.write_text("\n".join(changed))
    assert "has a NUL character" in refusal(load_recipe, str(path))


@pytest.mark.parametrize("wnid", ["a/b", "..", "c:d", "a\\b", ".hidden"])
def test_a_class_id_that_could_be_no_name_is_refused(tmp_path: Path, wnid: str):
    path = tmp_path / "classes.csv"
    path.write_text(f"id,wnid,name,prompt\n0,{wnid},A,a\n")
    assert f"wnid {wnid!r} becomes part of names" in refusal(load_classes, str(path))


def test_a_class_is_suggested_by_what_people_call_it():
    text = refusal(select_classes, load_classes("imagenet-1k"), "goldfisch")
    assert text.endswith("and 940 more; did you mean 'goldfish'?")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("os.path", "generator os.path is no module of that kind: it has no 'locate'"),
        (".relative", "generator .relative cannot be imported: TypeError"),
        ("no.such.module", "generator no.such.module cannot be imported: ModuleNotFoundError"),
        ("broken.module", "generator broken.module cannot be imported: SyntaxError"),
        ("pixl-unet", "did you mean 'pixel-unet'?"),
    ],
)
def test_a_generator_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert expected in refusal(generator_source, name)


def test_an_accept_rule_that_is_none():
    assert "has no 'Settings'" in refusal(rule_source, "os.path")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/sub/deep"):
        assert "is a file; name a folder" in refusal(require_folder, path, "--out")
    require_folder(tmp_path / "new/deep", "--out")


@pytest.mark.parametrize("name", ["toaster", "cuda", "cpu:7", "", "meta"])
def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert f"--device {name!r}: torch has no such device here; known: auto, cpu" in refusal(
        chosen_device, name
    )
    assert chosen_device("auto") == chosen_device("cpu") == "cpu"


def test_a_gpu_by_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert (chosen_device("auto"), chosen_device("cuda:1")) == ("cuda", "cuda:1")
    assert "known: auto, cpu, cuda, cuda:0, cuda:1" in refusal(chosen_device, "cuda:2")


@pytest.mark.parametrize(
    "content", [b"hello", b"\xff\xfe", b"[1]", b'{"address": 5}', b'{"id": "x"}', b"[" * 100_000]
)
def test_a_scheduler_file_without_an_address(tmp_path: Path, content: bytes):
    path = tmp_path / "scheduler.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no scheduler's address"):
        ClusterOptions(scheduler_file=path)


@pytest.mark.parametrize("name", ["not a name!", "a/b/c", "/no/such", "./here", "a?b", "-x"])
def test_a_missing_folder_is_told_no_rules_of_the_hub(name: str):
    assert refusal(open_source, name) == (
        f"real data {name!r} is not at hand: there is no such folder"
    )


def test_a_mistyped_folder_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-images").mkdir()
    monkeypatch.setattr(hub, "load", lambda *_: pytest.fail("asked"))
    assert refusal(open_source, "my-image") == (
        "real data 'my-image' is not at hand: there is no such folder; did you mean 'my-images'?; "
        "a data set of the Hub is OWNER/NAME"
    )


def test_a_folder_with_a_colon_is_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o:8").mkdir()
    assert split_release("o:8:16") == ("o:8", ["16"])
    assert split_release("o:8") == ("o:8", [])
    (tmp_path / "o").mkdir()
    assert split_release("o:8:16") == ("o", ["8", "16"])
    assert split_release("none:8:16") == ("none", ["8", "16"])


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"text\n", b"", b"PK\x03\x04 a part of an archive"])
def test_a_checkpoint_that_is_no_weights_is_one_line(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert "cannot be read as weights alone" in refusal(read_tensors, tmp_path / name)


def test_a_stage_description_that_is_text_is_damaged(tmp_path: Path):
    for content in ("text", "[1]", "\udce9"):
        (tmp_path / "stage.json").write_bytes(content.encode(errors="surrogateescape"))
        assert "is damaged" in refusal(unconditional, tmp_path)


def test_what_a_generator_of_ours_cannot_load_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def load(folder: Path, compiled: bool) -> None:
        raise LookupError(f"pop from empty list, {folder.name}, {compiled}")

    source = SimpleNamespace(sha256=lambda _: "s", load=load)
    for module in ("builder.shards.shard", "builder.planning.checkpoints"):
        monkeypatch.setattr(f"{module}.generator_source", lambda _: source)
    stage = load_recipe("fashion-mnist").stages[0]
    text = refusal(load_generator, stage, tmp_path, "s")
    assert "cannot be loaded as pixel-unet: LookupError: pop from empty list" in text
    foreign = stage.model_copy(update={"generator": "tests.stand_in"})
    with pytest.raises(LookupError):  # its author needs the traceback
        load_generator(foreign, tmp_path, "s")
