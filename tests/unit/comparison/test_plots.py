"""The chart: every method is in it, the simulated stays called so, the same chart is the same file."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from edgeecc.comparison.figures import Row, summaries
from edgeecc.comparison.files import Findings, chart, write_findings
from edgeecc.comparison.plots import draw
from edgeecc.errors import RuntimeUnavailableError
from edgeecc.units import Metric

METER = "model of virtual:tx2 (simulated)"


def findings(folder: Path) -> Findings:
    rows = [
        Row(
            method, budget, seed, "finished", score="top-1", dense_accuracy=0.95, accuracy=accuracy + 0.01 * seed,
            cost=cost, seconds=1.0, parts=1, threads=1 + seed,
        )
        for method, accuracy in (("ecc", 0.9), ("uniform", 0.8))
        for budget, cost in (("50%", 1.2e-3), ("20%", 0.4e-3))
        for seed in (0, 1)
    ]  # fmt: skip
    head = {
        "network": "lenet5", "data": "digits", "seeds": [0, 1], "meter": METER, "metric": "energy",
        "equal": {"steps": 30, "batch_size": 64, "held_out_images": 9},
    }  # fmt: skip
    failed = Row("halp", "50%", 0, "failed", error="the loss is nan")
    return Findings(folder, head, [*rows, failed], Metric.ENERGY, 2.4e-3)


def test_the_axes_name_unit_and_meter(tmp_path: Path) -> None:
    found = findings(tmp_path)
    drawn = chart(found, summaries(found.rows))
    assert drawn is not None
    assert drawn.x_label == f"energy, mJ ({METER})"
    assert list(drawn.lines) == ["ecc", "uniform"]
    assert [point.x for point in drawn.lines["ecc"]] == pytest.approx([0.4, 1.2])
    assert drawn.lines["ecc"][0].deviation == pytest.approx(0.01 / 2**0.5)
    assert drawn.dense is not None
    assert drawn.dense.x == pytest.approx(2.4)


def test_the_spread_of_cost_has_bars_where_there_is_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = findings(tmp_path)
    third = 0.1 + 0.2  # the mean of three of it is another number
    apart = {("ecc", "50%", 1): 1.4e-3}
    rows = [
        replace(row, cost=apart.get((row.method, row.budget, row.seed), row.cost))
        for row in found.rows
    ]
    rows += [replace(rows[0], method="amc", seed=seed, cost=third) for seed in range(3)]
    drawn = {}
    for name, own in (("level", rows), ("none", [*found.rows, *rows[-3:]])):
        wanted = chart(found, summaries(own))
        assert wanted is not None
        path = tmp_path / f"{name}.svg"
        draw(wanted, path)
        axes, _ = path.read_text().split('<g id="legend_1">')
        drawn[name] = wanted, axes
    lines, level = drawn["level"][0].lines, drawn["level"][1]
    assert [point.x_deviation for point in lines["ecc"]] == [
        None, pytest.approx(0.2 / 2**0.5),
    ]  # fmt: skip
    assert all(point.x_deviation is None for name in ("uniform", "amc") for point in lines[name])
    none = drawn["none"][1]
    assert all(
        point.x_deviation is None for own in drawn["none"][0].lines.values() for point in own
    )
    assert level.count('<g id="LineCollection_') == none.count('<g id="LineCollection_') + 1
    assert level.count("<use") == none.count("<use") + 2  # the ends of one bar
    assert "nan" not in level


def test_nothing_finished_gives_no_chart(tmp_path: Path) -> None:
    rows = [Row("halp", "50%", 0, "missing")]
    found = Findings(tmp_path, findings(tmp_path).head, rows, Metric.ENERGY, 1.0)
    written = write_findings(found)
    assert "accuracy_vs_cost.svg" not in written["files"]
    assert "halp 50% seed 0 missing: not run to its end" in (tmp_path / "table.md").read_text()


def test_the_same_findings_give_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one", "other"):
        written = write_findings(findings(tmp_path / name))
        assert written["status"] == {"finished": 8, "failed": 1, "missing": 0}
    for name in ("table.md", "results.csv", "accuracy_vs_cost.svg"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other, name
    text = (tmp_path / "one/table.md").read_text()
    assert "cells ran with 1 and 2 threads" in text
    assert "halp 50% seed 0 failed: the loss is nan" in text
    assert "9 training images were held out" in text


def test_what_trained_is_told_where_it_differs(tmp_path: Path) -> None:
    found = findings(tmp_path)

    def told(*accelerators: Optional[str]) -> str:
        names = itertools.cycle(accelerators)
        rows = [replace(row, accelerator=next(names)) for row in found.rows]
        written = write_findings(replace(found, rows=rows))
        assert [cell["accelerator"] for cell in written["cells"]] == [
            row.accelerator for row in rows
        ]
        return (tmp_path / "table.md").read_text()

    note = "cells trained on cpu and cuda: their seconds and peak memory do not compare"
    assert note in told("cuda", "cpu", None)
    for same in (["cpu"], ["cuda", None], [None]):
        assert "trained on" not in told(*same)


def test_a_chart_may_be_png_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = findings(tmp_path)
    drawn = chart(found, summaries(found.rows))
    assert drawn is not None
    draw(drawn, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_all_but_the_chart_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = findings(tmp_path)
    drawn = chart(found, summaries(found.rows))
    assert drawn is not None
    with pytest.raises(RuntimeUnavailableError, match="matplotlib"):
        draw(drawn, tmp_path / "chart.svg")
    written = write_findings(found)
    assert written["files"] == ["results.json", "results.csv", "table.md"]
    assert "pip install 'edgeecc[report]'" in caplog.text
