"""Feature extractors: a network, a resize rule and the hash of the weights, under one name.

Two distances can be compared only if all three agree; `FeatureProtocol` says which they were.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from release.errors import UserError, unknown_name
from release.files.commit import canonical_json, sha256_text

if TYPE_CHECKING:
    import torch

    from metrics.features.networks import Network

DEFAULT_EXTRACTOR = "efficientnet-lite0-64"
MOST_BATCH = 65_536  # images: more take no less time, and a typing error takes all memory


@dataclass(frozen=True)
class FeatureProtocol:
    """Everything that decides the features of an image.

    The network's input is (resize(pixels 0 … 255) - mean) / std, float32, `input_size` square.
    """

    extractor: str
    weights_sha256: str
    input_size: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def sha256(self) -> str:
        return sha256_text(canonical_json(asdict(self)))


def require_batch(batch: int) -> None:
    """UserError for one that no network could be given."""
    if batch < 1:
        raise UserError(f"--batch {batch}: give at least 1")
    if batch > MOST_BATCH:
        raise UserError(f"--batch {batch}: give {MOST_BATCH:,} at most")


@dataclass(frozen=True)
class Features:
    """Per image: features float32[N,D], class logits float32[N,C], spatial features float32[N,E].

    C = 0 or E = 0: the network has none.
    """

    features: np.ndarray
    logits: np.ndarray
    spatial: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Extractor:
    """A network on its device.

    `batch` is fixed and the last one is padded: an image's features then do not depend on how
    many images stand beside it.
    """

    protocol: FeatureProtocol
    network: "Network"
    device: "torch.device"
    batch: int = 64

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Ids of the classes that the logits stand for; None if there are none or unknown."""
        return self.network.classes

    @cached_property
    def sample(self) -> Features:
        """Features of one black image: their widths tell what the network gives."""
        return replace(self, batch=1).extract(np.zeros((1, 32, 32, 3), np.uint8))

    def extract(self, images: np.ndarray) -> Features:
        """uint8[N,H,W,3], all of one size, to their features."""
        parts = [
            self._extract_batch(images[start : start + self.batch])
            for start in range(0, len(images), self.batch)
        ]
        return concatenate(parts)

    def _extract_batch(self, images: np.ndarray) -> Features:
        import torch

        padded = np.zeros((self.batch, *images.shape[1:]), dtype=np.uint8)
        padded[: len(images)] = images
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = self.network(self._prepare(torch.from_numpy(padded)))
        n = len(images)
        features, logits, spatial = (matrix[:n].float().cpu().numpy() for matrix in found)
        return Features(features, logits, spatial)

    def _prepare(self, images: "torch.Tensor") -> "torch.Tensor":
        """uint8[N,H,W,3] to the network's float32[N,3,S,S], channels last."""
        import torch

        from metrics.features.resize import RESIZE_RULES

        pixels = images.to(self.device).permute(0, 3, 1, 2).to(torch.float32)
        resized = RESIZE_RULES[self.protocol.resize](pixels, self.protocol.input_size)
        return ((resized - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    @cached_property
    def _mean(self) -> "torch.Tensor":
        return self._per_channel(self.protocol.mean)

    @cached_property
    def _std(self) -> "torch.Tensor":
        return self._per_channel(self.protocol.std)

    def _per_channel(self, values: tuple[float, float, float]) -> "torch.Tensor":
        import torch

        return torch.tensor(values, device=self.device).view(1, 3, 1, 1)


def concatenate(parts: list[Features]) -> Features:
    """One after the other; `parts` must not be empty."""
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.spatial for part in parts]),
    )


@dataclass(frozen=True)
class ExtractorEntry:
    """How a name is understood: an example of it, what it is, its loader.

    The loader gets the name, what follows the entry's prefix in it, and a weights file or None.
    """

    example: str
    description: str
    load: Callable[[str, str, Path | None], tuple["Network", FeatureProtocol]]


def load_extractor(name: str, device: str = "auto", batch: int = 64) -> Extractor:
    """The extractor NAME or NAME@PATH, with its weights in the file PATH.

    Raises UserError if it is unknown or its weights are not at hand. device: "auto" (a GPU if
    there is one), "cpu" or a torch device name.
    """
    name, _, path = name.partition("@")
    entry, argument = _find_entry(name)
    if path and not Path(path).is_file():
        raise UserError(f"extractor {name!r}: no weights at {path}")
    import torch

    from generation.networks.placement import chosen_device

    device = chosen_device(device)
    network, protocol = entry.load(name, argument, Path(path) if path else None)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    return Extractor(protocol, network.requires_grad_(False), torch.device(device), batch)


def _find_entry(name: str) -> tuple[ExtractorEntry, str]:
    for prefix, entry in EXTRACTORS.items():
        if name == prefix or (prefix.endswith(("-", ":")) and name.startswith(prefix)):
            return entry, name.removeprefix(prefix)
    raise unknown_name("extractor", name, [entry.example for entry in EXTRACTORS.values()])


def _efficientnet(
    name: str, argument: str, weights: Path | None
) -> tuple["Network", FeatureProtocol]:
    if not argument.isdigit() or int(argument) < 32 or int(argument) % 32:
        raise UserError(
            f"extractor {name!r}: the size must be a multiple of 32, as in {DEFAULT_EXTRACTOR}"
        )
    from metrics.features.networks import efficientnet_lite0

    network, sha256 = efficientnet_lite0(weights)
    return network, FeatureProtocol(
        name, sha256, int(argument), "clean", (127.0,) * 3, (128.0,) * 3
    )


def _inception(name: str, argument: str, weights: Path | None) -> tuple["Network", FeatureProtocol]:
    from metrics.features.inception import INPUT_SIZE, inception_v3

    rule = argument or "adm"
    if rule not in ("adm", "clean", "edm2"):
        raise unknown_name("resize rule of inception-v3", rule, ["adm", "clean", "edm2"])
    network, sha256 = inception_v3(weights)
    return network, FeatureProtocol(name, sha256, INPUT_SIZE, rule, (128.0,) * 3, (128.0,) * 3)


def _dinov2(name: str, _: str, weights: Path | None) -> tuple["Network", FeatureProtocol]:
    from metrics.features.networks import dinov2_vitl14

    network, sha256 = dinov2_vitl14(weights)
    return network, FeatureProtocol(name, sha256, 224, "dinov2", IMAGENET_MEAN, IMAGENET_STD)


def _clip(name: str, _: str, weights: Path | None) -> tuple["Network", FeatureProtocol]:
    from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    from metrics.features.networks import clip_vitl14_336

    network, sha256 = clip_vitl14_336(weights)
    mean, std = _grey_levels(OPENAI_CLIP_MEAN), _grey_levels(OPENAI_CLIP_STD)
    return network, FeatureProtocol(name, sha256, 336, "clean", mean, std)


def _timm(name: str, argument: str, weights: Path | None) -> tuple["Network", FeatureProtocol]:
    import timm
    from timm.data.config import resolve_model_data_config

    from metrics.features.networks import timm_network

    if not argument.startswith(LOCAL_DIR) and not timm.is_model(argument):
        close = get_close_matches(argument, timm.list_models(), n=5) or ["resnet50"]
        raise unknown_name("timm model", argument, close)
    network, sha256 = timm_network(argument, weights)
    data = resolve_model_data_config(network.model)
    mean, std = _grey_levels(data["mean"]), _grey_levels(data["std"])
    return network, FeatureProtocol(name, sha256, data["input_size"][1], "clean", mean, std)


def _classifier(name: str, _: str, weights: Path | None) -> tuple["Network", FeatureProtocol]:
    from metrics.features.networks import saved_classifier

    if weights is None:
        raise UserError(f"extractor {name!r}: give the file, classifier@FILE.safetensors")
    network, recipe, sha256 = saved_classifier(weights)
    mean, std = _three(recipe.mean), _three(recipe.std)
    return network, FeatureProtocol(
        f"{name}:{recipe.name}", sha256, recipe.resolution, "clean", mean, std
    )


def _three(shares: Sequence[float]) -> tuple[float, float, float]:
    """Grey levels of three channels; a recipe in grey has one."""
    return _grey_levels(list(shares) * (3 // len(shares)))


def _grey_levels(shares: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (255.0 * share for share in shares)
    return red, green, blue


IMAGENET_MEAN = _grey_levels((0.485, 0.456, 0.406))
IMAGENET_STD = _grey_levels((0.229, 0.224, 0.225))

LOCAL_DIR = "local-dir:"  # timm's own name for a model that it saved in a folder
# A key that ends in "-" or ":" is a prefix.
EXTRACTORS = {
    "efficientnet-lite0-": ExtractorEntry(
        DEFAULT_EXTRACTOR,
        "ImageNet EfficientNet-Lite0 from a PyPI package, no download; ends in the input size",
        _efficientnet,
    ),
    "inception-v3": ExtractorEntry(
        "inception-v3", "FID's network, resized as the ADM evaluator and EDM2 do", _inception
    ),
    "inception-v3-": ExtractorEntry(
        "inception-v3-clean", "FID's network, resized as clean-fid does", _inception
    ),
    "dinov2-vitl14": ExtractorEntry("dinov2-vitl14", "for FD-DINOv2", _dinov2),
    "clip-vitl14-336": ExtractorEntry("clip-vitl14-336", "for CMMD", _clip),
    "classifier": ExtractorEntry(
        "classifier@weights.safetensors",
        "one that train-classifier saved; it knows the classes (agreement)",
        _classifier,
    ),
    "timm:": ExtractorEntry("timm:resnet50.a1_in1k", "any timm model", _timm),
}
