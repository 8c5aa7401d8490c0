from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builder.planning.image_seeds import image_seed
from builder.planning.plan import BuildRequest, plan_blocks, plan_shards, plan_stages
from builder.planning.recipe import Recipe, load_recipe
from release.classes.class_list import ClassEntry, load_classes

RECIPE = load_recipe("fashion-mnist")
CLASSES = load_classes("fashion-mnist")
HASHES = ["a" * 64, "b" * 64]


def cells(recipe: Recipe, classes: tuple[ClassEntry, ...], requests: list[BuildRequest]) -> list:
    blocks = plan_blocks(recipe, classes, requests)
    return [(c.wnid, index) for block in blocks for c, index in block.cells()]


@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    chosen=st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=4, max_size=4),
)
def test_every_image_is_planned_once_whatever_the_requests(sizes, chosen):
    requests = [
        BuildRequest(tuple(CLASSES[i].wnid for i in sorted(some)), size)
        for size, some in zip(sizes, chosen, strict=False)
    ]
    planned = cells(RECIPE, CLASSES, requests)
    wanted = {(wnid, index) for r in requests for wnid in r.classes for index in range(r.per_class)}
    assert len(planned) == len(set(planned))
    assert set(planned) == wanted


def test_extending_keeps_every_earlier_shard():
    everyone = tuple(c.wnid for c in CLASSES)
    stages = plan_stages(RECIPE, RECIPE.stages, CLASSES, HASHES)
    small, large = (BuildRequest(everyone, n) for n in (100, 200))
    first = plan_shards(stages, plan_blocks(RECIPE, CLASSES, [small]))
    extended = plan_shards(stages, plan_blocks(RECIPE, CLASSES, [small, large]))
    at_once = plan_shards(stages, plan_blocks(RECIPE, CLASSES, [large]))
    assert {s.path for s in first} < {s.path for s in extended}
    assert {s.path for s in extended} == {s.path for s in at_once}


def test_a_stage_has_a_fingerprint_of_its_own():
    base, super_resolution = plan_stages(RECIPE, RECIPE.stages, CLASSES, HASHES)
    other_last = plan_stages(RECIPE, RECIPE.stages, CLASSES, [HASHES[0], "c" * 64])
    other_first = plan_stages(RECIPE, RECIPE.stages, CLASSES, ["c" * 64, HASHES[1]])
    assert other_last[0] == base
    assert other_last[1].fingerprint != super_resolution.fingerprint
    assert other_first[1].fingerprint != super_resolution.fingerprint


def test_classes_alternate_within_a_shard():
    block = plan_blocks(RECIPE, CLASSES, [BuildRequest(tuple(c.wnid for c in CLASSES), 25)])[0]
    labels = [c.label for c, _ in block.cells()]
    assert labels == list(range(10)) * 25


def test_seeds_fit_53_bits_and_differ():
    seeds = {
        image_seed(seed, resolution, wnid, index, attempt)
        for seed in (1, 2)
        for resolution in (16, 32)
        for wnid in ("shirt", "coat")
        for index in range(50)
        for attempt in (0, 1)
    }
    assert len(seeds) == 2 * 2 * 2 * 50 * 2
    assert 2**50 < max(seeds) < 2**53


def test_a_prompt_is_part_of_the_fingerprint():
    changed = (replace(CLASSES[0], prompt="tee"), *CLASSES[1:])
    before, after = (plan_stages(RECIPE, RECIPE.stages, c, HASHES) for c in (CLASSES, changed))
    assert before[0].fingerprint != after[0].fingerprint
