"""REPA's files and sampler: SiT's network whose time counts from data, guided at times."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.flow import flow_sample
from generation.diffusion.flow_times import acts_at
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.diffusion_transformer.converter import convert
from generation.families.diffusion_transformer.layout import without_projectors
from generation.families.diffusion_transformer.work import published_plan
from generation.families.dit.sampling import embed_times_as_trained
from generation.generator import ImageBatch
from generation.networks.guided_transformer import GuidedTransformer
from generation.networks.transformer import Transformer
from generation.pretrained.published_flow import from_data
from release.errors import UserError
from tests.models.tiny_models import tiny_dit
from tests.models.tiny_transformers import from_diffusers, repa_state, save_repa

SDE = SamplerConfig(
    method="euler-maruyama", steps=7, guidance=1.8, guidance_interval=(0.0, 0.7), threshold="none"
)
MEANS, STD = (0.7, -0.5), 0.4  # of the conditional and the unconditional target


def test_every_key_is_mapped_and_projectors_are_let_go() -> None:
    state = repa_state()
    network = convert(without_projectors(state), "tiny")
    assert (network.plan.channels, network.plan.out_channels) == (4, 4)
    left = {key for key in state if not key.startswith("projectors.")}
    assert len(network.state_dict()) == len(left) - 1  # the positions follow from the shape


def test_the_blocks_of_the_first_files_count_anew_behind_the_aligned_one() -> None:
    state = repa_state(depth=3)
    first = {
        key.replace("blocks.1.", "decoder_blocks.0.").replace("blocks.2.", "decoder_blocks.1."): t
        for key, t in state.items()
    }
    assert sum(key.startswith("decoder_blocks.") for key in first) == 20
    one, other = (convert(without_projectors(s), "tiny").state_dict() for s in (state, first))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "key", ["projectors.0.1.weight", "projectors.0.extra", "bn.running_mean", "blocks.0.attn.x"]
)
def test_an_unknown_key_is_named(key: str) -> None:
    with pytest.raises(UserError, match=f"it has {key}, which is not known"):
        convert(without_projectors(repa_state() | {key: torch.zeros(1)}), "REPA.pt")


def test_the_full_network_has_the_published_size() -> None:
    """SiT-XL/2's 675 M; four channels less of a last layer than that."""
    with torch.device("meta"):
        network = Transformer(published_plan(256, 4))
    count = sum(p.numel() for p in network.parameters()) + network.positions().numel()
    assert count == 675_129_632 - 16 * (1152 + 1)


@torch.no_grad()
def test_the_network_says_what_diffusers_says_at_the_mirrored_time() -> None:
    torch.manual_seed(1)
    theirs = embed_times_as_trained(tiny_dit(side=8, classes=5, says=4)).double()
    for block in theirs.transformer_blocks:
        block.norm3.eps = 1e-6
    ours = convert(from_diffusers(theirs), "tiny", heads=2).double()
    x, t = torch.randn(3, 4, 8, 8).double(), torch.tensor([0.0, 0.3, 1.0]).double()
    y = torch.tensor([1, 0, 5])
    wanted = -theirs(x, 1 - t, y, return_dict=False)[0]
    np.testing.assert_allclose(from_data(ours)(x, t, y), wanted, atol=1e-5, rtol=1e-5)


def velocity_from_data(x: Tensor, s: Tensor, told: Tensor) -> Tensor:
    """E[eps - x0 | x_s] where x_s = (1 - s) x0 + s eps and x0 is N(MEANS[told], STD^2), exact."""
    s = s.view(-1, 1, 1, 1).double()
    mean = torch.tensor(MEANS, dtype=torch.float64)[told].view(-1, 1, 1, 1)
    variance = ((1 - s) * STD) ** 2 + s**2
    return -mean + (s - (1 - s) * STD**2) / variance * (x - (1 - s) * mean)


def reference_sde(noises: list[float]) -> float:
    """One number along the SDE dx = (u - w s) dt + sqrt(2 w) dW in REPA's time, w = s, in plain
    arithmetic: from 1 to 0.04 with noise, then to 0 without."""
    times = [1 - i * (1 - 0.04) / (SDE.steps - 1) for i in range(SDE.steps)] + [0.0]
    x = noises[0]
    for i, (now, then) in enumerate(pairwise(times)):
        drifts = []
        for mean in MEANS:
            variance = ((1 - now) * STD) ** 2 + now**2
            u = -mean + (now - (1 - now) * STD**2) / variance * (x - (1 - now) * mean)
            score = -(x - (1 - now) * mean) / variance
            drifts.append(u - now * score)
        drift = drifts[0]
        if now <= 0.7:
            drift = drifts[1] + 1.8 * (drifts[0] - drifts[1])
        x = x + (then - now) * drift
        if i < SDE.steps - 1:
            x += math.sqrt(2 * now * (now - then)) * noises[i + 1]
    return x


def test_the_guided_sde_is_that_of_the_paper_in_its_own_time() -> None:
    rng = np.random.default_rng(5)
    noises = rng.standard_normal((SDE.steps, 6))
    guided = GuidedTransformer(
        from_data(velocity_from_data),
        torch.zeros(6, dtype=torch.int64),
        1,
        SDE.guidance,
        torch.float64,
        partial(acts_at, SDE.guidance_interval),
        None,
    )
    rows = iter(noises)
    made = flow_sample(
        lambda x, t: guided(x, t)[0],
        SDE,
        lambda: torch.from_numpy(next(rows).copy()).view(6, 1, 1, 1),
    )
    wanted = [reference_sde(list(column)) for column in noises.T]
    np.testing.assert_allclose(made.ravel(), wanted, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "heun", "euler-maruyama"])
def test_no_pass_is_run_where_guidance_does_not_act(method: str) -> None:
    settings = SamplerConfig(
        method=method, steps=10, guidance=2.0, guidance_interval=(0.2, 0.7), threshold="none"
    )
    asked: list[tuple[float, int]] = []

    def network(x: Tensor, t: Tensor, _: Tensor) -> Tensor:
        asked.append((float(t[0]), len(x)))
        return x

    acts = partial(acts_at, settings.guidance_interval)
    guided = GuidedTransformer(network, torch.tensor([0]), 1, 2.0, torch.float64, acts)
    flow_sample(
        lambda x, t: guided(x, t)[0], settings, lambda: torch.ones(1, 1, 1, 1, dtype=torch.float64)
    )
    assert sum(n for _, n in asked) == settings.network_evaluations
    assert {n for t, n in asked if 0.3 < t < 0.8} == {2}
    assert {n for t, n in asked if t < 0.25 or t > 0.85} == {1}
    always = settings.model_copy(update={"guidance_interval": None})
    assert always.network_evaluations == 2 * len(asked)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guidance": 1.0}, "goes with a guidance other than 1 and a method among euler"),
        ({"method": "native"}, "goes with a guidance other than 1 and a method among euler"),
        ({"guidance_interval": (0.7, 0.7)}, "0.7 is not below 0.7"),
        ({"guidance_interval": (0.0, 1.5)}, "less than or equal to 1"),
    ],
)
def test_intervals_that_cannot_be_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplerConfig.model_validate(SDE.model_dump() | changes)


def test_a_sampler_without_an_interval_is_written_as_before() -> None:
    plain = SDE.model_copy(update={"guidance_interval": None}).model_dump()
    assert "guidance_interval" not in plain
    assert SamplerConfig.model_validate(SDE.model_dump()) == SDE


def test_a_training_file_is_sampled(tmp_path: Path) -> None:
    source = generator_source("repa")
    file = source.locate(str(save_repa(tmp_path / "REPA.pt")))
    generator = source.load(file, compiled=False)
    batch = ImageBatch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], None, 8)
    images = generator.sample(batch, SDE)
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    always = generator.sample(batch, SDE.model_copy(update={"guidance_interval": None}))
    assert (always != images).any()
    with pytest.raises(UserError, match="is sampled by euler, heun, euler-maruyama"):
        generator.sample(batch, SamplerConfig())
    with pytest.raises(UserError, match=r"no file in its authors' layout, .pt or .safetensors"):
        source.locate("somebody/REPA")
