"""The kind of result that says what frozen features are worth, and its values by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from metrics.evaluation import Evaluation, Step
from metrics.representation.few_shot import few_shot, settings_of
from metrics.representation.fine_tuning import FineTuning
from metrics.representation.names import FROZEN, NAMES
from metrics.representation.neighbours import NEIGHBOURS, nearest_neighbours
from metrics.representation.neighbours import SETTINGS as KNN
from metrics.representation.parts import Downstream
from metrics.representation.probe import SETTINGS as PROBE
from metrics.representation.probe import linear_probe
from metrics.scoring.metric import ValueName
from release.errors import UserError, unknown_name

SHOTS = (1, 5, 10)  # whose values have names of their own
REPRESENTATION = Evaluation(
    kind="representation",
    title="What the features are worth elsewhere",
    caption="Top-1 on held-out real images of this data set from frozen features: a network that "
    "learned from other images, and a classifier of its features that learned from this set. "
    "Fine-tuned: all of its weights learned from this set.",
    names={
        "linear_probe": ValueName("Linear probe", better="higher", unit="fraction"),
        "knn": ValueName("k-NN", better="higher", unit="fraction"),
        **{
            f"few_shot_{shots}": ValueName(f"{shots}-shot", better="higher", unit="fraction")
            for shots in SHOTS
        },
        "fine_tuning": ValueName("Fine-tuned", better="higher", unit="fraction"),
    },
)


@dataclass(frozen=True)
class Asked:
    """The evaluations of one command."""

    names: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    tuning: FineTuning = field(default_factory=FineTuning)

    @classmethod
    def of(
        cls, names: str, shots: Sequence[int], seeds: Sequence[int], tuning: FineTuning
    ) -> "Asked":
        """Of a comma-separated list of names, "all" for those of frozen features; UserError for
        an unknown one."""
        wanted = [n.strip() for n in names.split(",") if n.strip()]
        for name in wanted or [names]:
            if name not in (*NAMES, "all"):
                raise unknown_name("evaluation", name, [*NAMES, "all"])
        found = [one for name in wanted for one in (FROZEN if name == "all" else (name,))]
        return cls(tuple(dict.fromkeys(found)), tuple(shots), tuple(seeds), tuning)

    def require_images(self, train_n: int, fewest: int, class_id: str, label: str) -> None:
        """UserError, before features are there, for a set that is too small."""
        if "knn" in self.names and train_n < NEIGHBOURS:
            raise UserError(f"{label} has {train_n} train images; knn votes with {NEIGHBOURS}")
        if "few_shot" in self.names and fewest < max(self.shots):
            raise UserError(
                f"{label} has {fewest} fit images of class {class_id!r}, but --shots asks for "
                f"{max(self.shots)}"
            )

    def steps(
        self,
        features: Callable[[], Downstream],
        fine_tune: Callable[[], dict[str, Any]],
        device: str,
    ) -> dict[str, Step]:
        """By name of the value; `features` and `fine_tune` are called by steps that need them."""
        found: dict[str, Step] = {}
        if "linear_probe" in self.names:
            found["linear_probe"] = Step(lambda: linear_probe(features(), device), PROBE)
        if "knn" in self.names:
            found["knn"] = Step(lambda: nearest_neighbours(features(), device), KNN)
        if "few_shot" in self.names:
            for shots in self.shots:
                found[f"few_shot_{shots}"] = Step(
                    partial(_few_shot, features, shots, self.seeds, device),
                    settings_of(shots, self.seeds),
                )
        if "fine_tuning" in self.names:
            found["fine_tuning"] = Step(fine_tune, self.tuning.settings)
        return found


def _few_shot(
    features: Callable[[], Downstream], shots: int, seeds: Sequence[int], device: str
) -> dict[str, Any]:
    return few_shot(features(), shots, seeds, device)
