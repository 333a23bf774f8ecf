"""Whole tiles and parts of widths, against counting by hand and against slopes over whole tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.forms import Form, tiles_within
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import Factor, Features, Term, spec_groups, tile_terms
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import WidthForm
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device

FORMS = st.builds(
    Form, linear=st.booleans(), tile=st.sampled_from([1, 4, 8, 32]), spans=st.booleans()
)


def form_of(fixed: int, *groups: tuple) -> WidthForm:
    return WidthForm(fixed, groups)


def model_of(form: Form, widths: list, seed: int = 0) -> ProductModel:
    spec = chain_spec(widths)
    terms = form.terms(spec)
    coefficients = np.random.default_rng(seed).random(len(terms))
    return ProductModel(
        Metric.ENERGY, "m", groups=spec_groups(spec), terms=terms, coefficients=coefficients, constant=0.1
    )  # fmt: skip


@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 5), st.integers(1, 3))
def test_a_tiled_count_is_that_of_whole_tiles(
    dense: int, tile: int, fixed: int, times: int
) -> None:
    features = Features(
        [("g", dense)], [Term("t", (Factor(form_of(fixed, ("g", times)), tile=tile),))]
    )
    whole = math.ceil((fixed + times * dense) / tile)
    for width in range(1, dense + 1):
        tiles = math.ceil((fixed + times * width) / tile)
        assert features(np.array([float(width)]))[0] == pytest.approx(tiles / whole, rel=1e-12)


@given(st.integers(2, 60), st.data())
def test_spans_add_up_to_the_count(dense: int, data: st.DataObject) -> None:
    ends = sorted({0, *data.draw(st.lists(st.integers(1, dense), max_size=4)), dense})
    spans = list(zip(ends, ends[1:]))
    form = form_of(0, ("g", 1))
    features = Features(
        [("g", dense)], [Term("t", (Factor(form, above=a, upto=b),)) for a, b in spans]
    )
    for width in (1, dense // 2, dense):
        lengths = np.array([b - a for a, b in spans], dtype=float)
        assert features(np.array([float(width)])) @ lengths == pytest.approx(width)


@given(FORMS, st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(0, 99))
def test_every_form_rises_is_one_at_dense_and_survives_json(
    form: Form, widths: list, seed: int
) -> None:
    model = model_of(form, widths, seed)
    dense = np.array(widths, dtype=float)
    np.testing.assert_allclose(model.features(dense), 1.0)
    assert Form.parse(form.text) == form
    again = ProductModel.from_json(model.to_json(), "memory")
    lower = np.maximum(1.0, np.floor(dense * np.random.default_rng(seed).random(len(dense))))
    assert again.predict(lower) == model.predict(lower) <= model.predict(dense) + 1e-12
    np.testing.assert_allclose(
        model.predict_many(np.stack([lower, dense])), [model.predict(lower), model.predict(dense)]
    )
    assert (model.gradient(lower) >= 0.0).all()


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([4, 8]), st.integers(0, 99))
def test_the_slope_of_tiles_is_that_over_a_whole_tile(
    one: int, two: int, tile: int, seed: int
) -> None:
    model = model_of(Form(tile=tile), [8 * tile, 8 * tile], seed)
    widths = np.array([one * tile, two * tile], dtype=float)
    for group in range(2):
        step = np.zeros(2)
        step[group] = tile
        slope = (model.predict(widths + step) - model.predict(widths)) / tile
        assert model.gradient(widths)[group] == pytest.approx(slope, rel=1e-9)


@given(st.integers(2, 80), st.integers(0, 99))
def test_the_slope_of_spans_is_the_finite_difference(dense: int, seed: int) -> None:
    model = model_of(Form(linear=True, spans=True), [dense, dense], seed)
    # Between two counts no span ends.
    whole = np.random.default_rng(seed).integers(1, dense, 2)
    widths = whole + 0.5
    for group in range(2):
        step = np.zeros(2)
        step[group] = 1e-4
        slope = (model.predict(widths + step) - model.predict(widths - step)) / 2e-4
        assert model.gradient(widths)[group] == pytest.approx(slope, rel=1e-6)
    # At a count, where one may end, it is what the next unit to go saves.
    for group in range(2):
        step = np.eye(2)[group]
        saved = model.predict(whole) - model.predict(whole - step)
        assert model.gradient(whole)[group] == pytest.approx(saved, rel=1e-9)


def test_a_count_that_no_width_moves_is_not_tiled() -> None:
    first, *_, last = tile_terms(chain_spec([16, 32]), 8)
    assert [[factor.tile for factor in term.factors] for term in (first, last)] == [[1, 8], [8, 8]]
    names = [term.name for term in tile_terms(chain_spec([16, 32]), 8)]
    assert names == ["tiles:layer0", "tiles:layer1", "tiles:layer1", "tiles:layer2"]


def test_tiles_wider_than_the_network_are_not_looked_for() -> None:
    assert list(tiles_within(chain_spec([8, 16]))) == [4, 8]
    assert list(tiles_within(chain_spec([2]))) == []


@pytest.mark.parametrize(
    "text", ["", "linear", "bilinear+tiles:0", "bilinear+tiles:8+linear", "bilinear ", "mlp"]
)
def test_unknown_forms_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"known are auto and bilinear\[\+linear\]"):
        Form.parse(text)


@pytest.mark.parametrize(
    "wrong", [{"tile": 0}, {"above": -1}, {"above": 4, "upto": 4}, {"above": 1, "upto": 0}]
)
def test_factors_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="tile of|span of"):
        Factor(form_of(0, ("g", 1)), **wrong)
    with pytest.raises(ConfigError, match="1 to 4096"):
        Form(tile=5000)


@pytest.mark.parametrize(
    "damage", [{"tile": 0}, {"tile": "8"}, {"span": [1]}, {"span": [4, 2]}, {"span": [90, None]}]
)
def test_damaged_factors_are_one_line(damage: dict) -> None:
    data = model_of(Form(), [8]).to_json()
    data["terms"][0]["factors"][1].update(damage)
    with pytest.raises(ArtifactError) as caught:
        ProductModel.from_json(data, "profile.json")
    assert "profile.json" in str(caught.value)
    assert "\n" not in str(caught.value)
