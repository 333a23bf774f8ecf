"""Cost models against published vectors, finite differences and independent solvers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.artifacts import load_json, write_json
from edgeecc.cost.conformal import Margin
from edgeecc.cost.fit import HeldoutError, adam, heldout_error
from edgeecc.cost.nnls import nnls
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.terms import Features, Term
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import WidthForm
from edgeecc.units import Metric

pytestmark = pytest.mark.device

# Fitted AlexNet coefficients of a Jetson TX2, published with ECC's code (float32).
DENSE = [64, 192, 384, 256, 256, 4096, 4096]
CONSTANT = 0.00248206733
COEFFICIENTS = [
    0.00223370781, 0.00753995031, 0.00390925538, 0.00494066952, 0.00339309988, 0.0161565151, 0.00721406378,
    0.00195417996,
]  # fmt: skip


def chain(
    dense: list, coefficients: list, constant: float, ends: tuple = (3, 1000)
) -> ProductModel:
    """Return the model of a chain of layers: input, widths, output."""
    names = [f"g{index}" for index in range(len(dense))]
    counts = [
        WidthForm(ends[0]),
        *(WidthForm(0, ((name, 1),)) for name in names),
        WidthForm(ends[1]),
    ]
    terms = [Term.of(f"layer{i}", (counts[i], counts[i + 1])) for i in range(len(dense) + 1)]
    return ProductModel(
        Metric.ENERGY, "published", groups=list(zip(names, dense)), terms=terms, coefficients=np.array(coefficients),
        constant=constant,
    )  # fmt: skip


TX2 = chain(DENSE, COEFFICIENTS, CONSTANT)


@pytest.mark.parametrize(
    ("widths", "energy_j"),
    [
        (DENSE, 0.04982351),
        ([1] * 7, 0.00251823),
        ([width // 2 for width in DENSE], 0.01536440),
        ([64, 192, 384, 256, 128, 4096, 4096], 0.04004870),
    ],
)
def test_published_alexnet_energies(widths: list, energy_j: float) -> None:
    assert TX2.predict(np.array(widths, dtype=float)) == pytest.approx(energy_j, abs=6e-9)


def test_published_alexnet_gradients() -> None:
    gradient = TX2.gradient(np.array(DENSE, dtype=float))
    expected = [1.5271e-4, 5.9631e-5, 2.3047e-5, 3.2554e-5, 7.6366e-5, 5.7057e-6, 2.2383e-6]
    np.testing.assert_allclose(gradient, expected, rtol=3e-5)
    assert np.linalg.norm(gradient) == pytest.approx(1.8530e-4, rel=3e-5)
    normalised = gradient * np.array(DENSE) / TX2.predict(np.array(DENSE, dtype=float))
    np.testing.assert_allclose(
        normalised, [0.1962, 0.2298, 0.1776, 0.1673, 0.3924, 0.4691, 0.1840], atol=6e-5
    )


@st.composite
def models(draw: st.DrawFn) -> ProductModel:
    """Draw a model with residual (squared), concatenated and fixed factors."""
    dense = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    names = [f"g{i}" for i in range(len(dense))]
    form = st.builds(
        lambda fixed, picks: WidthForm(
            fixed, tuple((name, factor) for name, factor in picks.items())
        ),
        st.integers(1, 9),
        st.dictionaries(st.sampled_from(names), st.integers(1, 4), max_size=3),
    )
    products = st.builds(
        lambda factors: Term.of("t", factors), st.lists(form, min_size=1, max_size=3)
    )
    terms = draw(st.lists(products, min_size=1, max_size=6))
    coefficients = draw(st.lists(st.floats(0.0, 10.0), min_size=len(terms), max_size=len(terms)))
    return ProductModel(
        Metric.ENERGY, "m", groups=list(zip(names, dense)), terms=terms, coefficients=np.array(coefficients),
        constant=draw(st.floats(0.0, 1.0)),
    )  # fmt: skip


@given(models(), st.randoms(use_true_random=False))
def test_gradient_is_the_finite_difference(model: ProductModel, random: object) -> None:
    widths = np.array([random.uniform(1.0, width) for width in model.dense])
    for group in range(len(widths)):
        step = np.zeros(len(widths))
        step[group] = 1e-5
        slope = (model.predict(widths + step) - model.predict(widths - step)) / 2e-5
        assert model.gradient(widths)[group] == pytest.approx(slope, rel=1e-5, abs=1e-6)


@given(models())
def test_models_are_monotone_and_survive_json(model: ProductModel) -> None:
    again = ProductModel.from_json(model.to_json(), "memory")
    dense = np.array(model.dense, dtype=float)
    assert again.predict(dense) == model.predict(dense)
    least = np.ones(len(dense))
    assert model.predict(least) <= model.predict(dense) + 1e-12
    assert (model.gradient(dense) >= 0.0).all()
    np.testing.assert_allclose(
        model.predict_many(np.stack([least, dense])), [model.predict(least), model.predict(dense)]
    )


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(5, 40))
def test_nnls_equals_scipy(seed: int, columns: int, rows: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns))
    if seed % 3 == 0 and columns > 1:
        matrix[:, 1] = matrix[:, 0]  # collinear
    target = generator.standard_normal(rows)
    ours = nnls(matrix, target)
    theirs, residual = optimize.nnls(matrix, target)
    assert (ours >= 0.0).all()
    assert np.linalg.norm(matrix @ ours - target) == pytest.approx(residual, rel=1e-8, abs=1e-10)
    if seed % 3 and rows > columns:
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_nnls_does_not_depend_on_units() -> None:
    generator = np.random.default_rng(1)
    matrix, target = generator.random((50, 5)), generator.random(50)
    scale = np.array([1e-9, 1e3, 1.0, 1e6, 1e-3])
    np.testing.assert_allclose(
        nnls(matrix * scale, target) * scale, nnls(matrix, target), rtol=1e-8
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nnls_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(ConfigError, match="not finite"):
        nnls(np.array([[1.0], [bad]]), np.ones(2))
    with pytest.raises(ConfigError, match="needs"):
        nnls(np.ones((3, 2)), np.ones(2))


def _samples(count: int, noise: float) -> tuple:
    generator = np.random.default_rng(5)
    widths = np.column_stack([generator.integers(1, width + 1, count) for width in DENSE]).astype(
        float
    )
    values = TX2.predict_many(widths)
    return widths, values * (1.0 + noise * generator.standard_normal(count))


def _relative_nnls(widths: np.ndarray, values: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(widths)), Features(TX2.groups, TX2.terms)(widths)])
    return nnls(design / values[:, None], np.ones(len(values)))


def test_noiseless_data_gives_the_coefficients_back() -> None:
    solution = _relative_nnls(*_samples(200, 0.0))
    np.testing.assert_allclose(solution, [CONSTANT, *COEFFICIENTS], rtol=1e-7)


def test_noise_costs_no_more_than_itself() -> None:
    widths, values = _samples(2000, 0.03)
    solution = _relative_nnls(widths[400:], values[400:])
    model = chain(DENSE, list(solution[1:]), solution[0])
    error = heldout_error(model, widths[:400], values[:400])
    assert error.mean < 0.03 * np.sqrt(2 / np.pi) * 1.15
    assert error.mean <= error.p95 <= error.max


def test_the_papers_weight_decay_shrinks_the_dense_prediction() -> None:
    """Coupled decay of 1.0 on a mean loss is a ridge of half the sample count: about half of dense is lost."""
    widths, values = _samples(4000, 0.03)
    design = np.column_stack([np.ones(len(widths)), Features(TX2.groups, TX2.terms)(widths)])
    dense = np.append(1.0, np.ones(8))
    assert dense @ adam(design, values) == pytest.approx(0.0498, rel=0.03)
    assert dense @ adam(design, values, weight_decay=1.0) < 0.7 * 0.0498


def profile(**changes: object) -> Profile:
    fields = {
        "network": "alexnet", "device": "virtual:tx2", "fingerprint": "abc", "model": TX2, "form": "bilinear",
        "fit": "nnls", "meter": "test", "heldout": HeldoutError(0.01, 0.02, 0.03),
        "samples": {"train": 8, "heldout": 2}, "anchors": {"dense": 0.05},
    }  # fmt: skip
    return Profile(**{**fields, **changes})


def test_a_profile_reads_back(tmp_path) -> None:
    path = tmp_path / "profile.json"
    profile().save(path)
    again = Profile.load(path)
    assert again.heldout == HeldoutError(0.01, 0.02, 0.03)
    assert again.margin() == Margin(0.02)
    assert again.model.predict(np.array(DENSE, dtype=float)) == TX2.predict(
        np.array(DENSE, dtype=float)
    )
    assert again.target_error is None
    profile(heldout=None, target_error=0.03).save(path)
    assert Profile.load(path).margin() == Margin(0.0)
    assert Profile.load(path).target_error == 0.03


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("model"),
        lambda d: d["model"].update(constant=-1.0),
        lambda d: d["model"].update(constant="0"),
        lambda d: d["model"].update(metric="love"),
        lambda d: d["model"]["terms"][0].update(coefficient=None),
        lambda d: d["model"]["terms"][0].update(factors=[]),
        lambda d: d["model"]["terms"][0]["factors"][0].update(fixed=0),
        lambda d: d["model"]["terms"][1]["factors"][0].update(terms=[["nowhere", 1]]),
        lambda d: d["model"].update(groups=[["g0"]]),
        lambda d: d.update(samples=[]),
        lambda d: d.update(heldout_error={"mean": 1}),
        lambda d: d.update(device=None),
        lambda d: d.update(target_error="low"),
        lambda d: d.update(schema="edgeecc/profile/99"),
    ],
)
def test_a_damaged_profile_is_one_line(tmp_path, damage) -> None:
    path = tmp_path / "profile.json"
    profile().save(path)
    data = load_json(path)
    damage(data)
    schema = data.pop("schema")
    data.pop("made_by")
    write_json(path, schema, data)
    with pytest.raises(ArtifactError) as caught:
        Profile.load(path)
    assert "\n" not in str(caught.value)


def test_models_refuse_negative_coefficients_and_wrong_lengths() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        chain(DENSE, [-1.0, *COEFFICIENTS[1:]], 0.0)
    with pytest.raises(ConfigError, match="as many coefficients"):
        chain(DENSE, COEFFICIENTS[1:], 0.0)
