"""Real and generated images in one training: shares of a batch, real images last, norms apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from classifiers.data.batches import ResidentBatches, StreamedBatches
from classifiers.data.mixing import MixedVisits, mixed
from classifiers.data.sources import join_images
from classifiers.recipes.recipe import Mixing
from classifiers.training.auxiliary_norm import with_auxiliary
from classifiers.training.loop import train
from classifiers.training.task import Task
from generation.networks.timm_classifier import build_model
from generation.training.data.order import Visits, batch_rows
from release.errors import UserError
from release.layout.image_sets import load_images
from release.streaming.encoded import index_images
from tests.sets.shapes import RECIPE, changed, make_images, write_release

CPU = torch.device("cpu")
REAL, MADE = 60, 120
KINDS = (False, True)
SETS = Visits((REAL, MADE), (1.0, 1.0))
HALVES = Mixing(share=0.5, batch_norm="separate")


def rows_of(visits: Visits | MixedVisits, batch: int, steps: int) -> list[np.ndarray]:
    return [visits.batch_rows(batch, 0, step)[0] for step in range(steps)]


def test_a_share_of_each_batch_is_generated_and_each_kind_has_its_epochs() -> None:
    visits = mixed(Mixing(share=0.25), SETS, KINDS, 100)
    found = np.stack(rows_of(visits, 16, 20))
    assert (found[:, :12] < REAL).all()
    assert (found[:, 12:] >= REAL).all()
    assert np.bincount(found[:, :12].ravel()).tolist() == [4] * REAL  # 20 x 12 = 4 epochs
    assert np.bincount(found[:, 12:].ravel() - REAL, minlength=MADE).max() == 1
    places = [visits.batch_rows(16, 0, step)[1] for step in range(3)]
    assert np.concatenate(places).tolist() == list(range(48))


def test_which_source_is_real_does_not_matter() -> None:
    swapped = mixed(Mixing(share=0.25), Visits((MADE, REAL), (1.0, 1.0)), (True, False), 100)
    for rows in rows_of(swapped, 16, 5):
        assert (rows[:12] >= MADE).all()
        assert (rows[12:] < MADE).all()


def test_the_last_steps_see_real_images_alone() -> None:
    visits = mixed(Mixing(real_last=0.3), SETS, KINDS, 10)
    found = rows_of(visits, 20, 10)
    for step in range(7):  # as without
        assert np.array_equal(found[step], batch_rows(SETS, 20, 0, step)[0])
    assert np.bincount(np.concatenate(found[7:])).tolist() == [1] * REAL
    assert visits.batch_rows(20, 0, 8)[1].tolist() == list(range(160, 180))


def test_generated_images_first_then_real_ones_alone() -> None:
    visits = mixed(Mixing(share=1, real_last=0.5), SETS, KINDS, 10)
    found = rows_of(visits, 20, 10)
    assert all((rows >= REAL).all() for rows in found[:5])
    assert all((rows < REAL).all() for rows in found[5:])


@pytest.mark.parametrize("generated", [(False, False), (True, True)])
def test_sets_of_one_kind_are_visited_as_ever(generated: tuple[bool, ...]) -> None:
    assert mixed(Mixing(share=0.5), SETS, generated, 10) is SETS
    assert mixed(Mixing(), SETS, KINDS, 10) is SETS


def test_a_protocol_names_mixing_only_where_it_is_used() -> None:
    assert "mixing" not in RECIPE.protocol()
    assert changed(mixing=HALVES).protocol()["mixing"]["batch_norm"] == "separate"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mixing": {"batch_norm": "separate"}}, "goes with share = 0.5"),
        ({"mixing": {"batch_norm": "separate", "share": 0.5, "real_last": 0.1}}, "share = 0.5"),
        ({"mixing": {"share": 0.001}}, "is no image, or all"),
        ({"mixing": {"share": 1.0}}, "leaves real images out"),
        ({"mixing": HALVES, "micro_batch": 2}, "takes halves of a batch apart"),
        ({"mixing": HALVES, "augmentation": {"mixup": 0.2}}, "takes halves of a batch apart"),
    ],
)
def test_mixings_that_cannot_be_are_refused(settings: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        type(RECIPE).model_validate(RECIPE.model_dump() | settings)


def test_norms_apart_need_a_network_that_has_some_and_halves_to_share() -> None:
    recipe = changed(mixing=HALVES)
    with pytest.raises(UserError, match="has no batch normalisation"):
        with_auxiliary(nn.Linear(3, 3), 1, recipe)
    with pytest.raises(UserError, match="do not divide over 3 processes"):
        with_auxiliary(build_model(recipe, 4), 3, recipe)


def test_the_trained_network_has_the_statistics_of_real_images_alone() -> None:
    """At a rate of nearly nothing the first norm's running mean is that of what it saw."""
    real, made = make_images(10, 0), make_images(20, 1)
    made.images[:] = 255 - made.images // 4
    data = join_images([real, made])
    visits = Visits((len(real), len(made)), (1.0, 1.0))
    settings = {"learning_rate": 1e-9, "weight_decay": 0.0, "warmup": 0.0, "mixing": HALVES}
    recipe = changed(**settings)
    course = mixed(recipe.mixing, visits, KINDS, 30)
    apart = train(recipe, data, 3, 30, visits=course)
    alone = train(changed(**settings), real, 3, 30)
    pooled = train(changed(learning_rate=1e-9), data, 3, 30, visits=visits)
    means = [
        next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).running_mean
        for model in (apart, alone, pooled)
    ]
    spread = (means[2] - means[1]).abs().max()
    assert (means[0] - means[1]).abs().max() < 0.2 * spread
    assert not any("aux_bn" in name for name in apart.state_dict())
    assert [type(m) for m in apart.modules()] == [type(m) for m in alone.modules()]


def test_streamed_batches_are_the_resident_ones(tmp_path: Path) -> None:
    folders = [
        write_release(tmp_path / kind, {"train": make_images(per, per)}, kind=kind)
        for kind, per in (("real", 10), ("synthetic", 20))
    ]
    visits = Visits((REAL, MADE), (1.0, 1.0))
    course = mixed(Mixing(share=0.5, real_last=0.5), visits, KINDS, 4)
    recipe = changed(mixing=Mixing(share=0.5, real_last=0.5))
    loaded = join_images([load_images(folder, "16", "train") for folder in folders])
    found = join_images([index_images(folder, "16", "train") for folder in folders])
    resident = ResidentBatches(recipe, loaded, course, 7, CPU)
    streamed = StreamedBatches(recipe, found, course, 7, CPU, range(4), loaders=0)
    for step in range(4):
        (images, labels), (others, same) = resident.batch(step), streamed.batch(step)
        assert torch.equal(images, others)
        assert torch.equal(labels, same)


def test_a_task_knows_which_of_its_sources_are_generated(tmp_path: Path) -> None:
    splits = {"train": make_images(4, 1), "test": make_images(4, 2)}
    real = write_release(tmp_path / "real", splits)
    made = write_release(tmp_path / "made", {"train": make_images(4, 3)}, kind="synthetic")
    task = Task(changed(mixing=HALVES), (str(made), str(real)), str(real))
    assert task.measurement().generated == (True, False)
