"""Run the cells of a comparison in the test's own process: a fresh one takes seconds to load torch."""

from __future__ import annotations

import contextlib
from typing import Sequence

import pytest

from edgeecc import compare
from edgeecc.comparison.cells import Cell
from edgeecc.comparison.processes import Job, OnCell, OnWord, carry_out


def run_cells(
    cells: Sequence[Cell], jobs: int, on_cell: OnCell, on_word: OnWord = lambda cell, word: None
) -> None:
    """Do what `processes.run_cells` does, one cell after another."""
    for cell in cells:
        on_cell(cell, False)
        with contextlib.suppress(SystemExit):
            carry_out(Job(cell, jobs, 30), lambda word, cell=cell: on_word(cell, word))
        on_cell(cell, True)


def run_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let comparisons run their cells here for one test."""
    monkeypatch.setattr(compare, "run_cells", run_cells)
