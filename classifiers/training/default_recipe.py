"""The recipe for who names none, and what is said of one that loses the images' colour."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from classifiers.data.sources import Source, open_source
from classifiers.recipes.recipe import ClassifierRecipe
from release.errors import UserError
from release.files.storage import release_path, split_release
from release.layout.byte_ranges import on_this_machine
from release.layout.image_sets import decode, listed_files
from release.layout.manifest import read_manifest
from release.layout.shard_files import iterate_shard

RECIPES = {  # by whether images are in colour, and by their side in pixels
    True: {64: "small-resnet-64", 32: "small-resnet-32"},
    False: {32: "fashion-mnist-small"},
}
SAMPLE = 32  # images that are looked at in each of a few files


def in_colour(source: Source) -> bool:
    """Whether an image of a sample has a pixel whose red, green and blue are not equal.

    The sample: the first images of the first, the middle and the last file.
    """
    files = listed_files(source.path, source.config, source.split)
    for name, sha256 in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        with on_this_machine(source.path, name, sha256) as file:
            rows = next(iterate_shard(file, ["image"], SAMPLE), None)
        for data in [] if rows is None else rows["image"].field("bytes").to_pylist():
            with suppress(UserError):  # reading all of them names the one that cannot be decoded
                pixels = decode(data or b"")
                if np.any(pixels != pixels[..., :1]):
                    return True
    return False


def default_recipe(train: Sequence[str], test: str) -> tuple[str, str]:
    """A built-in recipe's name, and why it: the colour of the test images and the sizes there are.

    train, test: RELEASE[:CONFIG[:SPLIT]]. UserError for a release or part of it that is not there.
    """
    spec = test if split_release(test)[1] else f"{test}:{_configs(test)[0]}"
    colour = in_colour(open_source(spec, 0, None))
    known = RECIPES[colour]
    fitting = [side for side in known if all(_gives(spec, side) for spec in (*train, test))]
    side = max(fitting, default=min(known))
    return known[side], f"the test images are {'in colour' if colour else 'grey'}, at {side} px"


def lost_colour(recipe: ClassifierRecipe, test: Source) -> str | None:
    """A line where a recipe turns colour images grey; None where it loses nothing."""
    if recipe.channels == 3 or not in_colour(test):
        return None
    return (
        f"the images of {test} are in colour, and recipe {recipe.name} turns them grey "
        "(channels = 1); small-resnet-32 and other recipes with channels = 3 see colour"
    )


def _configs(spec: str) -> list[str]:
    """Of the release in `spec`: its sizes, the smallest first, or else all it has."""
    found = read_manifest(release_path(split_release(spec)[0])).splits()
    return sorted((name for name in found if name.isdecimal()), key=int) or list(found)


def _gives(spec: str, side: int) -> bool:
    """Whether a recipe of that resolution reads `spec` and loses no more than it has to."""
    named = split_release(spec)[1]
    if not named:
        return str(side) in _configs(spec)
    return not named[0].isdecimal() or int(named[0]) >= side
