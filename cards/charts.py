"""Vega-Lite views, made with Altair: hover shows a point's name and numbers.

Colours stand the page's light and dark background; axes and text take the page's own colours
from its style sheet. Every chart stands beside a table of the same numbers, for the keyboard.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

BLUE, ORANGE, GREY = "#3a7fc1", "#d0762b", "#8a8a8a"
VERDICT_COLOURS = {"harmed": ORANGE, "not told apart": GREY, "helped": BLUE}
Record = Mapping[str, Any]
Spec = dict[str, Any]


def distance_chart(points: Sequence[Record], distance: str) -> Spec:
    """CAS against a distance. points: name, distance, top1 (%), label; a point's name beside it."""
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
    names = base.mark_text(dx=8, align="left", fontSize=12).encode(text="name:N")
    return _spec(base.mark_circle(size=90, color=BLUE, opacity=1) + names, 300)


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


def class_chart() -> Spec:
    """Accuracy of each class, real against generated. The page fills the data set "classes":

    records with name, real, other (%), low, high, verdict, picked (bool).
    """
    import altair as alt

    share, axis = alt.Scale(domain=[0, 100]), alt.Axis(values=list(range(0, 101, 20)))
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
        color=alt.Color(
            "verdict:N",
            title=None,
            scale=alt.Scale(domain=list(VERDICT_COLOURS), range=list(VERDICT_COLOURS.values())),
            legend=alt.Legend(orient="top"),
        ),
    )
    diagonal = alt.Chart(alt.Data(values=[{"v": 0}, {"v": 100}])).mark_line(
        color=GREY, strokeDash=[4, 4], strokeWidth=1
    )
    picked = points.transform_filter("datum.picked")
    return _spec(
        diagonal.encode(x="v:Q", y="v:Q")
        + points.mark_circle(size=45, opacity=0.75)
        + picked.mark_point(size=220, strokeWidth=2)
        + picked.mark_text(dy=-14, fontSize=13, fontWeight="bold").encode(text="name:N"),
        420,
    )


def _spec(chart: "alt.LayerChart", height: int) -> Spec:
    styled = chart.properties(width="container", height=height, background="transparent")
    styled = (
        styled.configure(font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12)
    )
    return styled.configure_legend(labelFontSize=12).to_dict()  # type: ignore[no-any-return]


def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, 0.9 MB, that makes `window.vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return script.replace("</script", "<\\/script")
