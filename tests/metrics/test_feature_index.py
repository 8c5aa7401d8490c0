"""Which file of a feature cache holds an image: one index for all its files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import metrics.features.feature_cache
from metrics.features.extractors import FeatureProtocol, Features
from metrics.features.feature_cache import FeatureCache

PROTOCOL = FeatureProtocol("made-up", "0" * 64, 8, "none", (0.0,) * 3, (1.0,) * 3)
ROWS = 4


def hashes(number: int) -> list[bytes]:
    return [hashlib.sha256(f"{number}/{i}".encode()).digest() for i in range(ROWS)]


def write(cache: FeatureCache, number: int) -> None:
    none = np.zeros((ROWS, 0), np.float32)
    features = np.arange(ROWS, dtype=np.float32)[:, None] + 100 * number
    cache.write(hashes(number), hashes(number), Features(features, none, none))


def found(cache: FeatureCache, *numbers: int) -> list[float]:
    wanted = [name for number in numbers for name in reversed(hashes(number))]
    return cache.read(wanted).features[:, 0].tolist()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(metrics.features.feature_cache, "MOST_UNINDEXED", 2)
    cache = FeatureCache(tmp_path, PROTOCOL)
    for number in range(5):
        write(cache, number)
    return tmp_path


def test_a_later_process_reads_only_files_that_are_not_in_the_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FeatureCache(folder, PROTOCOL)
    assert found(first, 4, 0) == [403, 402, 401, 400, 3, 2, 1, 0]
    assert len(list(first.folder.glob("index.*.feather"))) == 1
    write(first, 5)
    read = []
    places_in = metrics.features.feature_cache.places_in
    monkeypatch.setattr(
        metrics.features.feature_cache,
        "places_in",
        lambda n, path: read.append(path) or places_in(n, path),
    )
    later = FeatureCache(folder, PROTOCOL)
    assert found(later, 5, 1) == [503, 502, 501, 500, 103, 102, 101, 100]
    assert len(read) == 1


def test_what_the_index_names_and_is_gone_or_changed_is_missing(folder: Path) -> None:
    first = FeatureCache(folder, PROTOCOL)
    assert not first.missing(hashes(2)).any()
    files = {
        number: next(path for path, _, _ in first._places_of(hashes(number))) for number in (2, 3)
    }
    files[2].unlink()
    content = bytearray(files[3].read_bytes())
    content[40] ^= 1
    files[3].write_bytes(content)
    for cache in (first, FeatureCache(folder, PROTOCOL)):
        assert (
            cache.missing([*hashes(1), *hashes(2), *hashes(3)]).tolist() == [False] * 4 + [True] * 8
        )
    write(first, 2)
    assert found(FeatureCache(folder, PROTOCOL), 2, 4) == [203, 202, 201, 200, 403, 402, 401, 400]


def test_a_cut_index_is_made_again(folder: Path) -> None:
    def indices() -> list[Path]:
        return list(FeatureCache(folder, PROTOCOL).folder.glob("index.*"))

    assert not indices()
    assert found(FeatureCache(folder, PROTOCOL), 0) == [3, 2, 1, 0]
    (path,) = indices()
    path.write_bytes(path.read_bytes()[:-9])
    assert found(FeatureCache(folder, PROTOCOL), 0, 4)[0] == 3
    assert len(indices()) == 1
