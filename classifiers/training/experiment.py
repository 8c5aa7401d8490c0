"""One measurement: train on some sources, test on real images, write the result."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers.data.mixing import mixed
from classifiers.data.sources import Source, describe
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.checkpoint import save_classifier
from classifiers.training.predictions import Predictions, accuracy_values, predict
from classifiers.training.result_values import ClassifierValues
from generation.training.data.order import Visits
from release.commands.options import STATE_SECONDS
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import canonical_json, remove_temporaries_of, sha256_file, sha256_text
from release.layout.image_sets import LabelledImages
from release.results.result import Result, environment, read_result
from release.streaming.encoded import EncodedImages

if TYPE_CHECKING:
    from torch import nn

    from classifiers.training.state import StateFile

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is trained on what, and tested on what; with a seed it decides a result.

    steps: optimiser steps in place of the recipe's epochs. train_images: how many each source of
    `train` gives; weights: how often an epoch visits them, by default once. test_images: how many
    it is tested on. start: a saved classifier that the training goes on from; teacher: one that it
    learns from.
    """

    recipe: ClassifierRecipe
    steps: int | None
    train: tuple[Source, ...]
    train_images: tuple[int, ...]
    test: Source
    test_images: int
    weights: tuple[float, ...] = ()
    start: Path | None = None
    teacher: Path | None = None

    @property
    def is_cas(self) -> bool:
        """Classification Accuracy Score: trained on generated images alone (Ravuri & Vinyals), from
        nothing and without a teacher: a start or a teacher may have seen real ones."""
        helped = self.teacher is not None or self.start is not None
        return all(self.generated) and not helped and not self.recipe.model_args.get("pretrained")

    @property
    def visits(self) -> Visits:
        """How often an epoch sees which image."""
        return Visits(self.train_images, self.weights or (1.0,) * len(self.train_images))

    @property
    def generated(self) -> tuple[bool, ...]:
        """Of each source whether its images are."""
        return tuple(source.manifest.kind == "synthetic" for source in self.train)

    def require_visits(self) -> None:
        """UserError for a source without an image of the classes, or with a weight so small that an
        epoch sees none of it."""
        for source, images, weight in zip(
            self.train, self.train_images, self.visits.weights, strict=True
        ):
            if images == 0:
                raise UserError(f"--train {source} holds no image of the classes asked for")
            if round(weight * images) == 0:
                raise UserError(
                    f"--weights {weight:g} of the {images:,} images of --train {source}: an epoch "
                    f"sees none of them; give {1 / images:.2g} or more, or leave it out"
                )

    def result(self, seed: int, values: dict[str, Any], spent: dict[str, Any]) -> Result:
        """The result file's content. `spent`: time and speed, kept with the environment."""
        subject: dict[str, Any] = {
            "train": [
                describe(source, images) | ({} if weight == 1 else {"weight": weight})
                for source, images, weight in zip(
                    self.train, self.train_images, self.visits.weights, strict=True
                )
            ],
            "model": self.recipe.model,
            "recipe": self.recipe.name,
        }
        if self.start is not None:
            subject["start_sha256"] = sha256_file(self.start)
        if self.teacher is not None:
            subject["teacher_sha256"] = sha256_file(self.teacher)
        return Result(
            kind="classifier",
            dataset=self.test.manifest.dataset,
            subject=subject,
            protocol={
                **self.recipe.protocol(),
                "epochs": self.recipe.epochs if self.steps is None else None,
                "steps": self.steps,
                "test_split": self.test.split,
                "checkpoint": "last step",
            },
            reference={
                "name": self.test.manifest.name,
                "content_sha256": self.test.manifest.content_sha256,
                "config": self.test.config,
                "split": self.test.split,
                "n": self.test_images,
            },
            values=values,
            seeds={"classifier": seed},
            environment=environment() | spent,
        )

    def key(self, seed: int) -> str:
        """Hash of all that decides the result."""
        bare = asdict(replace(self.result(seed, {}, {}), environment={}))
        return sha256_text(canonical_json(bare))

    def require_free(self, path: Path, seed: int) -> None:
        """UserError if `path` or the state beside it is of another measurement: none is lost."""
        state_file(path, self.key(seed)).read()
        if not path.exists():
            return
        old = asdict(replace(read_result(path), values={}, environment={}))
        if sha256_text(canonical_json(old)) != self.key(seed):
            raise UserError(f"--out {path} holds another result; give another name or remove it")


@dataclass(frozen=True, kw_only=True)
class Experiment(Measurement):
    """A measurement with its images: training, those of all sources, and testing."""

    training: LabelledImages | EncodedImages
    testing: LabelledImages | EncodedImages


def is_finished(out: Path, save: Path | None) -> bool:
    """Whether an earlier call left all that `run_experiment` writes, and its state no more.

    Predictions and a classifier that are not those of the result count as missing. UserError if
    `out` is no result.
    """
    written = {"predictions_sha256": out.with_suffix(".parquet")}
    written |= {"classifier_sha256": save} if save else {}
    if not all(file.is_file() for file in (out, *written.values())):
        return False
    values = read_result(out).values
    if save and "classifier_sha256" not in values:  # the file there is of another training
        return False
    stated = {
        name: values[name] for name in written if name in values
    }  # results of before lack some
    if any(sha256 != sha256_file(written[name]) for name, sha256 in stated.items()):
        return False
    out.with_suffix(".state").unlink(missing_ok=True)  # of a call that was killed at its very end
    return True


def state_file(out: Path, key: str, seconds: float = STATE_SECONDS) -> "StateFile":
    """Where the training whose result is `out` keeps its state."""
    from classifiers.training.state import StateFile

    return StateFile(out.with_suffix(".state"), key, seconds)


def run_experiment(
    experiment: Experiment,
    seed: int,
    out: Path,
    progress: Progress,
    save: Path | None = None,
    state_seconds: float = STATE_SECONDS,
    loaders: int | None = None,
) -> Result | None:
    """Train, test, write the predictions beside `out` and then `out`; the classifier to `save`.

    The result holds the predictions' SHA-256, so that a reader can tell that they belong together.
    Called again it goes on from its last state, kept beside `out` every `state_seconds`. `progress`
    gets the number of images training will see; its context gets those just seen. Of several
    processes that accelerate started, one tests and writes; the others get None.
    """
    from classifiers.training.loop import total_steps, train
    from generation.training.processes import launched_processes

    recipe, testing = experiment.recipe, experiment.testing
    steps = total_steps(recipe, len(experiment.visits), experiment.steps)
    state = state_file(out, experiment.key(seed), state_seconds)
    processes = launched_processes()
    if processes.is_main_process:
        remove_temporaries_of(state.path, out, out.with_suffix(".parquet"), save)
    seconds: list[float] = []
    with _removed_if_diverged(state.path):
        with progress(steps * recipe.batch) as advance:
            model = train(
                recipe,
                experiment.training,
                seed,
                experiment.steps,
                lambda done: advance(done * recipe.batch),
                on_end=seconds.append,
                visits=mixed(recipe.mixing, experiment.visits, experiment.generated, steps),
                start=experiment.start,
                teacher=experiment.teacher,
                state=state,
                loaders=loaders,
            )
        if not processes.is_main_process:
            return None
        predictions = predict(model, recipe, testing, loaders)
    values = {
        "cas": experiment.is_cas,
        "steps": steps,
        **_written(experiment, model, predictions, out, save, loaders),
    }
    spent = _spent(processes.num_processes, steps * recipe.batch, seconds[0])
    checked = validated(ClassifierValues, values, str(out)).content()
    (result := experiment.result(seed, checked, spent)).write(out)
    state.path.unlink(missing_ok=True)
    return result


def _written(
    experiment: Experiment,
    model: "nn.Module",
    predictions: Predictions,
    out: Path,
    save: Path | None,
    loaders: int | None,
) -> dict[str, Any]:
    """The values of what was predicted, and the hashes of the files that are written beside."""
    from classifiers.data.image_data import source_sha256

    testing, values = experiment.testing, {}
    if save is not None:
        save_classifier(save, model, experiment.recipe, testing.class_ids)
        values["classifier_sha256"] = sha256_file(save)
    return {
        **accuracy_values(predictions, testing.class_ids, testing.class_names),
        "test_images_sha256": source_sha256(experiment.test, testing, loaders),
        "predictions_sha256": predictions.write(out.with_suffix(".parquet")),
        **values,
    }


def _spent(processes: int, images: int, seconds: float) -> dict[str, Any]:
    """What a training took, as the result's environment says it."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "processes": processes,
        "training_seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1),
    }


@contextmanager
def _removed_if_diverged(state: Path) -> Iterator[None]:
    """A training that diverged would do so again from its state, which would be in the way of one
    with other settings."""
    from classifiers.training.loop import DivergedError

    try:
        yield
    except DivergedError:
        state.unlink(missing_ok=True)
        raise


def seed_paths(out: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Where each seed's file goes: `out` itself for one seed, else NAME-seedS.SUFFIX."""
    if len(seeds) == 1:
        return {seeds[0]: out}
    return {seed: out.with_name(f"{out.stem}-seed{seed}{out.suffix}") for seed in seeds}
