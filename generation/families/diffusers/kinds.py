"""The text-to-image pipelines of diffusers that are fine-tuned here by LoRA.

Nothing here imports torch.
"""

from dataclasses import dataclass

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# FLUX.2's blocks of two streams attend with projections for the text as well; those of one stream
# have all projections in one.
JOINT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_qkv_mlp_proj")


@dataclass(frozen=True)
class Kind:
    """component: the network within the pipeline; network: its class of diffusers. targets: the
    layers that get an adapter unless the recipe names others, by the ends of their names. flow: it
    says a velocity, else what its scheduler states."""

    component: str
    network: str
    targets: tuple[str, ...]
    flow: bool


UNET = Kind("unet", "UNet2DConditionModel", ATTENTION, flow=False)
FLUX2 = "Flux2KleinPipeline"
SD = "StableDiffusionPipeline"
SDXL = "StableDiffusionXLPipeline"
KINDS = {
    FLUX2: Kind("transformer", "Flux2Transformer2DModel", (*ATTENTION, *JOINT), flow=True),
    SD: UNET,
    SDXL: UNET,
}
