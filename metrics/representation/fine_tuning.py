"""Full fine-tuning: all weights of a network are trained on another set, by the one training loop.

After SimCLR's protocol (Chen et al. 2020, B.8): Nesterov's momentum and a cosine; the learning rate
that is best on held-out training images, then trained anew on all of them. No image is mirrored: a
downstream set may tell left from right.
"""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics.representation.names import STEPS
from metrics.representation.parts import DownstreamSet
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text, write_atomically
from release.results.statistics import share

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from classifiers.recipes.recipe import ClassifierRecipe
    from metrics.features.extractors import Extractor

BATCH = 64
SEED = 0
SETTINGS: dict[str, Any] = {
    "protocol": "fine-tuning-nesterov-cosine",
    "trained": "all weights and a new linear classifier",
    "optimizer": "sgd with Nesterov momentum 0.9, no weight decay",
    "schedule": "cosine after a tenth of warm-up",
    "batch": BATCH,
    "augmentation": "shift by an eighth of the side, reflected",
    "seed": SEED,
    "chosen_on": "tuning",
    "refitted_on": "train",
    "interval": "Wilson, over test images, 95%",
}


@dataclass(frozen=True)
class FineTuning:
    """Optimiser steps of each training, and the learning rates to choose from."""

    steps: int = STEPS
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)

    @property
    def settings(self) -> dict[str, Any]:
        """What two such values share."""
        return SETTINGS | {"steps": self.steps, "rates": list(self.rates)}

    def measure(
        self, downstream: DownstreamSet, extractor: "Extractor", cache: Path
    ) -> dict[str, Any]:
        """Accuracy on the test images of the rate that is best on the tuning images.

        Of an interrupted call trainings that were done stay, in the cache, and the one in hand goes
        on. A rate at which the training diverges is left out; UserError if all do, and for a
        network whose classifier timm cannot exchange.
        """
        attempt = Attempt(downstream, extractor, self, cache / "fine-tuning")
        accuracies = {rate: attempt.accuracy(rate, "fit", "tuning") for rate in self.rates}
        known = {rate: right for rate, right in accuracies.items() if right is not None}
        if not known:
            raise UserError(
                f"fine-tuning {extractor.protocol.extractor} on {downstream.label} diverges at all "
                "of --tuning-rates; give lower ones"
            )
        rate = min(known, key=lambda rate: (-float(known[rate].mean()), rate))
        right = attempt.accuracy(rate, "train", downstream.test.split)
        if right is None:
            raise UserError(f"fine-tuning on all of {downstream.label} diverges at rate {rate:g}")
        return {
            **share(right),
            "rate": rate,
            "tuning_accuracy": float(known[rate].mean()),
            "by_rate": {
                f"{own:g}": None if found is None else float(found.mean())
                for own, found in accuracies.items()
            },
            "train_n": downstream.train_images(cache),
        }


@dataclass(frozen=True)
class Attempt:
    """Trainings of one network on one set. folder: where what they found is kept."""

    downstream: DownstreamSet
    extractor: "Extractor"
    settings: FineTuning
    folder: Path

    def accuracy(self, rate: float, learned: str, tested: str) -> "np.ndarray | None":
        """bool[N]: which images of the split `tested` are right; None where it diverged."""
        import numpy as np

        facts = {
            "protocol": self.extractor.protocol.sha256,
            "images": self.downstream.train.manifest.content_sha256,
            "config": self.downstream.train.config,
            "settings": SETTINGS | {"steps": self.settings.steps},
            "splits": [learned, tested],
            "rate": rate,
        }
        key = sha256_text(canonical_json(facts))
        path = self.folder / f"{key}.json"
        if not path.exists():
            found = self._train(rate, learned, tested, key)
            content = None if found is None else found.tolist()
            write_atomically(path, json.dumps(content).encode())
        right = json.loads(path.read_bytes())
        return None if right is None else np.array(right, bool)

    def _train(self, rate: float, learned: str, tested: str, key: str) -> "np.ndarray | None":
        from classifiers.data.image_data import read_testing
        from classifiers.data.sources import Source
        from classifiers.training.loop import DivergedError, train
        from classifiers.training.predictions import predict
        from classifiers.training.state import StateFile

        recipe = recipe_for(self.extractor, self.settings.steps, rate)
        images = self.downstream.train
        learning, testing = (
            read_testing(
                recipe,
                Source(images.release, images.config, split, images.manifest),
                lambda _: None,
            )
            for split in (learned, tested)
        )
        state = StateFile(self.folder / f"{key}.state", key)
        try:
            model = train(
                recipe,
                learning,
                SEED,
                self.settings.steps,
                network=partial(with_new_classifier, self.extractor, len(learning.class_ids)),
                state=state,
            )
            right = predict(model, recipe, testing).correct(1)
        except DivergedError:
            right = None
        state.path.unlink(missing_ok=True)
        return right


def recipe_for(extractor: "Extractor", steps: int, rate: float) -> "ClassifierRecipe":
    """How the network is trained, and sees images as it does as an extractor."""
    from classifiers.recipes.recipe import ClassifierRecipe
    from metrics.features.networks import GreyNetwork

    protocol = extractor.protocol
    channels = 1 if isinstance(extractor.network, GreyNetwork) else 3
    mean, std = (
        tuple(level / 255 for level in levels[:channels])
        for levels in (protocol.mean, protocol.std)
    )
    return ClassifierRecipe.model_validate(
        {
            "name": "fine-tuning",
            "description": f"{protocol.extractor}, {steps} steps",
            "model": protocol.extractor,
            "resolution": protocol.input_size,
            "channels": channels,
            "mean": mean,
            "std": std,
            "epochs": 1,
            "batch": BATCH,
            "optimizer": "sgd",
            "learning_rate": rate,
            "warmup": 0.1,
            "augmentation": {"shift": protocol.input_size // 8, "border": "reflect"},
        }
    )


def with_new_classifier(extractor: "Extractor", classes: int) -> "nn.Module":
    """A copy of the network with an untrained classifier of so many classes."""
    from metrics.features.networks import EmbeddingNetwork, GreyNetwork, TimmNetwork

    network = extractor.network
    inner = network.network if isinstance(network, GreyNetwork) else network
    if not isinstance(inner, TimmNetwork | EmbeddingNetwork):
        raise UserError(
            f"fine_tuning exchanges the classifier of a timm model or of one that train-classifier "
            f"saved; {extractor.protocol.extractor} is neither"
        )
    model: Any = deepcopy(inner.model)
    model.requires_grad_(True).reset_classifier(classes)
    found: nn.Module = model
    return found
