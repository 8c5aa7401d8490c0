"""Accept rules: which images are kept, what is recorded of the others, and that counts balance."""

import json
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.accept import Verdict
from builder.planning.image_seeds import image_seed
from builder.shards.shard import load_rule
from builder.shards.slots import NO_PARENT, Slots
from cards.card.body import card_body
from cards.card.facts import accept_facts
from cards.drawing.sample_grid import read_groups
from cards.render_card import picture_names
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.builder.accept.red_rule import PER_CLASS, RED, build, plan, rejections, rows
from tests.conftest import STAND_IN_RECIPE, release_bytes, state_facts
from tests.forked_commands import run
from tests.stand_in import StandIn


@pytest.fixture(scope="module")
def picky_recipe(class_list: Path) -> Path:
    """The chain 8, 16, 32 pixels; the first two stages keep reddish images only."""
    text = state_facts(STAND_IN_RECIPE.format(classes=class_list))
    for checkpoint in ('checkpoint = "8"\n', 'checkpoint = "16"\n'):
        text = text.replace(checkpoint, checkpoint + RED)
    path = class_list.parent / "picky.toml"
    path.write_text(text)
    return path


def shard_bytes(release: Path) -> dict[str, bytes]:
    """Images, rejections and markers; not what is said of the build as a whole."""
    found = release_bytes(release)
    return {n: data for n, data in found.items() if "/" in n and not n.startswith("index/")}


def sum_made(release: Path, resolution: int) -> int:
    return sum(row["made"] for row in rejections(release, resolution))


@pytest.fixture(scope="module")
def picky(picky_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("picky") / "release"
    build(plan(picky_recipe, release))
    return release


def red(resolution: int, wnid: str, index: int, attempt: int) -> int:
    """The red of the stand-in's base image, from its seed alone."""
    seed = image_seed(7, resolution, wnid, index, attempt)
    return int(np.random.Generator(np.random.Philox(seed)).integers(256, size=3)[0])


def test_a_slot_keeps_its_first_acceptable_attempt(picky: Path):
    kept = {(row["class_id"], row["index"]): row for row in rows(picky, 8)}
    for wnid in ("c0", "c1", "c2"):
        for index in range(PER_CLASS):
            reds = [red(8, wnid, index, attempt) for attempt in range(3)]
            good = [attempt for attempt in range(3) if reds[attempt] >= 128]
            row = kept.get((wnid, index))
            assert (row and row["attempt"]) == (good[0] if good else None)
            if row:
                assert row["seed"] == image_seed(7, 8, wnid, index, good[0])
                assert row["image_id"].endswith(f"-{good[0]}")
    assert 0 < len(kept) < 3 * PER_CLASS  # some slots are quarantined, not all


def test_each_rejected_attempt_is_recorded_once(picky: Path):
    recorded = rejections(picky, 8)
    wanted = {
        (wnid, index, attempt, float(red(8, wnid, index, attempt)))
        for wnid in ("c0", "c1", "c2")
        for index in range(PER_CLASS)
        for attempt in range(3)
        if max(red(8, wnid, index, earlier) for earlier in range(attempt + 1)) < 128
    }
    found = [(r["class_id"], r["index"], r["attempt"], r["score"]) for r in recorded]
    assert sorted(found) == sorted(wanted)
    assert {r["reason"] for r in recorded} == {"not red enough"}
    assert all(r["made"] and r["quarantined"] == (r["attempt"] == 2) for r in recorded)


def test_planned_is_written_and_quarantined_at_every_stage(picky_recipe: Path, tmp_path: Path):
    records = build(plan(picky_recipe, tmp_path / "release"))
    for record in records:
        assert record.planned == record.rows + sum(record.quarantined.values())
        assert record.rows == sum(record.per_class.values())
    for resolution in ("8", "16", "32"):
        assert sum(r.planned for r in records if r.config == resolution) == 3 * PER_CLASS


def test_a_child_retries_on_its_parent_and_follows_it_into_quarantine(picky: Path):
    parents = {(r["class_id"], r["index"]): r["image_id"] for r in rows(picky, 8)}
    children = rows(picky, 16)
    assert all(r["parent_image_id"] == parents[r["class_id"], r["index"]] for r in children)
    assert {r["attempt"] for r in children} > {0}
    orphans = [r for r in rejections(picky, 16) if r["reason"] == NO_PARENT]
    assert len(orphans) == 3 * PER_CLASS - len(parents)
    assert all(r["quarantined"] and not r["made"] and r["score"] is None for r in orphans)
    retried = [r for r in rejections(picky, 16) if r["made"]]
    assert all(r["parent_image_id"] == parents[r["class_id"], r["index"]] for r in retried)


def test_images_do_not_depend_on_who_else_is_rejected(picky_recipe: Path, picky: Path, tmp_path):
    """Other batch sizes group attempts differently; every image and record stays the same."""
    text = picky_recipe.read_text().replace("batch = 3", "batch = 7").replace("= 5\n", "= 2\n")
    recipe = tmp_path / "other-batches.toml"
    recipe.write_text(text)
    build(plan(recipe, tmp_path / "release"))
    for resolution in (8, 16, 32):
        assert rows(tmp_path / "release", resolution) == rows(picky, resolution)
        assert rejections(tmp_path / "release", resolution) == rejections(picky, resolution)


def test_a_committed_shard_is_recognised_until_its_rejections_change(
    picky_recipe: Path, tmp_path: Path
):
    job = plan(picky_recipe, tmp_path / "release").jobs()[0]
    record = job.run()
    assert job.committed() == record
    file = tmp_path / "release" / record.rejections_path
    file.write_bytes(file.read_bytes()[:-1])
    assert job.committed() is None


def test_the_command_makes_the_same_bytes_and_reports_what_stays_empty(
    picky_recipe: Path, picky: Path, tmp_path: Path
):
    release = tmp_path / "release"
    command = ["build-dataset", "--recipe", picky_recipe, "--per-class", PER_CLASS]
    command = [*command, "--out", release, "--workers", 2, "--json"]
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert shard_bytes(release) == shard_bytes(picky)
    manifest = read_manifest(release)
    missing = 3 * PER_CLASS - manifest.rows("32", "train")
    assert json.loads(result.stdout)["empty_slots"]["32"] == {"train": missing}
    made = Counter(r["class_id"] for r in rejections(release, 16) if r["made"])
    assert manifest.rejected("16", "train") == made
    (first, _) = accept_facts(manifest)
    assert (first.total.kept, first.total.rejected) == (len(rows(release, 8)), sum_made(release, 8))
    assert first.total.kept + first.total.empty == 3 * PER_CLASS
    pictures = picture_names(read_groups(release))
    card = card_body(manifest, pictures, None, "./release", date(2026, 1, 1))
    rate = 100 * first.total.rejected / (first.total.kept + first.total.rejected)
    assert f"| all classes | {first.total.kept} | {first.total.rejected} | {rate:.1f} |" in card
    assert all(f"| {name} | " in card for name in ("Apple", "Pear", "Plum"))


def test_extending_keeps_slots_that_stay_empty(picky_recipe: Path, picky: Path, tmp_path: Path):
    release = tmp_path / "release"
    build(plan(picky_recipe, release, per_class=4))
    build(plan(picky_recipe, release))
    assert sorted(map(str, rows(release, 16))) == sorted(map(str, rows(picky, 16)))


class Prudish(StandIn):
    """Refuses what is too blue, as a pipeline with a safety checker: the image is black."""

    def sample(self, batch, settings):
        from generation.generator import Screened

        images = super().sample(batch, settings)
        blue = images[:, 0, 0, 2] > 150
        images[blue] = 0
        return Screened(images, ["too blue" if b else None for b in blue])


def test_images_that_the_generator_refuses_are_tried_again(
    stand_in_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tests.stand_in.StandIn", Prudish)
    text = stand_in_recipe.read_text()
    text = text.replace('checkpoint = "8"\n', 'checkpoint = "8"\naccept = { attempts = 9 }\n')
    recipe = tmp_path / "prudish.toml"
    recipe.write_text(text.split("[[stage]]\nresolution = 16")[0])
    from builder.shards.shard import load_generator

    load_generator.cache_clear()
    (record, *_) = build(plan(recipe, tmp_path / "release"))
    load_generator.cache_clear()
    assert {r["reason"] for r in rejections(tmp_path / "release", 8)} == {"too blue"}
    assert sum(record.rejected.values()) > 0
    assert record.rows == record.planned


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 9))
def test_slots_settle_the_same_however_they_are_batched(bad: list[int], attempts: int, size: int):
    """bad[slot]: how many attempts of the slot fail before one is fine."""
    slots = Slots(len(bad), attempts)
    while batch := slots.next_batch(size):
        assert len(batch) == len(set(batch)) <= size
        verdicts = [Verdict("bad" if attempt < bad[slot] else None) for slot, attempt in batch]
        for row, slot in slots.settle(batch, verdicts):
            assert batch[row] == (slot, bad[slot])
    assert slots.accepted == {slot: n for slot, n in enumerate(bad) if n < attempts}
    tried = Counter(r.slot for r in slots.rejections)
    assert tried == Counter({slot: min(n, attempts) for slot, n in enumerate(bad) if n})


def test_a_rule_is_part_of_the_fingerprint(picky_recipe: Path, stand_in_recipe: Path, tmp_path):
    def fingerprints(text: str) -> list[str]:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return [s.fingerprint for s in plan(path, tmp_path / "none").stages]

    plain, picky = stand_in_recipe.read_text(), picky_recipe.read_text()
    assert fingerprints(picky)[0] != fingerprints(plain)[0]
    assert fingerprints(picky.replace("= 128", "= 129"))[0] != fingerprints(picky)[0]
    assert fingerprints(picky.replace("attempts = 3", "attempts = 4"))[0] != fingerprints(picky)[0]


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ('{ rule = "nonsense" }', "unknown accept rule 'nonsense'; known:"),
        ('{ rule = "no.such_module" }', "accept rule no.such_module cannot be imported"),
        ('{ rule = "tests.stand_in_rule" }', "accept rule tests.stand_in_rule: red: Field req"),
        (
            '{ rule = "tests.stand_in_rule", red = 1, blue = 2 }',
            "unknown setting 'blue'; known: red",
        ),
        ("{ red = 1 }", "red is a rule's setting: name the rule"),
        ('{ rule = "tests.stand_in_rule", red = 1, attempts = 0 }', "accept.attempts"),
    ],
)
def test_a_rule_that_does_not_fit_is_named(stand_in_recipe, tmp_path, accept, message):
    text = stand_in_recipe.read_text().replace(
        'checkpoint = "8"\n', f'checkpoint = "8"\naccept = {accept}\n'
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    with pytest.raises(UserError) as caught:
        plan(recipe, tmp_path / "release")
    assert message in str(caught.value)


def test_what_a_rule_judges_by_must_not_change(picky_recipe: Path, tmp_path: Path, monkeypatch):
    rule = plan(picky_recipe, tmp_path / "release").stages[0].rule
    monkeypatch.setattr("tests.stand_in_rule.sha256", lambda *_: "0" * 64)
    load_rule.cache_clear()
    with pytest.raises(UserError, match="was changed after the build was planned"):
        load_rule(rule)
