"""Counter-based random numbers: Philox by its authors' vectors, each image by its place alone."""

import numpy as np
import pytest
import torch
from scipy import stats

from generation.diffusion.random_numbers import WORD, ImageRandom, philox

VECTORS = [  # known answers of Random123 for philox4x32 with 10 rounds: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_is_that_of_its_authors(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
    found = philox((c0, c1, c2, c3), key[1] << 32 | key[0])
    assert tuple(int(word) for word in found) == expected


def draws(rng: ImageRandom) -> list[torch.Tensor]:
    return [
        rng.integers(1000),
        rng.uniform(),
        rng.normal(3, 5, 5),
        rng.normal(2),
        rng.uniform(3),
        rng.kept(0.3, 2, 4, 7),
    ]


def test_an_image_s_numbers_follow_its_place_and_not_who_is_beside_it() -> None:
    whole = draws(ImageRandom(7, 3, torch.arange(12)))
    parts = [draws(ImageRandom(7, 3, torch.arange(12)[own])) for own in ([0, 1, 2], [7], [11, 4])]
    for own, part in zip(([0, 1, 2], [7], [11, 4]), parts, strict=True):
        for found, wanted in zip(part, whole, strict=True):
            assert torch.equal(found, wanted[own])


def test_other_seeds_steps_places_updates_and_draws_give_other_numbers() -> None:
    place = torch.tensor([5])
    kinds = [(1, 2, place, 0), (2, 2, place, 0), (1, 3, place, 0), (1, 2, place + 1, 0)]
    kinds += [(1, 2, place, 1), (1 << 62, 2, place, 0)]
    found = [ImageRandom(*kind).uniform(64) for kind in kinds]
    once = ImageRandom(*kinds[0])
    found += [once.uniform(64), once.uniform(64)]
    assert torch.equal(found[0], found[6])
    for i, one in enumerate(found[:6]):
        for other in [*found[:i], found[7]]:
            assert float((one == other).float().mean()) < 0.05
    layers = [once.kept(0.5, layer, 256) for layer in (0, 1, 0)]
    assert torch.equal(layers[0], layers[2])
    assert 0.2 < float((layers[0] == layers[1]).float().mean()) < 0.8


def test_the_numbers_have_their_distributions() -> None:
    rng = ImageRandom(11, 0, torch.arange(200))
    normal, uniform = rng.normal(1, 31, 33), rng.uniform(500)
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.001
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.001
    assert float(uniform.max()) < 1
    neighbours = normal.flatten(1).numpy()
    assert abs(np.corrcoef(neighbours[:-1].ravel(), neighbours[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(neighbours[:, :-1].ravel(), neighbours[:, 1:].ravel())[0, 1]) < 0.01
    counts = np.bincount(ImageRandom(1, 0, torch.arange(50_000)).integers(10), minlength=10)
    assert stats.chisquare(counts).pvalue > 0.001
    kept = ImageRandom(1, 0, torch.arange(100)).kept(0.1, 0, 1000)
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.004)


def test_dtypes_and_shapes() -> None:
    integers, uniform, normal, pair, three, kept = draws(ImageRandom(1, 1, torch.arange(6)))
    assert (integers.dtype, integers.shape) == (torch.int64, (6,))
    assert (uniform.dtype, uniform.shape, three.shape) == (torch.float32, (6,), (6, 3))
    assert (normal.dtype, normal.shape, pair.shape) == (torch.float32, (6, 3, 5, 5), (6, 2))
    assert (kept.dtype, kept.shape) == (torch.bool, (6, 4, 7))
    assert len(ImageRandom(1, 1, torch.arange(6))) == 6
