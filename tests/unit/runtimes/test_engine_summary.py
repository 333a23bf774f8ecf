"""What an engine consists of, from the inspector's texts of several releases."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.runtimes import engine_summary
from edgeecc.runtimes.engine_summary import summarise

pytestmark = pytest.mark.device


def layer(
    name: str, words: Dict[str, Any], weights: Optional[Dict[str, Any]] = None
) -> Dict[str, Any]:
    tensor = {"Name": "t", "Location": "Device", "Dimensions": [1, 8, 4, 4], **words}
    found: Dict[str, Any] = {
        "Name": name,
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Outputs": [tensor],
    }
    return found if weights is None else {**found, "Weights": weights}


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ({"Format/Datatype": "Row major linear FP32"}, "fp32"),
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "fp16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Format": "Row major linear", "DataType": "Half"}, "fp16"),
        ({"Format": "Row major linear FP32 format (kLINEAR)"}, "fp32"),
        ({"Format": "?", "Datatype": "BFloat16"}, "bf16"),
    ],
)
def test_the_precision_is_found_in_every_release(words: Dict[str, Any], precision: str) -> None:
    summary = summarise(json.dumps({"Layers": [layer("conv", words)]}), 0)
    assert summary.precisions == {precision: 1}


def test_weights_say_more_than_outputs() -> None:
    words = {"Format/Datatype": "Row major linear FP32"}
    text = json.dumps(
        {"Layers": [layer("a", words, {"Type": "Int8", "Count": 9}), layer("b", words)]}
    )
    summary = summarise(text, 0)
    assert summary.precisions == {"fp32": 1, "int8": 1}
    assert summary.to_json()["largest"][0] == {  # type: ignore[index]
        "name": "a", "kind": "Convolution", "weights": 9, "written": 128,
    }  # fmt: skip


def test_names_alone_are_counted() -> None:
    summary = summarise(json.dumps({"Layers": ["a", "b"], "Bindings": []}), 7)
    assert (summary.layers, summary.precisions, summary.largest) == (2, {}, ())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": 3}', "[" * 100_000])
def test_what_cannot_be_read_leaves_the_engines_count(text: str) -> None:
    assert summarise(text, 7).layers == 7


def test_a_text_beyond_reason_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_summary, "_MAX_CHARACTERS", 5)
    assert summarise(json.dumps({"Layers": ["a"]}), 7).layers == 7


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(["Name", "Weights", "Outputs", "Type", "Count", "Dimensions", "Format"]), inner, max_size=4
    )
    | st.lists(inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(values, max_size=5))
def test_whatever_the_layers_are_there_is_a_summary(layers: Any) -> None:
    summary = summarise(json.dumps({"Layers": layers}), 3)
    assert summary.layers == (len(layers) or 3)
    json.dumps(summary.to_json())
