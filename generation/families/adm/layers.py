"""What U-Nets that are trained from nothing have of their authors' code beside shapes."""

from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from generation.networks.blocks import zeroed


def set_dropout(unet: nn.Module, share: float) -> None:
    """In the residual blocks, where OpenAI's networks have it."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.dropout.p = share


def start_as_identity(unet: Any) -> None:
    """As in the authors' code: blocks add nothing at first, and the network says zero."""
    transformers = [part for part in unet.modules() if isinstance(part, Transformer2DModel)]
    within = {inner for part in transformers for inner in part.modules()}
    for part in unet.modules():
        if isinstance(part, ResnetBlock2D):
            zeroed(part.conv2)
        elif isinstance(part, Transformer2DModel):
            zeroed(part.proj_out)
        elif isinstance(part, Attention) and part not in within:
            zeroed(part.to_out[0])
    zeroed(unet.conv_out)
