"""When a logistic regression counts as fitted; apart from the solver, which needs torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """When a fit ends: by how much the mean loss, in nats, may still fall, and the most iterations.

    By the Hessian where all classes are equally probable: in whatever unit the features are.
    """

    excess: float = 1e-6
    iterations: int = 1000


USUAL = Stopping()
