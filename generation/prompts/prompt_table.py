"""Prompts of a training as its frozen text encoder wrote them, told to a network by number."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from release.errors import UserError


class PromptTable:
    """Embeddings of texts, which nothing trains; the null prompt's is the last.

    prompts str[P]; tensors: by name, [P,…], such as tokens [P,L,D]. A copy of a network shares its
    table: T5-XXL's of a thousand classes are 0.6 GB.
    """

    def __init__(self, prompts: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        self.prompts = tuple(prompts)
        self._tensors = dict(tensors)

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

    def rows(self, numbers: Tensor) -> dict[str, Tensor]:
        """Each tensor [N,…] on the device of `numbers`, where the table stays from then on."""
        self._tensors = {name: t.to(numbers.device) for name, t in self._tensors.items()}
        return {name: tensor[numbers] for name, tensor in self._tensors.items()}

    def __deepcopy__(self, _: dict[int, Any]) -> "PromptTable":
        return self
