"""The command `try-images`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from release.commands.command import help_ends, run_command
from release.commands.named_files import require_folder
from release.commands.options import Json
from release.commands.surroundings import share_cores
from release.errors import UserError
from release.images.crop_rules import CropRule

Images = Annotated[
    str,
    typer.Argument(help="A folder such as CLASS/image or SPLIT/CLASS/image, or a data set."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the trial; by default tries/NAME.")]
Minutes = Annotated[
    float,
    typer.Option(
        min=1, help="How long all of it may take here; what is made and trained is chosen to fit."
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Of the generated images: 16, 32 or 64; by default what the images have."),
]
PerClass = Annotated[
    int | None, typer.Option(min=2, help="Real images of each class to train on; by default all.")
]
Times = Annotated[
    float, typer.Option(min=0.01, max=9, help="Generated images for each real one, at most.")
]
Seeds = Annotated[str, typer.Option(help="Of the classifiers; three or more name classes.")]
TestShare = Annotated[
    float, typer.Option(min=0.01, max=0.9, help="Of each class, where no split is to test on.")
]
SplitSeed = Annotated[int, typer.Option(min=0, help="Decides which images are tested on.")]
Classifier = Annotated[
    str | None, typer.Option(help="A classifier recipe; by default a small one that fits.")
]

BadImages = Annotated[
    Literal["stop", "skip"],
    typer.Option(help="Stop where images cannot be imported, and name them, or skip them."),
]

Crop = Annotated[
    CropRule | None,
    typer.Option(
        help="How images become square: center-crop, or pad with black borders.  "
        "[default: center-crop]"
    ),
]


def main() -> None:
    """Console entry point."""
    share_cores()
    run_command(try_images)


@help_ends(
    """
    Examples:

    \b
      try-images my-images
      try-images my-images --minutes 60 --res 64 --out tries/longer
      try-images my-images --crop pad --out tries/whole
    """
)
def try_images(
    images: Images,
    out: Out = None,
    minutes: Minutes = 15,
    res: Resolution = None,
    per_class: PerClass = None,
    times: Times = 1.0,
    seeds: Seeds = "0,1,2",
    test_share: TestShare = 0.2,
    split_seed: SplitSeed = 0,
    classifier: Classifier = None,
    bad_images: BadImages = "stop",
    crop: Crop = None,
    as_json: Json = False,
) -> None:
    """Find out whether generated images would help a classifier of your images.

    Imports them, trains a small generator on the training images alone, builds a release with it,
    trains classifiers on real images, generated ones, both, and real ones visited twice, and writes
    one page that begins with the answer. Every command is printed as it can be run alone. Rerun the
    same command to go on after an interruption.
    """
    from cards.trial.conducting import conduct
    from cards.trial.plan import Asked

    asked = Asked(
        images=_located(images),
        minutes=minutes,
        res=res,
        per_class=per_class,
        times=times,
        seeds=_numbers(seeds),
        test_share=test_share,
        split_seed=split_seed,
        classifier=classifier,
        bad_images=bad_images,
        crop=crop,
    )
    folder = (out or Path("tries") / _name(images)).resolve()
    require_folder(folder, "--out")
    if Path(asked.images).is_dir() and folder.is_relative_to(asked.images):
        raise UserError(
            f"--out {folder} stands among the images of {asked.images}, and would be taken for one "
            "of their folders: name one outside"
        )
    page, answer = conduct(asked, folder, quiet=as_json)
    if as_json:
        print(json.dumps({"page": str(page), **answer.model_dump()}))
    else:
        print("\n" + "\n".join(answer.sentences) + f"\npage: {page}")
        print(f"tables: {folder / 'study/report.md'}")


def _name(images: str) -> str:
    """Of the folder or the data set."""
    path = Path(images)
    return path.resolve().name if path.is_dir() else images.rpartition("/")[2].replace(":", "-")


def _located(images: str) -> str:
    """A folder's whole path, so that the commands run as printed from anywhere."""
    folder, colon, config = images.rpartition(":")
    if colon and not Path(images).is_dir() and Path(folder).is_dir():
        return f"{Path(folder).resolve()}:{config}"
    return str(Path(images).resolve()) if Path(images).is_dir() else images


def _numbers(seeds: str) -> tuple[int, ...]:
    try:
        found = tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise UserError(f"--seeds {seeds!r}: give different whole numbers, such as 0,1,2")
    return found


if __name__ == "__main__":
    main()
