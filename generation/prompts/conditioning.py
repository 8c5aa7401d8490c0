"""What a stage's network is told of the image it is to make: its text, its class, or nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from generation.prompts.text_encoder import PromptEmbeddings

# Named in files only where it is not text: what was written before there was a choice stays as is.
Conditioning = Annotated[
    Literal["text", "class", "none"], Field(exclude_if=lambda value: value == "text")
]


def embed_conditions(
    conditioning: Conditioning, prompts: Sequence[str]
) -> tuple["PromptEmbeddings", str | None]:
    """What a new network sees for each of `prompts`, the null one last, and the encoder's name.

    text: a frozen encoder's tokens. class: a class is told by its prompt, and seen as a one-hot
    vector, so the layer that reads it is the embedding the network learns. none: one constant.
    """
    from generation.prompts.text_encoder import MINILM, NULL_PROMPT, encode_prompts

    if conditioning == "text":
        return encode_prompts(prompts), MINILM
    names = tuple(dict.fromkeys(prompts)) if conditioning == "class" else ()
    return _one_hot((*names, NULL_PROMPT)), None


def _one_hot(names: tuple[str, ...]) -> "PromptEmbeddings":
    """A token each, its length that of a vector of unit variance, as new layers expect."""
    import torch

    from generation.prompts.text_encoder import PromptEmbeddings

    count = len(names)
    rows = torch.eye(count) * count**0.5
    return PromptEmbeddings(names, rows[:, None].clone(), torch.ones(count, 1), rows)
