"""What full_count.py measures on: a release of millions of tiny images, and folders of as many.

A shard is the bytes of one that the builder wrote, with another number at the end of each image, so
that all images differ; its other columns are those of the first shard, and no command that is
measured reads them, and but for the first shard it lacks the class list. Manifest, markers and
sidecars say what is true of each shard.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builder.builds.finish import finish_release
from builder.planning.image_seeds import image_id
from builder.planning.plan import BuildRequest, StagePlan, plan_blocks, plan_shards, plan_stages
from builder.planning.recipe import Recipe, ShardRecipe, load_recipe
from builder.shards.shard import COLUMNS
from builder.state import SyntheticState, write_state
from metrics.features.extractors import FeatureProtocol
from metrics.features.feature_cache import FeatureCache
from release.classes.class_list import ClassEntry, load_classes
from release.environment import own_environment
from release.images.encoding import encode_image
from release.layout.image_index import as_text
from release.layout.image_places import image_places
from release.layout.manifest import Manifest, ShardRecord
from release.layout.parquet import image_features, table_schema, write_table
from release.layout.shard_commit import marker_name, sidecar_name

SIDE = 16
NUMBER = 8  # bytes at the end of an image
CLASS_LIST = "imagenet-1k"
TEST_PER_CLASS = 10
PROTOCOL = FeatureProtocol("made-up", "0" * 64, SIDE, "none", (0.0,) * 3, (1.0,) * 3)


class Template:
    """A shard's bytes, and copies of it with images of other numbers."""

    def __init__(
        self, classes: Sequence[ClassEntry], rows: int, columns: dict[str, str], *, whole: bool
    ) -> None:
        pixels = np.random.default_rng(0).integers(0, 40, (1, 1, 3), np.uint8)
        image = encode_image(np.tile(pixels, (SIDE, SIDE, 1)), "webp-lossless", synthetic=True)
        values = {"string": "", "bool": False}
        content = {name: [values.get(kind, 0)] * rows for name, kind in columns.items()}
        content |= {"image": [image + bytes(NUMBER)] * rows, "label": [0] * rows}
        sink = pa.BufferOutputStream()
        schema = table_schema(image_features(classes, columns), classes)
        if not whole:  # 1,000 classes take 230 KB, more than all images of a shard
            schema = schema.with_metadata(None)
        write_table(sink, schema, {name: content[name] for name in schema.names})
        self._bytes = np.frombuffer(sink.getvalue(), np.uint8).copy()
        self._offsets, self._sizes = image_places(self._bytes.tobytes(), "parquet")
        ends = (self._offsets + self._sizes)[:, None] + np.arange(-NUMBER, 0)
        self._numbers = ends
        self.rows = rows

    def copy(self, number: int) -> tuple[bytes, list[bytes]]:
        """The bytes of shard `number`, and the SHA-256 of each of its images."""
        first = number * self.rows
        own = np.arange(first, first + self.rows, dtype="<u8").view(np.uint8)
        self._bytes[self._numbers] = own.reshape(-1, NUMBER)
        content = self._bytes.tobytes()
        places = zip(self._offsets.tolist(), self._sizes.tolist(), strict=True)
        return content, [hashlib.sha256(content[o : o + s]).digest() for o, s in places]

    def index(self, ids: Sequence[str], labels: Sequence[int], hashes: list[bytes]) -> pa.Table:
        """What a worker notes of such a shard."""
        return pa.table(
            {
                "image_id": pa.array(ids, pa.large_string()),
                "label": pa.array(labels, pa.int64()),
                "offset": pa.array(self._offsets),
                "size": pa.array(self._sizes, pa.int32()),
                "sha256": pa.array(hashes, pa.binary(32)),
            }
        )


def make_synthetic(release: Path, per_class: int, caches: Sequence[Path] = ()) -> Manifest:
    """All but README, index and manifest, of 1,000 classes; features of all images in `caches`."""
    recipe, classes = _recipe(), load_classes(CLASS_LIST)
    request = BuildRequest(tuple(c.wnid for c in classes), per_class)
    stages = plan_stages(recipe, recipe.stages, classes, ["0" * 64])
    plans = plan_shards(stages, plan_blocks(recipe, classes, [request]))
    rows = plans[0].block.rows
    template = Template(classes, rows, COLUMNS, whole=True)
    records, started = [], time.time()
    features = [FeatureCache(cache, PROTOCOL) for cache in caches]
    for number, plan in enumerate(plans):
        if number == 1:
            template = Template(classes, rows, COLUMNS, whole=False)
        content, hashes = template.copy(number)
        cells = list(plan.block.cells())
        ids = [image_id(recipe.seed, SIDE, entry.wnid, index, 0) for entry, index in cells]
        images = template.index(ids, [entry.label for entry, _ in cells], hashes)
        record = _record(plan.path, plan.fingerprint, content, Counter(e.wnid for e, _ in cells))
        _write_shard(release, record, content, images, started)
        records.append(record)
        for cache in features:
            _write_features(cache.folder, hashes)
    environment = own_environment()
    state = SyntheticState(
        name=recipe.name,
        seed=recipe.seed,
        shard=recipe.shard.model_dump(),
        stages={str(SIDE): stages[0].fingerprint},
        requests=(request,),
        encodings={str(SIDE): stages[0].encoding},
        environments=(environment,),
    )
    write_state(release, state)
    origin = {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "stages": [_stage_facts(stages[0])],
        "requests": [{"classes": list(request.classes), "per_class": per_class}],
        "environments": [{"device": environment.device, "versions": dict(environment.versions)}],
    }
    return Manifest(
        release.name,
        "synthetic",
        recipe.dataset,
        recipe.regime,
        recipe.license,
        classes,
        origin,
        tuple(records),
    )


def make_test(release: Path) -> None:
    """A real release of TEST_PER_CLASS images a class, finished."""
    classes = load_classes(CLASS_LIST)
    labels = [entry.label for _ in range(TEST_PER_CLASS) for entry in classes]
    template = Template(classes, len(labels), {"image_id": "string", "tuning": "bool"}, whole=True)
    content, hashes = template.copy(10**9)
    counts = Counter(classes[label].wnid for label in labels)
    record = _record(f"{SIDE}/test-00000000-0123456789.parquet", "f", content, counts)
    images = template.index([f"test-{i:08d}" for i in range(len(labels))], labels, hashes)
    tuning = pa.array([False] * len(labels))
    _write_shard(release, record, content, images.add_column(2, "tuning", tuning), time.time())
    manifest = Manifest(
        release.name, "real", _recipe().dataset, None, "unknown", classes, {}, (record,)
    )
    finish_release(release, manifest)


def make_folder(folder: Path, images: int) -> None:
    """train/WNID/*.JPEG as ImageNet has them, hard links to a few files."""
    classes = load_classes(CLASS_LIST)
    image = encode_image(np.full((SIDE, SIDE, 3), 90, np.uint8), "jpeg", synthetic=False)
    most, source = 50_000, folder / "links"  # links that a file may have
    source.mkdir(parents=True)
    for number in range(images):
        entry = classes[number % len(classes)]
        if number % most == 0:
            origin = source / f"{number}.bin"
            origin.write_bytes(image)
        place = folder / "set" / "train" / entry.wnid
        if number < len(classes):
            place.mkdir(parents=True)
        os.link(origin, place / f"{entry.wnid}_{number // len(classes)}.JPEG")


def _recipe() -> Recipe:
    base = load_recipe("imagenet-adm-64")
    stage = base.stages[0].model_copy(update={"resolution": SIDE})
    update = {
        "name": "full-count",
        "stages": (stage,),
        "shard": ShardRecipe(classes=10, indices=25),
    }
    return base.model_copy(update=update)


def _stage_facts(stage: StagePlan) -> dict[str, object]:
    return {
        "resolution": stage.recipe.resolution,
        "generator": stage.recipe.generator,
        "checkpoint": stage.recipe.checkpoint,
        "checkpoint_sha256": stage.checkpoint_sha256,
        "sampler": stage.recipe.sampler.model_dump(),
        "encoding": stage.encoding,
        "fingerprint": stage.fingerprint,
    }


def _record(path: str, fingerprint: str, content: bytes, counts: Counter[str]) -> ShardRecord:
    sha256 = hashlib.sha256(content).hexdigest()
    per_class = dict(sorted(counts.items()))
    return ShardRecord(path, counts.total(), len(content), sha256, fingerprint, per_class)


def _write_shard(
    release: Path, record: ShardRecord, content: bytes, images: pa.Table, started: float
) -> None:
    """As markers.py does, without waiting for the disk."""
    environment = own_environment()
    sidecar = {
        "host": "h",
        "started": started,
        "seconds": 1.0,
        "images": {"of": record.sha256, "rows": as_text(images)},
    }
    marker = {
        "shard": asdict(record),
        "device": environment.device,
        "versions": dict(environment.versions),
    }
    files = {
        record.path: content,
        sidecar_name(record.path): json.dumps(sidecar).encode(),
        marker_name(record.path): json.dumps(marker).encode(),
    }
    for name, data in files.items():
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _write_features(folder: Path, hashes: list[bytes]) -> None:
    """As FeatureCache.write does, without waiting for the disk; one number an image."""
    folder.mkdir(parents=True, exist_ok=True)
    column = pa.array(hashes, pa.binary(32))
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(hashes), np.float32)), 1)
    sink = pa.BufferOutputStream()
    table = pa.table({"image_sha256": column, "pixels_sha256": column, "features": values})
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    content = sink.getvalue().to_pybytes()
    name = hashlib.sha256(b"".join(hashes)).hexdigest()[:16]
    (folder / f"{name}.{hashlib.sha256(content).hexdigest()}.parquet").write_bytes(content)
