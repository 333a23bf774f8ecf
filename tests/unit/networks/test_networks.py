"""Every row of the table: its counts against an independent counter and against what others published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeecc import catalogue
from edgeecc.errors import ConfigError
from edgeecc.graph.trace import trace
from edgeecc.networks.espnet import ESPNet
from edgeecc.networks.mobilenet_v2 import round8, widths
from edgeecc.networks.resnet_cifar import CifarResNet
from edgeecc.networks.table import NETWORKS, build, info

ROOT = Path(__file__).parents[3]
SCALES = {"": 1, "M": 1e6, "G": 1e9}


def documented() -> dict[str, list[str]]:
    rows = [line.split("|") for line in (ROOT / "docs" / "networks.md").read_text().splitlines()]
    cells = ([cell.strip() for cell in row[1:-1]] for row in rows if len(row) == 9)
    return {row[0]: row[1:] for row in cells if row[0] in NETWORKS}


def number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def agrees(count: int, published: str) -> bool:
    """Tell whether a count, rounded to the published digits, is the published figure."""
    about, figure, scale = re.fullmatch(r"(~?)([\d.,]+) ?([MG]?)", published).groups()
    if about:
        return count / SCALES[scale] == pytest.approx(float(figure), rel=0.01)
    digits = len(figure.partition(".")[2])
    return round(count / SCALES[scale], digits) == float(figure.replace(",", ""))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_dense_counts_are_torchs_and_the_published_ones(name: str) -> None:
    counts = catalogue.dense_counts(name)
    with torch.device("meta"):
        model = build(name).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *info(name).input_shape))
    assert 2 * counts.macs == counter.get_total_flops()
    params, published_params, macs, besides, published_macs, source = documented()[name]
    assert (number(params), number(macs)) == (counts.params, counts.macs)
    assert not published_params or agrees(counts.params, published_params)
    assert not published_macs or agrees(counts.macs + number(besides), published_macs)
    assert bool(published_params or published_macs) is ("http" in source)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_rows_are_complete(name: str) -> None:
    row = info(name)
    assert row.normalisation is None or len(row.normalisation.mean) == row.input_shape[0]
    with torch.device("meta"):
        output = build(name).eval()(torch.empty(2, *row.input_shape))
    sides = row.input_shape[1:] if row.task == "segmentation" else ()
    assert (output.shape[0], *output.shape[2:]) == (2, *sides)


#: Their groups are compared where their counts are, in tests/unit/graph/test_trace.py.
TRACED_ELSEWHERE = {"alexnet", "lenet5", "mobilenet_v1"}


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - TRACED_ELSEWHERE))
def test_groups_are_what_a_trace_finds(name: str) -> None:
    channels, *sides = info(name).input_shape
    spec = trace(build(name), (torch.zeros(1, channels, *(min(side, 32) for side in sides)),))
    assert (len(spec.prunable), len(spec.groups)) == info(name).groups


def test_widths_are_rounded_as_tensorflow_does() -> None:
    assert [round8(n) for n in (1, 11.9, 12, 22.4, 33.6, 44.8)] == [8, 16, 16, 24, 32, 48]
    for width in (0.35, 0.5, 1.0, 1.4):
        assert all(n % 8 == 0 for n in widths(width))
    assert widths(0.5)[-1] == 1280
    assert widths(1.4)[-1] == 1792


def test_what_does_not_exist_is_refused() -> None:
    for call, words in (
        (lambda: CifarResNet(21), "depth 21 does not exist"),
        (lambda: ESPNet(4), "4 classes, p 2 and q 8"),
        (lambda: ESPNet(5, 0), "p 0"),
        (lambda: build("mobilenet_v1", style="caffe"), "unknown style 'caffe'.*torch, relu"),
        (lambda: build("mobilenet_v2", width=0.0), r"must lie in \(0, 16\]"),
        (lambda: build("efficientnet_lite0", width=2.0), "takes no option 'width'"),
        (lambda: build("mobilenet_v1_tf", classes=0), "classes 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
