"""Scikit-learn's digits as an image folder CLASS/image, which `build-dataset --real` imports.

    python benchmarks/studies/digits_folder.py runs/digits

1,797 images of 8 px in 17 grey levels, of the UCI set "Optical Recognition of Handwritten Digits".
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(path)


if __name__ == "__main__":
    main()
