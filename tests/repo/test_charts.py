"""The charts of the docs: points where they belong, names apart, round ticks, text escaped."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.device

_SPEC = importlib.util.spec_from_file_location(
    "charts", Path(__file__).resolve().parents[2] / "benchmarks" / "charts.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
charts = importlib.util.module_from_spec(_SPEC)
sys.modules["charts"] = charts
_SPEC.loader.exec_module(charts)
SVG = "{http://www.w3.org/2000/svg}"


def test_points_and_bars_are_where_they_belong() -> None:
    axes = charts.Axes("T & <t>", "x", "y", right=10.0, top=4.0)
    root = ElementTree.fromstring(  # noqa: S314  # ours
        charts.chart(
            axes, [charts.Line("a", [(0.0, 0.0), (10.0, 4.0)], 1, dashed=True)], [(2.0, 0)]
        )
    )
    line = root.find(f"{SVG}polyline")
    assert line is not None
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    top, bottom = charts.TOP, charts.HEIGHT - charts.BOTTOM
    assert line.get("points") == f"{left}.0,{bottom}.0 {right}.0,{top}.0"
    assert line.get("stroke-dasharray")
    bar = root.findall(f"{SVG}rect")[1]
    assert float(bar.get("height", 0)) == pytest.approx((bottom - top) / 2, abs=0.1)
    middle = float(bar.get("x", 0)) + float(bar.get("width", 0)) / 2
    assert middle == pytest.approx(left + (right - left) / 10, abs=0.1)
    assert root.get("aria-label") == "T & <t>"


def test_what_is_above_the_top_is_drawn_at_it_and_the_left_may_be_moved() -> None:
    axes = charts.Axes("", "", "", right=30.0, top=1.0, left=20.0)
    assert axes.at(20.0, 0.0) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert axes.at(30.0, 9.0) == (charts.WIDTH - charts.RIGHT, charts.TOP)


def test_names_do_not_touch() -> None:
    axes = charts.Axes("", "", "", 1.0, 1.0)
    lines = [charts.Line(f"line {n}", [(0.0, 0.5), (1.0, 0.5)], n) for n in range(3)]
    text = charts.chart(axes, lines)
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>line', text))
    assert [b - a for a, b in zip(heights, heights[1:])] == [14.0, 14.0]


@given(st.floats(1e-6, 1e6))
def test_ticks_are_few_and_within(top: float) -> None:
    ticks = charts._ticks(top)
    assert ticks[0] == 0.0
    assert 4 <= len(ticks) <= 11
    assert ticks[-1] <= top * (1 + 1e-6)
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in zip(ticks, ticks[1:])}
    assert steps == {1.0}
