"""Why a model cannot make images of a size: None where it can, else words to follow its name."""


def from_nothing(parent: int | None) -> str | None:
    """For a model that knows of no parent image."""
    return None if parent is None else "enlarges no images: it must be a first stage"


def from_parents(factor: int, resolution: int, parent: int | None) -> str | None:
    """For a model that enlarges any image by `factor`."""
    if parent is None:
        return "enlarges images: it cannot be a first stage"
    made = factor * parent
    return None if made == resolution else f"makes images of {made} px from ones of {parent} px"


def from_side(side: int, parent: int | None) -> str | None:
    """For a model that enlarges images of `side` px."""
    return None if side == parent else f"enlarges images of {side} px"


def one_size(side: int, resolution: int) -> str | None:
    """For a model whose images are all of `side` px."""
    return None if side == resolution else f"makes images of {side} px"


def multiple_of(step: int, resolution: int) -> str | None:
    """For a model that makes any multiple of `step` px."""
    return f"makes images whose side is a multiple of {step} px" if resolution % step else None
