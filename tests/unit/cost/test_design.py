"""Which widths are measured, and when that is enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.conformal import least_samples
from edgeecc.cost.design import FIRST, NOISE, PER_TERM, Sampling, _picked, designed, place
from edgeecc.cost.fit import fit, heldout_error
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.samples import DENSE, THINNEST
from edgeecc.cost.stopping import round_ends, upper_mean
from edgeecc.cost.terms import layer_terms, spec_groups
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device

SPEC = chain_spec([24, 40])
WIDE = chain_spec([32, 64, 64, 128, 128, 256])
DESIGNS = ("i-optimal", "d-optimal", "uniform")


def sampling(design: str, seed: int = 0) -> Sampling:
    return Sampling(SPEC, seed=seed, design=design, heldout=0.2)  # type: ignore[arg-type]  # one of DESIGNS


@given(st.integers(1, 400), st.floats(0.05, 0.95))
def test_every_sample_is_of_one_kind_and_has_its_place_there(count: int, share: float) -> None:
    places = [place(number, share) for number in range(count)]
    for kind in (False, True):
        assert [rank for held, rank in places if held is kind] == list(
            range(sum(held is kind for held, _ in places))
        )
    held = sum(held for held, _ in places)
    first = min(count, FIRST)
    assert held == first // 2 + int((count - first) * share)


def test_the_first_samples_tell_the_usual_confidence() -> None:
    assert sum(place(number, 0.2)[0] for number in range(FIRST)) >= least_samples(0.95)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_sample_is_a_pure_function_of_seed_and_number(design: str) -> None:
    one, other = sampling(design), sampling(design)
    numbers = [*range(60)]
    assert [one.widths(n) for n in numbers] == [other.widths(n) for n in reversed(numbers)][::-1]
    assert [one.widths(n) for n in numbers] != [sampling(design, 1).widths(n) for n in numbers]
    assert one.widths(DENSE) == SPEC.dense_widths()
    assert one.widths(THINNEST) == SPEC.least_widths()
    for number in numbers:
        for group in SPEC.prunable:
            assert 1 <= one.widths(number)[group.name] <= group.width


def test_held_out_and_late_samples_are_uniform_in_every_design() -> None:
    uniform = sampling("uniform")
    most = PER_TERM * (len(SPEC.layers) + 1)
    for design in ("i-optimal", "d-optimal"):
        optimal = sampling(design)
        for number in range(200):
            held, rank = place(number, 0.2)
            same = optimal.widths(number) == uniform.widths(number)
            assert same == (held or rank >= most)
            assert optimal.is_held_out(number) == held
    assert uniform.is_held_out(DENSE)


def test_widths_are_uniform_on_one_to_c() -> None:
    uniform = sampling("uniform")
    drawn = np.array([SPEC.vector(uniform.widths(number)) for number in range(4000)])
    for group, column in zip(SPEC.prunable, drawn.T):
        counts = np.bincount(column.astype(int), minlength=group.width + 1)
        assert counts[0] == 0
        assert counts[1:].min() > 0.5 * 4000 / group.width


def criterion(rows: np.ndarray, picked: list, design: str) -> float:
    """Return what a design lowers, by its definition."""
    chosen = rows[picked]
    covariance = np.linalg.inv(np.eye(rows.shape[1]) + chosen.T @ chosen / NOISE**2)
    if design == "d-optimal":
        return float(np.linalg.slogdet(covariance)[1])
    return float(np.mean(np.einsum("nt,tu,nu->n", rows, covariance, rows)))


@pytest.mark.parametrize("design", ["i-optimal", "d-optimal"])
@given(seed=st.integers(0, 999))
def test_every_pick_is_the_best_of_all_by_brute_force(design: str, seed: int) -> None:
    rows = np.random.default_rng(seed).uniform(0.0, 1.0, (15, 4))
    picked = _picked(rows, 5, design)  # type: ignore[arg-type]  # a design
    for step in range(5):
        left = [row for row in range(15) if row not in picked[:step]]
        scores = {row: criterion(rows, [*picked[:step], row], design) for row in left}
        assert scores[picked[step]] == pytest.approx(min(scores.values()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("design", ["i-optimal", "d-optimal"])
def test_a_design_picks_distinct_variants_of_its_pool_in_order(design: str) -> None:
    drawn = np.random.default_rng(0).integers(1, 25, (60, 2)).astype(float)
    pool = np.unique(drawn, axis=0)
    rows = designed(SPEC, pool, 30, design)  # type: ignore[arg-type]  # a design
    assert len({tuple(row) for row in rows}) == 30
    assert {tuple(row) for row in rows} <= {tuple(row) for row in pool}
    assert (rows[:10] == designed(SPEC, pool, 10, design)).all()  # type: ignore[arg-type]  # a design


@pytest.mark.parametrize("design", ["i-optimal", "d-optimal"])
def test_a_design_beats_what_is_drawn(design: str) -> None:
    """The mean error of fits to designed samples, against fits to as many uniform ones, readings off by 2 %."""
    truth = ProductModel(
        Metric.ENERGY, "m", groups=spec_groups(WIDE), terms=layer_terms(WIDE),
        coefficients=np.array([0.1, 1.0, 3.0, 0.5, 0.1, 0.3, 0.1]), constant=0.1,
    )  # fmt: skip
    errors = {design: [], "uniform": []}
    for seed in range(12):
        generator = np.random.default_rng(seed)
        pool = np.column_stack(
            [generator.integers(1, group.width + 1, 500) for group in WIDE.prunable]
        ).astype(float)
        for name, found in errors.items():
            known = pool[:10] if name == "uniform" else designed(WIDE, pool, 10, name)  # type: ignore[arg-type]
            values = truth.predict_many(known) * (1.0 + 0.02 * generator.standard_normal(10))
            model = fit(
                WIDE, known, values, form=Form(), method="nnls", meter="m", metric=Metric.ENERGY
            )
            found.append(heldout_error(model, pool, truth.predict_many(pool)).mean)
    assert np.median(errors[design]) < 0.8 * np.median(errors["uniform"])


@given(st.integers(10, 5000))
def test_rounds_rise_to_the_samples_that_are_asked(samples: int) -> None:
    ends = round_ends(samples)
    assert ends[-1] == samples
    assert all(one < other for one, other in zip(ends, ends[1:]))
    assert ends[0] == min(samples, FIRST)


@pytest.mark.parametrize("count", [2, 5, 10, 20, 50, 500])
def test_the_bound_is_students(count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    errors = np.random.default_rng(count).uniform(0.0, 1.0, count)
    exact = stats.t.interval(0.9, count - 1, errors.mean(), errors.std(ddof=1) / np.sqrt(count))[1]
    excess = exact - errors.mean()
    near = {2: 0.35, 5: 0.01}.get(count, 1e-3)
    assert upper_mean(errors) - errors.mean() == pytest.approx(excess, rel=near)


def test_one_error_bounds_nothing() -> None:
    assert upper_mean(np.array([0.01])) == np.inf


def test_the_mean_is_under_its_bound_as_often_as_is_said() -> None:
    generator = np.random.default_rng(0)
    errors = np.abs(generator.standard_normal((2000, 20)))
    under = np.mean([upper_mean(row) >= np.sqrt(2 / np.pi) for row in errors])
    assert 0.90 < under < 0.97
