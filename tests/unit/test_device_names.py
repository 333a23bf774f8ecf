"""Names of devices: what they say, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.device_names import PRECISIONS, RUNS_IN, DeviceName, parse_device
from edgeecc.errors import ConfigError
from edgeecc.units import Metric

pytestmark = pytest.mark.device

BOARDS = st.from_regex(r"(jetson|nvidia)-[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    BOARDS,
    st.sampled_from(sorted(RUNS_IN)),
    st.data(),
    st.sampled_from(["", "gpu", "VDD_IN", "VDD_CPU+VDD_SOC"]),
)
def test_a_name_reads_back(board: str, runtime: str, data: st.DataObject, meter: str) -> None:
    name = DeviceName(board, runtime, data.draw(st.sampled_from(RUNS_IN[runtime])), meter)
    assert parse_device(name.text) == name
    assert name.metric is Metric.ENERGY
    assert not name.is_virtual


@pytest.mark.parametrize(
    ("text", "name", "metric"),
    [
        ("virtual:tx2", DeviceName("virtual:tx2"), Metric.ENERGY),
        ("onnxruntime:cpu", DeviceName("cpu", "onnxruntime"), Metric.LATENCY),
        ("cpu-package:onnxruntime:fp32", DeviceName("cpu-package", "onnxruntime"), Metric.ENERGY),
        ("jetson-tx2", DeviceName("jetson-tx2"), Metric.ENERGY),
    ],
)
def test_names_of_their_own(text: str, name: DeviceName, metric: Metric) -> None:
    assert parse_device(text) == name
    assert parse_device(text).text == text
    assert name.metric is metric


def test_what_is_left_out_is_filled_in() -> None:
    assert parse_device("jetson-nano:trtexec").text == "jetson-nano:trtexec:fp32"
    assert parse_device("cpu:onnxruntime").text == "onnxruntime:cpu"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("toaster", "'toaster' for a board"),
        ("", "'' for a board"),
        ("jetson-../../etc", "for a board"),
        ("cpu", "needs onnxruntime on a cpu"),
        ("cpu:tensorrt", "needs onnxruntime on a cpu"),
        ("jetson-tx2:tvm", "'tvm' for a runtime"),
        ("jetson-tx2:onnxruntime:int8", "'int8' for a precision, not fp32"),
        ("jetson-tx2:tensorrt:fp64", f"'fp64' for a precision, not {', '.join(PRECISIONS)}"),
        ("jetson-tx2:tensorrt:fp16:a/b", "'a/b' for a meter"),
        ("cpu:onnxruntime:fp32:gpu", "'gpu' for a meter"),
        ("jetson-tx2:tensorrt:fp16:gpu:more", "more than four parts"),
        ("virtual:tx3", "'virtual' for a board"),
    ],
)
def test_what_is_no_device_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_device(text)
    assert fault in str(caught.value)
    assert f"unknown device {text!r}" in str(caught.value)
    assert "jetson-orin-nx:tensorrt:fp16" in str(caught.value)
    assert "\n" not in str(caught.value)
