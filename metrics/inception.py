"""The Inception-v3 of FID: TensorFlow's 2015 graph, in the weights that torch-fidelity publishes.

torchvision's network differs from it in three points: the average pools of its blocks count the
padding, its last block pools by average instead of maximum, and it has 1000 classes for 1008.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, Inception3

from generation.errors import UserError
from metrics.networks import Network, require_hash

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
WEIGHTS_SHA256_START = "6726825d"
INPUT_SIZE = 299

_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class PooledAsTensorFlow(nn.Module):
    """A torchvision block with another pool in its pooling branch, which is its last."""

    def __init__(self, block: Any, pool: "partial[Tensor]"):
        super().__init__()
        self.convolution = block.branch_pool
        block.branch_pool = nn.Identity()  # what torchvision pools is computed and dropped: cheap
        self.block = block
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """float32[N,C,H,W] to float32[N,C',H,W]."""
        branches = self.block._forward(x)[:-1]
        return torch.cat([*branches, self.convolution(self.pool(x))], dim=1)


SPATIAL_CHANNELS = 7  # of mixed_6/conv, 17 by 17: 2023 numbers


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
        for module in network.modules():
            if isinstance(module, BasicConv2d):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()  # type: ignore[assignment]
        for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
            block = getattr(network, f"Mixed_{name}")
            setattr(network, f"Mixed_{name}", PooledAsTensorFlow(block, _average))
        network.Mixed_7c = PooledAsTensorFlow(network.Mixed_7c, _maximum)
        self.classifier = network.fc.weight
        layers = dict(network.named_children())
        del layers["fc"]
        middle = list(layers).index("Mixed_6d") + 1
        self.to_middle = nn.Sequential(*list(layers.values())[:middle])
        self.to_pool = nn.Sequential(*list(layers.values())[middle:], nn.Flatten())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32[N,3,299,299] in -1 … 1 to float32[N,2048], [N,1008] and [N,2023]."""
        middle = self.to_middle(images)
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
