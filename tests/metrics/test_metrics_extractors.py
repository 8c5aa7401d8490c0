"""Networks and resize rules against the tools whose numbers they are to match."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from cleanfid.resize import build_resizer
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.models.inception import Inception3

from metrics.features.extractors import Extractor, FeatureProtocol, load_extractor
from metrics.features.inception import INPUT_SIZE, InceptionV3, inception_v3
from metrics.features.named_networks import name_networks
from metrics.features.networks import TimmNetwork, dinov2_positions, timm_network
from metrics.features.resize import RESIZE_RULES
from release.errors import UserError


def noise(size: int, n: int = 2) -> np.ndarray:
    """uint8[n,size,size,3], the hardest case for a resize rule."""
    return np.random.default_rng(size).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# ----------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("size", [32, 64, 299, 500])
def test_adm_resizes_as_tensorflow(size):
    images = channels_first(noise(size)).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(images, (299, 299), align_corners=False)
    ours = RESIZE_RULES["adm"](images, 299)
    assert float((ours - theirs).abs().max()) < 1e-4  # of 255


def test_edm2_resizes_as_its_grid_sample():
    """NVIDIA's network shifts an identity grid by 1/W - 1/299 and samples bilinearly."""
    images = channels_first(noise(48)).float()
    theta = torch.eye(2, 3)
    theta[:, 2] += 1 / 48 - 1 / 299
    grid = torch.nn.functional.affine_grid(theta[None], [1, 3, 299, 299], align_corners=False)
    theirs = torch.nn.functional.grid_sample(
        images, grid.expand(2, -1, -1, -1), padding_mode="border", align_corners=False
    )
    assert float((RESIZE_RULES["edm2"](images, 299) - theirs).abs().max()) < 0.05


@pytest.mark.parametrize("size", [32, 256, 500])
def test_clean_resizes_as_clean_fid(size):
    images = noise(size)
    theirs = np.stack([build_resizer("clean")(image) for image in images])
    ours = RESIZE_RULES["clean"](channels_first(images).float(), 299).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours - theirs).max() < 0.01  # of 255: PIL has its weights in float64
    assert (ours.min(), ours.max()) == (0, 255)


def test_resize_rules_differ():
    images = channels_first(noise(32)).float()
    adm, clean, dinov2 = (RESIZE_RULES[rule](images, 224) for rule in ("adm", "clean", "dinov2"))
    assert float((adm - clean).abs().mean()) > 1
    assert float(dinov2.max()) > 255


# ---------------------------------------------------------------------------- Inception


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """Random weights of the published layout, normalisation included."""
    generator = torch.Generator().manual_seed(0)
    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif tensor.is_floating_point():
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("size", [32, 64])
def test_inception_equals_torch_fidelity(inception_weights, size):
    images = noise(size)
    theirs = FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], str(inception_weights)
    )
    middle = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *call: middle.append(call[-1]))
    features, logits = theirs(channels_first(images))
    spatial = middle[0][:, :7].flatten(1)  # "mixed_6/conv:0" of the ADM evaluator, 7 channels
    network = InceptionV3(torch.load(inception_weights, weights_only=True))
    protocol = FeatureProtocol("inception-v3", "", INPUT_SIZE, "adm", (128.0,) * 3, (128.0,) * 3)
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    ours = Extractor(protocol, network, torch.device("cpu"), 2).extract(images)
    assert features.std() > 0.01
    assert ours.features.shape == (2, 2048)
    assert ours.logits.shape == (2, 1008)
    assert ours.spatial.shape == (2, 2023)
    scale = spatial.abs().max()
    assert float((torch.from_numpy(ours.spatial) - spatial).abs().max() / scale) < 1e-4
    scale = features.abs().max()
    assert float((torch.from_numpy(ours.features) - features).abs().max() / scale) < 1e-4
    scale = logits.abs().max()
    assert float((torch.from_numpy(ours.logits) - logits).abs().max() / scale) < 1e-4


def test_other_inception_weights_are_refused(inception_weights):
    with pytest.raises(UserError, match="starts with 6726825d"):
        inception_v3(inception_weights)
    with pytest.raises(UserError, match="no weights at"):
        load_extractor("inception-v3@none.pth")
    with pytest.raises(UserError, match="known: adm, clean, edm2"):
        load_extractor("inception-v3-legacy")


# --------------------------------------------------------------------------------- timm


def test_any_timm_model_with_weights_in_a_file(tmp_path):
    model = timm.create_model("resnet10t", num_classes=1000).eval()
    path = tmp_path / "resnet10t.pth"
    torch.save(model.state_dict(), path)
    extractor = load_extractor(f"timm:resnet10t@{path}", device="cpu", batch=4)
    assert extractor.protocol.extractor == "timm:resnet10t"
    assert str(tmp_path) not in repr(extractor.protocol)
    found = extractor.extract(noise(extractor.protocol.input_size, 3))
    assert found.features.shape == (3, 512)
    pixels = channels_first(noise(extractor.protocol.input_size, 3)).float()
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (extractor.protocol.mean, extractor.protocol.std)
    )
    with torch.inference_mode():
        logits = model((pixels - mean) / std)
    np.testing.assert_allclose(found.logits, logits.numpy(), atol=1e-4)


def test_unknown_timm_models():
    with pytest.raises(UserError, match=r"unknown timm model 'resnet10x'.*resnet10t"):
        load_extractor("timm:resnet10x")


def test_weights_out_of_reach_are_named_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the weights of timm's resnet10t.c3_in1k"):
        load_extractor("timm:resnet10t.c3_in1k")


def test_dinov2_positions_of_the_native_size_barely_move():
    embedding = torch.randn(1, 1 + 37 * 37, 4, generator=torch.Generator().manual_seed(0))
    scaled = dinov2_positions(embedding, 16)
    assert scaled.shape == (1, 1 + 16 * 16, 4)
    assert torch.equal(scaled[:, 0], embedding[:, 0])
    smooth = torch.linspace(0, 1, 37).view(1, 37, 1).expand(37, 37, 1).reshape(1, -1, 1)
    grid = dinov2_positions(torch.cat([torch.zeros(1, 1, 1), smooth], 1), 16)[0, 1:, 0].view(16, 16)
    # source pixel of column i: (i + 0.5) / scale - 0.5
    expected = ((torch.arange(16) + 0.5) / ((16 + 0.1) / 37) - 0.5) / 36
    torch.testing.assert_close(grid[8], expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s"])
def test_a_model_with_two_heads_says_what_timm_says(name):
    model = timm.create_model(name, pretrained=False).eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits, _ = TimmNetwork(model)(images)
        assert torch.allclose(logits, model(images), atol=1e-6)
    assert features.shape == (2, model.num_features)


def test_weights_that_are_none_are_one_line(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"0123456789")
    with pytest.raises(UserError, match=r"timm's resnet18: "):
        timm_network("resnet18", path)


def test_weights_of_a_timm_model_in_a_file_are_no_classifier_of_ours(tmp_path):
    (network,) = name_networks([f"timm:resnet18.a1_in1k@{tmp_path}/model.safetensors"])
    assert network.stem == "timm-resnet18.a1_in1k"
