"""Random numbers of the images of a training, drawn on the device where they are needed.

They are counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a number
is a function of its key and its place, so there is no state to carry from step to step, and no
process draws what belongs to another. Written in operations of torch they are the same integers on
every device.
"""

import math

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by each round
ROUNDS = 10
WORD = 0xFFFFFFFF
DRAWS = 1 << 16  # of one kind of numbers: of an update, or of its dropout layers


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10: four int64 tensors of 32 bits each, of four of such that broadcast together.

    seed: the key, 64 bits.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & WORD, seed >> 32 & WORD
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # modulo 2^64, signed
        high0, high1 = first >> 32 & WORD, second >> 32 & WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, second & WORD, high0 ^ c3 ^ k1, first & WORD
        k0, k1 = k0 + WEYL[0] & WORD, k1 + WEYL[1] & WORD
    return c0, c1, c2, c3


class ImageRandom:
    """Random numbers of the images in a part of a batch, each from its own counter alone.

    seed: of the training. step: counted from 0. places: int64[N], each image's place in the whole
    batch, that of all parts and processes; on the device where numbers are drawn. update: which of
    the step's, where it has several. Two draws give different numbers; the same draws, in the same
    order, give the same.
    """

    def __init__(self, seed: int, step: int, places: Tensor, update: int = 0) -> None:
        self._seed = seed
        self._places = places.view(-1, 1)
        self._step = torch.full((), step, device=places.device)
        self._kind = 2 * DRAWS * update
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def step(self) -> Tensor:
        """int64, on the device: which step they are of."""
        return self._step

    def integers(self, high: int) -> Tensor:
        """int64[N]: 0 to high - 1, all alike in probability to within high / 2^32."""
        return self._words(1, self._next())[:, 0] * high >> 32

    def uniform(self, *shape: int) -> Tensor:
        """float32[N, *shape] in [0, 1)."""
        words = self._words(math.prod(shape), self._next())
        return ((words >> 8).float() * 2**-24).view(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """float32[N, *shape], standard normal (Box & Muller 1958)."""
        count = math.prod(shape)
        a, b, c, d = self._blocks(-(-count // 4), self._next())
        pairs = [_normal_pair(a, b), _normal_pair(c, d)]
        numbers = torch.stack([*pairs[0], *pairs[1]], dim=-1)
        return numbers.flatten(1)[:, :count].reshape(-1, *shape)

    def kept(self, drop: float, layer: int, *shape: int) -> Tensor:
        """bool[N, *shape], False for a share `drop`: what a dropout layer of that number keeps.

        To 1 / 65536. Asked again it is the same.
        """
        count = math.prod(shape)
        words = torch.stack(self._blocks(-(-count // 8), DRAWS + layer), dim=-1)
        halves = torch.stack([words & 0xFFFF, words >> 16], dim=-1)
        kept = halves.flatten(1)[:, :count] >= round(drop * 65536)
        return kept.reshape(-1, *shape)

    def _next(self) -> int:
        self._drawn += 1
        return self._drawn - 1

    def _words(self, count: int, draw: int) -> Tensor:
        """int64[N,count] of 32 bits."""
        blocks = self._blocks(-(-count // 4), draw)
        return torch.stack(blocks, dim=-1).flatten(1)[:, :count]

    def _blocks(self, count: int, draw: int) -> tuple[Tensor, ...]:
        """Four of int64[N,count]."""
        blocks = torch.arange(count, device=self._places.device)
        kind = torch.full((), self._kind + draw, device=self._places.device)
        return philox((blocks, self._places, self._step, kind), self._seed)


def _normal_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of two uniform words each."""
    radius = torch.sqrt(-2 * torch.log((first.float() + 0.5) * 2**-32))
    angle = second.float() * (2 * math.pi * 2**-32)
    return radius * torch.cos(angle), radius * torch.sin(angle)
