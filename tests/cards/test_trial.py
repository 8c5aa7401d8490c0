"""try-images: what is planned from images and minutes, the answer, a whole trial to its page."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.planning.recipe import load_recipe
from cards.board.studies import study_section
from cards.drawing.tables import signed
from cards.pages.facet import Facet
from cards.pages.page import render_html, unbroken
from cards.trial import conducting, plan, steps
from cards.trial.log import StepLog
from cards.trial.page import ShownTrial, facts
from cards.trial.plan import (
    Asked,
    Found,
    Paces,
    Plan,
    chosen_resolution,
    make_plan,
    require_resolution,
)
from cards.trial.recipes import build_recipe, study
from cards.trial.verdict import verdict
from cards.try_images import try_images
from classifiers.study.report_model import StudyReport
from classifiers.study.study_file import load_study
from release.errors import UserError
from tests.campaigns.kill_points import kill_point
from tests.cards.opened_page import opened
from tests.forked_commands import command_server

ASKED = Asked(
    images="photos",
    minutes=15,
    res=None,
    per_class=None,
    times=1.0,
    seeds=(0, 1, 2),
    test_share=0.2,
    split_seed=0,
    classifier=None,
)
FOUND = Found("photos", 3, 144, 48, 48, 36, "test", 200, colour=True)
PACES = Paces({16: 0.2, 32: 0.3}, {16: 64, 32: 64}, classifier=0.0005, workers=2)


def planned(found: Found = FOUND, paces: Paces = PACES, **asked: Any) -> Plan:
    return make_plan(ASKED.model_copy(update=asked), found, 32, "tiny-resnet-32", paces)


# The plan


@pytest.mark.parametrize(
    ("side", "has_gpu", "resolution"),
    [(8, False, 16), (28, False, 16), (32, False, 32), (500, False, 32), (500, True, 64)],
)
def test_the_resolution_is_the_images_own_or_what_a_cpu_bears(
    side: int, has_gpu: bool, resolution: int
):
    assert chosen_resolution(ASKED, side, has_gpu) == resolution


def test_a_resolution_without_recipes_is_refused():
    with pytest.raises(UserError, match="--res 48: known are 16, 32, 64"):
        require_resolution(ASKED.model_copy(update={"res": 48}))


def test_the_minutes_are_filled_and_not_exceeded():
    for minutes in (15, 30, 60):
        assert 0.6 * minutes < planned(minutes=minutes).minutes <= minutes
    assert planned(minutes=30).steps[16] > planned(minutes=15).steps[16]
    assert planned(minutes=600).steps == {16: 6000, 32: 3000}  # as the recipes have them


def test_as_many_images_are_made_as_real_ones_if_there_is_time():
    assert (planned().times, planned().generated) == (1.0, 48)
    assert (planned(minutes=5).times, planned(minutes=5).generated) == (1.0, 48)
    many = Found("photos", 10, 60_000, 6000, 6000, 10_000, "test", 28, colour=False)
    fewer = planned(many, minutes=60)
    assert 0.01 < fewer.times < 1
    assert fewer.generated == round(fewer.times * 6000)
    assert fewer.epochs >= 1


def test_too_little_time_is_one_line_that_says_how_much_it_takes():
    slow = Paces({16: 3.0, 32: 3.0}, {16: 64, 32: 64}, classifier=0.0005, workers=2)
    with pytest.raises(
        UserError, match=r"--minutes 5: the least .* give --minutes 3\d or --res 16 or one seed"
    ):
        planned(paces=slow, minutes=5)
    busy = replace(slow, busy=0.8)
    told = r"\d+ with room to spare, timed while others took 80% .*, or try again when these"
    with pytest.raises(UserError, match=told):
        planned(paces=busy, minutes=5)
    assert planned(paces=replace(PACES, busy=0.8)).busy == 0.8


def test_a_folder_holds_one_trial(tmp_path: Path):
    made = planned().model_copy(update={"place": str(tmp_path)})
    plan.require_same(made, ASKED, tmp_path)
    other = ASKED.model_copy(update={"minutes": 30.0, "times": 2.0})
    with pytest.raises(
        UserError,
        match=r"minutes was 15.*, is 30.0; times was 1.0, is 2.0; give these as they were, or name",
    ):
        plan.require_same(made, other, tmp_path)
    plan.require_same(made, ASKED.model_copy(update={"seeds": (0, 1, 2, 3)}), tmp_path)
    with pytest.raises(
        UserError, match=f"a trial made in {tmp_path}, which its files name: move it"
    ):
        plan.require_same(made, ASKED, tmp_path / "moved")


def test_the_files_that_are_written_are_read_by_the_commands(tmp_path: Path):
    made = planned()
    (tmp_path / "build.toml").write_text(build_recipe(made, tmp_path))
    (tmp_path / "study.toml").write_text(study(made, tmp_path))
    recipe = load_recipe(str(tmp_path / "build.toml"))
    assert [stage.resolution for stage in recipe.stages] == [16, 32]
    assert recipe.stages[1].checkpoint == str(tmp_path / "runs/32/checkpoint")
    assert all(stage.model and stage.model.source for stage in recipe.stages)  # for a card
    asked = load_study(str(tmp_path / "study.toml"))
    assert asked.sizes == ("all",)
    assert [arm.kind for arm in asked.arms] == [
        *("real", "generated", "real+generated", "real-repeated")
    ]


def test_shards_of_many_classes_fill_a_batch():
    """As many images as the network sees at once, or it computes rows that nobody keeps."""
    many = Found("photos", 1000, 2000, 2, 2, 1000, "test", 20, colour=True)
    made = planned(many, times=0.5)
    assert made.generated == 1
    assert "shard = { classes = 50, indices = 25 }" in build_recipe(made, Path("trial"))
    assert "shard = { classes = 3, indices = 25 }" in build_recipe(planned(), Path("trial"))


# The answer


def report(answer: str, difference: float) -> StudyReport:
    """Of a trial with 36 test images, three seeds and made-up numbers."""

    def arm(kind: str, times: float, budget: str, top1: float) -> dict[str, Any]:
        return {
            **{"model": "tiny", "resolution": 32, "size": "all", "arm": f"{kind}-{budget}"},
            "kind": kind,
            "generated": "generated" if "generated" in kind else None,
            "regimes": (),
            **{"times": times, "budget": budget, "images": 144, "steps": 400, "seeds": (0, 1, 2)},
            "top1": {"mean": top1, "std": 0.01, "n": 36},
        }

    where = {"model": "tiny", "resolution": 32, "size": "all", "times": 1.0, "budget": "epochs"}
    return StudyReport.model_validate(
        {
            "kind": "study",
            "study": {"name": "trial", "description": "", "seeds": [0, 1, 2]},
            "test": {"dataset": "photos", "n": 36, "name": "real", "split": "test"},
            "rows": [
                arm("real", 0, "epochs", 0.7),
                arm("generated", 1, "epochs", 0.5),
                arm("real+generated", 1, "epochs", 0.75 + difference),
                arm("real+generated", 1, "steps", 0.72),
                arm("real-repeated", 1, "epochs", 0.75),
            ],
            "findings": [],
            "comparisons": [
                {
                    "question": "real + generated is above the same real images visited as often",
                    **where,
                    "arm": "real+generated-epochs",
                    "generated": "generated",
                    "against": "real-repeated-epochs",
                    "difference": difference,
                    "over_seeds": (difference - 0.02, difference + 0.02),
                    "over_images": (difference - 0.1, difference + 0.1),
                    "answer": answer,
                }
            ],
            "classes": [
                {
                    **{"model": "tiny", "resolution": 32, "size": "all", "helped": 1},
                    "arm": "real+generated-epochs",
                    "against": "real-repeated-epochs",
                    "rows": [
                        {
                            **{"wnid": "cat", "name": "cat", "n": 12, "baseline": 0.5},
                            **{"other": 0.9, "verdict": "helped" if answer == "above" else ""},
                        }
                    ],
                }
            ],
        }
    )


@pytest.mark.parametrize(
    ("answer", "difference", "said", "first"),
    [
        ("above", 0.15, "helps", "Generated images help."),
        ("below", -0.15, "does not help", "Generated images do not help: "),
        ("not significant", 0.03, "not shown", "It is not shown at this size that generated"),
    ],
)
def test_the_first_sentence_answers(answer: str, difference: float, said: str, first: str):
    found = verdict(report(answer, difference))
    assert found.said == said
    assert found.sentences[0].startswith(first)
    assert f"on {75 + 100 * difference:.1f}% of 36 test images" in found.sentences[1]
    assert f"{signed(100 * difference, 1)} points (95%: " in found.sentences[1]
    assert found.sentences[1].endswith(
        " Guessing the commonest class each time is right on 100.0%."
    )
    assert found.helped == (("cat",) if answer == "above" else ())


def test_classes_that_changed_most_stand_first():
    found = report("above", 0.15)
    (changes,) = found.classes
    (cat,) = changes.rows
    dog = cat.model_copy(update={"name": "dog", "baseline": 0.3})  # 60 points more, the cat 40
    owl = cat.model_copy(update={"name": "owl", "baseline": 0.1, "verdict": "harmed", "other": 0.0})
    changes = changes.model_copy(update={"rows": (cat, owl, dog)})
    answered = verdict(found.model_copy(update={"classes": (changes,)}))
    assert answered.helped == ("dog", "cat")
    assert any(line.startswith("Helped: dog, cat; harmed: owl (") for line in answered.sentences)


def test_what_it_would_take_to_know_better_is_told():
    last = verdict(report("not significant", 0.03)).sentences[-1]
    # half of the interval is 10 points: a quarter of the spread takes four times as many
    assert "36 test images a difference of 10.0 points" in last
    assert "for one of 5 points it takes about 144." in last


def test_where_nothing_differed_no_size_is_promised():
    same = report("not significant", 0.0)
    (found,) = same.comparisons
    found = found.model_copy(update={"over_seeds": (0.0, 0.0), "over_images": (0.0, 0.0)})
    last = verdict(same.model_copy(update={"comparisons": [found]})).sentences[-1]
    assert last.startswith("Both were right on the same of the 36 test images, with every seed")


def test_the_page_says_how_many_images_were_trained_on():
    every = report("above", 0.15)
    assert facts(FOUND, every) == f"{FOUND}."
    some = [row.model_copy(update={"size": "10"}) for row in every.rows]
    told = facts(FOUND, every.model_copy(update={"rows": tuple(some)}))
    assert told == f"{FOUND}. Of each class 10 were trained on."
    padded = facts(FOUND, every, "pad")
    assert padded == f"{FOUND}. Each image was made square by black borders (--crop pad)."


@pytest.mark.parametrize(
    ("resolution", "trained", "told"),
    [
        (32, {16: 250, 32: 200}, "250 steps at 16 px and 200 steps at 32 px"),
        (16, {16: 200}, "200 steps at 16 px"),
        (64, {16: 1250, 32: 300, 64: 200}, "1,250 steps at 16 px and 300 steps at 32 px and 200"),
    ],
)
def test_the_shortest_training_is_told_by_stage(
    resolution: int, trained: dict[int, int], told: str
):
    made = planned().model_copy(update={"steps": trained, "resolution": resolution})
    assert made.is_least
    said = conducting.of_least(made)
    assert said.startswith(f"The generator was trained for {told}")
    assert "; 200 is the least that any trial gives a stage. " in said
    assert f"a generator ({told}" in str(made)


def test_the_rule_of_a_verdict_stands_below_the_first_table_that_has_one():
    section = study_section(report("not significant", 0.03), 0)
    notes = section.tables[0].footnotes
    (told,) = [i for i, note in enumerate(notes) if "both its intervals" in note]
    answers = [i for i, note in enumerate(notes) if ": not significant (" in note]
    assert told < min(answers)
    assert "false discovery rate of 5%" in notes[told]
    assert "not significant beside an interval without 0" in section.class_views[0].rule


BROKEN = """() => {
  const broken = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest("script, svg, pre, select, [hidden]")) continue;
    for (const word of node.data.matchAll(/\\S+/g)) {
      if (!/^--|=|\\d|-.*-/.test(word[0])) continue;
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""


@pytest.mark.parametrize("width", [320, 360, 400, 430])
def test_a_phone_breaks_no_option_setting_or_number(browser: Any, tmp_path: Path, width: int):
    asked = {"recipe": "tiny-resnet-32", "set": ["epochs=178", "batch=64"]}
    found = report("not significant", 0.03)
    facts_of = found.study.model_copy(update={"model": [asked]})
    found = found.model_copy(update={"study": facts_of})
    told = (*verdict(found).sentences, conducting.of_least(planned(minutes=5)))
    shown = ShownTrial("photos", told, facts(FOUND, found, "center-crop"), None, ())
    facet = Facet("trial", "photos", (study_section(found, 0),))
    page_file = tmp_path / "index.html"
    page_file.write_text(render_html([facet], "trial.html", trial=shown))
    with opened(browser, page_file.as_uri(), width) as page:
        words = page.locator("body").inner_text().split()
        assert {"--minutes", "(--crop", "epochs=178,"} <= {*words}
        assert page.evaluate(BROKEN) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_kept_on_one_line_is_text_all_the_same():
    kept = str(unbroken("<b> --seeds 0,1,2 & x=<i> " + 31 * "1"))
    assert kept == (
        '&lt;b&gt; <span class="token">--seeds</span> <span class="token">0,1,2</span> &amp; '
        '<span class="token">x=&lt;i&gt;</span> ' + 31 * "1"
    )


# The commands


def test_a_command_that_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    codes = {"first": 0, "second": 2}
    ran: list[str] = []

    def run(step: steps.Step, *_: Any, **__: Any) -> int:
        ran.append(step.title)
        return codes[step.title]

    monkeypatch.setattr(steps, "_run", run)
    both = [steps.Step(title, ("build-dataset", title)) for title in codes]
    with pytest.raises(SystemExit) as ended:
        steps.run_steps(both, StepLog(tmp_path), 0, quiet=False)
    assert ended.value.code == 2
    codes["second"] = 0
    steps.run_steps(both, StepLog(tmp_path), 0, quiet=False)
    assert ran == ["first", "second", "second"]


@pytest.mark.parametrize(
    ("code", "left_with", "told"),
    [
        (2, 2, ""),  # the command has said what is wrong
        (130, 130, ""),
        (1, 1, "stopped at: build-dataset 'my  images'\n"),
        (
            *(-9, 137),
            "ended by signal 9, rerun the same command to go on: build-dataset 'my  images'\n",
        ),
    ],
)
def test_what_ended_a_trial_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    left_with: int,
    told: str,
):
    monkeypatch.setattr(steps, "_run", lambda *_, **__: code)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    step = steps.Step("the images", ("build-dataset", "my  images"))
    with pytest.raises(SystemExit) as ended:
        steps.run_steps([step], StepLog(tmp_path), 0, quiet=False)
    assert ended.value.code == left_with
    # a command is shown with every space of its names
    assert capsys.readouterr().err == f"\n# the images\n$ build-dataset 'my  images'\n{told}"


def test_a_shell_that_finds_no_commands_is_told_the_line_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    here = Path(sys.executable).parent
    line = f'export PATH="{here}:$PATH"'
    monkeypatch.setenv("PATH", f"{here}:/usr/bin:/bin")
    steps.show_path()
    assert (steps.path_line(), steps.missing_path()) == (line, None)
    for name in steps.MODULES:
        other = tmp_path / name
        other.write_text("#!/bin/sh")
        other.chmod(0o755)
    for path in ("/usr/bin:/bin", f"{tmp_path}:{here}"):
        monkeypatch.setenv("PATH", path)
        steps.show_path()
        assert steps.missing_path() == line
    assert capsys.readouterr().err == f"$ {line}\n" * 2
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none/python"))
    assert steps.path_line() is steps.missing_path() is None


def test_a_fresh_shell_runs_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / 'a "b" $HOME `c` \\d'
    folder.mkdir()
    for name in steps.MODULES:
        (folder / name).write_text('#!/bin/sh\necho ours "$@"')
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    step = steps.Step("images", ("build-dataset", "my  images"))
    script = f"{steps.missing_path()}\n{step.runnable}"
    ran = subprocess.run(["sh", "-c", script], cwd="/", capture_output=True, text=True, check=True)
    assert ran.stdout == "ours my  images\n"


@pytest.mark.parametrize("quiet", [True, False])
def test_the_line_stands_before_the_command_that_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
):
    """Without --json it stands before the first command."""
    monkeypatch.setattr(steps, "_run", lambda *_, **__: 1)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(SystemExit):
        steps.run_steps(
            [steps.Step("images", ("build-dataset",))], StepLog(tmp_path), 0, quiet=quiet
        )
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "stopped at: build-dataset"
    assert (f"$ {steps.path_line()}" in told) == quiet


def test_with_json_what_a_command_found_wrong_is_the_document(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    step = steps.Step("images", ("build-dataset", "--recipe", "absent"))
    with steps.held(tmp_path, quiet=False) as lock, pytest.raises(SystemExit) as ended:
        steps.run_steps([step], StepLog(tmp_path), lock, quiet=True)
    assert ended.value.code == 2
    assert "unknown recipe 'absent'" in json.loads(capfd.readouterr().out)["error"]


@pytest.mark.parametrize("shown", [True, False])
def test_a_long_report_is_left_to_the_page(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], shown: bool
):
    step = steps.Step("recipes", ("build-dataset", "--list-recipes"), shown=shown)
    with steps.held(tmp_path, quiet=False) as lock:
        steps.run_steps([step], StepLog(tmp_path), lock, quiet=False)
    assert ("fashion-mnist" in capfd.readouterr().out) == shown


def test_the_commands_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    monkeypatch.setattr(conducting, "conduct", lambda *asked, **_: given.append(asked) or 1 / 0)
    for images in ("photos", "photos:config", "org/name"):
        with suppress(ZeroDivisionError):
            try_images(images)
    asked, folders = zip(*given, strict=True)
    assert [one.images for one in asked] == [
        *(f"{tmp_path}/photos", f"{tmp_path}/photos:config", "org/name")
    ]
    assert folders == tuple(
        tmp_path / "tries" / name for name in ("photos", "photos-config", "name")
    )
    with suppress(ZeroDivisionError):
        try_images("photos", crop="pad")
    assert [one.crop for one, _ in given] == [None, None, None, "pad"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"images": "absent"}, r"absent"),
        ({"images": "one"}, "one has one class: a classifier tells at least two apart"),
        ({"images": "photos", "classifier": "resnt"}, "unknown classifier recipe 'resnt'"),
        ({"images": "photos", "res": 20}, "--res 20: known are 16, 32, 64"),
        ({"images": "broken"}, "broken: none of 24 images that were looked at can be read"),
        ({"images": "tests"}, "tests has no split train, only test"),
        ({"images": "rare"}, "class 'dog' has 1 different image, too few to train on some"),
        ({"images": "flat"}, r"flat: 15 images in no class folder: put those of each class into"),
        ({"images": "above"}, "above has no split train, only photos; if the folders in it are cl"),
    ],
)
def test_bad_input_ends_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], told: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it is asked for
    photographs(tmp_path / "photos")
    photographs(tmp_path / "tests/test")
    photographs(tmp_path / "above/photos")
    photographs(tmp_path / "one")
    (tmp_path / "one/dog").rename(tmp_path / "flat")
    for path in list(photographs(tmp_path / "rare").glob("dog/*"))[1:]:
        path.unlink()
    for path in photographs(tmp_path / "broken").rglob("*.png"):
        path.write_bytes(path.name.encode())
    with pytest.raises(UserError, match=told) as error:
        conducting.conduct(ASKED.model_copy(update=asked), tmp_path / "trial", quiet=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["manifest.json", "real/a.parquet"], "is a release"),
        (["manifest.json", "plan.json", ".lock", "commands.json"], "is a release"),  # mixed before
        (["build.json"], "holds other files and no trial"),  # a release that is being built
        (["cat/1.png", "dog/2.png"], "holds other files and no trial"),
        ([".lock", "notes.txt"], "holds other files and no trial"),
    ],
)
def test_a_folder_of_something_else_is_refused_as_it_was(
    tmp_path: Path, files: list[str], told: str
):
    out, photos = tmp_path / "mine", photographs(tmp_path / "photos")
    for name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    words = ["try-images", str(photos), "--out", str(out)]
    ended = command_server().run(words, tmp_path, 60)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: --out {out} {told}: name a new or empty folder, or one of a tr")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("files", [[], [".lock"], [".lock", "unfinished.json", "real"]])
def test_a_new_folder_and_that_of_a_killed_trial_are_taken(tmp_path: Path, files: list[str]):
    conducting.require_own_folder(tmp_path / "new")
    for name in files:
        (tmp_path / name).touch()
    conducting.require_own_folder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "look"),
    [
        ("CMYK", conducting.Look(True, 20, True, "")),
        ("L", conducting.Look(True, 20, False, "")),
        ("grey RGB", conducting.Look(True, 20, False, "")),
        ("one pixel", conducting.Look(True, 1, True, "")),
    ],
)
def test_images_of_all_kinds_are_looked_at(
    tmp_path: Path, kind: str, look: conducting.Look
) -> None:
    folder = tmp_path / 'it\'s  "mine" é'
    for name, colour in (("a cat's", (200, 60, 0)), ("dog", (0, 90, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            image = Image.new("RGB", (1, 1) if kind == "one pixel" else (20, 24), colour)
            image.putpixel((0, 0), (colour[0], 40 * i, colour[2]))
            image = image.convert("L").convert("RGB") if "RGB" in kind else image
            image = image.convert(kind) if kind in ("CMYK", "L") else image
            as_file = "JPEG" if kind == "CMYK" else "PNG"
            image.save(folder / name / f"{i}.JPEG", format=as_file)  # a PNG of that name as well
            (folder / name / f".{i}.png").write_bytes(b"hidden")
        (folder / name / "broken.JPG").write_bytes(b"no image")  # which the import names
    (folder / ".git").mkdir()
    asked = ASKED.model_copy(update={"images": str(folder), "bad_images": "skip"})
    assert replace(conducting.look_at(asked), identity="") == look
    assert chosen_resolution(asked, look.side, has_gpu=False) == 16
    step = conducting.import_step(asked, look, 16, tmp_path / "out")
    assert step.words[-4:] == ("--bad-images", "skip", "--out", str(tmp_path / "out/real"))
    padded = conducting.import_step(asked.model_copy(update={"crop": "pad"}), look, 16, tmp_path)
    assert padded.words[-6:-2] == ("--crop", "pad", "--bad-images", "skip")
    assert "--crop" not in step.words


def test_a_plan_of_a_busy_machine_says_so_and_is_timed_again_before_anything_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quiet, busy = planned(), planned().model_copy(update={"busy": 0.9})
    assert "timed while" not in str(quiet)
    assert "min here, timed while others took 90% of the cores: a generator" in str(busy)
    now = [0.2]
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 100 * now[0] * bool(interval))
    assert conducting._outdated(busy, tmp_path)
    assert not conducting._outdated(quiet, tmp_path)
    now[0] = 0.8  # as busy as before
    assert not conducting._outdated(busy, tmp_path)
    now[0] = 0.2
    until = "; Ctrl-C before step 100 of the generator's stage at 16 px, and run again when the mac"
    assert conducting.told_anew(busy, tmp_path).startswith(until)
    assert conducting.told_anew(quiet, tmp_path) == ""
    (tmp_path / "runs/16").mkdir(parents=True)
    (tmp_path / "runs/16/training.json").touch()  # begun, with nothing to go on from
    assert conducting._outdated(busy, tmp_path)
    (tmp_path / "runs/16/state.pt").touch()  # of steps that the plan says
    assert not conducting._outdated(busy, tmp_path)
    assert conducting.told_anew(busy, tmp_path) == ""


@pytest.mark.parametrize("saved", [False, True])
def test_a_plan_is_made_anew_until_a_state_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
):
    out = tmp_path / "trial"
    (out / "runs/16").mkdir(parents=True)
    (out / "runs/16/training.json").touch()
    if saved:
        (out / "runs/16/state.pt").touch()
    asked = ASKED.model_copy(update={"images": str(photographs(tmp_path / "photos")), "res": 16})
    before = make_plan(asked, FOUND, 16, "tiny-resnet-32", replace(PACES, busy=0.9))
    before = before.model_copy(update={"place": str(out)})
    (out / "plan.json").write_text(before.model_dump_json())
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 0.0)  # noqa: ARG005
    monkeypatch.setattr(
        conducting, "_paces", lambda *_, **__: Paces({16: 0.1}, {16: 64}, 0.0005, 2)
    )
    monkeypatch.setattr(conducting, "imported", lambda *_: FOUND)
    for name in ("run_steps", "_answer"):
        monkeypatch.setattr(conducting, name, lambda *_, **__: None)
    conducting.conduct(asked, out, quiet=True)
    after = Plan.model_validate_json((out / "plan.json").read_bytes())
    assert after.steps[16] == before.steps[16] if saved else after.steps[16] > before.steps[16]
    assert (out / "runs/16/training.json").exists() == saved


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a few steps, and commands in forks."""
    for name, value in (("LEAST_STEPS", 2), ("FEW_STEPS", 2), ("UPDATES", 4), ("STARTS_S", 0.0)):
        monkeypatch.setattr(plan, name, value)
    monkeypatch.setattr(
        conducting,
        "_paces",
        lambda *_, **__: Paces({16: 60.0}, {16: 64}, classifier=0.001, workers=2),
    )


def photographs(root: Path) -> Path:
    """CLASS/image, in colour, of sizes of their own."""
    chance = np.random.default_rng(5)
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(15):
            pixels = chance.integers(0, 90, (20 + i, 30 - i, 3), dtype=np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_more_seeds_run_the_study_again_and_nothing_else(tmp_path: Path):
    made, log = planned(), StepLog(tmp_path)
    for seeds in ((0, 1, 2), (0, 1, 2, 3, 4, 5)):
        asked = made.model_copy(update={"asked": ASKED.model_copy(update={"seeds": seeds})})
        (tmp_path / "build.toml").write_text(build_recipe(asked, tmp_path))
        (tmp_path / "study.toml").write_text(study(asked, tmp_path))
        new = [
            step for step in conducting.later_steps(asked, tmp_path) if step.line not in log.seconds
        ]
        for step in new:
            log.begin(step)
            log.end(10.0, done=True)
    assert [step.words[0] for step in new] == ["run-study"]
    assert [log.total(s) for s in conducting.later_steps(asked, tmp_path)] == [10, 10, 10, 20]


KILLED_AT = {  # writes of each command, about in the middle
    "the images, as a release": 70,
    "the generator's stage at 16 px": 35,
    "its images": 30,
    "classifiers on real images, generated ones and both": 120,
}


@pytest.mark.usefixtures("short")
def test_from_a_folder_of_classes_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos = str(photographs(tmp_path / "photos"))
    asked = ASKED.model_copy(update={"images": photos, "res": 16, "seeds": (0, 1)})
    server = command_server()

    def run(step: steps.Step, *_: Any, **__: Any) -> int:
        """Killed at a write in its middle when it runs first."""
        workers = () if step.words[0] == "finetune-generator" else ("--workers", "1")
        at = 0 if step.line in killed else KILLED_AT[step.title]
        deadly = kill_point(at, tmp_path / "writes.log", tmp_path / "trial")
        (tmp_path / "writes.log").unlink(missing_ok=True)
        ended = server.run([*step.words, *workers], tmp_path, 300, deadly)
        assert ended.code == (-9 if at else 0), ended
        killed.add(step.line)
        return ended.code

    monkeypatch.setattr(steps, "_run", run)
    killed: set[str] = set()
    for _ in KILLED_AT:
        with pytest.raises(SystemExit, match="137"):
            conducting.conduct(asked, tmp_path / "trial", quiet=True)
    page, answer = conducting.conduct(asked, tmp_path / "trial", quiet=True)
    assert len(killed) == len(KILLED_AT)
    text = page.read_text()
    assert text.index(answer.sentences[0]) < text.index("<table")
    first = text.index(f"export PATH=&#34;{Path(sys.executable).parent}:$PATH&#34;")
    for command in ("build-dataset --real", "finetune-generator --recipe small-16", "run-study"):
        assert first < text.index(f"<code>{command}")
    assert "Top-5, %" not in text  # two classes have none
    assert "1 of 1 cases" not in text
    assert text.count("data:image/png;base64,") == 4  # a strip a class, generated and real
    assert json.loads((tmp_path / "trial/answer.json").read_text())["said"] == answer.said
    # run again it makes nothing anew, and answers the same
    monkeypatch.setattr(steps, "_run", None)
    assert conducting.conduct(asked, tmp_path / "trial", quiet=True)[1] == answer
