"""The command `finetune-generator`."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generation.classes import load_classes
from generation.command import run_command
from generation.errors import UserError
from generation.image_sets import PSEUDO_SPLITS, LabelledImages, first_of_each, load_images
from generation.progress import progress_bar
from generation.starting_point import start_saw_tuning, starting_network, starting_sha256
from generation.storage import ReleasePath, release_name, release_path
from generation.training_recipe import TrainingRecipe, load_training_recipe

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.pixel_unet import PixelUNet
    from generation.training import TrainingSet

PACKAGES = ("torch", "diffusers", "accelerate", "numpy")


def main() -> None:
    """Console entry point."""
    run_command(finetune_generator)


def finetune_generator(
    recipe: Annotated[str, typer.Option(help="A built-in training recipe or a TOML file.")],
    data: Annotated[str, typer.Option(help="A release with the stage's resolution.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: state, curves, checkpoint.")],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from builtin:NAME, a folder of ours, or a U-Net as diffusers saves it that "
            "fits the recipe tensor for tensor.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="fit is train less its tuning tenth; train is all of it.")
    ] = "fit",
    per_class: Annotated[
        int | None, typer.Option(help="Images of each class, the first by image id; all if not.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train so long, not as the recipe.")] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(help="Keep a checkpoint every so many steps, for select-checkpoint."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; by default one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document only.")] = False,
) -> None:
    """Train one stage of a cascade on a release, from scratch or from a checkpoint.

    Rerun the same command to go on after an interruption: the result is the same.

    With --keep-every its checkpoints on the way stay, as OUT/checkpoints/STEP.

    Examples (build-dataset --real fashion-mnist makes the release):

    \b
      finetune-generator --recipe fashion-mnist-16 \\
        --data releases/fashion-mnist-real --out runs/fashion-mnist-16
      finetune-generator --recipe fashion-mnist-16 --steps 2000 --keep-every 500 \\
        --from builtin:fashion-mnist-16 --data releases/fashion-mnist-real --out runs/longer
    """
    chosen = load_training_recipe(recipe)
    chosen = _changed(chosen, "steps", steps)
    chosen = _changed(chosen, "keep_every", keep_every)
    _require_sense(split, per_class, threads)
    release = release_path(data)
    images, parents = _load_data(chosen, release, split, per_class)
    _use_threads(threads)
    network = starting_network(chosen, start)
    record = _record(chosen, images, release, split, per_class, start)
    processes = _processes()
    with processes.main_process_first():
        _claim_folder(out, record)
    training_set = _training_set(network, chosen, images, parents)
    del images, parents  # as large as what is trained on
    _train(network, training_set, chosen, out, as_json)
    if not processes.is_main_process:
        return
    answer = {"checkpoint": str(out / "checkpoint"), "steps": chosen.training.steps}
    print(json.dumps(answer) if as_json else f"checkpoint: {answer['checkpoint']}")


def _require_sense(split: str, per_class: int | None, threads: int | None) -> None:
    if split not in ("train", "fit"):
        raise UserError(f"--split {split!r}: a generator learns from 'fit' or 'train' alone")
    for option, value in (("--per-class", per_class), ("--threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: give at least 1")


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _changed(recipe: TrainingRecipe, field: str, value: int | None) -> TrainingRecipe:
    """The recipe with a training setting from the command line, if one was given."""
    if value is None:
        return recipe
    if value < 1:
        raise UserError(f"--{field.replace('_', '-')} {value}: give at least 1")
    training = recipe.training.model_copy(update={field: value})
    return recipe.model_copy(update={"training": training})


def _load_data(
    recipe: TrainingRecipe, data: ReleasePath, split: str, per_class: int | None
) -> tuple[LabelledImages, LabelledImages | None]:
    """The stage's images and, for super-resolution, their views at the parent's resolution."""
    images = _load_split(data, recipe.stage.resolution, split, per_class)
    wnids = tuple(c.wnid for c in load_classes(recipe.classes))
    if images.class_ids != wnids:
        raise UserError(f"{data} has other classes than the recipe's list {recipe.classes!r}")
    low = recipe.stage.low_resolution
    if low is None:
        return images, None
    parents = _load_split(data, low, split, per_class)
    if parents.image_ids != images.image_ids:
        raise UserError(f"{data}: configurations {low} and {recipe.stage.resolution} differ in ids")
    return images, parents


def _load_split(
    data: ReleasePath, resolution: int, split: str, per_class: int | None
) -> LabelledImages:
    images = load_images(data, str(resolution), split)
    if per_class is None:
        return images
    return images.take(first_of_each(images.labels, [per_class] * len(images.class_ids)))


def _training_set(
    network: "PixelUNet",
    recipe: TrainingRecipe,
    images: LabelledImages,
    parents: LabelledImages | None,
) -> "TrainingSet":
    import torch

    from generation.training import TrainingSet

    def planes(source: LabelledImages) -> torch.Tensor:
        channels = source.images[..., : recipe.stage.channels]
        return torch.from_numpy(channels).permute(0, 3, 1, 2).contiguous()

    entries = load_classes(recipe.classes)
    index = network.conditions([c.prompt for c in entries])
    return TrainingSet(
        images=planes(images),
        parents=None if parents is None else planes(parents),
        prompts=index[torch.from_numpy(images.labels)],
        null_prompt=len(network.prompts.prompts) - 1,
        prediction=network.config.prediction,
    )


def _record(
    recipe: TrainingRecipe,
    images: LabelledImages,
    data: ReleasePath,
    split: str,
    per_class: int | None,
    start: str | None,
) -> dict[str, Any]:
    """training.json: all that decided the weights."""
    return {
        # what is kept on the way decides no weights: a run may go on with another keep_every
        "recipe": recipe.model_dump(mode="json", exclude={"training": {"keep_every"}}),
        "data": {
            "release": release_name(data),
            "split": split,
            **({} if per_class is None else {"per_class": per_class}),
            "images": len(images),
            "sha256": images.sha256,
            "tuning_left_out": split in PSEUDO_SPLITS and not start_saw_tuning(start),
        },
        "start_sha256": starting_sha256(start),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _claim_folder(out: Path, record: dict[str, Any]) -> None:
    """Write training.json, or refuse a folder in which something else is being trained."""
    path = out / "training.json"
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    if path.exists() and path.read_text() != text:
        raise UserError(f"{out} holds another training run; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _processes() -> "PartialState":
    """Of the processes that accelerate launched; of this one alone without it."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # as its Accelerator does


def _train(
    network: "PixelUNet",
    data: "TrainingSet",
    recipe: TrainingRecipe,
    out: Path,
    quiet: bool,
) -> None:
    """Train, keeping a loss curve and sample grids in `out` at each save."""
    import torch

    from generation.checkpoint import save_checkpoint
    from generation.training import train_stage
    from generation.training_pictures import draw_losses, draw_samples, write_losses

    def save(average: "PixelUNet", losses: list[float]) -> None:
        write_losses(losses, out / "loss.csv")
        draw_losses(losses, out / "loss.png")
        draw_samples(average, data, out / f"samples-{len(losses):06d}.png")

    def keep(average: "PixelUNet", step: int) -> None:
        folder = out / "checkpoints" / str(step)
        if folder.exists():  # of a run killed since: the same one
            return
        temporary = folder.with_name(f".{step}.tmp")
        save_checkpoint(average, temporary, torch.float16)
        (temporary / "training.json").write_bytes((out / "training.json").read_bytes())
        temporary.rename(folder)

    main = _processes().is_main_process
    quiet = quiet or not main
    with progress_bar(recipe.training.steps, recipe.name, "steps", quiet=quiet) as advance:
        average, losses = train_stage(network, data, recipe.training, out, advance, save, keep)
    if not main:
        return
    save(average, losses)
    folder = out / "checkpoint"
    save_checkpoint(average, folder, torch.float16)
    for name in ("training.json", "loss.csv", "loss.png"):
        (folder / name).write_bytes((out / name).read_bytes())


if __name__ == "__main__":  # for accelerate launch -m
    main()
