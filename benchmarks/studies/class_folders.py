"""Some classes of a real release as an image folder SPLIT/CLASS/image, for an import of their own.

    python benchmarks/studies/class_folders.py releases/fashion-mnist-real:32 \\
        benchmarks/studies/unseen.csv runs/unseen --per-class 200

Pixels stay as they are. `build-dataset --real runs/unseen --classes-from …csv` imports it.
"""

import argparse
from pathlib import Path

from PIL import Image

from release.classes.class_list import load_classes
from release.files.storage import release_path, split_release
from release.layout.image_sets import LabelledImages, first_of_each, load_images
from release.layout.manifest import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", help="RELEASE:CONFIG")
    parser.add_argument("classes", help="CSV of the classes to take")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, help="the first by image id, of each split")
    arguments = parser.parse_args()
    name, (config,) = split_release(arguments.release)
    wanted = {entry.wnid for entry in load_classes(arguments.classes)}
    path = release_path(name)
    for split in read_manifest(path).splits()[config]:
        if split not in ("fit", "tuning"):
            found = load_images(path, config, split)
            most = [arguments.per_class or len(found)] * len(found.class_ids)
            write(found.take(first_of_each(found.labels, most)), wanted, arguments.folder / split)


def write(data: LabelledImages, wanted: set[str], folder: Path) -> None:
    """Every image of these classes as PNG, named by its id."""
    for image, label, image_id in zip(data.images, data.labels, data.image_ids, strict=True):
        wnid = data.class_ids[label]
        if wnid in wanted:
            file = folder / wnid / f"{image_id.replace('/', '-')}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)


if __name__ == "__main__":
    main()
