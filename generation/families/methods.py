"""Which sampler methods each generator takes. A module of anyone's own is not among them."""

from collections.abc import Mapping

from generation.diffusion.sampler_config import (
    EDM,
    FLOW_METHODS,
    MASKED,
    MEAN_FLOW,
    NEXT_SCALE,
    PIXEL_METHODS,
)

SAMPLED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("adm", "adm-256", "adm-64", "adm-upsampler", "cdm", "iddpm"), PIXEL_METHODS),
    **dict.fromkeys(("deepfloyd-if", "dit", "ldm", "pixel-unet"), PIXEL_METHODS),
    **dict.fromkeys(("rin", "simple-diffusion", "sr3"), PIXEL_METHODS),
    **dict.fromkeys(("jit", "lightning-dit", "rae", "repa", "sit"), FLOW_METHODS),
    **dict.fromkeys(("repa-e", "repa-e-end-to-end"), FLOW_METHODS),
    **dict.fromkeys(("diffusers", "vq-vae-2"), ("native",)),
    "biggan": ("truncation",),
    "edm2": (EDM,),
    "mar": (MASKED,),
    "mean-flow": (MEAN_FLOW,),
    "var": (NEXT_SCALE,),
}
