"""The tables of a comparison: means and spread against numpy, missing cells, who is bold, what is printed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import List, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.comparison.figures import Row, best_method, seconds_left, spread, summaries
from edgeecc.comparison.text import accuracy_table, cost_table, csv_text, markdown, spread_text
from edgeecc.units import Metric

pytestmark = pytest.mark.device


def row(method: str, budget: str, seed: int, accuracy: Optional[float], **more: object) -> Row:
    if accuracy is None:
        return Row(method, budget, seed, "failed", error="too little memory")
    return Row(
        method, budget, seed, "finished", accuracy=accuracy, dense_accuracy=0.9, pruned_accuracy=accuracy - 0.1,
        cost=0.01, seconds=3.0, **more,
    )  # fmt: skip


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12))
def test_spread_is_mean_and_sample_deviation(values: List[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert found.count == len(values)


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    one = spread([0.5])
    assert one is not None
    assert one.deviation is None
    assert spread_text(one) == "0.5000"
    assert spread([]) is None
    assert spread_text(None) == "-"


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({"a": [0.8, 0.9], "b": [0.7, 0.9]}, "a"),
        ({"a": [0.8, 0.9], "b": [0.9, 0.8]}, None),  # a tie
        ({"a": [0.8, 0.9]}, None),  # of one
        ({"a": [0.8, 0.9], "b": [0.7, None]}, None),  # another sample
        ({"a": [0.8, 0.9], "b": [None, None]}, None),
        ({}, None),
    ],
)
def test_best_is_who_is_shown_to_be(scores: dict, best: Optional[str]) -> None:
    assert best_method(scores) == best


def test_summaries_count_what_finished() -> None:
    rows = [row("a", "50%", 0, 0.8), row("a", "50%", 1, None), row("b", "50%", 0, 0.7)]
    a, b = summaries([*rows, row("b", "50%", 1, 0.75)])
    assert a.accuracy is not None
    assert (a.accuracy.mean, a.accuracy.count, a.asked) == (0.8, 1, 2)
    assert not a.best
    assert not b.best
    assert b.seconds is not None
    assert b.seconds.mean == 3.0


def test_the_table_has_dense_on_top_and_the_best_bold() -> None:
    rows = [
        row("a", "50%", 0, 0.8), row("a", "50%", 1, 0.82), row("a", "20%", 0, 0.6), row("a", "20%", 1, None),
        row("b", "50%", 0, 0.7), row("b", "50%", 1, 0.71), row("b", "20%", 0, None), row("b", "20%", 1, None),
    ]  # fmt: skip
    head, dense, a, b = accuracy_table(summaries(rows))
    assert head == ("method", "50%", "20%")
    assert dense == ("dense", "0.9000 ± 0.0000", "0.9000 ± 0.0000")
    assert a == ("a", "**0.8100 ± 0.0141**", "0.6000 (1 of 2 seeds)")
    assert b == ("b", "0.7050 ± 0.0071", "-")
    text = markdown([head, dense, a, b]).splitlines()
    assert text[1] == "|---|---:|---:|"
    assert all(line.count("|") == 4 for line in text)
    costs = cost_table(summaries(rows), Metric.ENERGY)
    assert costs[1][:4] == ("a", "50%", "10 mJ", "0.7100 ± 0.0141")
    assert costs[-1][2:] == ("", "-", "-", "-", "")


def test_memory_of_gpus_has_a_column_where_any_was_used() -> None:
    cells = [row("a", "50%", seed, 0.8, cuda_peak_bytes=seed * 2_000_000) for seed in range(3)]
    cells += [row("b", "50%", 0, 0.8, cuda_peak_bytes=0), row("c", "50%", 0, None)]
    head, a, b, c = cost_table(summaries(cells), Metric.ENERGY)
    assert head[-2:] == ("peak memory", "peak GPU memory")
    assert (a[-1], b[-1], c[-1]) == ("4 MB", "0 B", "")
    assert {len(line) for line in (head, a, b, c)} == {8}
    assert cost_table(summaries(cells[3:]), Metric.ENERGY)[0] == head[:-1]


def test_csv_has_a_line_for_every_cell() -> None:
    rows = [row("a", "50%", 0, 0.8, widths={"c1": (3, 8), "c2": (1, 4)}), row("b", "50%", 0, None)]
    rows[0] = replace(rows[0], threads=2, accelerator="cuda")
    first, second = csv.DictReader(io.StringIO(csv_text(rows)))
    assert first["widths"] == "c1:3/8 c2:1/4"
    assert float(first["accuracy"]) == 0.8
    assert (first["threads"], first["accelerator"]) == ("2", "cuda")
    assert (second["status"], second["accuracy"]) == ("failed", "")
    assert second["error"] == "too little memory"


def test_the_time_left_comes_from_finished_cells() -> None:
    assert seconds_left([], ["a"], 1) is None
    assert seconds_left([("a", 10.0), ("a", 20.0), ("b", 3.0)], ["a", "b", "c"], 1) == 15 + 3 + 11
    assert seconds_left([("a", 10.0)], ["a", "a", "a"], 2) == 15.0
    assert seconds_left([("a", 10.0)], ["a"], 8) == 10.0
    assert seconds_left([("a", 10.0)], [], 8) == 0.0
