"""What stands in reports and in the paper, as rows of data."""

from pathlib import Path
from typing import Any

from cards.board.measurements import interval_fields
from cards.board.published import DATASET, PAPER, read_published
from cards.measured.report_schema import FinetuningReport
from cards.pages.board_data import Measurement
from classifiers.study.report_model import Accuracy, Arm, StudyReport
from metrics.selection.report_model import SelectionReport
from release.files.commit import canonical_json, sha256_text

Fields = dict[str, Any]
TESTED = {"dataset", "name", "split", "n", "config", "content_sha256"}  # by which studies differ
ACCURACY: Fields = {"unit": "fraction", "direction": "higher"}
KINDS = {"real-repeated": "real", "real+generated": "real + generated"}


def study_measurements(report: StudyReport, folder: Path) -> list[Measurement]:
    """Accuracies of every arm, and its difference to the real one with both intervals."""
    file = _file(report.path, folder)
    found = []
    for arm in report.rows:
        about = _arm_fields(report, arm) | {"result_files": (file,)}
        scores = {"top1": arm.top1, "top5": arm.top5}
        found += [
            Measurement(**about, metric=name, n=score.n, **ACCURACY, **_accuracy(score))
            for name, score in scores.items()
            if score is not None
        ]
        if (gain := arm.difference) is not None:
            gains: Fields = {
                "metric": "top1_difference",
                "value": gain.value,
                "n": arm.top1.n,
                **ACCURACY,
            }
            for interval, over in ((gain.over_seeds, "seeds"), (gain.over_images, "images")):
                if interval is not None:
                    found.append(Measurement(**about, **gains, **interval_fields(interval, over)))
    return found


def _arm_fields(report: StudyReport, arm: Arm) -> Fields:
    return {
        "dataset": report.dataset,
        "origin": "study",
        "study": report.study.name,
        "ranking": _ranking(
            *("study", report.study.name, report.test.model_dump(include=TESTED), arm.group),
            report.classifier(arm.model),
        ),
        "system": f"{arm.label} ({arm.size} real images of each class)",
        "images_are": KINDS.get(arm.kind, arm.kind),
        "regime": "+".join(arm.regimes) or None,
        "config": str(arm.resolution),
        "images": arm.images,
        "model": arm.model,
        "recipe": report.classifier(arm.model),
        "split": report.test.split,
        "seeds": len(arm.seeds),
        "reference": report.test.name,
    }


def _accuracy(accuracy: Accuracy) -> Fields:
    fields = {"value": accuracy.mean, "std": accuracy.std}
    return fields | interval_fields(accuracy.interval, "images")


def selection_measurements(report: SelectionReport, folder: Path) -> list[Measurement]:
    """Distance and accuracy of every point, on the tuning split."""
    name = f"{report.kind}: {report.recipe}, stage {report.stage}"
    about: Fields = {
        "dataset": report.dataset,
        "origin": "selection",
        "study": name,
        "images_are": "generated",
        "config": str(report.stage),
        "split": report.split,
        "result_files": (_file(report.path, folder),),
    }
    found = []
    for point in report.points:  # a distance falls with the number of images
        measured = (report.reference, report.extractor, point.fd.n, report.cas_protocol)
        about["ranking"] = _ranking("selection", name, *measured)
        distance: Fields = {
            "metric": "fd",
            "unit": "number",
            "direction": "lower",
            "value": point.fd.value,
        }
        distance |= {"model": report.extractor, "n": point.fd.n, "images": point.fd.n}
        distance |= interval_fields(point.fd.interval, "images")
        found.append(Measurement(**about, system=point.name, **distance))
        if (cas := point.cas) is not None:
            score: Fields = {"metric": "top1", "value": cas.value, "n": cas.n, **ACCURACY}
            score |= interval_fields(cas.interval, "seeds")
            found.append(Measurement(**about, system=point.name, **score))
    return found


def finetuning_measurements(report: FinetuningReport, folder: Path) -> list[Measurement]:
    """Distances and accuracy of every generator, and the differences."""
    about: Fields = {
        "dataset": report.dataset,
        "origin": "finetuning",
        "study": report.what,
        "ranking": _ranking("finetuning", report.what, _file(report.path, folder)),
        "images_are": "generated",
        "images": report.images_per_release,
        "result_files": (_file(report.path, folder),),
    }
    metrics: list[tuple[str, str, str, str, str]] = [
        ("fd_train", "fd", "train", "number", "lower"),
        ("fd_test", "fd", "test", "number", "lower"),
        ("cas_top1", "top1", "test", "fraction", "higher"),
    ]
    found = []
    for ending, generators in (("", report.arms), ("_difference", report.differences)):
        for system, generator in generators.items():
            for key, metric, split, unit, direction in metrics:
                mean = getattr(generator, key)
                what: Fields = {"metric": metric + ending, "split": split, "unit": unit}
                what |= {"direction": direction, "value": mean.mean, "seeds": len(mean.by_seed)}
                what |= interval_fields(mean.interval, "seeds")
                found.append(Measurement(**about, system=system, **what))
    return found


def published_measurements() -> list[Measurement]:
    """The paper's tables; percentages become fractions."""
    return [*_generators(), *_cas(), *_classifiers(), *_scaling()]


def _printed(group: str, system: str, metric: str, value: str, **fields: Any) -> list[Measurement]:
    """One row, or none where nothing was printed."""
    if not value:
        return []
    scale = 0.01 if fields.get("unit") == "fraction" else 1
    std = fields.pop("std", "")
    return [
        Measurement(
            dataset=DATASET,
            origin="published",
            ranking=_ranking(
                "published", group, fields.get("config"), metric, fields.get("study", PAPER)
            ),
            system=system,
            metric=metric,
            value=round(scale * float(value), 6),
            std=round(scale * float(std), 6) if std else None,
            **{"study": PAPER, **fields},
        )
    ]


def _generators() -> list[Measurement]:
    found = []
    for row in read_published("generators"):
        about: Fields = {
            "study": row["source"],
            "config": row["resolution"],
            "images_are": "generated",
        }
        lower: Fields = {"unit": "number", "direction": "lower", **about}
        for column, split in (("fid_train", "train"), ("fid_val", "validation")):
            value = row[column]
            found += _printed("generators", row["system"], "fid", value, split=split, **lower)
        higher: Fields = {"unit": "number", "direction": "higher", "std": row["is_std"], **about}
        found += _printed("generators", row["system"], "inception_score", row["is_mean"], **higher)
    return found


def _cas() -> list[Measurement]:
    found = []
    for row in read_published("cas_resnet50"):
        real = row["training_data"] == "Real"
        about: Fields = {
            "study": row["source"],
            "model": "resnet50",
            "split": "validation",
            **ACCURACY,
        }
        about |= {"images_are": "real" if real else "generated"}
        for metric in ("top1", "top5"):
            value, config = row[metric], row["resolution"] or None
            found += _printed("cas", row["training_data"], metric, value, config=config, **about)
    return found


def _classifiers() -> list[Measurement]:
    found = []
    columns = {"real_top1": "real", "generated_top1": "generated"}
    columns["real_plus_generated_top1"] = "real + generated"
    for row in read_published("classifiers"):
        about: Fields = {
            "model": row["timm_name"],
            "config": row["input_size"],
            "split": "validation",
        }
        for column, kind in columns.items():
            what: Fields = {"images_are": kind, **about, **ACCURACY}
            group = f"classifiers {row['model']}"
            found += _printed(group, f"{kind} images", "top1", row[column], **what)
    return found


def _scaling() -> list[Measurement]:
    found = []
    for row in read_published("scaling_resnet50"):
        images = round(1e6 * float(row["train_set_m"]))
        for side in ("256", "1024"):
            what: Fields = {"images": images, "config": side, "split": "validation", **ACCURACY}
            what |= {"model": "resnet50", "std": row[f"res{side}_std"]}
            value = row[f"res{side}_top1"]
            system = f"real and generated images, {row['train_set_m']} million"
            found += _printed("scaling", system, "top1", value, **what)
    return found


def _ranking(*parts: Any) -> str:
    return sha256_text(canonical_json(list(parts)))


def _file(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
