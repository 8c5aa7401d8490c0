"""What a classifier says of each test image, and the accuracy that follows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from release.files.commit import sha256_bytes, write_atomically
from release.layout.image_sets import LabelledImages
from release.results.statistics import share
from release.streaming.encoded import EncodedImages

if TYPE_CHECKING:
    from torch import nn

    from classifiers.recipes.recipe import ClassifierRecipe

TOP = 5
BATCH = 500


@dataclass(frozen=True)
class Predictions:
    """One row a test image, in the order of the image ids.

    image_ids str[N]; labels int64[N], the true ones; top int32[N,k], the k most probable labels,
    best first, k = min(5, classes); probability float32[N], that of the first.
    """

    image_ids: tuple[str, ...]
    labels: np.ndarray
    top: np.ndarray
    probability: np.ndarray

    def correct(self, k: int) -> np.ndarray:
        """bool[N]: the true label is among the first k."""
        return (self.top[:, :k] == self.labels[:, None]).any(axis=1)  # type: ignore[no-any-return]

    def table(self) -> pa.Table:
        """Columns image_id, label, top5, probability."""
        columns = {
            "image_id": pa.array(self.image_ids, pa.string()),
            "label": pa.array(self.labels, pa.int32()),
            "top5": pa.array(list(self.top), pa.list_(pa.int32())),
            "probability": pa.array(self.probability, pa.float32()),
        }
        return pa.table(columns)

    def write(self, path: Path) -> str:
        """As Parquet; the file's SHA-256."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table(), sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        write_atomically(path, content)
        return sha256_bytes(content)


def predict(
    model: "nn.Module",
    recipe: "ClassifierRecipe",
    data: LabelledImages | EncodedImages,
    loaders: int | None = None,
) -> Predictions:
    """Predictions for `data` as it stands: no augmentation, one view an image.

    loaders: processes that decode what is not in memory, by default one a core. DivergedError
    if the model gives numbers that are not finite.
    """
    import torch

    from classifiers.training.loop import DivergedError
    from classifiers.training.objective import autocast
    from generation.networks.timm_classifier import normalise

    k = min(TOP, len(data.class_ids))
    labels, probability = [], []
    device = next(model.parameters()).device
    for pixels in _pixels(recipe, data, loaders):
        images = normalise(torch.from_numpy(pixels).to(device), recipe)
        with torch.inference_mode(), autocast(recipe, device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
            best = logits.float().softmax(dim=1).topk(k, dim=1)
        if not logits.isfinite().all():
            raise DivergedError(
                f"classifier recipe {recipe.name}: what it says of the test images is not finite, "
                f"so nothing is measured; lower learning_rate = {recipe.learning_rate}"
            )
        labels.append(best.indices.cpu().numpy())
        probability.append(best.values[:, 0].cpu().numpy())
    return Predictions(
        image_ids=data.image_ids,
        labels=data.labels,
        top=np.concatenate(labels).astype(np.int32),
        probability=np.concatenate(probability),
    )


def _pixels(
    recipe: "ClassifierRecipe", data: LabelledImages | EncodedImages, loaders: int | None
) -> Iterator[np.ndarray]:
    """uint8[B,C,H,W], all images in turn."""
    from classifiers.data.batches import views
    from generation.networks.timm_classifier import to_channels

    if isinstance(data, EncodedImages):
        yield from views(recipe, data, BATCH, loaders)
        return
    for start in range(0, len(data), BATCH):
        yield to_channels(data.images[start : start + BATCH], recipe.channels)


def accuracy_values(
    predictions: Predictions, class_ids: Sequence[str], class_names: Sequence[str]
) -> dict[str, Any]:
    """top1, top5 and per_class, as a result holds them.

    No top5 for five classes or fewer, where it is always 1; no entry for a class without images.
    """
    first = predictions.correct(1)
    values: dict[str, Any] = {"top1": share(first)}
    if len(class_ids) > TOP:
        values["top5"] = share(predictions.correct(TOP))
    values["per_class"] = []
    for label, (wnid, name) in enumerate(zip(class_ids, class_names, strict=True)):
        mine = first[predictions.labels == label]
        if len(mine):
            counted = share(mine)
            top1 = counted.pop("value")
            values["per_class"].append({"wnid": wnid, "name": name, "top1": top1, **counted})
    return values
