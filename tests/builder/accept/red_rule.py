"""Builds whose images are kept for their red."""

from pathlib import Path

import pyarrow.parquet as pq

from builder.builds.build import BuildPlan, plan_build
from builder.planning.recipe import load_recipe
from builder.state import write_state
from release.classes.class_list import load_classes
from release.layout.manifest import ShardRecord

PER_CLASS = 10


RED = 'accept = { rule = "tests.stand_in_rule", red = 128, attempts = 3 }\n'


def plan(recipe_file: Path, release: Path, per_class: int = PER_CLASS) -> BuildPlan:
    recipe = load_recipe(str(recipe_file))
    return plan_build(recipe, recipe.chain(None), load_classes(recipe.classes), per_class, release)


def build(plan: BuildPlan) -> list[ShardRecord]:
    """Every shard in this process, parents before children."""
    write_state(plan.release, plan.state)
    return [job.run() for job in plan.jobs()]


def rejections(release: Path, resolution: int) -> list[dict]:
    files = sorted((release / "rejections" / str(resolution)).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rows(release: Path, resolution: int) -> list[dict]:
    files = sorted((release / str(resolution)).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
