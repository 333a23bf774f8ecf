"""Crops, decoding at a size, normalisation, and the table of names."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeecc.data.crops import AREA, ASPECT, central, random_part, random_resized
from edgeecc.data.images import opened, rgb_crop
from edgeecc.data.sources import load
from edgeecc.data.table import KNOWN, SOURCES
from edgeecc.errors import ConfigError, DataError
from edgeecc.normalisation import IMAGENET, Normalisation, parse_normalisation
from edgeecc.plugins import resolve

SIDES = st.integers(1, 5000)
ASPECTS = st.sampled_from([0.5, 1.0, 4 / 3, 2.0])


@given(SIDES, SIDES, ASPECTS, st.integers(0, 99))
def test_crops_lie_within_the_image(width: int, height: int, aspect: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    for left, top, right, bottom in (
        central(width, height, aspect),
        random_resized(width, height, aspect, chance),
        random_part(width, height, 0.5, chance),
    ):
        assert -1e-9 <= left < right <= width * (1 + 1e-12)
        assert -1e-9 <= top < bottom <= height * (1 + 1e-12)


@given(SIDES, SIDES, ASPECTS)
def test_central_crops_keep_the_aspect_and_seven_eighths(
    width: int, height: int, aspect: float
) -> None:
    left, top, right, bottom = central(width, height, aspect)
    assert (right - left) / (bottom - top) == pytest.approx(aspect)
    assert max((right - left) / width, (bottom - top) / height) == pytest.approx(0.875)
    assert (left, top) == (pytest.approx(width - right), pytest.approx(height - bottom))


def test_random_crops_have_the_published_areas_and_aspects() -> None:
    chance = np.random.default_rng(0)
    boxes = np.array([random_resized(400, 400, 1.0, chance) for _ in range(4000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, ratios = across * down / 400**2, across / down
    assert AREA[0] <= areas.min() < 0.1
    assert 0.9 < areas.max() <= AREA[1]
    assert ASPECT[0] <= ratios.min() < 0.76
    assert 1.31 < ratios.max() <= ASPECT[1]
    assert np.log(ratios).mean() == pytest.approx(0.0, abs=0.01)
    small = areas < 0.5  # nearly no draw of these is rejected
    assert np.median(areas[small]) == pytest.approx((AREA[0] + 0.5) / 2, abs=0.02)
    places = boxes[:, 0] / (400 - across)
    assert np.quantile(places, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


def test_a_band_gets_the_largest_crop_in_its_middle() -> None:
    box = random_resized(5000, 2, 1.0, np.random.default_rng(0))
    assert box == (2499.0, 0.0, 2501.0, 2.0)


WHOLE, PART = (0.0, 0.0, 800.0, 600.0), (100.5, 50.25, 400.0, 310.0)


@pytest.mark.parametrize(
    ("kind", "box", "sizes"),
    [
        ("PNG", WHOLE, (800, 600)),
        ("PNG", PART, (800, 600)),
        ("JPEG", WHOLE, (200, 150)),
        ("JPEG", PART, (400, 300)),
    ],
)
def test_a_crop_is_what_pillow_makes_of_the_whole_image(
    kind: str, box: tuple[float, float, float, float], sizes: tuple[int, int]
) -> None:
    y, x = np.mgrid[0:600, 0:800]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((40, 60), (25, 90), (70, 30))]
    image, buffer = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)), io.BytesIO()
    image.save(buffer, kind, quality=95)
    expected = np.asarray(image.resize((60, 40), Image.Resampling.BILINEAR, box=box), dtype=int)
    with opened("it", buffer.getvalue()) as source:
        found = rgb_crop(source, box, (40, 60))
        assert source.size == sizes
    assert found.shape == (40, 60, 3)
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


def test_other_formats_are_named() -> None:
    for raw in (b"", b"GIF89a", b"\x93NUMPY"):
        with pytest.raises(
            DataError, match=r"cannot decode it: no JPEG, PNG, WebP or BMP image; take"
        ), opened("it", raw):
            pass


@given(st.integers(0, 2**32 - 1))
def test_normalising_is_subtracting_and_dividing(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    out = np.empty(pixels.shape, dtype=np.float32)
    IMAGENET.apply(out, pixels)
    scaled = torch.from_numpy(pixels).double() / 255
    expected = (scaled - torch.tensor(IMAGENET.mean)[:, None, None]) / torch.tensor(
        IMAGENET.deviation
    )[:, None, None]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert IMAGENET.grey() == Normalisation(
        (sum(IMAGENET.mean) / 3,), (sum(IMAGENET.deviation) / 3,)
    )


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        ((), ()),
        ((0.5,), (0.5, 0.5)),
        ((0.5,), (0.0,)),
        ((math.nan,), (1.0,)),
        ((0.0,), (math.inf,)),
    ],
)
def test_normalisations_that_are_none_are_refused(mean: tuple, deviation: tuple) -> None:
    with pytest.raises(ConfigError, match="cannot normalise by mean"):
        Normalisation(mean, deviation)


def test_the_networks_normalisation_replaces_the_sets() -> None:
    own = load("digits", input_shape=(1, 8, 8)).val.take(range(50))[0]
    plain, colour = Normalisation((0.0,), (1.0,)), Normalisation((0.0,) * 3, (1.0,) * 3)
    given = load("digits", input_shape=(1, 8, 8), normalisation=plain).val.take(range(50))[0]
    np.testing.assert_allclose(own, given * 2 - 1, atol=1e-6)
    three = load("digits", input_shape=(1, 8, 8), normalisation=colour)
    assert torch.equal(three.val.take(range(50))[0], own)


@pytest.mark.parametrize("text", ["", "0.5", "0.5/0.5/0.5", "a/b", "0.5,/1", "0.5/0.5,0.5", "0/0"])
def test_what_is_no_normalisation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="normalis"):
        parse_normalisation(text)


def test_a_normalisation_is_read_as_written() -> None:
    assert parse_normalisation("0.1,0.2, 0.3/1,2,3") == Normalisation((0.1, 0.2, 0.3), (1, 2, 3))


def test_every_name_of_the_table_has_a_loader_and_says_what_follows_it() -> None:
    for name, source in SOURCES.items():
        assert callable(resolve(source.loader))
        assert name + source.rest in KNOWN
    for text, message in (
        ("moonlight", "unknown data set 'moonlight'; known are camvid:FOLDER"),
        ("digits:here", "'digits:here' cannot be had; write digits$"),
        ("imagefolder", "write imagefolder:FOLDER"),
        ("imagefolder:", "write imagefolder:FOLDER"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(text, input_shape=(3, 8, 8))
