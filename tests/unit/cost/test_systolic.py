"""The systolic model: published totals to the last digit, brute force over every access, and monotony."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeecc.cost.hardware import EYERISS, Hardware, hardware
from edgeecc.cost.systolic import Shape, layer_energy, network_energy
from edgeecc.errors import ArtifactError, ConfigError

pytestmark = pytest.mark.device


def conv(
    name: str, channels: tuple, size: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1,
    dilation: int = 1,
) -> Shape:  # fmt: skip
    made = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return Shape(
        name, matrix=False, transposed=False, channels=channels, kernel=(kernel,) * 2, stride=(stride,) * 2,
        dilation=(dilation,) * 2, padding=(padding,) * 2, groups=groups, in_size=(size,) * 2, out_size=(made,) * 2,
        calls=1,
    )  # fmt: skip


def up(
    channels: tuple, size: int, kernel: int, *, stride: int, padding: int = 0, groups: int = 1
) -> Shape:
    made = (size - 1) * stride - 2 * padding + kernel
    return Shape(
        "up", matrix=False, transposed=True, channels=channels, kernel=(kernel,) * 2, stride=(stride,) * 2,
        dilation=(1, 1), padding=(padding,) * 2, groups=groups, in_size=(size,) * 2, out_size=(made,) * 2, calls=1,
    )  # fmt: skip


def linear(name: str, inputs: int, outputs: int) -> Shape:
    return Shape(
        name, matrix=True, transposed=False, channels=(inputs, outputs), kernel=(1, 1), stride=(1, 1),
        dilation=(1, 1), padding=(0, 0), groups=1, in_size=(1, 1), out_size=(1, 1), calls=1,
    )  # fmt: skip


LENET = (
    conv("conv1", (1, 6), 32, 5), conv("conv2", (6, 16), 14, 5),
    linear("fc1", 400, 120), linear("fc2", 120, 84), linear("fc3", 84, 10),
)  # fmt: skip
ALEXNET = (
    conv("conv1", (3, 64), 224, 11, stride=4, padding=2), conv("conv2", (64, 192), 27, 5, padding=2),
    conv("conv3", (192, 384), 13, 3, padding=1), conv("conv4", (384, 256), 13, 3, padding=1),
    conv("conv5", (256, 256), 13, 3, padding=1), linear("fc6", 9216, 4096), linear("fc7", 4096, 4096),
    linear("fc8", 4096, 1000),
)  # fmt: skip


def fire(name: str, inputs: int, squeeze: int, expand: int, size: int) -> tuple:
    return (
        conv(f"{name}.squeeze", (inputs, squeeze), size, 1), conv(f"{name}.one", (squeeze, expand), size, 1),
        conv(f"{name}.three", (squeeze, expand), size, 3, padding=1),
    )  # fmt: skip


SQUEEZENET = (
    conv("conv1", (3, 96), 224, 7, stride=2),
    *fire("fire2", 96, 16, 64, 54), *fire("fire3", 128, 16, 64, 54), *fire("fire4", 128, 32, 128, 54),
    *fire("fire5", 256, 32, 128, 27), *fire("fire6", 256, 48, 192, 27), *fire("fire7", 384, 48, 192, 27),
    *fire("fire8", 384, 64, 256, 27), *fire("fire9", 512, 64, 256, 13), conv("conv10", (512, 1000), 13, 1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "inputs", "weights", "mac", "total"),
    [
        (0, 1_380_800, 207_000, 352_800, 1_940_600),
        (1, 975_200, 849_600, 720_000, 2_544_800),
        (2, 173_600, 9_936_000, 144_000, 10_253_600),
        (3, 55_200, 2_086_560, 30_240, 2_172_000),
        (4, 20_144, 173_880, 2_520, 196_544),
    ],
)
def test_lenet_layer_by_layer(place: int, inputs: int, weights: int, mac: int, total: int) -> None:
    for exact in (True, False):
        energy = layer_energy(LENET[place], EYERISS, exact=exact)
        assert (energy.inputs, energy.weights, energy.mac, energy.total) == (
            inputs,
            weights,
            mac,
            total,
        )


def test_lenet_inputs_by_level() -> None:
    one, two = (layer_energy(shape, EYERISS) for shape in LENET[:2])
    assert (one.input_memory, one.input_cache, one.input_register) == (1_145_600, 117_600, 117_600)
    assert (two.input_memory, two.input_cache, two.input_register) == (555_200, 180_000, 240_000)


@pytest.mark.parametrize(
    ("shapes", "weights", "inputs", "relaxed", "floor"),
    [
        (LENET, 61_470, 2_604_944, 17_107_544, 0.15227),
        (ALEXNET, 61_090_496, 1_124_577_768, 27_445_303_656, 0.04098),
        (SQUEEZENET, 1_244_448, 2_628_605_614, 17_411_764_080, 0.15097),
    ],
)
def test_totals_of_known_networks(
    shapes: tuple, weights: int, inputs: int, relaxed: int, floor: float
) -> None:
    assert sum(shape.weights for shape in shapes) == weights
    energies = network_energy(shapes, EYERISS, exact=False)
    assert sum(energy.inputs for energy in energies) == inputs
    total = sum(energy.total for energy in energies)
    assert total == pytest.approx(relaxed, rel=1e-9)
    assert inputs / total == pytest.approx(floor, abs=5e-6)


def test_squeezenet_exact_and_by_kind() -> None:
    exact, relaxed = (network_energy(SQUEEZENET, EYERISS, exact=which) for which in (True, False))
    assert sum(energy.mac for energy in exact) == 2_400_076_896
    assert sum(energy.mac for energy in relaxed) == 2_456_773_728
    assert sum(energy.weights for energy in exact) == pytest.approx(1.232638474e10, rel=1e-9)
    assert sum(energy.total for energy in exact) == pytest.approx(1.735506725e10, rel=1e-9)


def test_alexnet_shares_and_speed() -> None:
    energies = network_energy(ALEXNET, EYERISS, exact=False)
    total = sum(energy.total for energy in energies)
    assert sum(energy.total for energy in energies[5:]) / total == pytest.approx(0.452, abs=5e-4)
    started = time.process_time()
    network_energy(ALEXNET, EYERISS)
    one = time.process_time() - started
    started = time.process_time()
    np.zeros(61_090_496, dtype=np.float32).sum()
    assert one < 20 * (time.process_time() - started)  # beside reading the weights once


def brute(shape: Shape, weights: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Return (nonzero entries of the unfolded input, products of nonzeros), index by index."""
    unfolded = products = 0
    outputs = shape.channels[1] // shape.groups
    inputs = shape.channels[0] // shape.groups
    for c in range(shape.channels[0]):
        group, local = divmod(c, inputs)
        for ky in range(shape.kernel[0]):
            for kx in range(shape.kernel[1]):
                if shape.transposed:
                    nonzero = int(weights[c, :, ky, kx].sum())
                else:
                    nonzero = int(
                        weights[group * outputs : (group + 1) * outputs, local, ky, kx].sum()
                    )
                for y in range(shape.in_size[0]):
                    for x in range(shape.in_size[1]):
                        if not mask[c, y, x]:
                            continue
                        met = _outputs(shape, 0, y, ky) * _outputs(shape, 1, x, kx)
                        unfolded += met
                        products += met * nonzero
    return unfolded, products


def _outputs(shape: Shape, axis: int, place: int, kernel: int) -> int:
    reach = kernel * shape.dilation[axis] - shape.padding[axis]
    if shape.transposed:
        return int(0 <= place * shape.stride[axis] + reach < shape.out_size[axis])
    quotient, rest = divmod(place - reach, shape.stride[axis])
    return int(rest == 0 and 0 <= quotient < shape.out_size[axis])


SMALL = (
    conv("plain", (3, 4), 7, 3, padding=1),
    conv("strided", (2, 3), 8, 3, stride=2, padding=1),
    conv("dilated", (2, 2), 9, 3, padding=2, dilation=2),
    conv("grouped", (4, 6), 6, 3, padding=1, groups=2),
    conv("depthwise", (5, 5), 6, 3, padding=1, groups=5),
    conv("valid", (2, 3), 7, 4, stride=3),
    up((3, 4), 4, 3, stride=2, padding=1),
    up((4, 6), 3, 2, stride=2, groups=2),
)


@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 1.0))
def test_counts_are_those_of_brute_force(shape: Shape, seed: int, density: float) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.random(shape.weight_shape) < density
    mask = generator.random((shape.channels[0], *shape.in_size)) < 0.7
    energy = layer_energy(shape, EYERISS, weights=weights, mask=mask)
    unfolded, products = brute(shape, weights, mask)
    per_group = shape.channels[1] // shape.groups
    assert energy.mac == EYERISS.mac * products
    assert energy.input_register == unfolded * per_group
    assert energy.input_cache == EYERISS.cache * unfolded * math.ceil(per_group / EYERISS.columns)
    assert sum(energy.levels().values()) == pytest.approx(energy.total)
    assert energy.total == energy.inputs + energy.weights + energy.mac


@pytest.mark.parametrize("shape", [*SMALL, *LENET], ids=lambda shape: shape.name)
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_more_weights_and_inputs_never_cost_less(shape: Shape, seed: int) -> None:
    tight = Hardware("tight", 2, 3, 40, 10, 3.0, 200.0, 6.0, 1.0)
    generator = np.random.default_rng(seed)
    fewer = generator.random(shape.weight_shape) < 0.5
    more = fewer | (generator.random(shape.weight_shape) < 0.3)
    few = generator.random((shape.channels[0], *shape.in_size)) < 0.5
    many = few | (generator.random(few.shape) < 0.3)
    for exact in (True, False):
        costs = [
            layer_energy(shape, tight, weights=w, mask=m, exact=exact)
            for w, m in ((fewer, few), (more, few), (more, many), (None, None))
        ]
        totals = [cost.total for cost in costs]
        assert totals == sorted(totals)
    exact_cost = layer_energy(shape, tight, weights=more, mask=few)
    assert exact_cost.total <= layer_energy(shape, tight, weights=more, mask=few, exact=False).total


def test_rows_beyond_the_cache_are_read_again() -> None:
    shape = conv("c", (1, 1), 6, 3)
    roomy, narrow = (Hardware("h", 12, 14, words, 4096, 3.0, 200.0, 6.0, 1.0) for words in (36, 24))
    # 24 words hold four rows of six: two output rows a batch; the two rows they share are read twice.
    more = layer_energy(shape, narrow).input_memory - layer_energy(shape, roomy).input_memory
    assert more == 200 * 12
    # Rows that do not fit at all are read for every output row.
    least = Hardware("h", 12, 14, 5, 4096, 3.0, 200.0, 6.0, 1.0)
    assert (
        layer_energy(shape, least).input_memory - layer_energy(shape, roomy).input_memory
        == 200 * 12 * 3
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), words=st.integers(30, 200))
def test_a_mask_is_read_again_at_most_as_the_dense_layer_is(seed: int, words: int) -> None:
    """Rows that a mask empties are free, and the batches may grow to what then fits."""
    shape = conv("c", (3, 2), 12, 3, padding=1)
    array = Hardware("h", 2, 3, words, 10, 3.0, 200.0, 6.0, 1.0)

    def again(mask: np.ndarray) -> float:
        return layer_energy(shape, array, mask=mask).input_memory / 200.0 - mask.sum() - 288

    mask = np.random.default_rng(seed).random((3, 12, 12)) < 0.5
    assert 0 <= again(mask) <= again(np.ones_like(mask))
    assert again(np.zeros_like(mask)) == 0
    few = np.zeros_like(mask)
    few[:, ::6, ::6] = True  # twelve nonzeros fit any of these caches at once
    assert again(few) == 0


def test_a_linear_layer_over_tokens_is_a_point_convolution() -> None:
    tokens = Shape(
        "t", matrix=True, transposed=False, channels=(8, 6), kernel=(1, 1), stride=(1, 1), dilation=(1, 1),
        padding=(0, 0), groups=1, in_size=(1, 10), out_size=(1, 10), calls=2,
    )  # fmt: skip
    assert tokens.weight_shape == (6, 8)
    energy = layer_energy(tokens, EYERISS, weights=np.ones((6, 8), dtype=bool))
    assert energy.mac == 2 * 3.0 * 10 * 48


def test_patterns_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"weights of fc3 are \(84, 10\), expected \(10, 84\)"):
        layer_energy(LENET[4], EYERISS, weights=np.ones((84, 10), dtype=bool))
    with pytest.raises(
        ConfigError, match=r"the mask of conv1 is \(1, 5, 5\), expected \(1, 32, 32\)"
    ):
        layer_energy(LENET[0], EYERISS, mask=np.ones((1, 5, 5), dtype=bool))


GOOD = """
rows = 8
columns = 16
input_words = 1000
weight_words = 500
mac = 2.5
memory = 100
cache = 4
register = 1
"""


def test_hardware_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert hardware(str(path)) == Hardware("mine", 8, 16, 1000, 500, 2.5, 100, 4, 1)
    assert hardware("eyeriss") is EYERISS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("rows = 8", ""), "lacks 'rows'"),
        (lambda text: text + "colour = 3", "has an unknown 'colour'"),
        (
            lambda text: text.replace("rows = 8", 'rows = "many"'),
            "rows is 'many'; it must be a number",
        ),
        (lambda text: text.replace("rows = 8", "rows = 8.5"), "rows is 8.5; it must be a number"),
        (lambda text: text.replace("rows = 8", "rows = true"), "rows is True"),
        (lambda text: text.replace("rows = 8", "rows = 0"), "must be positive integers"),
        (lambda text: text.replace("mac = 2.5", "mac = nan"), "energies must be positive"),
        (lambda text: text.replace("memory = 100", "memory = 2"), "must fall"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, change: object, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(change(GOOD))
    with pytest.raises(ConfigError, match=words):
        hardware(str(path))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(ArtifactError, match="check the path"):
        hardware(str(path))
    path.write_text("rows = = 8")
    with pytest.raises(ArtifactError, match="mend it"):
        hardware(str(path))
    path.write_text("a = 1\n" * 200_000)
    with pytest.raises(ArtifactError, match="is larger than"):
        hardware(str(path))
    with pytest.raises(
        ConfigError, match=r"unknown hardware 'tpu'; known are eyeriss, or give a .toml file"
    ):
        hardware("tpu")
