"""Compressed tensors: what is packed comes back, and what does not fit together is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.compressed import pack, unpack
from edgeecc.errors import ArtifactError

pytestmark = pytest.mark.device


@given(
    st.lists(st.integers(1, 5), max_size=4),
    st.floats(0.0, 1.0),
    st.integers(0, 10_000),
    st.sampled_from([np.float32, np.float16, np.int64]),
)
def test_what_is_packed_comes_back(shape: list, density: float, seed: int, kind: type) -> None:
    generator = np.random.default_rng(seed)
    value = (generator.standard_normal(shape) * 9).astype(kind) * (
        generator.random(shape) < density
    )
    value = np.asarray(value, dtype=kind)
    packed, shapes = pack({"w": value, "empty": np.zeros((0, 3), dtype=np.float32)})
    tensors = unpack(packed, shapes)
    assert sorted(tensors) == ["empty", "w"]
    np.testing.assert_array_equal(tensors["w"], value)
    assert (tensors["w"].dtype, tensors["w"].shape) == (value.dtype, value.shape)
    assert sum(array.nbytes for array in packed.values()) <= value.nbytes


def test_a_tenth_of_the_weights_takes_a_seventh_of_the_room() -> None:
    value = np.zeros((100, 100), dtype=np.float32)
    value[:10] = 1.0
    packed, _ = pack({"w": value})
    assert sum(array.nbytes for array in packed.values()) == 10_000 // 8 + 4 * 1000


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p, s: p.pop("w.bits"), "lacks its bits or values"),
        (lambda p, s: p.pop("w.values"), "lacks its bits or values"),
        (lambda p, s: p.update({"w.values": p["w.values"][:-1]}), "values for other places"),
        (lambda p, s: p.update({"w.bits": p["w.bits"][:-1]}), "does not fit its shape"),
        (lambda p, s: p.update({"w.bits": p["w.bits"].astype(np.int64)}), "does not fit its shape"),
        (lambda p, s: p.update({"w.values": p["w.values"][None]}), "does not fit its shape"),
        (lambda p, s: s.update({"w.shape": "8,-8"}), "has no shape"),
        (lambda p, s: s.update({"w.shape": "eight"}), "has no shape"),
        (lambda p, s: s.update({"w.shape": "1,2,3,4,5,6,7,8,9"}), "has no shape"),
        (lambda p, s: s.update({"w.shape": "99999999,99999999"}), "too large"),
    ],
)
def test_parts_that_do_not_fit_are_refused(damage: object, words: str) -> None:
    packed, shapes = pack({"w": np.eye(8, dtype=np.float32)})
    damage(packed, shapes)
    with pytest.raises(ArtifactError, match=words):
        unpack(packed, shapes)


def test_other_metadata_is_left_alone() -> None:
    packed, shapes = pack({"w": np.eye(8, dtype=np.float32)})
    assert sorted(unpack(packed, {**shapes, "made_by": "edgeecc"})) == ["w"]
