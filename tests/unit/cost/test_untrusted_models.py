"""Cost models that come from anywhere, and exact counts against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.product import ProductModel
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.units import Metric
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device

FACTOR = {"fixed": 0, "terms": [["a", 1]]}
MODEL = {
    "metric": "energy",
    "meter": "m",
    "groups": [["a", 4]],
    "constant": 1.0,
    "terms": [{"name": "t", "coefficient": 1.0, "factors": [FACTOR]}],
}


def test_the_model_itself_is_read() -> None:
    assert ProductModel.from_json(MODEL, "file").predict(np.array([2.0])) == 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"groups": [["a", 4], ["a", 5]]},
        {"groups": [["a", 4], ["b", 0]]},
        {"groups": [["a", 4], [None, 4]]},
        {"groups": [["a", 4.0]]},
        {"groups": [["a", True]]},
        {"groups": None},
        {"meter": None},
        {"metric": []},
        {"constant": -1.0},
        {"constant": True},
        {"terms": {}},
        {"terms": [{"name": 3, "coefficient": 1.0, "factors": [FACTOR]}]},
        {"terms": [{"name": "t", "coefficient": 1.0, "factors": [FACTOR] * 5}]},
        {"terms": [{"name": "t", "coefficient": 1.0, "factors": [{"fixed": -1, "terms": []}]}]},
    ],
)
def test_damage_is_one_line(change: dict) -> None:
    with pytest.raises(ArtifactError) as caught:
        ProductModel.from_json({**MODEL, **change}, "file")
    assert "file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_would_fill_the_memory_is_refused() -> None:
    """20,000 terms of 20,000 groups are under a megabyte of JSON and three gigabytes of table."""
    groups = [["a", 4], *([f"g{index}", 1] for index in range(20_000))]
    with pytest.raises(ArtifactError, match="20000 terms of 20001 groups"):
        ProductModel.from_json(
            {**MODEL, "groups": groups, "terms": MODEL["terms"] * 20_000}, "file"
        )


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_coefficients_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="finite and at least 0"):
        ProductModel(
            Metric.ENERGY, "m", groups=[("a", 1)], terms=[], coefficients=np.zeros(0), constant=bad
        )


@given(st.integers(1, 24), st.integers(1, 40))
def test_counts_are_exact(first: int, second: int) -> None:
    spec, _ = small_network()
    widths = np.array([first, second], dtype=np.float64)
    macs = 256 * 9 * (3 * first + first * second) + 10 * second
    parameters = 27 * first + first + 9 * first * second + second + 10 * second + 10
    assert mac_cost(spec).predict(widths) == pytest.approx(macs, rel=1e-12)
    assert size_cost(spec).predict(widths) == pytest.approx(4 * parameters, rel=1e-12)
    assert mac_cost(spec).meter == size_cost(spec).meter == "exact count"
