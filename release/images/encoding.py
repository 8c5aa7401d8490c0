"""Image codecs, and the mark that says an image is synthetic."""

import io

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow
from PIL.PngImagePlugin import PngInfo

# IPTC's digital source type for images made by a trained model; survives in all three formats.
SYNTHETIC_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b"Iptc4xmpExt:DigitalSourceType="
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def encode_image(pixels: np.ndarray, encoding: str, *, synthetic: bool) -> bytes:
    """uint8[H,W,C] to bytes. webp-lossless and png give the same pixels back; jpeg is q95 4:4:4."""
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    xmp = {"xmp": SYNTHETIC_XMP} if synthetic else {}
    if encoding == "webp-lossless":
        image.save(buffer, "WEBP", lossless=True, method=0, quality=0, exact=True, **xmp)
    elif encoding == "jpeg":
        return encode_jpeg(image, 95, "4:4:4", synthetic=synthetic)
    else:
        info = PngInfo()
        if synthetic:
            info.add_itxt("XML:com.adobe.xmp", SYNTHETIC_XMP.decode())
        image.save(buffer, "PNG", compress_level=6, pnginfo=info)
    return buffer.getvalue()


def encode_jpeg(image: Image.Image, quality: int, subsampling: str, *, synthetic: bool) -> bytes:
    """quality: libjpeg's, 1 to 100. subsampling: of the colours, "4:4:4" keeps each pixel's."""
    buffer = io.BytesIO()
    xmp = {"xmp": SYNTHETIC_XMP} if synthetic else {}
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, **xmp)
    return buffer.getvalue()


def jpeg_codec() -> str:
    """What decides the bytes of a resized JPEG here, beside its settings."""
    turbo = features.version_feature("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"
    return f"Pillow {pillow}, {library}"
