"""Any encoded image as 8-bit RGB: the one rule of views, training and scoring."""

import io
import warnings
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from release.errors import UserError

STARTS_A_PROGRAM = "EPS"  # which Pillow hands to Ghostscript, whatever name the bytes go by
SYNTHETIC_MARK = b"trainedAlgorithmicMedia"  # IPTC's digital source type, in XMP
BACKGROUND = (255, 255, 255)
PIXEL_RULE = (
    "8-bit RGB; turned as EXIF says; transparency laid over white; of 16 bits the upper 8; CMYK as "
    "Pillow converts it, without colour profiles; of an animation the first picture"
)
CONVERTED = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
# Of EXIF that is cut or broken, as some of ImageNet's is, Pillow warns without the image's name.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
TIMES = {"1": 255, "L;2": 85, "L;4": 17}  # white over the greatest value, by Pillow's raw mode
WIDE = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # grey values of 16 bits


@lru_cache
def _readable_formats() -> tuple[str, ...]:
    """All that this Pillow reads by itself."""
    Image.init()
    return tuple(name for name in Image.OPEN if name != STARTS_A_PROGRAM)


def open_image(data: bytes) -> Image.Image:
    """Encoded bytes as an image that is not decoded yet; what Pillow raises it raises."""
    return Image.open(io.BytesIO(data), formats=_readable_formats())


def is_marked_synthetic(image: Image.Image) -> bool:
    """Whether the image, once it is loaded, carries IPTC's mark of synthetic media."""
    xmp = image.info.get("xmp", b"")
    return SYNTHETIC_MARK in (xmp.encode() if isinstance(xmp, str) else xmp)


def decode_rgb(data: bytes, *, real: bool = False) -> Image.Image:
    """Encoded bytes to an image in mode RGB, by PIXEL_RULE; UserError says what is wrong with them.

    An image of more pixels than Pillow's limit (178,956,970) is refused, as load_dataset does.
    real: one that says it was generated is, too.
    """
    try:
        with open_image(data) as image:
            found = as_rgb(image)
            if real and is_marked_synthetic(image):
                raise UserError("carries the mark of synthetic media, and is no real image")
            return found
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:  # whose text has an address of memory in it
        raise UserError("cannot be decoded: it is in no image format that is read here") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"cannot be decoded: {str(error).split(',')[0]}; make it smaller") from None
    except Exception as error:  # each of Pillow's codecs has exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot be decoded: {reason}") from None


def as_rgb(image: Image.Image) -> Image.Image:
    """`image`, not loaded yet, in RGB by PIXEL_RULE; UserError for a mode of no stated range."""
    _scale_clear_colour(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in WIDE:
        image = _upper_bits(image)
    elif image.mode not in CONVERTED:
        raise UserError(
            f"cannot be decoded: no rule says which of its values (mode {image.mode}) are black "
            "and white; save it with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (*BACKGROUND, 255)), over)
    return image.convert("RGB")


def _scale_clear_colour(image: Image.Image) -> None:
    """A PNG's clear colour in the 8 bits of its pixels: Pillow leaves it in those of the file."""
    clear = image.info.get("transparency")
    if clear is None or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return
    raw = image.tile[0][3]
    raw = raw[0] if isinstance(raw, tuple) else raw
    if raw in TIMES:
        image.info["transparency"] = clear * TIMES[raw]
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _upper_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8: what Pillow's readers do with 16-bit colour, 0 and 65,535 to 0 and 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise UserError("cannot be decoded: it has values beyond 16 bits; save it with 8 or 16")
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey
