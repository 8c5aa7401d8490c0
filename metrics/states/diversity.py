"""Vendi score (Friedman & Dieng 2023): how many different images a set amounts to."""

import numpy as np

from metrics.states.frechet import Moments


def vendi_score(unit: Moments) -> float:
    """exp of the entropy of the eigenvalues of Σxxᵀ/n of unit vectors (cosine kernel): 1 … n.

    They are those of the n·n kernel matrix over n, but for zeros.
    """
    from scipy import linalg

    eigenvalues = linalg.eigvalsh(unit.mean_outer)
    shares = eigenvalues[eigenvalues > 0] / eigenvalues[eigenvalues > 0].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
