"""Names of classes as a picture can show them: in a font that has their letters, on one line."""

from functools import cache
from pathlib import Path

from PIL import ImageFont

from release.classes.class_list import ClassEntry
from release.commands.terminal import printable

SIZE = 16
WIDEST = 320  # pixels of a name; longer ones end in an ellipsis
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def label_font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""
    return ImageFont.truetype(_font_file(), SIZE)


def shown_name(entry: ClassEntry, font: ImageFont.FreeTypeFont) -> str:
    """The class's name; where the font lacks letters of it its id, and its label where of that."""
    name = printable(" ".join(entry.name.split()))
    words = (name, printable(entry.wnid), f"class {entry.label}")
    text = next(text for text in words if _letters().issuperset(map(ord, text)))
    return shown_text(text, font)


def shown_text(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Of text on one line as much as is not wider than WIDEST."""
    if font.getlength(text) <= WIDEST:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept] + ELLIPSIS) > WIDEST:
        kept = min(kept - 1, int(kept * 0.9))
    return text[:kept].rstrip() + ELLIPSIS


@cache
def _letters() -> frozenset[int]:
    """Code points that the font has a picture of."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


@cache
def _font_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
