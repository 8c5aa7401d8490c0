"""Pictures of the leaderboard's page for docs/comparing.md, taken in headless Chromium.

    leaderboard results --published --out site
    python benchmarks/studies/leaderboard_pictures.py site/index.html --out docs/leaderboard

Needs the development packages (./setup.sh --test) and a Chromium. A picture shows one section, at
1600 or 400 pixels, light or dark, in at most 256 colours; the last line is one JSON object.
"""

import argparse
import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES: tuple[tuple[str, str, str, int, str], ...] = (
    # name, data set, section, width, scheme
    ("ranking", "fashion-mnist", "fashion-mnist-training", 1600, "light"),
    ("phone", "fashion-mnist", "fashion-mnist-training", 400, "dark"),
    ("published", "imagenet-1k", "published", 1600, "dark"),
)
SECTIONS = "section.facet:not([hidden]) section.part"
DRAWN = """[...document.querySelectorAll('.facet:not([hidden]) .chart')]
  .every(chart => chart.querySelector('svg path[aria-roledescription]'))"""
MARGIN = 16
TALLEST = 1800  # pixels of a section that are shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="index.html that leaderboard wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = take_pictures(arguments.page.resolve(), arguments.out)
    print(json.dumps(sizes))


def take_pictures(address: Path, out: Path) -> dict[str, int]:
    """Bytes by name: the pictures above, then one of every section that stands for a report."""
    from playwright.sync_api import sync_playwright

    sizes = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, facet, section, width, scheme in [*PICTURES, *reports(browser, address)]:
            page = opened(browser, address, facet, width, scheme)
            box = page.locator(f"#{section}").bounding_box()
            height = min(box["height"] + 2 * MARGIN, TALLEST)
            clip = {"x": 0, "y": box["y"] - MARGIN, "width": width, "height": height}
            picture = page.screenshot(full_page=True, clip=clip)
            page.close()
            path = out / f"{name}.png"
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            image.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
            sizes[path.name] = path.stat().st_size
        browser.close()
    return sizes


def reports(browser: Any, address: Path) -> list[tuple[str, str, str, int, str]]:
    """Sections of studies, selections and fine-tunings on Fashion-MNIST."""
    page = opened(browser, address, "fashion-mnist", 1600, "light")
    keys = page.locator(SECTIONS).evaluate_all("all => all.map(section => section.id)")
    page.close()
    wanted = [k for k in keys if any(w in k for w in ("-study-", "-selection-", "-finetuning-"))]
    return [(k.removeprefix("fashion-mnist-"), "fashion-mnist", k, 1600, "light") for k in wanted]


def opened(browser: Any, address: Path, facet: str, width: int, scheme: str) -> Any:
    """The page with one data set's charts drawn."""
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page.goto(f"{address.as_uri()}#{facet}")
    page.wait_for_function(DRAWN)
    return page


if __name__ == "__main__":
    main()
