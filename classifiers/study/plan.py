"""The trainings that a study takes.

OUT/study.json                             the study as it was asked for
OUT/runs/MODEL/SIZE/ARM-HASH-seedS.json    one training's result, its predictions beside it
OUT/report.json, report.md, *.png          what was found

HASH covers all that decides a training, so a study with another arm, seed or recipe makes only what
is new, and arms that two studies share are trained once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from classifiers.on_cluster.processes import Training
from classifiers.recipes.recipe import ClassifierRecipe, load_recipe
from classifiers.study.study_file import Arm, Budget, GeneratedSet, Model, RealSet, Study
from classifiers.study.teachers import is_taught, on_real_images
from classifiers.training.task import Task, image_set
from release.errors import UserError
from release.files.storage import release_path
from release.layout.image_sets import first_of_each, part_labels
from release.layout.manifest import read_manifest

STATED_WITHIN = 0.3  # of the images of a class: those stated may be of train, not of fit


@dataclass(frozen=True)
class Run:
    """One training of a study. arm: its name in file names and tables; images, steps: how many.

    save: where the classifier goes, to be kept or for runs that start from it or learn from it;
    `after` has the results of those that this one starts or learns from.
    """

    model: str
    resolution: int
    size: str
    arm: str
    kind: str
    generated: str | None
    times: float
    budget: Budget
    seed: int
    task: Task
    images: int
    steps: int
    path: Path
    save: Path | None = None
    after: tuple[Path, ...] = ()

    @property
    def training(self) -> Training:
        """As a worker does it."""
        return Training(self.task, self.seed, self.path, self.save, self.after)

    @property
    def finished(self) -> bool:
        """Whether an earlier call of the study made it, predictions and all."""
        return self.training.finished

    @property
    def predictions(self) -> Path:
        return self.path.with_suffix(".parquet")

    @property
    def seen(self) -> int:
        """Images that the training sees."""
        return self.steps * self.task.recipe.batch


@dataclass(frozen=True)
class TrainingSet:
    """One arm at one size, with one generated set, amount of it and budget of steps."""

    size: int | str
    arm: Arm
    generated: GeneratedSet | None = None
    times: float = 1.0
    budget: Budget = "epochs"

    @property
    def name(self) -> str:
        """As files and tables have it."""
        if self.arm.kind == "real":
            return "real"
        sets = [self.generated.name] if self.generated else []
        equal = ["equal-steps"] if self.budget == "steps" else []
        return "-".join([self.arm.kind, *sets, f"x{self.times:g}", *equal])


@dataclass(frozen=True)
class Planner:
    """The runs of `study` in `out`. changes: what tuning chose, by model.

    placed: the releases are there; else runs have no path, and counts are what the study states.
    """

    study: Study
    out: Path
    changes: Mapping[int, tuple[str, ...]]
    placed: bool = True

    def runs(self) -> list[Run]:
        """Every training once, those of one model after those it may start from.

        UserError for a model named twice and for an arm of a model that is not there.
        """
        return list(self._runs)

    @cached_property
    def _runs(self) -> tuple[Run, ...]:
        """Planned once: each opens the releases that it trains on."""
        self._check_models()
        planned: list[Run] = []
        for recipe in self._all_recipes:
            for wanted, seed in product(self._training_sets(recipe.name), self.study.seeds):
                planned.append(self._run(recipe, wanted, seed, planned))
        runs = {(r.model, r.resolution, r.size, r.arm, r.seed): r for r in planned}.values()
        needed = {path for run in runs for path in run.after}
        return tuple(_saved(run) if run.path in needed else run for run in runs)

    def _check_models(self) -> None:
        names = [load_recipe(model.recipe, model.set).name for model in self.study.models]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"[[model]] {name} twice: results go by name, so give one a TOML file with "
                    f'name = "…" and base = "{name}"'
                )
        for arm in self.study.arms:
            if unknown := set(arm.models) - set(names):
                raise UserError(
                    f"arm {arm.kind!r} is for model {min(unknown)!r}; known: {', '.join(names)}"
                )

    def tuning_runs(self) -> dict[tuple[int, int], list[Run]]:
        """By model and candidate: trainings on the real arm, tested on the tuning split."""
        return dict(self._tuning_runs)

    @cached_property
    def _tuning_runs(self) -> dict[tuple[int, int], list[Run]]:
        tuning = self.study.tuning
        if tuning is None:
            return {}
        return {
            (index, number): self._runs_of_candidate(model, candidate, tuning.split)
            for index, model in enumerate(self.study.models)
            for number, candidate in enumerate(tuning.candidates)
        }

    def _runs_of_candidate(self, model: Model, candidate: tuple[str, ...], split: str) -> list[Run]:
        sides = [f"resolution={side}" for side in self.study.resolutions]
        recipe = load_recipe(model.recipe, (*model.set, *candidate, *sides))
        recipe = on_real_images(
            recipe, (load_recipe(m.recipe, (*m.set, *candidate, *sides)) for m in self.study.models)
        )
        if recipe.start is not None:
            raise UserError(
                f"[tuning] cannot choose settings of {recipe.name}: it goes on from {recipe.start}"
            )
        real = TrainingSet(self.study.sizes[-1], Arm(kind="real"))
        test = self._spec(recipe, split)
        runs = [self._run(recipe, real, seed, ()) for seed in self.study.seeds]
        return [
            self._placed(replace(r, task=replace(r.task, test=test), arm="tuning")) for r in runs
        ]

    @cached_property
    def _all_recipes(self) -> list[ClassifierRecipe]:
        return [own for index in range(len(self.study.models)) for own in self._recipes(index)]

    def _recipes(self, index: int) -> list[ClassifierRecipe]:
        model = self.study.models[index]
        changes = (*model.set, *self.changes.get(index, ()))
        if not self.study.resolutions:
            return [load_recipe(model.recipe, changes)]
        sides = [f"resolution={side}" for side in self.study.resolutions]
        return [load_recipe(model.recipe, (*changes, side)) for side in sides]

    def _at_size(self, recipe: ClassifierRecipe, size: int | str) -> ClassifierRecipe:
        epochs = self.study.epochs.get(str(size), recipe.epochs)
        return recipe.model_copy(update={"epochs": epochs})

    def _training_sets(self, model: str) -> Iterator[TrainingSet]:
        """All that a model is trained on, in the study's order."""
        for size, arm in product(self.study.sizes, self.study.arms):
            if size in (arm.sizes or (size,)) and model in (arm.models or (model,)):
                if arm.kind == "real":
                    yield TrainingSet(size, arm)
                    continue
                for generated, times, budget in product(self._sets(arm), arm.times, arm.budgets):
                    yield TrainingSet(size, arm, generated, times, budget)

    def _sets(self, arm: Arm) -> list[GeneratedSet | None]:
        if "generated" not in arm.kind:
            return [None]
        return [g for g in self.study.generated if not arm.sets or g.name in arm.sets]

    def _run(
        self, recipe: ClassifierRecipe, wanted: TrainingSet, seed: int, earlier: Sequence[Run]
    ) -> Run:
        model = recipe.name
        kind, generated, times = wanted.arm.kind, wanted.generated, wanted.times
        own = recipe if is_taught(kind) else on_real_images(recipe, self._all_recipes)
        recipe = self._at_size(own, wanted.size)
        real = self.real_images(wanted.size)
        images, _ = _amounts(kind, real, times)
        run = Run(
            model=model,
            resolution=recipe.resolution,
            size=str(wanted.size),
            arm=wanted.name,
            kind=kind,
            generated=None if generated is None else generated.name,
            times=0.0 if kind == "real" else times,
            budget=wanted.budget,
            seed=seed,
            task=self._task(recipe, wanted, seed, real),
            images=images,
            steps=_steps(recipe, real if wanted.budget == "steps" else images),
            path=self.out,
        )
        return self._placed(_taught(self._started(run, earlier), earlier))

    def _task(self, recipe: ClassifierRecipe, wanted: TrainingSet, seed: int, real: int) -> Task:
        """real: how many real images the size has."""
        kind, times, size = wanted.arm.kind, wanted.times, wanted.size
        train = [self._spec(recipe, self.study.real.train_split)] if kind != "generated" else []
        if wanted.generated is not None:
            generated = wanted.generated.of(size, seed)
            train.append(image_set(generated.release, generated.config))
        per_class = None if size == "all" else int(size)
        if kind == "generated":
            per_class = max(1, round(times * real / self.study.real.classes))
        _, weights = _amounts(kind, real, times)
        return Task(
            recipe=recipe,
            train=tuple(train),
            test=self._spec(recipe, self.study.real.test_split),
            per_class=per_class,
            times=times if kind == "real+generated" else None,
            weights=weights,
            steps=_steps(recipe, real) if wanted.budget == "steps" else None,
        )

    def _started(self, run: Run, earlier: Sequence[Run]) -> Run:
        """With the classifier it goes on from: that of the same arm, size and seed."""
        start = run.task.recipe.start
        if start is None:
            return run
        for other in earlier:
            same = (other.arm, other.size, other.seed) == (run.arm, run.size, run.seed)
            if other.model == start and same:
                path = other.path.with_suffix(".safetensors")
                return replace(run, task=replace(run.task, start=path), after=(other.path,))
        raise UserError(f"model {run.model} goes on from {start}: name that as a [[model]] before")

    def _placed(self, run: Run) -> Run:
        """With its path, by all that decides its outcome."""
        if not self.placed:
            return run
        task = run.task
        folder = self.out / "runs" / f"{task.recipe.name}-{run.resolution}" / run.size
        if task.teacher is not None:  # so that a study's folder may be moved
            task = replace(task, teacher=task.teacher.relative_to(self.out))
        path = folder / f"{run.arm}-{task.identity()[:8]}-seed{run.seed}.json"
        placed = replace(run, path=path)
        return _saved(placed) if self.study.keep_classifiers else placed

    def _spec(self, recipe: ClassifierRecipe, split: str) -> str:
        real = self.study.real
        return image_set(real.release, real.config or str(recipe.resolution), split)

    @cached_property
    def _labels(self) -> np.ndarray:
        """int64[N] of the real training split, in no order."""
        real = self.study.real
        if not self.placed:
            return np.arange(round(real.classes * real.per_class)) % real.classes
        labels = real_labels(real, str(self._recipes(0)[0].resolution))
        require_as_stated(real, labels)
        return labels

    def real_images(self, size: int | str) -> int:
        """How many real images a size has."""
        if size == "all":
            return len(self._labels)
        return len(first_of_each(self._labels, [int(size)] * self.study.real.classes))


def real_labels(real: RealSet, config: str | None = None) -> np.ndarray:
    """int64[N] of the training split: of the study's configuration, else of `config`, else of any,
    as all hold the same images."""
    release = release_path(real.release)
    config = real.config or config or list(read_manifest(release).base.splits())[-1]
    return part_labels(release, config, real.train_split)


def require_as_stated(real: RealSet, labels: np.ndarray) -> None:
    """UserError if the release is of other classes, or of more or fewer images, than the study
    says: how many images of each class are generated for it follows from that."""
    classes = len(read_manifest(release_path(real.release)).classes)
    if classes != real.classes:
        raise UserError(f"real.classes = {real.classes}: {real.release} has {classes}")
    mean = len(labels) / classes
    if abs(mean - real.per_class) > STATED_WITHIN * mean:
        raise UserError(
            f"real.per_class = {real.per_class:g}: in {real.release} a class has {mean:g} images "
            f"of {real.train_split}, on average"
        )


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Each training once: models that differ by a teacher alone share those without one."""
    return list({_training_of(run): run for run in runs}.values())


def _training_of(run: Run) -> tuple[object, ...]:
    """What tells it from the others of the study, placed or not."""
    task = run.task
    return task.recipe.model_dump_json(), task.train, task.test, run.size, run.arm, run.seed


def _saved(run: Run) -> Run:
    return replace(run, save=run.path.with_suffix(".safetensors"))


def _taught(run: Run, earlier: Sequence[Run]) -> Run:
    """With its teacher, if its recipe has one: that of the real arm of the same size and seed."""
    if run.task.recipe.teacher is None:
        return run
    where = (run.model, run.resolution, run.size, run.seed)
    real = next(
        other
        for other in earlier
        if other.kind == "real" and (other.model, other.resolution, other.size, other.seed) == where
    )
    task = replace(run.task, teacher=real.path.with_suffix(".safetensors"))
    return replace(run, task=task, after=(*run.after, real.path))


def _amounts(kind: str, real: int, times: float) -> tuple[int, tuple[float, ...]]:
    """Images an epoch, and the weights that make it so."""
    if kind == "real":
        return real, ()
    if kind == "generated":
        return round(times * real), ()
    if kind == "real-repeated":
        return round((1 + times) * real), (1 + times,)
    return real + round(times * real), ()


def _steps(recipe: ClassifierRecipe, images: int) -> int:
    return max(1, round(recipe.epochs * images / recipe.batch))
