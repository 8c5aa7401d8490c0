"""A pipeline's network with an adapter of peft, told a prompt by its number."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from generation.families.diffusers.kinds import FLUX2, SD, SDXL
from generation.prompts.prompt_table import PromptTable

ADAPTER = "lora_"  # in the names of the adapter's weights, and of no others
Asked = Callable[[Any, Tensor, Tensor, dict[str, Tensor]], Tensor]


class LoraNetwork(nn.Module):
    """base: diffusers' network, frozen but for its adapter. asked: how it is called.

    A state dict of it is that of the adapter alone; copies share what is frozen.
    """

    base: Any  # whose stubs do not let it be called

    def __init__(self, base: Any, prompts: PromptTable, asked: Asked) -> None:
        super().__init__()
        self.base = base
        self.prompts = prompts
        self._asked = asked
        for name, weight in base.named_parameters():
            weight.requires_grad_(ADAPTER in name)
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_post_hook(_misses_no_frozen)

    def forward(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        """x float[N,C,H,W], as the network sees latents; t [N], the schedule's step or, of a flow,
        the share of noise; prompt int64[N], numbers of the table. Returns float[N,C,H,W]."""
        dtype = self.base.dtype  # of what is frozen
        text = {name: tensor.to(dtype) for name, tensor in self.prompts.rows(prompt).items()}
        return self._asked(self.base, x.to(dtype), t, text)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LoraNetwork":
        from copy import deepcopy

        for name, tensor in (*self.base.named_parameters(), *self.base.named_buffers()):
            if ADAPTER not in name:
                memo[id(tensor)] = tensor
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(deepcopy(self.__dict__, memo))
        return made


def _without_frozen(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    for name in [n for n in state if n.startswith(prefix) and ADAPTER not in n]:
        del state[name]


def _misses_no_frozen(_: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if ADAPTER in name]


def asked_of(pipeline: str, resolution: int) -> Asked:
    """How the network of such a pipeline is called while it makes images of `resolution` px."""
    kinds: dict[str, Asked] = {FLUX2: _flux2, SD: _sd, SDXL: partial(_sdxl, resolution)}
    return kinds[pipeline]


def _sd(unet: Any, x: Tensor, t: Tensor, text: dict[str, Tensor]) -> Tensor:
    return unet(x, t, text["prompt_embeds"], return_dict=False)[0]  # type: ignore[no-any-return]


def _sdxl(resolution: int, unet: Any, x: Tensor, t: Tensor, text: dict[str, Tensor]) -> Tensor:
    """Told, as its pipeline tells it, an image that was of this size and was not cropped."""
    size = [resolution, resolution, 0, 0, resolution, resolution]
    added = {
        "text_embeds": text["pooled_prompt_embeds"],
        "time_ids": torch.tensor([size], dtype=x.dtype, device=x.device).expand(len(x), -1),
    }
    text_alone = text["prompt_embeds"]
    return unet(x, t, text_alone, added_cond_kwargs=added, return_dict=False)[0]  # type: ignore[no-any-return]


def _flux2(transformer: Any, x: Tensor, t: Tensor, text: dict[str, Tensor]) -> Tensor:
    """x: patches, as PatchedLatents has them; each is a token with its place."""
    from diffusers import Flux2KleinPipeline as Pipeline

    embeds = text["prompt_embeds"]
    said = transformer(
        hidden_states=Pipeline._pack_latents(x),
        timestep=t,
        guidance=None,
        encoder_hidden_states=embeds,
        txt_ids=Pipeline._prepare_text_ids(embeds).to(x.device),
        img_ids=Pipeline._prepare_latent_ids(x).to(x.device),
        return_dict=False,
    )[0]
    return said.transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]
