"""Local least squares against numpy on the rows themselves, and restoring against trying everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.solvers import local_fit
from edgeecc.solvers.local_fit import RIDGE, Moments, fit, restore


class Case:
    """Rows of g groups, weights, a support, and their moments."""

    def __init__(self, seed: int, *, groups: int = 2, outs: int = 3, inputs: int = 9) -> None:
        rng = np.random.default_rng(seed)
        mix = rng.normal(size=(groups, inputs, inputs))
        self.x = np.maximum(rng.normal(size=(groups, 60, inputs)) @ mix, 0.0)
        self.y = self.x @ rng.normal(size=(groups, inputs, outs)) + rng.normal(
            size=(groups, 60, outs)
        )
        self.support = rng.random((groups, outs, inputs)) < 0.5
        self.weight = rng.normal(size=(groups, outs, inputs)) * self.support

    @property
    def moments(self) -> Moments:
        x, y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        return Moments(x.mT @ x, x.mT @ y, y.square().sum(1))

    def ridge(self, group: int) -> float:
        return RIDGE * float(np.square(self.x[group]).sum()) / self.x.shape[2]

    def errors(self, weight: np.ndarray) -> np.ndarray:
        return np.square(self.y - self.x @ weight.transpose(0, 2, 1)).sum(1)

    def fit(self) -> np.ndarray:
        return fit(self.moments, torch.from_numpy(self.weight), torch.from_numpy(self.support)).numpy()  # fmt: skip

    def restore(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight, support = restore(
            self.moments, torch.from_numpy(self.weight),
            support=torch.from_numpy(self.support), target=torch.from_numpy(target),
        )  # fmt: skip
        return weight.numpy(), support.numpy()

    def least_squares(self) -> np.ndarray:
        """Solve each filter with numpy: the ridge is rows of its own that ask for the present weights."""
        fitted = np.zeros_like(self.weight)
        for g, o in np.ndindex(self.weight.shape[:2]):
            stays = self.support[g, o]
            root = np.sqrt(self.ridge(g))
            rows = np.vstack([self.x[g][:, stays], root * np.eye(stays.sum())])
            wanted = np.concatenate([self.y[g, :, o], root * self.weight[g, o, stays]])
            fitted[g, o, stays] = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        return fitted


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 12))
def test_fit_is_least_squares(seed: int, groups: int, outs: int, inputs: int) -> None:
    case = Case(seed, groups=groups, outs=outs, inputs=inputs)
    got = case.fit()
    np.testing.assert_allclose(got, case.least_squares(), rtol=1e-6, atol=1e-7)
    assert not got[~case.support].any()
    assert (case.errors(got) <= case.errors(case.weight) * (1 + 1e-9)).all()
    moments = case.moments.errors(torch.from_numpy(got)).numpy()
    np.testing.assert_allclose(moments, case.errors(got), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 40, 200])
def test_small_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(3, groups=3, outs=7, inputs=11)
    target = np.full((3, 7), 9)
    fitted, (weight, support) = case.fit(), case.restore(target)
    monkeypatch.setattr(local_fit, "CHUNK", chunk)
    np.testing.assert_allclose(case.fit(), fitted, rtol=1e-9, atol=1e-12)
    again, kept = case.restore(target)
    np.testing.assert_allclose(again, weight, rtol=1e-9, atol=1e-12)
    assert (kept == support).all()


def test_iterating_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(5, groups=2, outs=6, inputs=24)
    exact = case.fit()
    monkeypatch.setattr(local_fit, "EXACT", 4)
    monkeypatch.setattr(local_fit, "ITERATIONS", 400)
    np.testing.assert_allclose(case.fit(), exact, rtol=1e-4, atol=1e-5)
    last = case.errors(case.weight)
    for steps in (1, 2, 4, 8):
        monkeypatch.setattr(local_fit, "ITERATIONS", steps)
        got = case.fit()
        assert not got[~case.support].any()
        assert (case.errors(got) <= last * (1 + 1e-9)).all()
        last = case.errors(got)


@given(st.integers(0, 10**6))
def test_one_restored_weight_is_the_best_single_one(seed: int) -> None:
    case = Case(seed)
    weight, support = case.restore(case.support.sum(2) + 1)
    for g, o in np.ndindex(case.weight.shape[:2]):
        if case.support[g, o].all():
            continue
        rest = case.y[g, :, o] - case.x[g] @ case.weight[g, o]
        root, errors, values = np.sqrt(case.ridge(g)), {}, {}
        for place in np.flatnonzero(~case.support[g, o]):
            column = np.append(case.x[g][:, place], root)[:, None]
            value, error, _, _ = np.linalg.lstsq(column, np.append(rest, 0.0), rcond=None)
            errors[place], values[place] = error[0], value[0]
        added = np.flatnonzero(support[g, o] & ~case.support[g, o])
        assert added.tolist() == [min(errors, key=errors.__getitem__)]
        np.testing.assert_allclose(weight[g, o, added[0]], values[added[0]], rtol=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_restoring_meets_targets_and_never_adds_error(seed: int, rounds: int) -> None:
    case = Case(seed, inputs=20)
    target = np.random.default_rng(seed).integers(0, 21, case.weight.shape[:2])
    before, local_fit.ROUNDS = local_fit.ROUNDS, rounds
    try:
        weight, support = case.restore(target)
    finally:
        local_fit.ROUNDS = before
    assert (support >= case.support).all()
    assert (support.sum(2) == np.maximum(target, case.support.sum(2))).all()
    assert not weight[~support].any()
    assert (case.errors(weight) <= case.errors(case.weight) * (1 + 1e-9)).all()


def test_one_at_a_time_is_matching_pursuit() -> None:
    case = Case(11, groups=1, outs=1, inputs=10)
    case.support[:], case.weight[:] = False, 0.0
    rest, weight = case.y[0, :, 0].copy(), np.zeros(10)
    free = list(range(10))
    for _ in range(6):
        power = np.square(case.x[0]).sum(0) + case.ridge(0)
        pulls = case.x[0].T @ rest
        place = max(free, key=lambda p: pulls[p] ** 2 / power[p])
        weight[place] = pulls[place] / power[place]
        rest -= case.x[0][:, place] * weight[place]
        free.remove(place)
    got, _ = case.restore(np.array([[6]]))
    np.testing.assert_allclose(got[0, 0], weight, rtol=1e-9, atol=1e-12)


def test_inputs_that_are_always_zero() -> None:
    case = Case(7, inputs=6)
    case.x[:, :, :3] = 0.0
    case.x[1] = 0.0
    weight, support = case.restore(np.full((2, 3), 6))
    assert (support[:, :, :3] == case.support[:, :, :3]).all()  # nothing is gained by them
    assert support[0, :, 3:].all()
    case.weight, case.support = weight, support
    got = case.fit()
    np.testing.assert_allclose(got[:, :, :3], weight[:, :, :3], rtol=1e-12)
    np.testing.assert_allclose(got[1], weight[1], rtol=1e-12)


def test_an_input_that_is_hardly_ever_not_zero_gets_no_huge_weight() -> None:
    case = Case(9, inputs=6)
    case.x[:, :, 2] = 0.0
    case.x[:, 5, 2] = 1e-6
    case.support[:, :, 2], case.weight[:, :, 2] = False, 0.0
    case.weight, case.support = case.restore(np.full((2, 3), 6))
    assert np.abs(case.fit()[:, :, 2]).max() < 0.01


def test_an_empty_support_stays_empty() -> None:
    case = Case(8)
    case.support[:], case.weight[:] = False, 0.0
    assert not case.fit().any()
    weight, support = case.restore(np.zeros((2, 3), dtype=np.int64))
    assert not weight.any()
    assert not support.any()
