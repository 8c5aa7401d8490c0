"""Classifiers of noisy images as trainings name them: noisy-classifier. They make no images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.noisy_classifier.recipe import ClassifierRecipe
from generation.training.data.training_set import TrainingSet

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.denoisers.course import DenoiserCourse
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser


@dataclass(frozen=True)
class ClassifierTrainable(DenoiserTrainable):
    """How `finetune-generator` trains one."""

    def course(
        self,
        recipe: DenoiserRecipe,
        start: str | None,
        images: TrainingSet,
        processes: "PartialState",
    ) -> "DenoiserCourse":
        """The training, whose pictures show what the classifier tells apart."""
        from generation.families.noisy_classifier.course import ClassifierCourse

        whole = super().course(recipe, start, images, processes)
        return ClassifierCourse(whole.family, whole.objective, whole.data)


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.noisy_classifier.network import NoisyClassifier

    return NoisyClassifier(config)


def _loss(_: DenoiserRecipe) -> "Loss":
    from generation.families.noisy_classifier.objective import class_loss

    return class_loss


FAMILY = Family("noisy-classifier", ClassifierRecipe, _network, _loss)
CLASSIFIER = ClassifierTrainable(FAMILY)
