"""How Simple Diffusion's networks are told the noise level."""

from torch import Tensor

LOG_SNR_RANGE = 10.0


def told_level(log_snr: Tensor) -> Tensor:
    """Linear in the log-SNR, -10 to 10 as 0 to 1 (appendix B; the range of Salimans & Ho 2022)."""
    return (log_snr + LOG_SNR_RANGE) / (2 * LOG_SNR_RANGE)
