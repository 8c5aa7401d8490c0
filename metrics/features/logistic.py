"""Multinomial logistic regressions on one matrix of features, many at once, by L-BFGS.

The problems differ in their strength and in the weights of the images. They share every product
with the features: one of an n x D matrix with D x (classes · problems), forwards and backwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metrics.features.stopping import USUAL, Stopping

MEMORY = 10  # pairs of steps and gradients' differences that L-BFGS keeps
SEARCHES = 12  # evaluations of a line search at most
CURVATURE = 0.9  # a step is taken where the slope along it has fallen to this share
TOGETHER = 5  # problems at once, the strongest first: the next ones start where these ended
MOST_LOGITS = 1 << 28  # held at once; of very many images fewer problems are solved together


@dataclass(frozen=True)
class Linear:
    """Logits are features @ weight + bias: weight [P,D,K], bias [P,K]; a problem each.

    converged bool[P]: the loss is as near to its least as asked.
    """

    weight: Tensor
    bias: Tensor
    converged: Tensor

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """[N,K] of each problem in turn, for features [N,D]."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield features @ weight + bias


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    classes: int,
    strengths: Tensor,
    weights: Tensor | None = None,
    stopping: Stopping = USUAL,
) -> Linear:
    """Minimise sum_i w_i CE(x_i W + b, y_i) + strength/2 |W|² for each strength.

    features float[n,D]; labels int64[n]; strengths float[P], scikit-learn's 1/C; weights
    float[P,n], by default 1 each. The bias is not penalised. In the precision of the features.
    """
    basis = _Basis.of(features)
    order = strengths.argsort(descending=True, stable=True)
    together = min(TOGETHER, max(1, MOST_LOGITS // (len(features) * classes)))
    start = basis.matrix.new_zeros(basis.matrix.shape[1], classes, 1)
    parts = []
    for some in order.split(together):
        own = None if weights is None else weights[some].T.to(features)
        problems = _Problems(basis, labels, classes, strengths[some].to(features), own)
        parts.append(_minimise(problems, start, stopping))
        start = parts[-1][0][:, :, -1:]
    back = order.argsort()
    found = torch.cat([own for own, _ in parts], dim=2)[:, :, back]
    return basis.linear(found, torch.cat([converged for _, converged in parts])[back])


@dataclass(frozen=True)
class _Basis:
    """Features about their mean, along their principal axes, with a column of ones.

    A rotation leaves |W|² as it is, and makes what all problems share of their Hessian diagonal:
    matrix [n,R+1]; squares [R+1], of the columns' lengths. R = min(n, D): other directions take no
    part, since no image points there.
    """

    matrix: Tensor
    squares: Tensor
    axes: Tensor  # [D,R]
    mean: Tensor  # [D]

    @classmethod
    def of(cls, features: Tensor) -> "_Basis":
        mean = features.mean(dim=0)
        centred = features - mean
        triangle = torch.linalg.qr(centred, mode="r").R
        axes = torch.linalg.svd(triangle, full_matrices=False).Vh.T
        rotated = torch.cat([centred @ axes, centred.new_ones(len(centred), 1)], dim=1)
        return cls(rotated, rotated.square().sum(dim=0), axes, mean)

    def linear(self, found: Tensor, converged: Tensor) -> Linear:
        """Weights of the features themselves, from those [R+1,K,P] of the rotated ones."""
        weight = torch.einsum("dr,rkp->pdk", self.axes, found[:-1])
        bias = found[-1].T - torch.einsum("d,pdk->pk", self.mean, weight)
        return Linear(weight, bias, converged)


class _Problems:
    """Those that are not solved yet. Parameters are [R+1,K,P], logits [n,K,P].

    f = (sum_i w_i CE_i + strength/2 |W|²) / sum_i w_i. The problem is the last index: a softmax
    over the one before it is ten times as fast as over the last.
    """

    def __init__(
        self,
        basis: _Basis,
        labels: Tensor,
        classes: int,
        strengths: Tensor,
        weights: Tensor | None,
    ) -> None:
        self.matrix = basis.matrix
        if weights is None:
            weights = self.matrix.new_ones(len(self.matrix), len(strengths))
        self.share = (weights / weights.sum(dim=0))[:, None]  # [n,1,P]
        self.shape = (self.matrix.shape[1], classes, len(strengths))
        self.pull = self._of_labels(labels)  # it is the same everywhere
        penalty = (strengths / weights.sum(dim=0)).expand(self.matrix.shape[1], -1).clone()
        penalty[-1] = 0
        self.penalty = penalty[:, None]  # [R+1,1,P]
        # of the Hessian where all classes are equally probable
        self.scale = basis.squares[:, None, None] / (len(self.matrix) * classes) + self.penalty
        self.scale = self.scale.clamp_min(torch.finfo(self.scale.dtype).tiny ** 0.5)

    def _of_labels(self, labels: Tensor) -> Tensor:
        """What `back` makes of the labels, one-hot, each image by its share: without that matrix,
        which is many times the features where there are many classes."""
        found = self.matrix.new_zeros(self.shape)
        for problem in range(self.shape[2]):
            weighted = self.matrix * self.share[:, :, problem]
            found[:, :, problem].index_add_(1, labels, weighted.T)
        return found

    def keep(self, which: Tensor) -> None:
        """Only these problems of the present ones."""
        self.share, self.penalty = self.share[:, :, which], self.penalty[:, :, which]
        self.scale, self.pull = self.scale[:, :, which], self.pull[:, :, which]
        self.shape = (*self.shape[:2], int(which.sum()))

    def project(self, parameters: Tensor) -> Tensor:
        """Their logits."""
        return torch.mm(self.matrix, parameters.flatten(1)).view(-1, *self.shape[1:])

    def back(self, logits: Tensor) -> Tensor:
        """Of the parameters, from that of the logits."""
        return torch.mm(self.matrix.T, logits.flatten(1)).view(-1, *self.shape[1:])

    def expected(self, logits: Tensor) -> Tensor:
        """The probabilities, each image by its share."""
        return logits.softmax(dim=1).mul_(self.share)

    def gradient(self, parameters: Tensor, expected: Tensor) -> Tensor:
        """Of f by the parameters."""
        return self.back(expected) - self.pull + self.penalty * parameters

    def search(
        self, parameters: Tensor, logits: Tensor, direction: Tensor, ahead: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[P]: where f's slope along the direction is small, and what is expected there.

        ahead: the direction's own logits. Logits are linear in the step, so no place costs a
        product with the features. f is convex: its slope grows along the direction.
        """
        linear = dot(self.penalty * parameters - self.pull, direction)
        quadratic = dot(self.penalty * direction, direction)
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        low_slope, high_slope = slope.clone(), torch.zeros_like(slope)
        length = torch.ones_like(slope)
        for _ in range(SEARCHES):
            expected = self.expected(torch.addcmul(logits, ahead, length))
            found = dot(expected, ahead) + linear + length * quadratic
            far = found.abs() > CURVATURE * slope.abs()
            if not far.any():
                break
            short = found < 0
            low, low_slope = torch.where(short, length, low), torch.where(short, found, low_slope)
            high = torch.where(short, high, length)
            high_slope = torch.where(short, high_slope, found)
            inside = low + (high - low) * low_slope / (low_slope - high_slope)
            length = torch.where(far, torch.where(high.isinf(), 3 * length, inside), length)
        else:
            expected = self.expected(torch.addcmul(logits, ahead, length))
        return length, expected


def dot(first: Tensor, second: Tensor) -> Tensor:
    """[P], of two [.,K,P]."""
    return (first * second).flatten(0, 1).sum(dim=0)


class _History:
    """What L-BFGS remembers of its last steps (Nocedal & Wright 2006, algorithm 7.4)."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # step, difference, 1/(step·diff)

    def add(self, step: Tensor, difference: Tensor) -> None:
        product = dot(step, difference)
        inverse = torch.where(product > 0, 1 / product, torch.zeros_like(product))
        self.pairs = [*self.pairs, (step, difference, inverse)][-MEMORY:]

    def keep(self, which: Tensor) -> None:
        self.pairs = [(s[:, :, which], y[:, :, which], r[which]) for s, y, r in self.pairs]

    def direction(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """Downhill; scale: of the Hessian's diagonal, up to a factor that the last pair tells."""
        found, taken = gradient.clone(), []
        for step, difference, inverse in reversed(self.pairs):
            taken.append(inverse * dot(step, found))
            found -= taken[-1] * difference
        found /= scale
        if self.pairs:
            _, difference, inverse = self.pairs[-1]
            curvature = dot(difference / scale, difference)
            factor = torch.where(inverse > 0, 1 / (inverse * curvature), torch.ones_like(inverse))
            found *= factor
        for (step, difference, inverse), alpha in zip(self.pairs, reversed(taken), strict=True):
            found += (alpha - inverse * dot(difference, found)) * step
        return -found


def _minimise(problems: _Problems, start: Tensor, stopping: Stopping) -> tuple[Tensor, Tensor]:
    """Parameters [R+1,K,P] and bool[P]: which converged; start: parameters [R+1,K,1]."""
    result = start.expand(problems.shape).clone()
    converged = torch.zeros(problems.shape[2], dtype=torch.bool, device=result.device)
    left = torch.arange(problems.shape[2], device=result.device)
    parameters, logits = result.clone(), problems.project(result)
    gradient = problems.gradient(parameters, problems.expected(logits))
    history = _History()
    for _ in range(stopping.iterations):
        done = dot(gradient, gradient / problems.scale) <= 2 * stopping.excess
        if done.any():
            result[:, :, left[done]], converged[left[done]] = parameters[:, :, done], True
            going = ~done
            left = left[going]
            if not len(left):
                return result, converged
            problems.keep(going)
            history.keep(going)
            parameters, gradient, logits = (t[:, :, going] for t in (parameters, gradient, logits))
        direction = history.direction(gradient, problems.scale)
        ahead = problems.project(direction)
        slope = dot(gradient, direction)
        length, expected = problems.search(parameters, logits, direction, ahead, slope)
        parameters = parameters + length * direction
        logits.addcmul_(ahead, length)
        before, gradient = gradient, problems.gradient(parameters, expected)
        history.add(length * direction, gradient - before)
    result[:, :, left] = parameters
    return result, converged
