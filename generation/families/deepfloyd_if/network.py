"""A stage of DeepFloyd IF as it is trained: the U-Net, told a prompt by its number."""

from typing import Any

import torch
from torch import Tensor, nn

from generation.prompts.prompt_table import PromptTable

NULL_PROMPT = ""  # what caption dropout and the unconditional pass see
TOKENS = "tokens"  # the name of T5's embeddings in a table


class IFNetwork(nn.Module):
    """unet: diffusers' UNet2DConditionModel. Predicts epsilon and, beside it, its variance."""

    unet: Any  # whose stubs do not let it be called

    def __init__(self, unet: Any, prompts: PromptTable) -> None:
        super().__init__()
        self.unet = unet
        self.prompts = prompts

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        prompt: Tensor,
        parent: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """x float[N,3,H,W]; t int64[N]; prompt int64[N], numbers of the table; parent
        float[N,3,H,W], enlarged and noised to step `level`, int64[N]. Returns float[N,6,H,W].
        """
        inputs = x if parent is None else torch.cat([x, parent], dim=1)
        text = self.prompts.rows(prompt)[TOKENS].to(x.dtype)
        return self.unet(inputs, t, text, class_labels=level, return_dict=False)[0]  # type: ignore[no-any-return]
