"""What must stay as it is when code only moves: digests of a build's rows, checkpoints, scores.

    python -m tests.golden > tests/golden.json    # only where a change of these is meant

Exact: what a release holds (ids, labels, seeds, decoded pixels), fingerprints, the hash of a
checkpoint. Close: what floating-point arithmetic trained or measured, as processors differ.
"""

import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from builder.planning.checkpoints import locate_checkpoints
from builder.planning.image_seeds import image_seed
from builder.planning.plan import plan_stages
from builder.planning.recipe import load_recipe
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.families.pixel_unet.checkpoint_files import checkpoint_sha256
from release.classes.class_list import load_classes
from release.files.storage import release_path
from release.layout.manifest import read_manifest
from release.results.result import read_result
from tests.command_server import CommandServer
from tests.models.tiny_network import tiny_network
from tests.sets.miniature import make_miniature

EXPECTED = Path(__file__).with_suffix(".json")
RESULTS = ("cas.json", "made-8-train-classifier@classifier.safetensors.json")
DISTANCES = ("fd_test", "fd_train", "kid_test")


def rows_digest(shards: list[Path]) -> str:
    """Of every row but its encoded bytes, whose pixels count: codecs may pack them otherwise."""
    digest = hashlib.sha256()
    for shard in shards:
        for row in pq.read_table(shard).to_pylist():
            image = Image.open(io.BytesIO(row.pop("image")["bytes"]))
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
            digest.update(np.asarray(image.convert("RGB")).tobytes())
    return digest.hexdigest()


def release_facts(folder: Path) -> dict[str, Any]:
    """What a release holds, configuration by configuration, and the identity of each shard."""
    shards = read_manifest(release_path(str(folder))).shards
    return {
        "fingerprints": {shard.path: shard.fingerprint for shard in shards},
        "rows": {
            config: rows_digest([folder / s.path for s in shards if s.config == config])
            for config in sorted({shard.config for shard in shards})
        },
    }


def embedded_facts() -> dict[str, Any]:
    """The plan of the embedded recipe: fingerprints of its stages, seeds of its first images."""
    recipe = load_recipe("fashion-mnist")
    classes = load_classes(recipe.classes)
    hashes = locate_checkpoints(recipe.stages)[1]
    stages = plan_stages(recipe, recipe.stages, classes, hashes)
    seeds = [image_seed(recipe.seed, 16, entry.wnid, 0, 0) for entry in classes]
    return {"fingerprints": [stage.fingerprint for stage in stages], "seeds": seeds}


def exact_facts(miniature: Path) -> dict[str, Any]:
    """The same on every machine."""
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(tiny_network(), Path(folder), torch.float16)
        checkpoint = checkpoint_sha256(Path(folder))
    accuracy, score = (read_result(miniature / "results" / name) for name in RESULTS)
    return {
        "embedded recipe": embedded_facts(),
        "tiny checkpoint": checkpoint,
        "real": release_facts(miniature / "real"),
        "made": release_facts(miniature / "made"),
        "classifier's protocol": accuracy.protocol_sha256,
        "test images": accuracy.values["test_images_sha256"],
        "references": {name: score.values[name]["reference_sha256"] for name in DISTANCES},
    }


def close_facts(miniature: Path) -> dict[str, float]:
    """Equal to within a thousandth: losses of a training, distances in a trained feature space."""
    lines = (miniature / "run/loss.csv").read_text().splitlines()[1:]
    losses = {f"loss {step}": float(loss) for step, loss in (line.split(",") for line in lines)}
    score = read_result(miniature / "results" / RESULTS[1])
    return losses | {name: score.values[name]["value"] for name in DISTANCES}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, CommandServer() as server:
        make_miniature(server, Path(folder))
        miniature = Path(folder)
        facts = {"exact": exact_facts(miniature), "close": close_facts(miniature)}
        print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
