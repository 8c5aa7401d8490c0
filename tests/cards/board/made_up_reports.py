"""Reports with made-up numbers: of a study, a sampler sweep and a study of fine-tuning."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FINDING = "4: too many generated images hurt"
ARMS: tuple[tuple[str, str | None, float, str, float], ...] = (
    ("real", None, 0.0, "epochs", 0.0),
    ("generated", "set-a", 1.0, "epochs", -0.06),
    ("real+generated", "set-a", 1.0, "epochs", 0.02),
    ("real+generated", "set-a", 3.0, "epochs", 0.01),
    ("real+generated", "set-a", 9.0, "epochs", -0.01),
    ("real+generated", "set-a", 1.0, "steps", 0.005),
    ("real+generated", "set-a", 3.0, "steps", -0.005),
    ("real-repeated", None, 1.0, "epochs", 0.004),
    ("real-repeated", None, 3.0, "epochs", 0.006),
)


def an_arm(model: str, size: str, real: float, arm: tuple[Any, ...]) -> dict[str, Any]:
    kind, generated, times, budget, gain = arm
    accuracy = {"mean": real + gain, "std": 0.004, "n": 10_000, "interval": [real, real + 0.01]}
    row: dict[str, Any] = {
        "model": model,
        "resolution": 224,
        "size": size,
        "arm": f"{kind}-{generated}-x{times:g}-{budget}" if kind != "real" else "real",
        "kind": kind,
        "generated": generated,
        "regimes": ["B"] if generated else [],
        "times": times,
        "budget": budget,
        "images": round(1000 * (1 + times)),
        "steps": 500,
        "seeds": [0, 1, 2],
        "top1": accuracy,
        "top5": {**accuracy, "mean": 0.99},
        "results": [],
    }
    if kind != "real":
        row["difference"] = {
            "value": gain,
            "by_seed": {},
            "over_seeds": [gain - 0.004, gain + 0.004],
            "over_images": [gain - 0.006, gain + 0.006],
            "over_classes": None,
            "p_seeds": 0.1,
            "n": 10_000,
        }
    return row


def a_study(
    folder: Path,
    *,
    dataset: str = "fixture",
    models: tuple[str, ...] = ("imagenet-resnet50", "made-up-model"),
    classes: int = 20,
) -> Path:
    """report.json of a study; returns its path."""
    rows = [
        an_arm(model, size, real, arm)
        for model in models
        for size, real in (("100", 0.78), ("all", 0.88))
        for arm in ARMS
    ]
    reports = [
        {
            **{key: row[key] for key in ("model", "resolution", "size", "arm")},
            "against": "real",
            "helped": 1,
            "harmed": 1,
            "rows": [
                {
                    "wnid": f"s{i:04d}",
                    "name": f"made-up class {i}",
                    "n": 500,
                    "baseline": 0.8,
                    "other": 0.8 + (i - classes / 2) / (4 * classes),
                    "difference": (i - classes / 2) / (4 * classes),
                    "verdict": "harmed" if i == 0 else "helped" if i == classes - 1 else "",
                }
                for i in range(classes)
            ],
        }
        for row in rows
        if row["generated"]
    ]
    document = {
        "study": {"name": "made-up", "description": "Made-up numbers.", "seeds": [0, 1, 2]},
        "test": {"dataset": dataset, "name": "real", "split": "test", "n": 10_000},
        "rows": rows,
        "findings": [
            {
                "finding": FINDING,
                "model": models[0],
                "resolution": 224,
                "size": "100",
                "generated": "set-a",
                "budget": "epochs",
                "times": 9.0,
                "best_times": 1.0,
                "difference": -0.03,
                "answer": "reproduced",
            }
        ],
        "comparisons": [
            {
                "question": "set-a is above set-b",
                "budget": "epochs",
                "difference": 0.02,
                "answer": "above",
            },
        ],
        "classes": reports,
        "environment": {},
    }
    return written(folder / "report.json", document)


def a_sweep(folder: Path, *, dataset: str = "fixture") -> Path:
    """result.json of select-sampler over guidance, gamma and steps; returns its path."""
    points = []
    for w, g, s in product((1.0, 1.25, 1.5, 2.0), (0.0, 0.3, 1.0), (8, 16)):
        value = 400 + 300 * (w - 1.3) ** 2 + 20 * g + 400 / s
        cas = {"value": 0.9 - value / 5000, "interval": [0.7, 0.9], "n": 6000, "by_seed": {}}
        points.append(
            {
                "name": f"ddpm-w{w:g}-g{g:g}-s{s}-a0",
                "settings": {
                    **{"method": "ddpm", "guidance": w, "gamma": g, "steps": s},
                    "noise_augmentation": 0.0,
                },
                "fd": {
                    **{"value": value, "n": 1000, "reference_n": 6000},
                    "interval": [value - 6, value + 6],
                },
                "cas": cas if g == 0.0 and s == 16 else None,
            }
        )
    chosen = "ddpm-w1.25-g0-s16-a0"
    document = {
        "kind": "sampler-selection",
        "dataset": dataset,
        "recipe": "made-up",
        "stage": 16,
        "split": "tuning",
        "extractor": "efficientnet-lite0-64",
        "per_class": 100,
        "cas_protocol": {"classifier": "small", "settings": {}, "per_class": 500, "seeds": [0, 1]},
        "points": points,
        "chosen": chosen,
        "chosen_by": "cas",
        "regret_of_fd": {"value": 0.0, "interval": [0.0, 0.0], "points": 4, "seeds": 2},
        "correlation_fd_cas": {"spearman": -1.0, "p": 0.0, "n": 4},
    }
    return written(folder / "result.json", document)


def a_finetuning(folder: Path, *, dataset: str = "fixture") -> Path:
    """finetuning.json with its picture; returns its path."""

    def values(fd: float, cas: float) -> dict[str, Any]:
        return {
            key: {"mean": v, "interval": [v - 0.1, v + 0.1], "by_seed": [v, v, v]}
            for key, v in (("fd_train", fd), ("fd_test", fd + 1), ("cas_top1", cas))
        }

    document = {
        "dataset": dataset,
        "what": "made-up generators",
        "images_per_release": 2000,
        "training_seeds": 1,
        "interval": "95%, Student's t over sampling seeds; differences paired by seed",
        "arms": {"stand-in": values(900, 0.5), "fine-tuned": values(500, 0.8)},
        "differences": {"fine-tuned less stand-in": values(-400, 0.3)},
    }
    path = written(folder / "finetuning.json", document)
    Image.fromarray(np.zeros((40, 120, 3), np.uint8)).save(path.with_suffix(".png"))
    return path


def written(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path
