"""The Inception-v3 of FID: TensorFlow's 2015 graph, in the weights that torch-fidelity publishes.

torchvision's network differs from it in three points: the average pools of its blocks count the
padding, its last block pools by average instead of maximum, and it has 1000 classes for 1008.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, Inception3

from metrics.features.networks import Network, require_hash
from release.errors import UserError

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
WEIGHTS_SHA256_START = "6726825d"
INPUT_SIZE = 299

SPATIAL_CHANNELS = 7  # of mixed_6/conv, 17 by 17: 2023 numbers
# Images at a time on a CPU, so that activations stay below 32 MB: above, the C library gives their
# memory back after every layer, and a third of the time goes into clearing it again.
STEM_IMAGES, BLOCK_IMAGES = 4, 16


class Branches(nn.ModuleList):
    """What each branch makes of the same input, one after the other along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """float32[N,C,H,W] to float32[N,C',H',W']."""
        return torch.cat([branch(x) for branch in self], dim=1)


class ConvolutionReLU(nn.Module):
    """A convolution with its batch normalisation folded in; `pool` before the ReLU."""

    def __init__(self, layer: BasicConv2d, pool: nn.Module | None = None):
        super().__init__()
        self.convolution = fuse_conv_bn_eval(layer.conv, layer.bn)
        self.pool = pool or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float32[N,C,H,W] to float32[N,C',H',W']."""
        return self.pool(self.convolution(x)).relu_()  # type: ignore[no-any-return]


def _average_branch(layer: BasicConv2d) -> nn.Module:
    """The average of neighbours through a 1x1 convolution: the same averaged after it, cheaper.

    Both are linear, and the average leaves the padding out, so that a bias passes through it.
    """
    return ConvolutionReLU(layer, nn.AvgPool2d(3, 1, 1, count_include_pad=False))


def _maximum_branch(layer: BasicConv2d) -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvolutionReLU(layer))


def _chain(block: Any, *names: str) -> nn.Module:
    return nn.Sequential(*(ConvolutionReLU(getattr(block, name)) for name in names))


def _pair(block: Any, *names: str) -> nn.Module:
    """A chain whose last two layers both read what is before them."""
    ends = Branches(ConvolutionReLU(getattr(block, name)) for name in names[-2:])
    return nn.Sequential(_chain(block, *names[:-2]), ends)


def _block_5(block: Any) -> nn.Module:
    """35 by 35."""
    return Branches(
        [
            _chain(block, "branch1x1"),
            _chain(block, "branch5x5_1", "branch5x5_2"),
            _chain(block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            _average_branch(block.branch_pool),
        ]
    )


def _block_6(block: Any) -> nn.Module:
    """17 by 17."""
    return Branches(
        [
            _chain(block, "branch1x1"),
            _chain(block, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            _chain(block, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            _average_branch(block.branch_pool),
        ]
    )


def _block_7(block: Any, pool_branch: Callable[[BasicConv2d], nn.Module]) -> nn.Module:
    """8 by 8."""
    return Branches(
        [
            _chain(block, "branch1x1"),
            _pair(block, *(f"branch3x3_{end}" for end in ("1", "2a", "2b"))),
            _pair(block, *(f"branch3x3dbl_{end}" for end in ("1", "2", "3a", "3b"))),
            pool_branch(block.branch_pool),
        ]
    )


def _halving_block(block: Any, *chains: Sequence[str]) -> nn.Module:
    """To half the side."""
    return Branches([*(_chain(block, *names) for names in chains), nn.MaxPool2d(3, 2)])


class InceptionV3(Network):
    """pool3 features (D = 2048), logits without the bias (C = 1008) as IS is defined, and sFID's.

    sFID (Nash et al. 2021) as in the ADM evaluator reads mixed_6/conv, the 1x1 branch of the block
    that torchvision calls Mixed_6d: the first channels of that block's output.
    """

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        network.load_state_dict(weights)
        network.eval()
        self.classifier = network.fc.weight
        self.stem = nn.Sequential(
            _chain(network, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
            nn.MaxPool2d(3, 2),
            _chain(network, "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            nn.MaxPool2d(3, 2),
        )
        self.to_middle = nn.Sequential(
            *(_block_5(getattr(network, f"Mixed_5{name}")) for name in "bcd"),
            _halving_block(
                network.Mixed_6a, ["branch3x3"], [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
            ),
            *(_block_6(getattr(network, f"Mixed_6{name}")) for name in "bcd"),
        )
        self.to_pool = nn.Sequential(
            _block_6(network.Mixed_6e),
            _halving_block(
                network.Mixed_7a,
                [f"branch3x3_{i}" for i in (1, 2)],
                [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)],
            ),
            _block_7(network.Mixed_7b, _average_branch),
            _block_7(network.Mixed_7c, _maximum_branch),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32[N,3,299,299] in -1 … 1 to float32[N,2048], [N,1008] and [N,2023]."""
        few = BLOCK_IMAGES if images.device.type == "cpu" else len(images)
        parts = [self._forward_few(part) for part in images.split(few)]
        features, logits, spatial = (torch.cat(matrix) for matrix in zip(*parts, strict=True))
        return features, logits, spatial

    def _forward_few(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        few = STEM_IMAGES if images.device.type == "cpu" else len(images)
        middle = self.to_middle(torch.cat([self.stem(part) for part in images.split(few)]))
        features = self.to_pool(middle)
        spatial = middle[:, :SPATIAL_CHANNELS].flatten(1)
        return features, features @ self.classifier.T, spatial


def inception_v3(path: Path | None) -> tuple[Network, str]:
    """The network and the SHA-256 of its weights; raises UserError if they are not at hand.

    path: None looks where torch-fidelity and torch.hub keep them, else downloads them there.
    """
    where = path or _downloaded()
    if not where.is_file():
        raise UserError(f"{where} does not exist; it would be {WEIGHTS_URL}")
    sha256 = require_hash(where, WEIGHTS_SHA256_START)
    return InceptionV3(torch.load(where, map_location="cpu", weights_only=True)), sha256


def _downloaded() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rsplit("/", 1)[1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(WEIGHTS_URL, str(path), WEIGHTS_SHA256_START)
        except OSError as error:
            raise UserError(
                f"the weights of inception-v3 are not in {path} and cannot be downloaded "
                f"({error}): put {WEIGHTS_URL} there, or give inception-v3@PATH"
            ) from None
    return path
