"""The hybrid loss of Nichol & Dhariwal 2021 in float64, written from the paper."""

import numpy as np
from scipy.special import ndtr


def cosine(steps: int) -> np.ndarray:
    """abar of eq. 17, its betas at most 0.999."""
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def linear(steps: int) -> np.ndarray:
    """abar of Ho et al. 2020."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, steps))


def noisy(abar: np.ndarray, x0: np.ndarray, noise: np.ndarray, t: np.ndarray) -> np.ndarray:
    """x_t of float64[N,...] at steps int64[N]."""
    kept = abar[t].reshape(-1, *[1] * (x0.ndim - 1))
    return np.sqrt(kept) * x0 + np.sqrt(1 - kept) * noise


def hybrid_loss(
    abar: np.ndarray,
    x0: np.ndarray,
    noise: np.ndarray,
    t: np.ndarray,
    said: np.ndarray,
    v: np.ndarray,
) -> float:
    """Eq. 14 and 16 of epsilon `said` and `v`: L_vlb in bits a dimension, T times its mean term."""
    terms = [
        _term(abar, step, *rows) for step, *rows in zip(t.tolist(), x0, noise, said, v, strict=True)
    ]
    vlb = len(abar) * np.mean(terms) / np.log(2)
    return float(((noise - said) ** 2).mean() + 0.001 * vlb)


def _posterior(abar: np.ndarray, step: int) -> tuple[float, float]:
    """beta_t and beta~_t, eq. 3."""
    now, before = abar[step], abar[step - 1] if step else 1.0
    beta = 1 - now / before
    return beta, beta * (1 - before) / (1 - now)


def _term(
    abar: np.ndarray,
    step: int,
    x0: np.ndarray,
    noise: np.ndarray,
    said: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """Eq. 4 to 6 in nats, with the variance of eq. 15."""
    now, before = abar[step], abar[step - 1] if step else 1.0
    beta, beta_tilde = _posterior(abar, max(step, 1))  # beta~ is 0 at t = 0: that of t = 1 bounds
    beta = _posterior(abar, step)[0]
    share = (v + 1) / 2
    log_variance = share * np.log(beta) + (1 - share) * np.log(beta_tilde)
    x = np.sqrt(now) * x0 + np.sqrt(1 - now) * noise
    estimate = (x - np.sqrt(1 - now) * said) / np.sqrt(now)
    if step == 0:
        return _decoder(x0, estimate, np.exp(log_variance / 2))
    of_x0 = np.sqrt(before) * beta / (1 - now)
    of_x = np.sqrt(now / before) * (1 - before) / (1 - now)
    apart = (of_x0 * x0 + of_x * x) - (of_x0 * estimate + of_x * x)
    rest = np.exp(np.log(beta_tilde) - log_variance) + apart**2 / np.exp(log_variance)
    return 0.5 * (log_variance - np.log(beta_tilde) - 1 + rest)


def _decoder(x0: np.ndarray, mean: np.ndarray, width: np.ndarray) -> np.ndarray:
    """-log of the mass that a Gaussian gives to an 8-bit level (Ho et al. 2020, eq. 13)."""
    above = np.where(x0 > 0.999, 1, ndtr((x0 + 1 / 255 - mean) / width))
    below = np.where(x0 < -0.999, 0, ndtr((x0 - 1 / 255 - mean) / width))
    return -np.log(np.maximum(above - below, 1e-12))
