"""ImageNet-C's frost of photographs that the user names, here of made-up ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.evaluate_robustness import evaluate_robustness
from metrics.robustness.corruptions import CORRUPTIONS, FROST, SEVERITIES, corrupt
from metrics.robustness.frost import read_textures
from metrics.robustness.masked import Masked
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import read_result
from tests.sets.colours import SIZE, colour_images, untrained, write_colours

# As make_imagenet_c.py of github.com/hendrycks/robustness states them.
PUBLISHED = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]


def made_up(folder: Path, number: int = 1, side: int = 40) -> Path:
    """So many photographs; none has a pixel of another, or one twice."""
    folder.mkdir(exist_ok=True)
    for place in range(number):
        red, green = np.indices((side, side + 5))
        pixels = np.stack([red, green, np.full_like(red, 40 * place)], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"frost{place + 1}.png")
    return folder


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_adds_a_piece_of_a_photograph_by_the_published_shares(tmp_path, severity):
    """A black image shows the piece, in order; a grey one is the formula of it."""
    known = CORRUPTIONS | {FROST: read_textures(made_up(tmp_path / "ice")).corruption}
    assert list(known[FROST].constants) == PUBLISHED
    photograph = np.asarray(Image.open(tmp_path / "ice" / "frost1.png")).astype(float)
    ours, theirs = PUBLISHED[severity - 1]
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = [corrupt(image, FROST, severity, key, known) for key in range(20)]
    pieces = [
        (top, left)
        for left in range(photograph.shape[1] - 16)
        for top in range(photograph.shape[0] - 16)
    ]
    laid = [
        np.floor(
            np.clip(ours * image + theirs * photograph[top : top + 16, left : left + 16], 0, 255)
            + 1e-6
        )
        for top, left in pieces
    ]
    places = [next(p for p, own in enumerate(laid) if (own == one).all()) for one in found]
    assert len(set(places)) > 10  # 696 pieces there are


def test_the_first_five_photographs_are_drawn_from(tmp_path):
    textures = read_textures(made_up(tmp_path / "ice", number=6))
    assert list(textures.hashes) == [f"frost{n}.png" for n in range(1, 6)]
    black = np.zeros((16, 16, 3))
    rng = np.random.default_rng(0)
    blues = [round(255 * textures.frost(black, (0, 1), rng)[0, 0, 2]) for _ in range(100)]
    assert set(blues) == {0, 40, 80, 120, 160}


def evaluated(tmp_path: Path, **options) -> dict:
    write_colours(tmp_path / "standard", {"test": colour_images(1, 2)})
    untrained(tmp_path / "net.safetensors")
    evaluate_robustness(
        [str(tmp_path / "net.safetensors")],
        f"{tmp_path}/standard:{SIZE}",
        out=tmp_path / "results",
        cache=tmp_path / "cache",
        workers=1,
        **options,
    )
    return read_result(tmp_path / "results/net-robustness-on-standard-8-test.json").values


def test_a_result_states_the_photographs(tmp_path):
    folder = made_up(tmp_path / "ice", number=2)
    value = evaluated(tmp_path, corruptions="frost", frost_textures=folder)[FROST]
    hashes = {f"frost{n}.png": sha256_file(folder / f"frost{n}.png") for n in (1, 2)}
    assert value["settings"]["textures"] == hashes
    assert json.loads(json.dumps(PUBLISHED)) == value["settings"]["constants"]
    assert len(value["by_severity"]) == 5


def test_all_without_photographs_says_that_frost_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Masked, "corrupted", lambda *_: np.ones((5, 24), bool))
    values = evaluated(tmp_path, corruptions="all")
    assert {*CORRUPTIONS, "top1"} == set(values)
    assert "frost is left out" in capsys.readouterr().err
    more = evaluated(tmp_path, corruptions="all", frost_textures=made_up(tmp_path / "ice"))
    assert set(more) - set(values) == {FROST}
    assert "left out" not in capsys.readouterr().err


def test_other_photographs_are_refused_before_a_network_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "metrics.robustness.evaluating.load_extractor", lambda *_: pytest.fail("loaded")
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "frost1.png").write_bytes(b"no image")
    small = made_up(tmp_path / "small", side=SIZE)
    ice = made_up(tmp_path / "ice")
    for corruptions, folder, said in (
        ("frost", None, "corruption 'frost' needs --frost-textures"),
        ("frost", tmp_path / "none", "cannot be read: No such file"),
        ("frost", tmp_path / "empty", "holds no images"),
        ("frost", tmp_path / "broken", "frost1.png cannot be decoded"),
        ("all", small, "frost1.png has 13 x 8 px; frost takes pieces of 8 px"),
        ("contrast", ice, "--frost-textures is for frost"),
    ):
        with pytest.raises(UserError, match=said):
            evaluated(tmp_path, corruptions=corruptions, frost_textures=folder)
