"""The priors of VQ-VAE-2: PixelSNAIL (Chen et al. 2018; Razavi et al. 2019, section 3.2).

The codes of an image are drawn one by one, row by row; each follows from those before it and from
what the network is told: its class, and of a bottom prior the top codes.

    p(codes) = prod_i p(code_i | code_1 … code_{i-1}, told)

A convolution is causal by what is cut off of it. Attention looks at all places up to its own. What
is said of a row follows from it and from the rows above, so that a new row takes no new pass over
those: each layer keeps what it saw of them (Above).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.vq_vae_2.recipe import PriorShape


class Above:
    """What each layer saw of the rows above those in the network now; nothing at first.

    Layers ask in the same order in each pass. A pass may be repeated until `down` is called.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._kept: list[Tensor] = []
        self._seen: list[Tensor] = []

    def of(self, x: Tensor, rows: int | None) -> Tensor:
        """The `rows` rows above x float[N,C,h,W], zeros where there are none; None: all there are.
        x is noted as what this layer sees now."""
        place = len(self._seen)
        if place < len(self._kept):
            before = self._kept[place]
        else:
            before = x.new_zeros(*x.shape[:2], rows or 0, x.shape[3])
        both = torch.cat([before, x], dim=2)
        self._seen.append(both if rows is None else both[:, :, both.shape[2] - rows :])
        return before

    def again(self) -> "Above":
        """For another pass over the same rows."""
        self._seen = []
        return self

    def down(self, rows: int) -> None:
        """The rows in the network now are done: those below follow."""
        self._kept, self._seen = self._seen, []
        self.rows += rows


class Before(nn.Module):
    """float[N,before,h,W] => float[N,after,h,W]: of each place what is above and left of it,
    `kernel` // 2 rows and columns far; the place itself is not seen."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.over = nn.Conv2d(before, after, (self.reach, kernel), padding=(0, self.reach))
        self.beside = nn.Conv2d(before, after, (1, self.reach))

    def forward(self, x: Tensor, above: Above) -> Tensor:
        rows = torch.cat([above.of(x, self.reach), x], dim=2)[:, :, :-1]
        columns = F.pad(x, (self.reach, 0))[..., :-1]
        out: Tensor = self.over(rows) + self.beside(columns)
        return out


class UpTo(nn.Module):
    """float[N,before,h,W] => float[N,after,h,W]: the place itself, and (kernel - 1) // 2 rows above
    and columns left of it."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) // 2
        self.convolution = nn.Conv2d(before, after, self.reach + 1)

    def forward(self, x: Tensor, above: Above) -> Tensor:
        rows = torch.cat([above.of(x, self.reach), x], dim=2)
        out: Tensor = self.convolution(F.pad(rows, (self.reach, 0)))
        return out


class Gated(nn.Module):
    """A residual block; what it is told decides how far its gate is open.

    y = conv(elu(x)) + linear(elu(told));  a, b = conv(dropout(elu(y))) + linear(class)
    out = x + a sigmoid(b)
    """

    def __init__(self, shape: PriorShape, *, kernel: int, told: bool) -> None:
        super().__init__()
        self.first = UpTo(shape.hidden, shape.residual, kernel)
        self.told = nn.Conv2d(shape.hidden, shape.residual, 1) if told else None
        self.dropout = nn.Dropout(shape.dropout)
        self.second = UpTo(shape.residual, 2 * shape.hidden, kernel)
        self.of_class = nn.Linear(shape.hidden, 2 * shape.hidden)

    def forward(self, x: Tensor, of_class: Tensor, told: Tensor | None, above: Above) -> Tensor:
        y = self.first(F.elu(x), above)
        if self.told is not None and told is not None:
            y = y + self.told(F.elu(told))
        y = self.second(self.dropout(F.elu(y)), above) + self.of_class(of_class)[:, :, None, None]
        value, gate = y.chunk(2, dim=1)
        out: Tensor = x + value * gate.sigmoid()
        return out


class CausalAttention(nn.Module):
    """x + linear(attention): each place looks at all up to itself; all know where they stand."""

    def __init__(self, hidden: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.query = nn.Conv2d(hidden + 2, hidden, 1)
        self.both = nn.Conv2d(hidden + 2, 2 * hidden, 1)
        self.out = nn.Conv2d(hidden, hidden, 1)

    def forward(self, x: Tensor, above: Above) -> Tensor:
        placed = torch.cat([F.elu(x), self._places(x, above.rows)], dim=1)
        now = self.both(placed)
        all_rows = torch.cat([above.of(now, None), now], dim=2)
        query = self._heads(self.query(placed))
        key, value = (self._heads(part) for part in all_rows.chunk(2, dim=1))
        before = key.shape[2] - query.shape[2]
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=x.device)
        found = F.scaled_dot_product_attention(query, key, value, seen.tril(before))
        flat = found.transpose(2, 3).flatten(1, 2)  # N, heads * width, places
        out: Tensor = x + self.out(flat.unflatten(2, x.shape[2:]))
        return out

    def _heads(self, planes: Tensor) -> Tensor:
        """float[N,heads,places,width]."""
        split: Tensor = planes.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
        return split

    def _places(self, x: Tensor, rows: int) -> Tensor:
        """float[N,2,h,W]: row and column, from -1/2 to 1/2."""
        n, _, height, width = x.shape
        row = torch.arange(rows, rows + height, device=x.device) / self.side - 0.5
        column = torch.arange(width, device=x.device) / self.side - 0.5
        grid = torch.stack(torch.meshgrid(row, column, indexing="ij"))
        return grid.to(x.dtype).expand(n, -1, -1, -1)


class Told(nn.Module):
    """What a bottom prior sees of the top codes: int64[N,h,w] => float[N,hidden,2h,2w]."""

    def __init__(self, shape: PriorShape, codes: int) -> None:
        super().__init__()
        self.codes = nn.Embedding(codes, shape.hidden)
        self.wide = nn.ModuleList(
            nn.Conv2d(shape.hidden, shape.residual, 3, padding=1) for _ in range(shape.told)
        )
        self.back = nn.ModuleList(
            nn.Conv2d(shape.residual, shape.hidden, 3, padding=1) for _ in range(shape.told)
        )

    def forward(self, top: Tensor) -> Tensor:
        x = self.codes(top).permute(0, 3, 1, 2)
        for wide, back in zip(self.wide, self.back, strict=True):
            x = x + back(F.elu(wide(F.elu(x))))
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Prior(nn.Module):
    """On `codes` codes a place, `side` x `side` of them. enlarges: it is told codes of half the
    side."""

    def __init__(
        self, shape: PriorShape, *, codes: int, side: int, classes: int, enlarges: bool
    ) -> None:
        super().__init__()
        self.side = side
        self.codes = nn.Embedding(codes, shape.hidden)
        self.classes = nn.Embedding(classes, shape.hidden)
        self.told = Told(shape, codes) if enlarges else None
        self.enter = Before(shape.hidden, shape.hidden, shape.kernel)
        every = shape.layers // shape.attention if shape.attention else shape.layers + 1
        self.layers = nn.ModuleList()
        for number in range(1, shape.layers + 1):
            self.layers.append(Gated(shape, kernel=shape.kernel, told=enlarges))
            if number % every == 0:
                self.layers.append(CausalAttention(shape.hidden, shape.heads, side))
        self.output = nn.ModuleList(
            Gated(shape, kernel=1, told=enlarges) for _ in range(shape.output)
        )
        self.leave = nn.Conv2d(shape.hidden, codes, 1)

    def forward(
        self,
        codes: Tensor,
        condition: Tensor,
        told: Tensor | None = None,
        above: Above | None = None,
    ) -> Tensor:
        """codes int64[N,h,W], of all rows, or of some with those `above`; condition int64[N]; told:
        the top codes or, of some rows, what `Told` made of them there.

        Returns logits, float[N,codes,h,W]: at each place of the code there, which it has not seen.
        """
        above = above or Above()
        if self.told is not None and told is not None and not told.is_floating_point():
            told = self.told(told)
        of_class = self.classes(condition)
        x = self.enter(self.codes(codes).permute(0, 3, 1, 2), above)
        for layer in (*self.layers, *self.output):
            attends = isinstance(layer, CausalAttention)
            x = layer(x, above) if attends else layer(x, of_class, told, above)
        logits: Tensor = self.leave(F.elu(x))
        return logits


@torch.inference_mode()
def drawn(
    prior: Prior,
    condition: Tensor,
    uniform: Tensor,
    top: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """int64[N,H,W]: codes, each the first whose cumulated probability passes its number.

    uniform float64[N,H,W] in [0, 1). temperature: logits are divided by it.
    """
    n, height, width = uniform.shape
    found = torch.zeros(n, height, width, dtype=torch.int64, device=uniform.device)
    told = None if top is None or prior.told is None else prior.told(top)
    above = Above()
    for row in range(height):
        here = None if told is None else told[:, :, row : row + 1]
        for column in range(width):
            logits = prior(found[:, row : row + 1], condition, here, above.again())
            scores = logits[:, :, 0, column].double() / temperature
            shares = scores.softmax(dim=1).cumsum(dim=1)
            passed = shares <= uniform[:, row, column, None]
            found[:, row, column] = passed.sum(dim=1).clamp(max=shares.shape[1] - 1)
        prior(found[:, row : row + 1], condition, here, above.again())
        above.down(1)
    return found
