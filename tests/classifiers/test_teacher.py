"""What another classifier says of an image, learned beside its class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.recipes.recipe import ClassifierRecipe, Teacher
from classifiers.training.checkpoint import save_classifier
from classifiers.training.loop import train
from classifiers.training.objective import MODEL, ClassifierObjective, LabelledPart
from classifiers.training.predictions import predict
from classifiers.training.task import Task
from generation.networks.timm_classifier import build_model
from release.errors import UserError
from tests.sets.shapes import NAMES, RECIPE, changed, make_images, write_release

IDS = tuple(f"s{i}" for i in range(len(NAMES)))


def saved(path: Path, recipe: ClassifierRecipe = RECIPE, ids: tuple[str, ...] = IDS) -> Path:
    """An untrained classifier."""
    torch.manual_seed(5)
    save_classifier(path, build_model(recipe, len(ids)), recipe, ids)
    return path


def test_the_loss_is_that_of_the_class_and_of_the_softened_predictions() -> None:
    torch.manual_seed(0)
    student, teacher = (build_model(RECIPE, len(NAMES)).eval() for _ in range(2))
    images, labels = torch.randn(7, 1, 16, 16), torch.arange(7) % 6
    recipe = changed(teacher=Teacher(weight=0.3, temperature=2.0))
    objective = ClassifierObjective(student, recipe, teacher)
    (update,) = objective.updates
    found = update.loss({MODEL: student}, LabelledPart(images, labels))
    with torch.no_grad():
        own, said = (net(images).numpy().astype(np.float64) for net in (student, teacher))

    def log_shares(logits: np.ndarray) -> np.ndarray:
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    hard = -log_shares(own)[np.arange(7), labels.numpy()].mean()
    soft = -(np.exp(log_shares(said / 2)) * log_shares(own / 2)).sum(axis=1).mean()
    assert float(found.detach()) == pytest.approx(0.7 * hard + 0.3 * 4 * soft, abs=1e-5)


def test_generated_images_with_a_teacher_or_a_start_are_no_cas(tmp_path: Path) -> None:
    real = write_release(tmp_path / "real", {"test": make_images(4, 2)})
    made = write_release(tmp_path / "made", {"train": make_images(4, 1)}, kind="synthetic")
    task = Task(RECIPE, (str(made),), str(real))
    assert task.measurement().is_cas
    start = saved(tmp_path / "start.safetensors")
    assert not replace(task, start=start).measurement().is_cas  # it may have seen real ones
    pretrained = changed(model_args=dict(RECIPE.model_args) | {"pretrained": True})
    assert not replace(task, recipe=pretrained).measurement().is_cas
    teacher = saved(tmp_path / "teacher.safetensors")
    taught = replace(task, recipe=changed(teacher=Teacher()), teacher=teacher)
    assert not taught.measurement().is_cas


def test_with_all_the_weight_on_the_teacher_wrong_labels_are_not_learned(tmp_path: Path) -> None:
    right, test = make_images(40, 1), make_images(20, 2)
    teacher = tmp_path / "teacher.safetensors"
    save_classifier(teacher, train(RECIPE, right, seed=0), RECIPE, IDS)
    wrong = replace(right, labels=(right.labels + 1) % len(NAMES))
    recipe = changed(teacher=Teacher(weight=1.0))
    taught = predict(train(recipe, wrong, seed=1, teacher=teacher), recipe, test)
    assert taught.correct(1).mean() > 0.95
    alone = predict(train(RECIPE, wrong, seed=1), RECIPE, test)
    assert alone.correct(1).mean() < 0.05


def test_the_teacher_is_part_of_what_a_result_is_of(tmp_path: Path) -> None:
    folder = str(
        write_release(tmp_path / "real", {"train": make_images(4, 1), "test": make_images(4, 2)})
    )
    teacher = saved(tmp_path / "teacher.safetensors")
    recipe = changed(teacher=Teacher())
    task = Task(recipe, (folder,), folder, teacher=teacher)
    found = task.measurement()
    before = found.key(0)
    assert len(found.result(0, {}, {}).subject["teacher_sha256"]) == 64
    assert found.result(0, {}, {}).protocol["teacher"] == {"weight": 0.5, "temperature": 1.0}
    saved(teacher, changed(model_args={"channels": (8, 8, 8, 8), "stem_width": 8}))
    assert task.measurement().key(0) != before
    assert "teacher" not in Task(RECIPE, (folder,), folder).measurement().recipe.protocol()


@pytest.mark.parametrize(
    ("recipe", "teacher", "said"),
    [
        ({"teacher": Teacher()}, None, "give --teacher"),
        ({}, RECIPE, "teacher.weight=0.5 has it learn"),
        ({"teacher": Teacher()}, "missing", "there is no such file"),
        ({"teacher": Teacher()}, "other classes", "other classes than --train"),
        ({"teacher": Teacher()}, changed(mean=(0.4,)), "mean (0.4,), not (0.5,)"),
        ({"teacher": Teacher()}, changed(resolution=32), "resolution 32, not 16"),
    ],
)
def test_a_teacher_that_does_not_fit_ends_in_one_line(
    tmp_path: Path, recipe: dict[str, Teacher], teacher: ClassifierRecipe | str | None, said: str
) -> None:
    folder = str(
        write_release(tmp_path / "real", {"train": make_images(4, 1), "test": make_images(4, 2)})
    )
    path = tmp_path / "teacher.safetensors"
    if isinstance(teacher, ClassifierRecipe):
        saved(path, teacher)
    elif teacher == "other classes":
        saved(path, RECIPE, ("a", "b"))
    task = Task(changed(**recipe), (folder,), folder, teacher=path if teacher else None)
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")):
        task.measurement()
