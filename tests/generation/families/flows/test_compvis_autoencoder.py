"""VA-VAE's layout against its layers in plain functions, from the authors' keys."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generation.pretrained.autoencoder_shapes import VA_VAE
from generation.pretrained.compvis_autoencoder import convert_kl
from release.errors import UserError
from tests.models.tiny_flows import compvis_state, tiny_va_vae

State = dict[str, Tensor]


class Layers:
    """Of Rombach et al. 2022, by the authors' names."""

    def __init__(self, state: State) -> None:
        self.state = {key: tensor.double() for key, tensor in state.items()}

    def conv(self, name: str, x: Tensor, **how: int) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], **how)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.state[f"{name}.{leaf}"] for leaf in ("weight", "bias"))
        return F.group_norm(x, 32, weight, bias, 1e-6)

    def resnet(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), padding=1)
        if f"{name}.nin_shortcut.weight" in self.state:
            x = self.conv(f"{name}.nin_shortcut", x)
        return x + h

    def attention(self, name: str, x: Tensor) -> Tensor:
        seen = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", seen).flatten(2) for part in "qkv")
        weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(-1)
        return x + self.conv(f"{name}.proj_out", (v @ weights.transpose(1, 2)).view_as(x))

    def middle(self, name: str, x: Tensor) -> Tensor:
        x = self.attention(f"{name}.attn_1", self.resnet(f"{name}.block_1", x))
        return self.resnet(f"{name}.block_2", x)

    def decoded(self, z: Tensor) -> Tensor:
        """Of two levels, one block each; the coarser one attends after each, if it does."""
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z), padding=1)
        x = self.middle("decoder.mid", x)
        for block in range(2):
            x = self.resnet(f"decoder.up.1.block.{block}", x)
            if f"decoder.up.1.attn.{block}.q.weight" in self.state:
                x = self.attention(f"decoder.up.1.attn.{block}", x)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.conv("decoder.up.1.upsample.conv", x, padding=1)
        for block in range(2):
            x = self.resnet(f"decoder.up.0.block.{block}", x)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)), padding=1)

    def mean(self, x: Tensor) -> Tensor:
        """Of the posterior."""
        x = self.resnet("encoder.down.0.block.0", self.conv("encoder.conv_in", x, padding=1))
        x = self.conv("encoder.down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.resnet("encoder.down.1.block.0", x)
        x = self.middle("encoder.mid", self.attention("encoder.down.1.attn.0", x))
        x = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", x)), padding=1)
        return self.conv("quant_conv", x).chunk(2, dim=1)[0]


@torch.no_grad()
@pytest.mark.parametrize("decodes", [True, False])
def test_images_and_latents_are_those_of_the_layers(decodes: bool) -> None:
    """decodes: whether the coarsest level attends there, too, as VA-VAE's does and MAR's not."""
    state = compvis_state(tiny_va_vae(decodes=decodes))
    network, layers = convert_kl(state, "tiny").double(), Layers(state)
    torch.manual_seed(3)
    z, image = torch.randn(2, 4, 4, 4).double(), torch.randn(2, 3, 8, 8).double()
    wanted = layers.decoded(z)
    assert float(wanted.std()) > 0.1
    np.testing.assert_allclose(network.decode(z).sample, wanted, atol=1e-5)
    np.testing.assert_allclose(
        network.encode(image).latent_dist.mean, layers.mean(image), atol=1e-5
    )


def test_every_key_is_mapped_and_others_are_named() -> None:
    state = compvis_state(tiny_va_vae())
    again = convert_kl(state, "tiny")
    assert all(torch.equal(t, again.state_dict()[k]) for k, t in tiny_va_vae().state_dict().items())
    for change, words in (
        ({"decoder.up.1.attn.5.q.weight": torch.zeros(1)}, "it has decoder.up.1.attn.5.q.weight"),
        ({"quant_conv.bias": None}, "it lacks quant_conv.bias"),
        ({"encoder.conv_in.weight": None}, "holds no autoencoder of Rombach et al.'s layout"),
    ):
        odd = {key: t for key, t in (state | change).items() if t is not None}
        with pytest.raises(UserError, match=words):
            convert_kl(odd, "VA-VAE.pt")
    with pytest.raises(UserError, match="holds no autoencoder"):
        convert_kl({"a": torch.zeros(1)}, "VA-VAE.pt")


def test_va_vae_has_the_shape_that_plans_count() -> None:
    """Of the levels that its authors' configuration names: 128 channels times 1, 1, 2, 2, 4."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        network = AutoencoderKL(**VA_VAE)
        latents = network.encode(torch.zeros(1, 3, 256, 256)).latent_dist.mean
    assert latents.shape == (1, 32, 16, 16)
    assert network.decoder.conv_in.out_channels == 512
    attending = [len(block.attentions) for block in network.decoder.up_blocks[:1]]
    assert attending == [3]
