"""OpenAI's checkpoints: the converter against an independent network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import exemplar_source, generator_source
from generation.families.adm.converter import convert_unet
from generation.families.adm.networks import NETWORKS
from generation.families.adm.shapes import Heads
from generation.generator import Exemplars, ImageBatch
from generation.pretrained.source_files import read_tensors
from release.errors import UserError
from tests.generation.families.references.openai_reference import FULL, OpenAIUNet, tiny

# Published: 296M, 554M (Dhariwal & Nichol 2021, table 4 and 10), 312M (their upsampler), 270M in
# the name of IDDPM's file. Accepted: what the independent network of the published settings counts.
MILLIONS = {"adm-64": 296, "adm-256": 554, "adm-upsampler": 312, "iddpm": 273}


def largest_gap(name: str, heads: Heads) -> float:
    theirs = tiny(name)
    ours = convert_unet(theirs.state_dict(), heads, name)
    random = torch.Generator().manual_seed(3)
    side = ours.config.sample_size
    x = torch.randn(2, ours.config.in_channels, side, side, generator=random)
    t, y = torch.tensor([17, 801]), torch.tensor([2, 9])
    with torch.no_grad():
        expected = theirs(x, t, y)
        assert expected.std() > 0.1
        return float((ours(x, t, y).sample - expected).abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_converted_network_is_the_original(name: str) -> None:
    assert largest_gap(name, NETWORKS[name].heads) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_other_heads_or_order_are_another_network(name: str) -> None:
    right = NETWORKS[name].heads
    other_order = Heads(right.count, right.width, not right.legacy)
    other_heads = Heads(width=32) if right.count else Heads(count=4, legacy=right.legacy)
    assert largest_gap(name, other_order) > 1e-3
    assert largest_gap(name, other_heads) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_the_full_size_converts_key_by_key_and_counts_what_was_published(name: str) -> None:
    with torch.device("meta"):
        theirs = OpenAIUNet(**FULL[name])
    ours = convert_unet(theirs.state_dict(), NETWORKS[name].heads, name)
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters())
    assert round(count / 1e6) == MILLIONS[name]


def test_a_key_too_many_or_too_few_is_named() -> None:
    state = tiny("adm-64").state_dict()
    with pytest.raises(UserError, match=r"x\.pt .* it has extra\.weight"):
        convert_unet({**state, "extra.weight": torch.zeros(1)}, NETWORKS["adm-64"].heads, "x.pt")
    del state["middle_block.0.in_layers.2.bias"]
    with pytest.raises(UserError, match=r"lacks mid_block\.resnets\.0\.conv1\.bias"):
        convert_unet(state, NETWORKS["adm-64"].heads, "x.pt")
    with pytest.raises(UserError, match="not a checkpoint of OpenAI's U-Net"):
        convert_unet({"a": torch.zeros(1)}, NETWORKS["adm-64"].heads, "x.pt")


def test_files_are_read_as_weights_alone(tmp_path: Path) -> None:
    state = tiny("iddpm").state_dict()
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    pickle, safe = read_tensors(tmp_path / "a.pt"), read_tensors(tmp_path / "a.safetensors")
    assert pickle.keys() == safe.keys() == state.keys()
    torch.save({"state_dict": {"a": Path("/")}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt holds no state dict"):
        read_tensors(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"c\.pt cannot be read as weights alone"):
        read_tensors(tmp_path / "c.pt")


def test_there_is_no_guidance_without_a_null_class(tmp_path: Path) -> None:
    torch.save(tiny("adm-64").state_dict(), tmp_path / "tiny.pt")
    generator = generator_source("adm-64").load(tmp_path / "tiny.pt", compiled=False)
    with pytest.raises(UserError, match="no null class"):
        generator.sample(ImageBatch([""], [0], [1], None, 16), SamplerConfig(steps=3, guidance=1.5))


def test_base_networks_begin_from_exemplars_and_the_upsampler_takes_none(tmp_path: Path) -> None:
    torch.save(tiny("adm-64").state_dict(), tmp_path / "tiny.pt")
    assert exemplar_source("adm-64").exemplar_channels(tmp_path / "tiny.pt") == 3
    generator = generator_source("adm-64").load(tmp_path / "tiny.pt", compiled=False)
    real = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    other = real.copy()
    other[1] = 255 - other[1]
    settings = SamplerConfig(method="ddim", steps=10)
    found = [
        generator.sample(
            ImageBatch(["", ""], [0, 1], [1, 2], None, 16, Exemplars(x, 0.2)), settings
        )
        for x in (real, other)
    ]
    assert [bool((a == b).all()) for a, b in zip(*found, strict=True)] == [True, False]
    with pytest.raises(UserError, match="adm-upsampler takes no"):
        exemplar_source("adm-upsampler")
