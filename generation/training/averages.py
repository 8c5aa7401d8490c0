"""How much of a running average stays at each step: less in the first steps, which know little."""


def counted(step: int, decay: float) -> float:
    """(1 + n) / (10 + n) until that is `decay`, as TensorFlow's moving average; n counts from 0."""
    return min(decay, (1 + step) / (10 + step))


def by_power(step: int, decay: float) -> float:
    """1 - n^(-2/3) until that is `decay`, as timm's ModelEmaV3 with use_warmup; n counts from 0."""
    return 0.0 if step <= 1 else min(1 - step ** -(2 / 3), decay)
