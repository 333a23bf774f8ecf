"""Stand-ins against least squares done by others, and importance against its definition."""

from __future__ import annotations

import copy
from typing import Callable, Dict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.solvers import standin
from edgeecc.solvers.importance import Importance
from edgeecc.solvers.standin import (
    Reading,
    eliminated,
    inverse,
    may_stand_in,
    readings,
    second_moments,
    without,
)
from tests import zoo


def correlated(seed: int, count: int, rows: int = 200) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, count)) @ generator.normal(size=(count, count))


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 5))
def test_stand_ins_are_those_of_least_squares(seed: int, count: int, gone: int) -> None:
    gone = min(gone, count - 1)
    x = correlated(seed, count)
    x = x - x.mean(0)
    found = inverse(torch.from_numpy(x.T @ x / len(x)))
    order = torch.from_numpy(np.random.default_rng(seed + 1).permutation(count))
    weights, rest = without(found, order[gone:], order[:gone])
    # Ridge regression as a plain one on more rows.
    ridge = standin.RIDGE * float(np.mean((x**2).sum(0)))
    stay, go = order[gone:].numpy(), order[:gone].numpy()
    padded = np.vstack([x[:, stay], np.sqrt(ridge) * np.eye(len(stay))])
    wanted = np.vstack([x[:, go], np.zeros((len(stay), gone))])
    expected = np.linalg.lstsq(padded, wanted, rcond=None)[0]
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6, atol=1e-8)
    alone = np.linalg.inv(x[:, stay].T @ x[:, stay] / len(x) + ridge / len(x) * np.eye(len(stay)))
    np.testing.assert_allclose(rest.numpy(), alone, rtol=1e-6, atol=1e-8 * abs(alone).max())


@pytest.mark.parametrize(("count", "rows"), [(1, 9), (65, 300), (300, 31), (600, 32)])
def test_an_inverse_is_one_also_where_rows_are_fewer_than_units(count: int, rows: int) -> None:
    x = np.abs(correlated(count, count, rows))
    covariance = np.atleast_2d(np.cov(x.T))
    found = inverse(torch.from_numpy(covariance)).numpy()
    whole = covariance + standin.RIDGE * np.mean(np.diag(covariance)) * np.eye(count)
    np.testing.assert_allclose(found @ whole, np.eye(count), atol=1e-8)
    assert np.linalg.eigvalsh(found).min() > 0.0


@pytest.mark.parametrize("count", [1, 5, 127, 128, 129, 300])
def test_second_moments_are_those_of_rows_and_a_one(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(50, count)).astype(np.float32)
    ones = np.hstack([rows, np.ones((50, 1))]).astype(np.float64)
    found = second_moments(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(found, ones.T @ ones, rtol=1e-4, atol=1e-4)
    assert np.array_equal(found[:count, :count][:128, 128:], found[:count, :count][128:, :128].T)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(1, 2))
def test_elimination_equals_inverting_anew(seed: int, count: int, most: int, layers: int) -> None:
    generator = np.random.default_rng(seed)
    importance = generator.uniform(0.1, 1.0, count)
    inverses = [
        inverse(torch.from_numpy(np.atleast_2d(np.cov(correlated(seed + k, count).T)))).numpy()
        for k in range(layers)
    ]
    shares = [generator.uniform(0.1, 0.5, count) for _ in range(layers)]
    found = eliminated(importance, shares, inverses, most)
    left, now, floor = list(range(count)), importance.copy(), 0.0
    expected = np.zeros(count)
    for _ in range(min(most, count)):
        unit = min(left, key=lambda i: now[i])
        floor = max(floor, now[unit])
        expected[unit] = floor
        left.remove(unit)
        for i in left:
            growth = 1.0
            for share, matrix in zip(shares, inverses):
                whole = np.linalg.inv(matrix)[np.ix_(left, left)]
                growth += share[i] * (
                    matrix[i, i] / np.linalg.inv(whole)[left.index(i), left.index(i)] - 1.0
                )
            now[i] = importance[i] * growth
    for i in left:
        expected[i] = max(floor, now[i])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_of_two_channels_that_tell_the_same_one_is_worth_little_until_the_other_is_gone() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3))
    x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
    p = inverse(torch.from_numpy(np.cov(x.T))).numpy()
    worth = eliminated(np.array([0.01, 0.011, 0.5]), [np.ones(3)], [p], 1)
    assert worth[0] == 0.01
    assert worth[1] > 0.3


LAYERS: Dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)),
    "no bias": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False)),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, stride=2)
    ),
    "linear": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    ),
}


def made(name: str) -> tuple:
    model = LAYERS[name]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
        # Channel 5 tells what channels 0 and 1 tell together.
        first = model[0]
        first.weight[5] = 0.5 * first.weight[0] + 0.5 * first.weight[1]
        first.bias[:] = 4.0
        first.bias[5] = 4.0
    spec = trace(model, (torch.zeros(1, 3, 8, 8),), network=name)
    images = torch.randn((64, 3, 8, 8), generator=generator)
    return model, spec, images


def watched(
    model: nn.Module, spec: NetworkSpec, images: torch.Tensor, **more: object
) -> Importance:
    importance = Importance(spec, model, decay=0.5, batch=64, total=lambda values: values, **more)
    with importance.watching(model):
        model.train()
        model(images).square().sum().backward()
        importance.take(model)
    return importance


def covariance_of(importance: Importance) -> torch.Tensor:
    moments = importance.state()["moments.0"].double()
    moments = moments / moments[-1, -1]
    return moments[:-1, :-1] - torch.outer(moments[-1, :-1], moments[-1, :-1])


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_channel_that_others_tell_goes_without_a_trace(name: str) -> None:
    model, spec, images = made(name)
    importance = watched(model, spec, images)
    before = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    after = [living.copy() for living in before]
    after[0][5] = False
    cut = copy.deepcopy(model)
    wanted = model(images).detach()
    importance.settle(before)
    importance.let_go_(model, before, after)
    with torch.no_grad():
        for one in (model, cut):
            reading = readings(spec)[0]
            weight = one.get_submodule(reading.module).weight
            reading.add_(weight, torch.tensor([5]), -reading.of(weight)[5:6])
        error = (model(images) - wanted).square().mean().sqrt()
        without_stand_in = (cut(images) - wanted).square().mean().sqrt()
    spread = wanted.std()
    assert without_stand_in > 0.1 * spread
    # What the ridge leaves; a layer without a bias also loses the mean.
    if name == "no bias":
        means = (model(images) - wanted).mean((0, 2, 3), keepdim=True)
        error = (model(images) - wanted - means).square().mean().sqrt()
    assert error < 0.05 * spread


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_terms_before_moments_are_settled_are_first_order(name: str) -> None:
    model, spec, images = made(name)
    found = watched(model, spec, images).arrays()
    for group, values in zip(spec.prunable, found):
        term = torch.zeros(group.width, dtype=torch.float64)
        for piece in group.slices:
            if piece.role == "in":
                parameter = model.get_parameter(piece.parameter)
                product = (parameter * parameter.grad).movedim(piece.axis, 0)
                rows = torch.from_numpy(piece.indices(np.arange(group.width)))
                term += product[rows].reshape(group.width, -1).sum(1).double()
        np.testing.assert_allclose(values, 0.5 * term.detach().numpy() ** 2, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_settled_terms_are_along_the_residual(name: str) -> None:
    """The term of a channel is the change of the loss when its residual on the others goes, to first order."""
    model, spec, images = made(name)
    importance = watched(model, spec, images)
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    importance.settle(alive)
    reading = readings(spec)[0]
    layer = model.get_submodule(reading.module)
    state = importance.state()
    gradient = reading.of(layer.weight.grad)
    weight = reading.of(layer.weight.detach())
    model.zero_grad()
    model(images).square().sum().backward()
    importance.take(model)
    found = importance.arrays()[0] - 0.5 * state["square.0"].numpy()
    covariance = covariance_of(importance).numpy()
    ridge = standin.RIDGE * np.mean(np.diag(covariance))
    for unit in range(6):
        others = [i for i in range(6) if i != unit]
        c = covariance + ridge * np.eye(6)
        a = np.linalg.solve(c[np.ix_(others, others)], c[others, unit])
        along = gradient[unit] - torch.from_numpy(a).float() @ gradient[others]
        expected = 0.5 * float((weight[unit] * along).sum()) ** 2
        assert found[unit] == pytest.approx(expected, rel=1e-3)


def test_importance_grows_with_the_residual_when_its_partner_goes() -> None:
    model, spec, images = made("conv")
    importance = watched(model, spec, images)
    before = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    importance.settle(before)
    old = importance.arrays()[0]
    p = inverse(covariance_of(importance))
    after = [np.array([True] * 5 + [False])]
    stay, gone = torch.arange(5), torch.tensor([5])
    importance.let_go_(model, before, after)
    growth = (p.diagonal()[:5] / without(p, stay, gone)[1].diagonal()).numpy()
    np.testing.assert_allclose(importance.arrays()[0][:5], old[:5] * growth, rtol=1e-6)
    assert growth[:2].min() > 2.0


class Residual(nn.Module):
    """What the stem gives is read by two convolutions, one of which is grouped, and by the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
        self.outer, self.grouped = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1, groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.outer(torch.relu(self.inner(x) + self.grouped(x)))
        return self.head(x.mean((2, 3)))


def residual() -> tuple:
    model, generator = Residual(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    spec = trace(model, (torch.zeros(1, 3, 8, 8),), network="residual")
    return model, spec, torch.randn((64, 3, 8, 8), generator=generator)


def squares_of(model: nn.Module, spec: NetworkSpec) -> Dict[str, list]:
    """Return the squared first-order term of each unit, by layer, for every group: the definition itself."""
    found: Dict[str, list] = {group.name: [] for group in spec.prunable}
    for group in spec.prunable:
        for piece in group.slices:
            if piece.role == "in":
                parameter = model.get_parameter(piece.parameter)
                product = (parameter * parameter.grad).detach().movedim(piece.axis, 0)
                term = np.zeros(group.width)
                for row, places in enumerate(piece.indices(np.arange(group.width)), piece.first):
                    term[row] = float(product[torch.from_numpy(places)].double().sum())
                found[group.name].append(term**2)
    return found


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_importance_is_the_sum_of_what_each_layer_has_of_it_on_its_level(
    share: bool, power: float
) -> None:
    model, spec, images = residual()
    importance = watched(model, spec, images, share=share)
    importance.level_(power)
    expected = squares_of(model, spec)
    assert max(len(layers) for layers in expected.values()) > 2
    for group, values in zip(spec.prunable, importance.arrays()):
        wanted = sum(s * (0.5 * s.mean()) ** -power for s in expected[group.name])
        np.testing.assert_allclose(values, 0.5 * wanted, rtol=1e-3)


def test_a_level_stays_when_units_are_worth_more_later() -> None:
    model, spec, images = residual()
    importance = watched(model, spec, images)
    importance.level_(1.0)
    first = importance.arrays()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.grad *= 3.0
    importance.take(model)
    for before, after in zip(first, importance.arrays()):
        np.testing.assert_allclose(after, (0.5 + 0.5 * 9.0 / 0.5) * before, rtol=1e-6)


def test_what_is_read_with_and_without_stand_ins_grows_by_its_share() -> None:
    """Of a unit that a grouped layer reads too only the part of the others grows, whatever order units go in."""
    model, spec, images = residual()
    importance = watched(model, spec, images)
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    importance.settle(alive)
    importance.level_(0.5)
    shared = [
        {p.shared for p in importance._parts if p.reading.group == i} for i in range(len(alive))
    ]
    place = shared.index({True, False})
    parts = [part for part in importance._parts if part.reading.group == place]
    whole = importance.arrays()[place]
    expected = eliminated(
        whole,
        [part.importance() / whole for part in parts if part.shared],
        [part.inverse.numpy() for part in parts if part.shared],
        1,  # a quarter of three
    )
    np.testing.assert_allclose(importance.as_they_go(alive)[place], expected, rtol=1e-9)


def test_layers_that_cannot_take_stand_ins_are_left_alone() -> None:
    model, inputs = zoo.build("grouped")
    spec = trace(model, inputs, network="grouped")
    assert all(
        getattr(model.get_submodule(reading.module), "groups", 1) == 1
        for reading in readings(spec)
        if may_stand_in(reading, model)
    )
    model, spec, images = made("conv")
    plain = watched(model, spec, images, share=False)
    before = copy.deepcopy(model.state_dict())
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    plain.settle(alive)
    plain.let_go_(model, alive, [np.array([True] * 5 + [False])])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_nothing_is_looked_at_when_nothing_is_left_to_choose() -> None:
    model, spec, images = made("conv")
    importance = watched(model, spec, images)
    before = importance.state()["moments.0"].clone()
    importance.stop()
    with importance.watching(model):
        model(images)
    assert torch.equal(importance.state()["moments.0"], before)


def test_inputs_given_by_name_are_seen() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(input=torch.relu(self.a(x)))

    model = Named()
    spec = trace(model, (torch.zeros(1, 3, 8, 8),), network="named")
    found = watched(model, spec, torch.randn(8, 3, 8, 8))
    assert found.state()["moments.0"].shape == (7, 7)


def test_a_frozen_weight_is_told() -> None:
    model, spec, images = made("conv")
    model[2].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="gets no gradient"):
        watched(model, spec, images)


def test_the_state_brings_everything_back() -> None:
    model, spec, images = made("conv")
    importance = watched(model, spec, images)
    alive = [np.array([True] * 5 + [False])]
    importance.settle([np.ones(6, dtype=bool)])
    importance.let_go_(model, [np.ones(6, dtype=bool)], alive)
    other = Importance(spec, model, decay=0.5, batch=64, total=lambda values: values)
    other.load_state({name: value.clone() for name, value in importance.state().items()})
    for one in (importance, other):
        one.take(model)
    np.testing.assert_array_equal(importance.arrays()[0], other.arrays()[0])
    np.testing.assert_array_equal(importance.as_they_go(alive)[0], other.as_they_go(alive)[0])


def test_rows_are_spread_and_few_and_those_of_an_image_are_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    spec = trace(model, (torch.zeros(1, 3, 40, 40),), network="wide")
    reading: Reading = readings(spec)[0]
    images = torch.randn(32, 6, 40, 30)
    rows = reading.rows(images, 1, 128)
    assert rows.shape[1] == 6
    assert 0.4 * 32 * 128 < len(rows) <= 32 * 128
    parts = [reading.rows(part, 1, 128) for part in (images[:5], images[5:])]
    assert torch.equal(torch.cat(parts), rows)
    assert len(reading.rows(images, 1, 1)) <= 2 * 32
    assert reading.rows(images.double(), 1, 1).dtype is torch.float64
    assert reading.rows(images.bfloat16(), 1, 1).dtype is torch.float32


def test_two_processes_know_what_one_does() -> None:
    model, spec, images = made("conv")
    model.double(), model.train()
    images = images.double()
    whole = watched(model, spec, images)
    shift = whole.state()["shift.0"]
    parts = []
    for images_of_one in (images[:20], images[20:]):
        one = Importance(spec, model, decay=0.5, batch=64, total=lambda v: v)
        one.load_state({**one.state(), "shift.0": shift})  # the mean of both, as processes share it
        with one.watching(model):
            model(images_of_one)
        parts.append(one.state()["moments.0"])
    torch.testing.assert_close(sum(parts), whole.state()["moments.0"], rtol=1e-9, atol=1e-9)


def test_large_means_leave_the_covariance_exact() -> None:
    """In float32 a mean a thousand times the deviation would leave nothing of it."""
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    spec = trace(model, (torch.zeros(1, 3, 8, 8),), network="means")
    with torch.no_grad():
        model[0].bias.fill_(1000.0)
    importance = watched(model, spec, torch.randn(64, 3, 8, 8))
    with torch.no_grad():
        x = model[0](torch.randn(2000, 3, 8, 8).double().float()).double()
    importance.settle([np.ones(6, dtype=bool)])
    found = importance.state()["inverse.0"].numpy()
    assert (np.linalg.eigvalsh(found) > 0.0).all()
    assert covariance_of(importance).diagonal().sum() == pytest.approx(
        float(x.movedim(1, 0).reshape(6, -1).var(1).sum()), rel=0.1
    )


def test_half_precision_of_forward_passes_leaves_the_covariance_exact() -> None:
    """Products that autocast halves leave no positive definite matrix: of what is nearly told, nothing is known."""
    model, spec, images = made("conv")
    first = model[0].weight
    apart = torch.randn(first[1:].shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first[1:] = first[:1] + 1e-2 * apart
    model.train()
    importance = Importance(spec, model, decay=0.5, batch=64, total=lambda values: values)
    seen = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    with importance.watching(model), torch.autocast("cpu", dtype=torch.bfloat16):
        model(images)
    reading = readings(spec)[0]
    rows = reading.rows(seen[0], 1, 64).double()
    found = covariance_of(importance).double()
    assert seen[0].dtype is torch.bfloat16
    assert importance.state()["moments.0"].dtype is torch.float32
    expected = torch.cov(rows.mT, correction=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_of_dead_units_no_moments_are_kept_and_those_of_the_others_are_as_before() -> None:
    """Units go, more images are seen: what is known of the living is what it is where all are looked at."""
    model, spec, images = made("conv")
    whole, thinned = watched(model, spec, images), watched(model, spec, images)
    living = np.array([True, False, True, True, False, True])
    thinned.settle([living])
    with whole.watching(model), thinned.watching(model):
        model.train()
        model(images[:32])
    place = [0, 2, 3, 5]
    moments = whole.state()["moments.0"][[*place, 6]][:, [*place, 6]]
    torch.testing.assert_close(thinned.state()["moments.0"], moments)
    for importance in (whole, thinned):
        importance.settle([living])
    assert thinned.state()["live.0"].tolist() == place
    for name in ("mean.0", "inverse.0"):
        units = slice(None) if name == "inverse.0" else place
        torch.testing.assert_close(
            thinned.state()[name][units], whole.state()[name][units], rtol=1e-4, atol=1e-5
        )


def test_a_checkpoint_with_moments_of_all_units_goes_on() -> None:
    model, spec, images = made("conv")
    importance = watched(model, spec, images)
    former = dict(importance.state())
    importance.settle([np.array([True, False, True, True, False, True])])
    former.update(
        {name: value for name, value in importance.state().items() if "moments" not in name}
    )
    assert len(former["moments.0"]) == 7
    other = Importance(spec, model, decay=0.5, batch=64, total=lambda values: values)
    other.load_state(former)
    for name, value in importance.state().items():
        assert torch.equal(other.state()[name], value), name
