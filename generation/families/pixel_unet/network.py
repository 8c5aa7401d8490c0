"""The network of one cascade stage: a diffusers U-Net on pixels, told a text, a class or nothing.

A base stage sees noise and its condition. A super-resolution stage also sees its parent image,
upsampled and concatenated (Saharia et al. 2022, section 2.4), after Gaussian noise of the
augmentation level s has been mixed in, and is told s.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor, nn

from generation.diffusion.sampler_config import Prediction
from generation.diffusion.scaling import unit_variance
from generation.diffusion.schedule import ScheduleConfig
from generation.prompts.conditioning import Conditioning
from generation.prompts.text_encoder import PromptEmbeddings
from generation.training.config import PrecisionName

STAGE_ARGUMENTS = (  # of UNet2DConditionModel, that the stage and its prompts decide
    "sample_size",
    "in_channels",
    "out_channels",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "class_embed_type",
    "projection_class_embeddings_input_dim",
)
AUGMENTATION_EMBEDDING = 64  # sinusoidal features that tell a network the augmentation level


class StageConfig(BaseModel):
    """What a stage's network is and how it was taught to see images.

    patch: side of the pixel blocks the U-Net sees as channels (space to depth).
    low_resolution: side of the parent image, None for a base stage.
    variance: learned, the network says after its prediction, in as many channels, where between
    its bounds the log-variance of DDPM lies (Nichol & Dhariwal 2021, eq. 15).
    residual: the deviation of image less enlarged parent, if that is what is diffused (residual.py
    of generation/diffusion); None: the image is.
    prompts: the conditions it knows, the null one last; of classes, each by its prompt.
    precision: in which it runs on a GPU, that of its training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(ge=1, le=3)] = 1
    patch: Annotated[int, Field(ge=1)] = 1
    low_resolution: int | None = None
    prediction: Prediction = "v"
    variance: Literal["fixed", "learned"] = "fixed"
    residual: Annotated[float, Field(gt=0)] | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    conditioning: Conditioning = "text"
    text_encoder: str | None = None
    prompts: tuple[str, ...]
    precision: Annotated[PrecisionName, Field(exclude_if=lambda value: value == "float32")] = (
        "float32"  # named only where it is another: what was written before stays as it is
    )

    @model_validator(mode="after")
    def _text_has_an_encoder(self) -> Self:
        if (self.conditioning == "text") != (self.text_encoder is not None):
            raise ValueError("text_encoder goes with conditioning = 'text', and only with it")
        return self

    @model_serializer(mode="wrap")
    def _residual_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Named only where set: the file of a stage of before there was a choice stays as it is."""
        content: dict[str, Any] = dump(self)
        if self.residual is None:
            del content["residual"]
        return content

    @property
    def input_channels(self) -> int:
        """Channels the U-Net reads: pixel blocks of the image and of the upsampled parent."""
        images = 1 if self.low_resolution is None else 2
        return images * self.channels * self.patch**2

    @property
    def output_channels(self) -> int:
        """Channels the U-Net writes: pixel blocks of the prediction and of a learned variance."""
        parts = 2 if self.variance == "learned" else 1
        return parts * self.channels * self.patch**2

    @property
    def conditioning_width(self) -> int:
        """Width of the pooled vector added to the time embedding, less the text's own."""
        return 0 if self.low_resolution is None else AUGMENTATION_EMBEDDING


class PixelUNet(nn.Module):
    """A stage's network with its prompts: predicts epsilon, v or x0 at the stage's resolution."""

    unet: Any  # UNet2DConditionModel, whose stubs do not let it be called
    prompt_tokens: Tensor
    prompt_mask: Tensor
    prompt_pooled: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, config: StageConfig, prompts: PromptEmbeddings
    ) -> None:
        super().__init__()
        self.unet = unet
        self.config = config
        self.prompts = prompts
        self.register_buffer("prompt_tokens", prompts.tokens, persistent=False)
        self.register_buffer("prompt_mask", prompts.mask, persistent=False)
        self.register_buffer("prompt_pooled", prompts.pooled, persistent=False)

    @property
    def heeds_tokens(self) -> bool:
        """Whether any block has cross-attention: without, the pooled prompt alone is used."""
        unet = self.unet
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return any(getattr(block, "has_cross_attention", False) for block in blocks)

    def conditions(self, prompts: Sequence[str]) -> Tensor:
        """int64[N], what `forward` takes for images of `prompts`; UserError for one it lacks."""
        if self.config.conditioning == "none":
            return torch.zeros(len(prompts), dtype=torch.int64)
        return self.prompts.indices(prompts)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        prompt: Tensor,
        parent: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """x float[N,C,H,W]; t [N]; prompt int64[N]; parent float[N,C,h,w] as augmented;
        augmentation [N], its table index. Returns float[N,C,H,W], or float[N,2C,H,W] of a
        prediction and v where the variance is learned.
        """
        pooled = self.prompt_pooled[prompt]
        planes = unit_variance(x, self.config.schedule)
        if parent is not None:
            assert augmentation is not None
            planes = torch.cat([planes, upsample(parent, self.config.resolution)], dim=1)
            level = get_timestep_embedding(augmentation, AUGMENTATION_EMBEDDING)
            pooled = torch.cat([pooled, level], dim=1)
        blocks, kind = F.pixel_unshuffle(planes, self.config.patch), self.unet.dtype
        out = self.unet(
            blocks.to(kind),
            t,
            self.prompt_tokens[prompt].to(kind),
            class_labels=pooled.to(kind),
            encoder_attention_mask=self.prompt_mask[prompt],
            return_dict=False,
        )[0]
        return F.pixel_shuffle(out, self.config.patch)


def build_unet(config: StageConfig, prompts: PromptEmbeddings, shape: dict[str, Any]) -> PixelUNet:
    """A new network; `shape` holds UNet2DConditionModel arguments (block types, widths)."""
    width = prompts.pooled.shape[1]
    stage = (
        config.resolution // config.patch,
        config.input_channels,
        config.output_channels,
        width,
        "text_proj",
        "projection",
        width + config.conditioning_width,
    )
    unet = UNet2DConditionModel(**dict(zip(STAGE_ARGUMENTS, stage, strict=True)), **shape)
    return PixelUNet(unet, config, prompts)


def upsample(parent: Tensor, resolution: int) -> Tensor:
    """Bilinear, as the cascades of the paper; [N,C,h,w] to [N,C,resolution,resolution]."""
    size = (resolution, resolution)
    return F.interpolate(parent, size=size, mode="bilinear", align_corners=False)
