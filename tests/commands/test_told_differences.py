"""What a build says of a release that it cannot go on with, and of one that it made."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.build_dataset import build_dataset
from builder.builds.run import Outcome
from builder.cluster.worker import Terms, _keep_terms
from builder.making import require_outside
from builder.release.command import reproduce
from builder.release.hub import LONGEST_STATED, seconds_to_wait
from builder.release.reproduce import Release
from builder.reporting import report_outcome
from cards.card.facts import stage_facts
from cards.drawing.sample_grid import read_groups
from release.errors import UserError
from release.files.commit import sha256_file
from release.layout.manifest import read_manifest
from tests.in_process import InProcess


@pytest.fixture
def recipe(
    stand_in_recipe: Path, class_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A recipe, its class list and the release `made` by it, in the working directory."""
    InProcess(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.csv").write_bytes(class_list.read_bytes())
    path = tmp_path / "mine.toml"
    path.write_text(stand_in_recipe.read_text().replace(str(class_list), "three.csv"))
    assert build_dataset(recipe="mine.toml", per_class=2, out="made", as_json=True) == 0
    return path


def refusal(recipe: Path, *changes: tuple[str, str]) -> str:
    text = recipe.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    recipe.write_text(text)
    with pytest.raises(UserError) as refused:
        build_dataset(recipe="mine.toml", per_class=3, out="made", as_json=True)
    return str(refused.value)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("seed = 7", "seed = 8", "whose stage 8 was made with other settings: seed was 7, is 8;"),
        (
            '"16"\nbatch = 5',
            '"16"\nbatch = 4\nsampler = { steps = 9 }',
            "whose stage 16 was made with other settings: stage 16: sampler.steps was 1000, is 9; "
            "stage 16: batch was 5, is 4;",
        ),
        ('"32"', '"33"', "stage 32: checkpoint was 320000000000, is 330000000000;"),
    ],
)
def test_settings_that_differ_are_named_with_both_values(
    recipe: Path, before: str, after: str, told: str
):
    text = refusal(recipe, (before, after))
    assert text.startswith("made holds another release: stand-in, ")
    assert told in text
    assert text.endswith("name another --out or use the same recipe")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("c1,", "other,", "classes: label 1 is 'c1' and 'other'"),
        (",pear", ",a pear", "prompt of c1 was 'pear', is 'a pear'"),
    ],
)
def test_classes_that_differ_are_named(recipe: Path, before: str, after: str, told: str):
    listed = recipe.parent / "three.csv"
    listed.write_text(listed.read_text().replace(before, after))
    assert told in refusal(recipe)


def test_without_a_manifest_it_is_refused_all_the_same(recipe: Path):
    (recipe.parent / "made/manifest.json").unlink()
    assert "stage 8 was made with other settings; name" in refusal(recipe, ("seed = 7", "seed = 8"))


def test_all_facts_that_a_card_lacks_are_named_at_once(recipe: Path):
    assert recipe.is_file()
    with pytest.raises(UserError) as refused:
        stage_facts(read_manifest(Path("made")))
    for name in ("sampler_source", "model"):
        for resolution in (8, 16, 32):
            assert f"{name} in origin.recipe.stage at {resolution} px" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("plain", 'load_dataset("plain", "32", split="train")'),
        ("o:8", 'load_dataset("o:8", "32", split="train")'),
        ('a"b', 'load_dataset("a\\"b", "32", split="train")'),
        (
            "o[1]?x",
            'load_dataset("parquet", data_files="o[[]1][?]x/32/train-*.parquet", split="train")',
        ),
    ],
)
def test_the_line_that_loads_a_release_does_so_whatever_its_name(
    recipe: Path, capsys: pytest.CaptureFixture[str], name: str, line: str
):
    made = recipe.parent / "made"
    made.rename(made.with_name(name))
    manifest = read_manifest(Path(name))
    assert report_outcome(Outcome((), (), (), (), manifest), Path(name), as_json=False) == 0
    printed = capsys.readouterr().out.splitlines()[-1].strip()
    assert printed == f"images = {line}"
    if name != "plain":
        from datasets import load_dataset

        found = eval(printed.removeprefix("images = "), {"load_dataset": load_dataset})
        assert len(found) == 6


@pytest.mark.parametrize("source", ["fashion-mnist", "someone/photos", "someone/photos:small"])
def test_a_release_of_what_is_no_folder_may_stand_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    monkeypatch.chdir(tmp_path)
    require_outside(Path("releases/real"), source)


def test_a_release_may_not_stand_in_its_own_source(recipe: Path):
    from PIL import Image

    for split in ("train", "test"):
        folder = recipe.parent / "pictures" / split / "apple"
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / "0.png")
    for out in ("pictures/made", "./pictures", str(recipe.parent / "pictures/train")):
        with pytest.raises(UserError, match="is inside the real images in"):
            build_dataset(real="pictures", out=out, views="8", as_json=True)
    with pytest.raises(UserError, match="at least 1 and at most 8192"):
        build_dataset(real="pictures", out="fine", views="8,99999999", as_json=True)


def test_a_place_of_something_else_is_told_before_the_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Which may take hours: downloads, and every image for a test split."""
    monkeypatch.setattr("builder.making.open_source", lambda _: pytest.fail("was read"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no release; name another --out"):
        build_dataset(real="someone/photos", out=str(tmp_path / "notes"), as_json=True)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_a_card_of_a_shard_that_is_none_is_one_line(recipe: Path, content: bytes):
    assert recipe.is_file()
    shard = next(Path("made/32").glob("*.parquet"))
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard} cannot be read as Parquet"):
        read_groups(Path("made"), 1)


def test_reproduce_takes_no_more_images_than_there_are(recipe: Path):
    made = Path("made")
    release = Release(made, read_manifest(made))
    with pytest.raises(UserError, match=r"--sample 100000: made has 18 images$"):
        release.draw(100_000, 0, last_stage=False)
    with pytest.raises(UserError, match=r"--sample 7: made has 6 images of 32 px$"):
        release.draw(7, 0, last_stage=True)
    assert len(release.draw(6, 0, last_stage=True)) == 6
    with pytest.raises(UserError, match="--seed -1: give at least 0"):
        reproduce("made", sample=2, seed=-1)
    with pytest.raises(UserError, match="is a file; name a folder"):
        reproduce("made", sample=2, out=recipe)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 1.0),
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=142'}, 142.0),
        ({"RateLimit": '"api";r=3;t=142'}, 1.0),
        ({"RateLimit": '"api";r=0;t=20', "Retry-After": "40"}, 40.0),
        ({"Retry-After": "999999"}, LONGEST_STATED),
        ({"RateLimit": "no such thing", "Retry-After": "soon"}, 1.0),
    ],
)
def test_the_hub_says_how_long_to_wait(headers: dict[str, str], seconds: float):
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    request = httpx2.Request("GET", "http://localhost")
    answer = httpx2.Response(429, headers=headers, request=request)
    assert seconds_to_wait(HfHubHTTPError("busy", response=answer), 0) == seconds


@pytest.mark.parametrize("content", [None, b"{}"])
def test_a_state_that_is_gone_or_changed_is_not_called_a_matter_of_storage_alone(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
):
    state = recipe.parent / "made/build.json"
    worker = SimpleNamespace(address="tcp://here", state=SimpleNamespace(nthreads=1))
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    terms = Terms("run", None, sha256_file(state))
    job = SimpleNamespace(release=state.parent)
    _keep_terms(job, terms)  # type: ignore[arg-type]
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    how = "removed" if content is None else "changed"
    with pytest.raises(UserError, match=f"either it was {how} meanwhile, or --out is not on"):
        _keep_terms(job, terms)  # type: ignore[arg-type]
