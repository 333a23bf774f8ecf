"""The receipt of any model adds up to what the model predicts, and its causes to the gap; against counting by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Dict, List, Tuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.receipt import Receipt, receipt
from edgeecc.cost.terms import Factor, Term, layer_terms, spec_groups
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import NetworkSpec, WidthForm
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device

NAMES = [
    "layer0", "layer1", "tiles:layer0", "tiles:layer1", "width:g0", "span:g0", "layer1.weight", "bn.weight", "odd",
    "width:gone", "tiles:gone",
]  # fmt: skip
FORMS = st.builds(
    Form, linear=st.booleans(), tile=st.sampled_from([1, 4, 8, 32]), spans=st.booleans()
)
PRUNED = st.lists(st.tuples(st.integers(1, 70), st.floats(0.0, 1.0)), min_size=1, max_size=4)
Case = Tuple[ProductModel, NetworkSpec, Dict[str, int]]


def specced(pruned: List[Tuple[int, float]]) -> Tuple[NetworkSpec, Dict[str, int]]:
    """Return a chain of dense widths, and the widths that a share of each leaves."""
    spec = chain_spec([width for width, _ in pruned])
    left = [max(1, round(share * width)) for width, share in pruned]
    return spec, {group.name: width for group, width in zip(spec.prunable, left)}


def modelled(
    spec: NetworkSpec, terms: List[Term], prices: List[float], fixed: float
) -> ProductModel:
    return ProductModel(
        Metric.ENERGY, "m", groups=spec_groups(spec), terms=terms, coefficients=np.array(prices), constant=fixed
    )  # fmt: skip


def by_hand(factor: Factor, widths: Dict[str, int], *, rounded: bool = True) -> int:
    count = factor.form.fixed + sum(times * widths[name] for name, times in factor.form.terms)
    if rounded or not factor.form.terms:
        count = -(-count // factor.tile) * factor.tile
    within = max(count, factor.above)
    return (within if factor.upto is None else min(within, factor.upto)) - factor.above


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    """Draw a model of terms of every kind, each with tiles, spans, several groups and fixed counts as it comes."""
    spec, widths = specced(draw(PRUNED))
    groups = [group.name for group in spec.prunable]
    terms = []
    for _ in range(draw(st.integers(0, 8))):
        factors = []
        for _ in range(draw(st.integers(1, 3))):
            owned = draw(st.lists(st.sampled_from(groups), unique=True, max_size=2))
            form = WidthForm(
                draw(st.integers(0, 9)), tuple((name, draw(st.integers(1, 3))) for name in owned)
            )
            above = draw(st.sampled_from([0, 0, 0, 1, 5]))
            upto = draw(st.sampled_from([None, None, above + 6]))
            factor = Factor(form, draw(st.sampled_from([1, 1, 4, 8])), above, upto)
            assume(by_hand(factor, spec.dense_widths()) > 0)
            factors.append(factor)
        terms.append(Term(draw(st.sampled_from(NAMES)), tuple(factors)))
    prices = draw(st.lists(st.floats(0.0, 1e3), min_size=len(terms), max_size=len(terms)))
    model = modelled(spec, terms, prices, draw(st.floats(0.0, 1e3)))
    assume(model.predict(spec.vector(spec.dense_widths())) > 1e-6)
    return model, spec, widths


@st.composite
def fitted_case(draw: st.DrawFn) -> Case:
    """Draw a model of a form that calibration fits."""
    spec, widths = specced(draw(PRUNED))
    terms = draw(FORMS).terms(spec)
    prices = np.random.default_rng(draw(st.integers(0, 99))).random(len(terms))
    return modelled(spec, terms, list(prices), draw(st.floats(0.0, 3.0))), spec, widths


def lines_of(found: Receipt) -> List:
    return [line for part in found.parts for line in part.lines]


@given(any_case())
def test_parts_and_fixed_cost_add_up_to_the_prediction(case: Case) -> None:
    model, spec, widths = case
    found = receipt(model, spec, widths)
    for when, at in (("dense", spec.dense_widths()), ("slim", widths)):
        predicted = model.predict(spec.vector(at))
        assert getattr(found, when) == predicted
        total = math.fsum([found.fixed, *(getattr(part, when) for part in found.parts)])
        assert total == pytest.approx(predicted, rel=1e-12)
    assert sorted(line.term for line in lines_of(found)) == sorted(t.name for t in model.terms)


@given(any_case())
def test_terms_and_their_padding_are_those_counted_by_hand(case: Case) -> None:
    model, spec, widths = case
    left = lines_of(receipt(model, spec, widths))
    for term, price in zip(model.terms, model.coefficients):
        whole = math.prod(by_hand(factor, spec.dense_widths()) for factor in term.factors)
        figures = []
        for at in (spec.dense_widths(), widths):
            rounded, full = (
                math.prod(by_hand(factor, at, rounded=flag) for factor in term.factors)
                for flag in (True, False)
            )
            cost, padding = (
                Fraction(n, whole) * Fraction(price) for n in (rounded, rounded - full)
            )
            figures += [float(cost), float(padding)]
        line = next(
            line
            for line in left
            if line.term == term.name
            and [line.dense, line.padding_dense, line.slim, line.padding_slim]
            == pytest.approx(figures, rel=1e-9, abs=1e-12 * max(1.0, price))
        )
        left.remove(line)
        assert line.padding_dense >= -1e-12 * line.dense
        assert line.padding_slim >= -1e-12 * line.slim
        assert line.moved == any(factor.form.terms for factor in term.factors)
    assert not left


@given(any_case(), st.floats(0.0, 1.0))
def test_causes_add_up_to_the_totals_and_to_the_gap(case: Case, mac_share: float) -> None:
    found = receipt(*case)
    causes = found.causes(mac_share)
    assert [cause.name for cause in causes] == ["fixed", "whole", "channels", "padding", "layers"]
    gap = math.fsum(cause.excess for cause in causes)
    assert gap == pytest.approx(found.share - mac_share, abs=1e-12)
    assert math.fsum(cause.dense for cause in causes) == pytest.approx(found.dense, rel=1e-12)
    assert math.fsum(cause.slim for cause in causes) == pytest.approx(found.slim, rel=1e-12)


@given(fitted_case())
def test_in_fitted_forms_layers_add_what_dear_macs_do(case: Case) -> None:
    """The oracle weighs how far the MACs of each layer fell with what the layer costs when dense."""
    model, spec, widths = case
    found, macs = receipt(model, spec, widths), receipt(mac_cost(spec), spec, widths)
    causes = {cause.name: cause for cause in found.causes(macs.share)}
    mix = sum(
        (line.dense - line.padding_dense) * (count.slim / count.dense - macs.share)
        for part, count in zip(found.parts, macs.parts)
        for line in part.lines
        if line.moved
    )
    assert causes["layers"].excess == pytest.approx(mix / found.dense, abs=1e-12)
    assert causes["fixed"].excess == pytest.approx(found.fixed / found.dense * (1.0 - macs.share))


@given(fitted_case())
def test_a_network_that_keeps_all_has_no_gap(case: Case) -> None:
    model, spec, _ = case
    found = receipt(model, spec, spec.dense_widths())
    assert found.share == 1.0
    assert all(cause.excess == 0.0 for cause in found.causes(1.0))


@given(PRUNED, st.floats(0.0, 1e6))
def test_a_price_of_every_mac_leaves_the_fixed_cost_alone(pruned: list, fixed: float) -> None:
    spec, widths = specced(pruned)
    macs = mac_cost(spec)
    model = modelled(spec, layer_terms(spec), list(2.0 * macs.coefficients), fixed)
    share = receipt(macs, spec, widths).share
    causes = {cause.name: cause.excess for cause in receipt(model, spec, widths).causes(share)}
    assert causes["whole"] + causes["layers"] == pytest.approx(0.0, abs=1e-12)
    assert causes["channels"] == causes["padding"] == 0.0
    assert causes["fixed"] >= 0.0


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3))
def test_full_tiles_and_models_without_tiles_have_no_padding(tiles: list) -> None:
    """The ends of the chain do not fill their tiles, and no width moves them."""
    for tile in (8, 1):
        spec = chain_spec([8 * max(pair) for pair in tiles])
        widths = {g.name: 8 * min(pair) - (tile == 1) for g, pair in zip(spec.prunable, tiles)}
        terms = Form(linear=True, tile=tile, spans=True).terms(spec)
        found = receipt(modelled(spec, terms, [1.0] * len(terms), 0.5), spec, widths)
        assert (found.padding_dense, found.padding_slim) == (0.0, 0.0)


def test_one_channel_more_than_a_tile_pays_for_two() -> None:
    """Of 24 channels 9 stay: they take two tiles of 8, and seven sixteenths of these are empty."""
    spec = chain_spec([24])
    term = Term("tiles:layer0", (Factor(WidthForm(3)), Factor(WidthForm(0, (("g0", 1),)), tile=8)))
    found = receipt(modelled(spec, [term], [2.4], 0.1), spec, {"g0": 9})
    layer = found.parts[0]
    assert (layer.dense, layer.slim) == (pytest.approx(2.4), pytest.approx(1.6))
    assert (layer.padding_dense, layer.padding_slim) == (0.0, pytest.approx(0.7))
    assert found.padding_slim == layer.padding_slim


def test_terms_go_to_their_layer_their_group_or_another_module() -> None:
    spec = chain_spec([8, 8])
    grown = [Factor(WidthForm(0, (("g0", 1),)))]
    names = [
        "layer0", "tiles:layer0", "layer0.weight", "width:g1", "span:g1", "bn.weight", "bn.bias", "scale", "tiles:x",
    ]  # fmt: skip
    terms = [Term(name, tuple(grown)) for name in names]
    found = receipt(modelled(spec, terms, [1.0] * len(terms), 0.0), spec, {"g0": 4, "g1": 8})
    told = {(part.kind, part.name): [line.term for line in part.lines] for part in found.parts}
    assert told == {
        ("conv", "layer0"): ["layer0", "tiles:layer0", "layer0.weight"],
        ("conv", "layer1"): [],
        ("conv", "layer2"): [],
        ("group", "g1"): ["width:g1", "span:g1"],
        ("other", "bn"): ["bn.weight", "bn.bias"],
        ("other", "scale"): ["scale"],
        ("other", "tiles:x"): ["tiles:x"],
    }


def test_what_no_width_moves_is_whole() -> None:
    spec = chain_spec([8, 8]).with_whole({"g0": "a view counts it"})
    model = modelled(spec, layer_terms(spec), [1.0, 1.0, 1.0], 0.0)
    found = receipt(model, spec, {"g1": 4})
    assert [part.movable for part in found.parts] == [False, True, True]
    causes = {cause.name: cause for cause in found.causes(0.5)}
    assert (causes["whole"].dense, causes["whole"].slim) == (1.0, 1.0)
    assert causes["whole"].excess == pytest.approx(0.5 / 3.0)


def test_a_network_that_costs_nothing_is_refused() -> None:
    spec = chain_spec([8])
    with pytest.raises(ConfigError, match=r"costs 0.0 J by m; calibrate again"):
        receipt(modelled(spec, layer_terms(spec), [0.0, 0.0], 0.0), spec, {"g0": 4})
