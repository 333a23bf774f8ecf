"""ONNX files from anywhere: one line, or a plan; never a traceback, and nothing huge is ever built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeecc.errors import ArtifactError, EdgeeccError
from edgeecc.graph.onnx_slice import SlicePlan, load_model
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import NetworkSpec
from tests.unit.graph.test_onnx_rules import FOLLOWED, network, node

pytestmark = pytest.mark.device


@pytest.fixture
def good() -> tuple[onnx.ModelProto, NetworkSpec]:
    return network([node("Relu", "x")], {})


def use(path: Path, spec: NetworkSpec) -> None:
    plan = SlicePlan.build(load_model(path), spec)
    work(plan, spec.least_widths())
    plan.cut(spec.keep_all())


def dims(model: onnx.ModelProto) -> object:
    return model.graph.input[0].type.tensor_type.shape.dim


def huge_input(model: onnx.ModelProto) -> None:
    dims(model)[2].dim_value = 10**12


def unknown_input(model: onnx.ModelProto) -> None:
    dims(model)[2].dim_param = "height"


def negative_input(model: onnx.ModelProto) -> None:
    dims(model)[2].dim_value = -5


def flat_input(model: onnx.ModelProto) -> None:
    del dims(model)[1:]


def no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def short_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def missing_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="big", data_type=1, dims=[10**12]))


def weight_of_another_size(model: onnx.ModelProto) -> None:
    value = np.zeros((7, 3, 3, 3), dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "a.weight"))


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def outside_in_a_node(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="q", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["q"], value=tensor))


def outside_in_a_subgraph(model: onnx.ModelProto) -> None:
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    outside_in_a_node(model)
    hidden = model.graph.node[0].attribute[0].t
    model.graph.node[1].attribute.append(helper.make_attribute("body", inner))
    model.graph.node[1].attribute[-1].g.node[0].attribute.append(
        helper.make_attribute("value", hidden)
    )
    del model.graph.node[0]


def many_long_axes(model: onnx.ModelProto) -> None:
    for place in range(4):
        info = helper.make_tensor_value_info(f"long{place}", TensorProto.FLOAT, [2**23])
        model.graph.input.append(info)


def many_axes(model: onnx.ModelProto) -> None:
    info = helper.make_tensor_value_info("wide", TensorProto.FLOAT, [2**10] * 6)
    model.graph.input.append(info)


def product_of_vectors(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [4]))
    model.graph.node.append(helper.make_node("Conv", ["flat", "flat"], ["odd"]))
    model.graph.value_info.append(helper.make_tensor_value_info("odd", TensorProto.FLOAT, [4]))


def no_groups(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 0))


def odd_groups(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 5))


def wrong_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", "many"))


def double(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def shadowed(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("a.weight", TensorProto.FLOAT, [5, 5]))


def backwards(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[1].domain = "com.example"


@pytest.mark.parametrize(
    "damage",
    [
        huge_input, unknown_input, negative_input, flat_input, no_shape, short_weight, missing_weight,
        weight_of_another_size, outside, outside_in_a_node, outside_in_a_subgraph, many_long_axes, many_axes,
        product_of_vectors, no_groups, odd_groups, wrong_attribute, double,
        shadowed, backwards, foreign_operator,
    ],
)  # fmt: skip
def test_each_is_refused_in_one_line(
    tmp_path: Path, good: tuple, damage: Callable[[onnx.ModelProto], None]
) -> None:
    model, spec = good
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    use(path, spec)
    damage(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EdgeeccError) as caught:
        use(path, spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hide", [outside, outside_in_a_node, outside_in_a_subgraph])
def test_data_in_other_files_is_refused_wherever_it_hides(
    tmp_path: Path, good: tuple, hide: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(good[0])
    (tmp_path / "m.onnx").write_bytes(good[0].SerializeToString())
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda model: None
    )  # its own check varies by version
    with pytest.raises(ArtifactError, match="keeps weights in other files; save it as one file"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\0", b"not onnx at all", b"\xff" * 100])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"m.onnx is damaged: .*export it again"):
        load_model(path)


def test_no_file_and_too_large_a_file_are_refused(tmp_path: Path, good: tuple) -> None:
    with pytest.raises(ArtifactError, match="check the path"):
        load_model(tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(good[0].SerializeToString())
    with pytest.raises(ArtifactError, match="larger than 100 bytes"):
        load_model(path, max_bytes=100)


@pytest.mark.parametrize(
    "case", ["resize of all axes", "split by sizes", "reshape with 0 and -1", "slice without axes"]
)
def test_flipped_bytes_are_no_traceback(tmp_path: Path, case: str) -> None:
    model, spec = network(*FOLLOWED[case])
    whole, path = model.SerializeToString(), tmp_path / "m.onnx"
    generator, seen = np.random.default_rng(0), Counter()
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            use(path, spec)
            seen["read"] += 1
        except EdgeeccError as error:
            assert "\n" not in str(error)  # noqa: PT017  # weights may change unseen
            seen["refused"] += 1
    assert seen["refused"] > 10
