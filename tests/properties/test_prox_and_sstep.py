"""The two subproblems of ECC against brute force, published vectors, and their invariances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import ConfigError
from edgeecc.solvers.prox import survivors, thresholds, top, trim
from edgeecc.solvers.sstep import flow, least_dual, marginal, published_step
from tests.unit.cost.test_cost import DENSE, TX2, chain

VECTOR = np.array([0.9, 0.5, 0.3, 0.1])


def test_published_prox_vectors() -> None:
    np.testing.assert_allclose(thresholds(4, 2.5, 0.0, rho1=1.0, alpha=0.1), [0.0, 0.0, 0.025, 0.2])
    assert survivors(VECTOR, 2.5, 0.0, rho1=1.0, alpha=0.1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(thresholds(4, 2.5, 2.0, rho1=1.0, alpha=0.1), [0.4, 0.4, 0.425, 0.6])
    assert survivors(VECTOR, 2.5, 2.0, rho1=1.0, alpha=0.1).tolist() == [0, 1]
    assert trim(VECTOR, 2.5, 10.0, rho1=1.0, alpha=0.1) == pytest.approx(2.5)
    np.testing.assert_allclose(thresholds(4, 2.5, 2.5, rho1=1.0, alpha=0.1), [0.5, 0.5, 0.525, 0.7])
    assert survivors(VECTOR, 2.5, 2.5, rho1=1.0, alpha=0.1).tolist() == [0, 1]


def objective(a: np.ndarray, kept: tuple, s: float, y: float, rho1: float, alpha: float) -> float:
    lost = sum(a[i] for i in range(len(a)) if i not in kept) / 2.0
    return lost + alpha * (rho1 / 2.0 * max(0.0, len(kept) - s) ** 2 + y * len(kept))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@given(
    a=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    s=st.floats(0.5, 9.0),
    y=st.floats(0.0, 2.0),
    rho1=st.floats(0.0, 20.0),
    alpha=st.floats(1e-3, 1.0),
)
def test_prox_is_the_brute_force_minimum(
    a: list, s: float, y: float, rho1: float, alpha: float, scale: float
) -> None:
    a = np.array(a) * scale
    y, rho1 = y * scale, rho1 * scale
    found = tuple(survivors(a, s, y, rho1=rho1, alpha=alpha))
    everything = itertools.chain.from_iterable(
        itertools.combinations(range(len(a)), k) for k in range(len(a) + 1)
    )
    best = min(objective(a, kept, s, y, rho1, alpha) for kept in everything)
    assert objective(a, found, s, y, rho1, alpha) <= best + 1e-9 * scale


@given(
    st.lists(st.floats(0.0, 1e3), min_size=1, max_size=12),
    st.floats(1.0, 12.0),
    st.floats(0.0, 1e4),
)
def test_the_trim_protects_floor_s_units(a: list, s: float, y: float) -> None:
    a = np.array(a)
    s = min(s, float(len(a)))
    trimmed = trim(a, s, y, rho1=10.0)
    assert 0.0 <= trimmed <= y
    # In exact arithmetic a tie stays; one ulp of slack stands for that.
    kept = survivors(a * (1 + 1e-12), s, trimmed * (1 - 1e-12), rho1=10.0)
    assert len(kept) >= int(s)


def test_negative_duals_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        thresholds(3, 1.0, -1.0, rho1=1.0)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=9), st.integers(1, 9))
def test_top_is_the_largest(a: list, count: int) -> None:
    kept = top(np.array(a), min(count, len(a)))
    dropped = sorted(set(range(len(a))) - set(kept.tolist()))
    assert len(kept) == min(count, len(a))
    assert all(a[k] >= a[d] for k in kept for d in dropped)


def test_published_z_min() -> None:
    gradient = TX2.gradient(np.array(DENSE, dtype=float))
    candidates = 1e-3 / gradient
    np.testing.assert_allclose(
        candidates, [6.548, 16.77, 43.39, 30.72, 13.09, 175.3, 446.8], rtol=1e-3
    )
    assert least_dual(np.zeros(7), gradient, np.ones(7), 1e-3) == pytest.approx(6.5482, rel=1e-4)
    assert least_dual(np.zeros(7), gradient, np.zeros(7), 1e-3) == np.inf
    assert least_dual(np.zeros(7), np.zeros(7), np.ones(7), 1e-3) == np.inf


def test_a_published_step_lowers_the_energy_and_only_moves_down() -> None:
    s = np.array(DENSE, dtype=float)
    moved, z = published_step(
        s, s.copy(), np.zeros(7), 0.0, excess=0.02, slope=TX2.gradient(s), rho=(10.0, 10.0), epsilon=1e-3, beta=3.0
    )  # fmt: skip
    assert z == pytest.approx((1e-3 - 0.2 * TX2.gradient(s).max()) / TX2.gradient(s).max(), rel=0.3)
    assert (moved <= s).all()
    assert TX2.predict(moved) < TX2.predict(s)
    stuck, same = published_step(
        np.ones(7), np.ones(7), np.zeros(7), 5.0, excess=0.02, slope=TX2.gradient(s), rho=(10.0, 10.0), epsilon=1e-3,
        beta=3.0,
    )  # fmt: skip
    assert (stuck == 1.0).all()
    assert same == 5.0


@st.composite
def width_problems(draw: st.DrawFn) -> tuple:
    """Draw a chain, importance per unit, and a share of dense to reach."""
    dense = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    coefficients = draw(
        st.lists(st.floats(0.01, 1.0), min_size=len(dense) + 1, max_size=len(dense) + 1)
    )
    model = chain(dense, coefficients, draw(st.floats(0.0, 0.3)))
    ranked = [
        np.sort(draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n)))[::-1].copy()
        for n in dense
    ]
    return model, ranked, draw(st.floats(0.0, 1.0))


def target_of(model: object, share: float) -> float:
    dense = np.array(model.dense, dtype=float)
    low = model.predict(np.ones(len(dense)))
    return low + share * (model.predict(dense) - low)


@given(width_problems())
def test_flow_lands_on_its_target_within_bounds(problem: tuple) -> None:
    model, ranked, share = problem
    dense, target = np.array(model.dense, dtype=float), target_of(*problem[::2])
    s, z = flow(dense, ranked, energy=model.predict, slope=model.gradient, target=target)
    assert ((s >= 1.0) & (s <= dense)).all()
    assert model.predict(s) <= target * (1 + 1e-9) + 1e-12
    assert z >= 0.0
    if share > 1e-3:
        assert model.predict(s) >= target * (1 - 1e-6)
    again, _ = flow(
        s, ranked, energy=model.predict, slope=model.gradient, target=target * (1 + 1e-9) + 1e-12
    )
    np.testing.assert_array_equal(again, s)


@given(width_problems())
def test_flow_does_not_depend_on_the_unit_of_energy(problem: tuple) -> None:
    """Acceptance (i): joules or millijoules, the same path."""
    model, ranked, share = problem
    dense, target = np.array(model.dense, dtype=float), target_of(model, share)
    one, _ = flow(dense, ranked, energy=model.predict, slope=model.gradient, target=target)
    other, _ = flow(
        dense, ranked, energy=lambda s: 1024 * model.predict(s), slope=lambda s: 1024 * model.gradient(s),
        target=1024 * target,
    )  # fmt: skip
    np.testing.assert_array_equal(one, other)


@given(width_problems())
def test_flow_does_not_depend_on_how_finely_channels_are_cut(problem: tuple) -> None:
    """Acceptance (ii): every channel split into two of half the importance gives the same path in shares.

    The lower bound of one channel is left out: a split channel is half as thick.
    """
    model, ranked, share = problem
    dense, target = np.array(model.dense, dtype=float), target_of(model, 0.3 + 0.7 * share)
    s, _ = flow(dense, ranked, energy=model.predict, slope=model.gradient, target=target)
    if (s <= 1.0).any():
        return
    fine = chain([2 * n for n in model.dense], list(model.coefficients), model.constant)
    halves = [np.repeat(values / 2.0, 2) for values in ranked]
    t, _ = flow(2 * dense, halves, energy=fine.predict, slope=fine.gradient, target=target)
    ties = len({v for values in ranked for v in values}) < sum(map(len, ranked))
    if not ties:
        assert fine.predict(t) == pytest.approx(model.predict(s))
        np.testing.assert_allclose(t / (2 * dense), s / dense, atol=0.5 / dense.min())
        # The duals agree in shares: a full channel is worth two halves.
        for values, parts, a, b in zip(ranked, halves, s, t):
            if abs(a - round(a)) > 1e-6 and abs(b / 2 - a) < 1e-6:
                assert marginal(values, a) == pytest.approx(2 * marginal(parts, b))


@given(width_problems())
def test_flow_removes_the_least_importance_per_energy_first(problem: tuple) -> None:
    """With one energy per channel everywhere, what goes is what is worth least: the greedy optimum."""
    _, ranked, share = problem
    dense = np.array([len(values) for values in ranked], dtype=float)
    total = dense.sum()
    target = len(dense) + share * (total - len(dense))
    s, _ = flow(
        dense,
        ranked,
        energy=lambda s: float(s.sum()),
        slope=lambda s: np.ones(len(s)),
        target=target,
    )
    kept = [values[: int(np.ceil(w - 1e-9))] for values, w in zip(ranked, s)]
    lost = [values[int(np.ceil(w - 1e-9)) :] for values, w in zip(ranked, s)]
    removable = [value for values in kept for value in values[1:]]
    gone = [value for values in lost for value in values]
    if removable and gone:
        assert max(gone) <= min(removable) + 1e-12
