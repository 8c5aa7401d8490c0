"""Real and generated images in the batches of one training."""

from dataclasses import dataclass, replace

import numpy as np

from classifiers.recipes.recipe import POOLED, Mixing
from generation.training.data.order import Visits, batch_rows

GENERATED = 1  # what an order is drawn for, kept apart from that of the real images


@dataclass(frozen=True)
class MixedVisits:
    """`visits` of real and generated sources, in the order that `mixing` asks for.

    generated: of each source whether it is. real_from: the step from which batches hold real images
    alone.
    """

    visits: Visits
    generated: tuple[bool, ...]
    mixing: Mixing
    real_from: int

    def __len__(self) -> int:
        return len(self.visits)

    def batch_rows(
        self, batch: int, seed: int, step: int, repeats: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """As Visits.batch_rows; with a share the real images come first in a batch."""
        places = np.arange(step * batch, (step + 1) * batch)
        if step >= self.real_from:
            return batch_rows(self._of(False), batch, seed, step - self.real_from, repeats)[
                0
            ], places
        if self.mixing.share is None:
            return batch_rows(self.visits, batch, seed, step, repeats)
        made = round(self.mixing.share * batch)
        rows = [
            batch_rows(self._of(False), batch - made, seed, step, repeats)[0],
            batch_rows(self._of(True), made, seed + GENERATED, step, repeats)[0],
        ]
        return np.concatenate(rows), places

    def _of(self, generated: bool) -> Visits:
        """Those of one kind alone."""
        pairs = zip(self.visits.weights, self.generated, strict=True)
        weights = tuple(weight if own == generated else 0.0 for weight, own in pairs)
        return replace(self.visits, weights=weights)


def mixed(
    mixing: Mixing, visits: Visits, generated: tuple[bool, ...], steps: int
) -> Visits | MixedVisits:
    """How a training of `steps` visits its sources; one kind alone is visited as ever."""
    if mixing == POOLED or len(set(generated)) < 2:
        return visits
    return MixedVisits(visits, generated, mixing, steps - round(mixing.real_last * steps))
