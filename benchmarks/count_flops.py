"""Counts the arithmetic and the memory of every network that a built-in recipe names, and writes
the table that plans read, so that they need not count: generation/families/counted.json.

    python -m benchmarks.count_flops

Run it when a recipe names a new checkpoint; tests/builder/planning/test_device_cost.py says so.
"""

import json
from collections.abc import Iterable

from builder.planning.recipe import BUILTIN, load_recipe
from generation.families import COUNTED, count_work, work_key
from release.commands.toml_recipes import recipe_names_in

Asked = tuple[str, str, int]  # generator, checkpoint, resolution


def networks() -> list[Asked]:
    """Of all stages of all built-in recipes, each once, sorted."""
    stages = (stage for name in recipe_names_in(BUILTIN) for stage in load_recipe(name).stages)
    return sorted(
        {(stage.generator, one, stage.resolution) for stage in stages for one in stage.checkpoints}
    )


def counted(asked: Iterable[Asked]) -> dict[str, dict[str, object]]:
    """Those that their families know without weights."""
    found = {work_key(*one): count_work(*one) for one in asked}
    return {key: work.as_json() for key, work in found.items() if work is not None}


if __name__ == "__main__":
    table = counted(networks())
    COUNTED.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{COUNTED}: {len(table)} networks")
