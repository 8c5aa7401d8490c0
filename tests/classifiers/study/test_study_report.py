"""A study's report: the classes that it names, and its pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifiers.study.markdown import markdown
from classifiers.study.pictures import draw_classes, draw_scaling
from classifiers.study.report_model import Arm, StudiedClasses, StudyReport


def arm(kind: str, name: str | None, times: float, std: float | None) -> Arm:
    content = {
        **{"model": "m", "resolution": 32, "size": "4", "arm": f"{kind}-{name}", "kind": kind},
        **{"generated": name, "times": times, "budget": "steps", "seeds": [0, 1]},
        **{"regimes": [], "images": 4, "steps": 2, "top1": {"mean": 0.7, "std": std, "n": 36}},
    }
    return Arm.model_validate(content)


def test_classes_of_both_directions_are_named_and_the_rest_counted() -> None:
    changes = [*range(-30, 0), *range(1, 13), 99]
    rows = [
        {
            **{
                "wnid": f"w{change}",
                "name": f"class{change}",
                "n": 9,
                "baseline": 0.5,
                "other": 0.5,
            },
            "difference": change / 100,
            "verdict": "" if change == 99 else "helped" if change > 0 else "harmed",
        }
        for change in changes
    ]
    report = {
        **{"model": "m", "resolution": 32, "size": "4", "arm": "a", "against": "real"},
        **{"helped": 12, "harmed": 30, "rows": rows, "ambiguity_of_names": {"spearman": None}},
    }
    document = {
        "study": {"name": "s", "description": "", "seeds": [0]},
        "test": {"dataset": "d", "name": "t", "split": "test", "n": 36},
        "rows": [arm("real", None, 1, None)],
        **{"findings": [], "comparisons": [], "classes": [report]},
    }
    line = markdown(StudyReport.model_validate(document)).splitlines()[-1]
    harmed, helped = line.split("; ")
    assert "real: harmed class-30 -30.0, class-29 -29.0, " in harmed
    assert harmed.endswith("class-21 -21.0 and 20 more")
    assert helped.startswith("helped class12 +12.0, class11 +11.0, ")
    assert helped.endswith("class3 +3.0 and 2 more")


def test_verdicts_differ_by_mark_and_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("classifiers.study.pictures._save", lambda figure, _: drawn.append(figure))
    verdicts = {"a": ("helped", 0.4, 0.6), "b": ("harmed", 0.9, 0.5), "c": ("", 0.7, 0.7)}
    rows = [
        {"wnid": w, "name": w, "n": 9, "baseline": before, "other": after, "verdict": verdict}
        for w, (verdict, before, after) in verdicts.items()
    ]
    where = {"model": "m", "resolution": 32, "size": "4", "arm": "generated", "against": "real"}
    draw_classes([StudiedClasses.model_validate({**where, "rows": rows})], 3, tmp_path / "x.png")
    (figure,) = drawn
    marks = {line.get_label(): line for line in figure.axes[0].lines if line.get_marker() != "None"}
    points = {name: line.get_xydata().tolist() for name, line in marks.items()}
    expected = {"not significant": [[70, 70]], "helped": [[40, 60]], "harmed": [[90, 50]]}
    assert points == {name: [pytest.approx(one) for one in own] for name, own in expected.items()}
    shown = {name: line.get_marker() for name, line in marks.items()}
    assert shown == {"not significant": "o", "helped": "^", "harmed": "v"}
    assert len({line.get_color() for line in marks.values()}) == 3
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    told = [handle.get_marker() for handle in legend.legend_handles]
    assert dict(zip(labels, told, strict=True)) == shown


@pytest.mark.parametrize("std", [0.02, None])
def test_one_panel_holds_its_legend(tmp_path: Path, std: float | None) -> None:
    arms = [("real", None, 1), *(("real+generated", f"a-longer-name-{i}", 3) for i in range(8))]
    rows = [arm(kind, name, times, std) for kind, name, times in arms]
    draw_scaling(rows, tmp_path / "scaling.png")
    with Image.open(tmp_path / "scaling.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.min() < 100
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()  # nothing is cut
