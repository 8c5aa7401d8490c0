"""A stage of DeepFloyd IF as it is trained: the U-Net, told a prompt by its number."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from release.errors import UserError

NULL_PROMPT = ""  # what caption dropout and the unconditional pass see


class PromptTable:
    """Embeddings of texts, which nothing trains; the null prompt's is the last.

    prompts str[P]; tokens float[P,L,D]. A copy of a network shares its table: T5-XXL's of a
    thousand classes are 0.6 GB.
    """

    def __init__(self, prompts: Sequence[str], tokens: Tensor) -> None:
        self.prompts = tuple(prompts)
        self._tokens = tokens

    @property
    def null(self) -> int:
        """The number of the null prompt."""
        return len(self.prompts) - 1

    def numbers(self, prompts: Sequence[str]) -> Tensor:
        """int64[N]; UserError for a prompt that is not in the table."""
        known = {prompt: i for i, prompt in enumerate(self.prompts)}
        for prompt in prompts:
            if prompt not in known:
                raise UserError(f"prompt {prompt!r} was not embedded for this training")
        return torch.tensor([known[prompt] for prompt in prompts])

    def rows(self, numbers: Tensor) -> Tensor:
        """float[N,L,D] on the device of `numbers`, where the table stays from then on."""
        self._tokens = self._tokens.to(numbers.device)
        return self._tokens[numbers]

    def __deepcopy__(self, _: dict[int, Any]) -> "PromptTable":
        return self


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
        text = self.prompts.rows(prompt).to(x.dtype)
        return self.unet(inputs, t, text, class_labels=level, return_dict=False)[0]  # type: ignore[no-any-return]
