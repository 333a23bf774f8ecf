"""Batch norm over processes is batch norm of the whole batch: values, gradients, running statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import parallel_work
from tests.processes import run_job


def test_two_processes_normalise_as_one_does(tmp_path: Path) -> None:
    parts = run_job(parallel_work.all_norms, tmp_path)
    wholes = [parallel_work.normalised(*case) for case in parallel_work.norm_cases()]
    for whole, first, second in zip(wholes, *parts):
        for place, (value, one, other) in enumerate(
            zip(whole["values"], first["values"], second["values"])
        ):
            if place < 2:  # outputs and gradients of inputs lie in parts
                one = np.concatenate([one, other])
            else:
                assert np.array_equal(one, other)
            np.testing.assert_allclose(one, value, rtol=1e-11, atol=1e-11)
        assert first["kind"] == whole["kind"]


def test_what_cannot_be_global_is_refused_and_nothing_stays_behind(tmp_path: Path) -> None:
    for own, small, patched in run_job(parallel_work.odd_norms, tmp_path):
        assert "Rough is a batch norm of its own kind" in own
        assert "Expected more than 1 value per channel" in small
        assert patched == "False"


def test_a_large_mean_costs_no_digits(tmp_path: Path) -> None:
    for var, true, kind in run_job(parallel_work.float32_norm, tmp_path):
        assert var == pytest.approx(true, rel=1e-3)
        assert kind == "torch.bfloat16"
