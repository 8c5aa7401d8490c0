"""Vega-Lite views, made with Altair: hover shows a point's name and numbers.

Colours stand the page's light and dark background; axes and text take the page's own colours
from its style sheet. Every chart stands beside a table of the same numbers, for the keyboard.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

BLUE, ORANGE, GREY = "#3a7fc1", "#d0762b", "#8a8a8a"
PALETTE = [BLUE, ORANGE, "#2f9e77", "#b565a7", "#b59a1f", "#5b6bc0"]
MOST_NAMES = 12  # more would cover each other; they are told on hover
CONTROL = "control: real images again"
HOLLOW = "transparent"
VERDICT_MARKS = {  # the marks' outline, inside and shape: no two are told apart by colour alone
    "harmed": (ORANGE, ORANGE, "triangle-down"),
    "helped": (BLUE, BLUE, "triangle-up"),
    "not significant": (GREY, HOLLOW, "circle"),
    "not tested": (GREY, HOLLOW, "cross"),
}
Record = Mapping[str, Any]
Spec = dict[str, Any]


def distance_chart(points: Sequence[Record], distance: str) -> Spec:
    """CAS against a distance. points: name, distance, top1 (%); few have their name beside them."""
    import altair as alt

    padded = alt.Scale(zero=False, padding=24)
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X(
            "distance:Q",
            title=f"{distance}, lower is better",
            scale=padded,
            axis=alt.Axis(tickCount=8),
        ),
        y=alt.Y("top1:Q", title="CAS top-1, %", scale=padded),
        tooltip=[
            alt.Tooltip("name:N", title="training set"),
            alt.Tooltip("distance:Q", title=distance, format=".2f"),
            alt.Tooltip("top1:Q", title="CAS top-1, %", format=".2f"),
        ],
    )
    layers = alt.layer(base.mark_circle(size=90, color=BLUE, opacity=1))
    if len(points) <= MOST_NAMES:
        distances = [p["distance"] for p in points]
        middle = (min(distances) + max(distances)) / 2
        inside = base.encode(text="name:N")  # names stay inside the plot
        left = inside.transform_filter(f"datum.distance <= {middle}")
        right = inside.transform_filter(f"datum.distance > {middle}")
        layers += left.mark_text(dx=8, align="left", fontSize=12)
        layers += right.mark_text(dx=-8, align="right", fontSize=12)
    return _spec(layers, 300)


def scaling_chart(points: Sequence[Record]) -> Spec:
    """Accuracy against training images. points: images_m, top1, low, high (%), series."""
    import altair as alt

    colour = alt.Color(
        "series:N",
        title=None,
        sort=list(dict.fromkeys(p["series"] for p in points)),
        scale=alt.Scale(range=[BLUE, ORANGE]),
        legend=alt.Legend(orient="top"),
    )
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X("images_m:Q", title="training images, real plus generated, millions"),
        color=colour,
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("images_m:Q", title="million images"),
            alt.Tooltip("top1:Q", title="top-1, %", format=".2f"),
            alt.Tooltip("std:Q", title="standard deviation", format=".2f"),
        ],
    )
    top1 = alt.Y("top1:Q", title="top-1, %", scale=alt.Scale(zero=False))
    bars = base.mark_rule().encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q")
    line = base.mark_line(point=alt.OverlayMarkDef(size=50)).encode(y=top1)
    return _spec(bars + line, 300)


def gain_chart(points: Sequence[Record]) -> Spec:
    """What k generated images for each real one add.

    points: times (k), gain, low, high (points of top-1), series, budget.
    """
    import altair as alt

    series = sorted({p["series"] for p in points} - {CONTROL})
    colours = dict(zip(series, PALETTE, strict=False))
    if any(p["series"] == CONTROL for p in points):
        colours[CONTROL] = GREY
    budgets = sorted({p["budget"] for p in points})
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X(
            "times:Q",
            title="k, images for each real one",
            axis=alt.Axis(tickMinStep=1),
            scale=alt.Scale(domain=[0, max(p["times"] for p in points)], nice=False),
        ),
        color=alt.Color(
            "series:N",
            title=None,
            scale=alt.Scale(domain=list(colours), range=list(colours.values())),
            legend=alt.Legend(orient="top", columns=2, labelLimit=240),
        ),
        detail=["series:N", "budget:N"],
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("budget:N", title="at"),
            alt.Tooltip("times:Q", title="k"),
            alt.Tooltip("gain:Q", title="difference to real, points", format="+.2f"),
            alt.Tooltip("low:Q", title="bar from", format="+.2f"),
            alt.Tooltip("high:Q", title="bar to", format="+.2f"),
        ],
    )
    dash = alt.StrokeDash(
        "budget:N",
        title=None,
        scale=alt.Scale(domain=budgets, range=[[1, 0], [5, 4]][: len(budgets)]),
        legend=alt.Legend(orient="top") if len(budgets) > 1 else None,
    )
    bars = base.mark_rule(opacity=0.6).encode(
        y=alt.Y("low:Q", title="difference to real images alone, points"), y2="high:Q"
    )
    line = base.mark_line().encode(y="gain:Q", strokeDash=dash)
    dots = base.mark_circle(size=50, opacity=1).encode(y="gain:Q")
    zero = alt.Chart(alt.Data(values=[{"v": 0}])).mark_rule(color=GREY).encode(y="v:Q")
    return _spec(zero + bars + line + dots, 300)


def sweep_chart(points: Sequence[Record], x: str, line: str) -> Spec:
    """Distance along one setting, a line a value of another.

    points: name, x, line (text), fd, low, high, chosen (bool); x, line: the settings' names.
    """
    import altair as alt

    lines = list(dict.fromkeys(p["line"] for p in points))
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X("x:Q", title=x, scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color(
            "line:N",
            title=line or None,
            sort=lines,
            scale=alt.Scale(range=PALETTE),
            legend=alt.Legend(orient="top") if len(lines) > 1 else None,
        ),
        tooltip=[
            alt.Tooltip("name:N", title="point"),
            alt.Tooltip("fd:Q", title="FD to tuning", format=".2f"),
            alt.Tooltip("low:Q", title="95% interval from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
        ],
    )
    scale = alt.Scale(zero=False)
    bars = base.mark_rule(opacity=0.6).encode(
        y=alt.Y("low:Q", scale=scale, title="FD to tuning, lower is better"), y2="high:Q"
    )
    curve = base.mark_line().encode(y=alt.Y("fd:Q", scale=scale))
    dots = base.mark_circle(size=50, opacity=1).encode(y="fd:Q")
    layers = bars + curve + dots
    if any(p["chosen"] for p in points):
        chosen = base.transform_filter("datum.chosen").encode(y="fd:Q")
        layers += chosen.mark_point(size=260, strokeWidth=2.5)
    return _spec(layers, 300)


def class_chart() -> Spec:
    """Accuracy of each class, real against generated. The page fills the data set "classes":

    records with name, real, other (%), low, high, verdict, picked and named (bool: marked, its
    name beside it); and sets the parameter "lowest", from which both axes start.
    """
    import altair as alt

    lowest = alt.param("lowest", value=0)
    share, axis = (
        alt.Scale(domain=alt.ExprRef("[lowest, 100]"), zero=False, nice=False),
        alt.Axis(tickCount=6),
    )
    points = alt.Chart(alt.NamedData("classes")).encode(
        x=alt.X("real:Q", title="trained on real images, %", scale=share, axis=axis),
        y=alt.Y("other:Q", title="trained on this set, %", scale=share, axis=axis),
        tooltip=[
            alt.Tooltip("name:N", title="class"),
            alt.Tooltip("real:Q", title="real, %", format=".1f"),
            alt.Tooltip("other:Q", title="this set, %", format=".1f"),
            alt.Tooltip("difference:Q", title="difference, points", format="+.1f"),
            alt.Tooltip("interval:N", title="95% interval"),
        ],
    )
    channels: list[dict[str, Any]] = [
        {
            "title": None,
            "scale": alt.Scale(domain=list(VERDICT_MARKS), range=list(own)),
            "legend": alt.Legend(orient="top"),
        }
        for own in zip(*VERDICT_MARKS.values(), strict=True)
    ]
    outline, inside, shape = channels
    stroke = alt.Stroke("verdict:N", **outline)
    marked = points.encode(
        stroke=stroke, fill=alt.Fill("verdict:N", **inside), shape=alt.Shape("verdict:N", **shape)
    )
    diagonal = alt.Chart(alt.Data(values=[{"v": 0}, {"v": 100}])).mark_line(
        color=GREY, strokeDash=[4, 4], strokeWidth=1, clip=True
    )
    picked = points.transform_filter("datum.picked")
    ring = picked.encode(stroke=stroke).mark_point(size=220, strokeWidth=2)
    named = points.transform_filter("datum.named").encode(text="name:N")
    middle = "(lowest + 100) / 2"  # names stay inside the plot
    left = named.transform_filter(f"datum.real > {middle}").mark_text(dx=-8, align="right")
    right = named.transform_filter(f"datum.real <= {middle}").mark_text(dx=8, align="left")
    layers = (
        diagonal.encode(x="v:Q", y="v:Q")
        + marked.mark_point(size=45, opacity=0.75, strokeWidth=1.3, ariaRoleDescription="class")
        + left
        + right
        + ring
        + picked.mark_text(dy=-14, fontSize=13, fontWeight="bold").encode(text="name:N")
    )
    return _spec(layers.add_params(lowest), 420)


def _spec(chart: "alt.LayerChart | alt.FacetChart", height: int) -> Spec:
    styled: Any = chart.properties(width="container", height=height, background="transparent")
    styled = (
        styled.configure(font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12)
    )
    return styled.configure_legend(labelFontSize=12).to_dict()  # type: ignore[no-any-return]


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, 0.9 MB, that makes `window.vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return script.replace("</script", "<\\/script")
