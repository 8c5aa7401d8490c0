"""One rule turns any encoded image into 8-bit RGB, for views, training and scoring alike."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import ExifTags, Image

from release.errors import UserError
from release.images.decoding import as_rgb, decode_rgb
from release.images.views import make_view
from release.layout.image_sets import decode, load_images
from release.streaming.encoded import index_images
from tests.conftest import ROOT
from tests.sets.shapes import SIZE, make_images, write_release

BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\xff\xffcut"
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)
WHITE = (255, 255, 255)


def encoded(image: Image.Image, name: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **settings)
    return buffer.getvalue()


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2)


def half_clear() -> Image.Image:
    """Left half opaque, right half clear over colours that nobody is to see."""
    image = Image.fromarray(COLOURS).convert("RGBA")
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, :8] = 255
    image.putalpha(Image.fromarray(alpha))
    return image


def over_white(pixels: np.ndarray) -> np.ndarray:
    shown = pixels.copy()
    shown[:, 8:] = 255
    return shown


@pytest.mark.parametrize("kind", ["16-bit PNG", "16-bit PGM", "16-bit TIFF, big-endian"])
def test_16_bit_grey_is_scaled_from_its_full_range(kind: str):
    wide = RAMP.astype(np.uint16) * 257 + np.uint16(0)
    if kind == "16-bit PNG":
        data = encoded(Image.fromarray(wide))
    elif kind == "16-bit PGM":
        data = b"P5 16 16 65535\n" + wide.astype(">u2").tobytes()
    else:
        data = encoded(Image.fromarray(wide.astype(">u2")), "TIFF")
    assert np.array_equal(decode(data), grey(RAMP))


def test_a_clear_value_of_16_bit_grey_is_white():
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert decode(encoded(wide, transparency=0))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(wide, transparency=0))[0, 1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "RGBA as WebP", "palette", "one clear colour"])
def test_transparency_is_laid_over_white_and_hides_what_is_below(kind: str):
    image = half_clear()
    expected = over_white(COLOURS)
    if kind == "RGBA":
        data = encoded(image)
    elif kind == "RGBA as WebP":
        data = encoded(image, "WEBP", lossless=True, exact=True)
    elif kind == "LA":
        alpha = image.getchannel("A")
        data = encoded(Image.merge("LA", (Image.fromarray(RAMP), alpha)))
        expected = over_white(grey(RAMP))
    elif kind == "palette":
        palette = Image.fromarray(np.tile(np.repeat([0, 1], 8).astype(np.uint8), (16, 1)), "P")
        palette.putpalette([10, 20, 30, 200, 0, 0])
        data = encoded(palette, transparency=1)
        expected = over_white(np.full((16, 16, 3), (10, 20, 30), np.uint8))
    else:
        pixels = np.full((16, 16, 3), (10, 20, 30), np.uint8)
        pixels[:, 8:] = (200, 0, 0)
        data = encoded(Image.fromarray(pixels), transparency=(200, 0, 0))
        expected = over_white(np.full((16, 16, 3), (10, 20, 30), np.uint8))
    assert np.array_equal(decode(data), expected)


def png(depth: int, colour: int, pixel: bytes, clear: bytes) -> bytes:
    """One pixel; `clear` is the PNG's clear colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, depth, colour, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"tRNS", clear),
        (b"IDAT", compress(b"\0" + pixel)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("depth", "colour", "pixel", "clear", "shown"),
    [
        (16, 2, "1234 5678 9abc", "1234 5678 9abc", WHITE),
        (16, 2, "3400 7800 bc00", "1234 5678 9abc", (0x34, 0x78, 0xBC)),
        (8, 2, "12 34 56", "0012 0034 0056", WHITE),
        (4, 0, "50", "0005", WHITE),
        (4, 0, "50", "0055", (85, 85, 85)),  # its low bits are 5
        (2, 0, "40", "0001", WHITE),
        (2, 0, "40", "0002", (85, 85, 85)),
        (1, 0, "00", "0000", WHITE),
        (1, 0, "00", "0001", (0, 0, 0)),
        (8, 0, "07", "0007", WHITE),
    ],
)
def test_a_clear_colour_is_one_of_the_files_own_depth(
    depth: int, colour: int, pixel: str, clear: str, shown: tuple[int, int, int]
) -> None:
    data = png(depth, colour, bytes.fromhex(pixel), bytes.fromhex(clear))
    assert decode_rgb(data).getpixel((0, 0)) == shown


def test_bytes_for_which_another_program_would_be_started_are_refused() -> None:
    with pytest.raises(UserError, match="it is in no image format that is read here"):
        decode_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_half_transparent_red_is_pink():
    assert decode(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))).tolist() == [
        [[255, 127, 127]]
    ]


def test_cmyk_with_adobes_inverted_inks():
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in data  # Pillow writes the marker, and inverted values, as Photoshop does
    assert np.abs(decode(data).astype(int) - (0, 255, 255)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_load_dataset_does(orientation: int):
    from datasets import Image as ImageFeature

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(Image.fromarray(COLOURS[:10]), exif=exif)
    theirs = ImageFeature().decode_example({"bytes": data, "path": None})
    assert np.array_equal(decode(data), np.asarray(theirs))
    assert decode_rgb(data).size == ((16, 10) if orientation < 5 else (10, 16))


def test_of_broken_exif_nothing_is_said(tmp_path: Path) -> None:
    """In a process of its own: this one turns warnings into errors."""
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(COLOURS), "JPEG", exif=BROKEN_EXIF))
    code = "import sys; from release.images.decoding import decode_rgb; "
    code += "print(decode_rgb(open(sys.argv[1], 'rb').read()).size)"
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("(16, 16)\n", "")


def test_an_opaque_image_keeps_its_pixels():
    assert np.array_equal(decode(encoded(Image.fromarray(COLOURS))), COLOURS)
    assert np.array_equal(decode(encoded(Image.fromarray(RAMP))), grey(RAMP))
    assert decode(encoded(Image.new("1", (2, 2), 1))).min() == 255


def float_tiff() -> bytes:
    return encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF")


def beyond_16_bits() -> bytes:
    return encoded(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)), "TIFF")


def huge_text() -> bytes:
    """A PNG whose compressed text is larger than Pillow allows."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * (1 << 21), zip=True)
    return encoded(Image.fromarray(RAMP), pnginfo=info)


def many_pixels() -> bytes:
    """The header of a BMP of 197 megapixels."""
    header = struct.pack("<IiiHHIIiiII", 40, 14036, 14036, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (float_tiff, r"which of its values \(mode F\) are black and white; save it with 8 or 16"),
        (beyond_16_bits, "values beyond 16 bits"),
        (huge_text, "cannot be decoded: Decompressed data too large"),
        (
            many_pixels,
            r"Image size \(197009296 pixels\) exceeds limit of 178956970 pixels; make it",
        ),
        (lambda: encoded(Image.fromarray(COLOURS))[:60], "cannot be decoded"),
        (lambda: encoded(Image.fromarray(RAMP), "BMP")[:60], "cannot be decoded"),
        (lambda: encoded(Image.fromarray(COLOURS), "AVIF")[:-40], "cannot be decoded"),
        (lambda: encoded(Image.fromarray(COLOURS), "JPEG")[:-40], "cannot be decoded"),
        (lambda: b"", "cannot be decoded"),
        (lambda: b"not an image", "it is in no image format that is read here$"),
    ],
)
def test_what_cannot_be_decoded_says_why(make: Callable[[], bytes], reason: str):
    with pytest.raises(UserError, match=reason):
        decode(make())


def test_views_training_and_scoring_agree(tmp_path):
    """The same odd image by every way in."""
    data = make_images(1, 0)
    wide = np.asarray(Image.fromarray(RAMP).resize((SIZE, SIZE)), np.uint16) * 257
    odd = [encoded(Image.fromarray(wide)), encoded(half_clear().resize((SIZE, SIZE)))]
    images = (odd * 3)[: len(data)]
    release = write_release(tmp_path / "release", {"test": data}, encoded={"test": images})
    scored = load_images(release, str(SIZE), "test").images
    trained = index_images(release, str(SIZE), "test")
    for i, content in enumerate(images):
        with Image.open(io.BytesIO(content)) as image:
            view = make_view(image, SIZE, "center-crop")
            assert np.array_equal(view, np.asarray(as_rgb(image)))
        assert np.array_equal(scored[i], view)
        assert np.array_equal(np.asarray(trained.image(i)), view)
