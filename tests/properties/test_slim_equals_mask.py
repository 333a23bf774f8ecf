"""One table drives torch and ONNX: masked, slim and cut networks are the same function."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.errors import ConfigError, GraphError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work, work_of
from edgeecc.graph.outputs import tensors
from edgeecc.graph.surgery import mask_, slim
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.runtimes.onnxrt import OnnxRuntime
from tests import zoo
from tests.strategies import keeps

NAMES = sorted(zoo.ZOO)


@lru_cache(maxsize=None)
def prepared(name: str) -> Any:
    model, inputs = zoo.build(name)
    spec = trace(model, inputs, network=name)
    graph = to_onnx(model, inputs)
    return model, inputs, spec, SlicePlan.build(graph, spec)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5)
@given(data=st.data())
def test_masked_slim_and_cut_agree(name: str, data: st.DataObject) -> None:
    model, inputs, spec, plan = prepared(name)
    keep = data.draw(keeps(spec))
    widths = {group: len(units) for group, units in keep.items()}
    vector = spec.vector(widths)
    masked = copy.deepcopy(model).double()
    mask_(masked, spec, keep)
    small = slim(model, spec, keep)
    wide = tuple(x.double() for x in inputs)
    with torch.no_grad():
        for one, other in zip(
            tensors(masked(*wide)), tensors(copy.deepcopy(small).double()(*wide))
        ):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
        expected = [x.numpy() for x in tensors(small(*inputs))]
    # Parameters and bytes are counted right at any widths.
    count = sum(value.numel() for value in small.state_dict().values() if value.is_floating_point())
    assert size_cost(spec).predict(vector) == pytest.approx(4 * count)
    # The cut ONNX graph is the slim network.
    cut = plan.cut(keep)
    onnx.checker.check_model(cut, full_check=True)
    with OnnxRuntime(cut) as runtime:
        for one, other in zip(runtime.infer([x.numpy() for x in inputs]), expected):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Its work is known without building it, and agrees with the spec's count.
    done = work(plan, widths)
    assert done == work_of(cut)
    macs = sum(node.macs for node in done)
    if name in zoo.PRODUCTS:
        assert macs > mac_cost(spec).predict(vector)
    else:
        assert macs == pytest.approx(mac_cost(spec).predict(vector))


@pytest.mark.parametrize(
    "name", ["residual", "dense_concat", "grouped", "flatten", "multiplier", "transposed_chain"]
)
def test_slim_networks_trace_to_what_was_predicted(name: str) -> None:
    model, inputs, spec, plan = prepared(name)
    generator = np.random.default_rng(3)
    keep = {
        group.name: np.sort(generator.choice(group.width, max(1, group.width // 2), replace=False))
        for group in spec.prunable
    }
    small = slim(model, spec, keep)
    again = trace(small, inputs)
    widths = {group: len(units) for group, units in keep.items()}
    assert sum(layer.dense_macs for layer in again.layers) == mac_cost(spec).predict(
        spec.vector(widths)
    )
    exported = to_onnx(small, inputs)
    cut = plan.cut(keep)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in cut.graph.initializer}
    assert shapes == {
        **shapes,
        **{t.name: tuple(t.dims) for t in exported.graph.initializer if t.name in shapes},
    }


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_known_without_building(name: str) -> None:
    _, _, spec, plan = prepared(name)
    widths = {group.name: max(1, group.width - 1) for group in spec.prunable}
    inferred = onnx.shape_inference.infer_shapes(
        plan.cut(spec.keep_first(widths)), strict_mode=True
    )
    shapes = plan.shapes(widths)
    for value in inferred.graph.value_info:
        dims = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if value.name in shapes:
            assert shapes[value.name] == dims


def test_keeping_everything_changes_nothing() -> None:
    model, inputs, spec, plan = prepared("residual")
    small = slim(model, spec, spec.keep_all())
    assert all(
        torch.equal(a, b) for a, b in zip(small.state_dict().values(), model.state_dict().values())
    )
    assert plan.cut(spec.keep_all()).ByteSize() == pytest.approx(
        to_onnx(model, inputs).ByteSize(), rel=0.2
    )


def test_wrong_keeps_are_refused() -> None:
    model, _, spec, plan = prepared("plain")
    good = spec.keep_all()
    for wrong in (
        {},
        {**good, "c1": np.array([], dtype=np.int64)},
        {**good, "c1": np.array([0, 0])},
        {**good, "c1": np.array([8])},
        {**good, "c1": np.array([-1])},
        {**good, "fc": np.array([0])},
    ):
        with pytest.raises(ConfigError):
            plan.cut(wrong)
        with pytest.raises(ConfigError):
            slim(model, spec, wrong)


def test_another_network_is_refused() -> None:
    model, _, _, _ = prepared("plain")
    _, _, other, _ = prepared("residual")
    with pytest.raises(GraphError, match="trace it again"):
        slim(model, other, other.keep_all())


def test_an_unknown_operator_on_prunable_channels_is_named() -> None:
    model, inputs, spec, _ = prepared("plain")
    graph = to_onnx(model, inputs)
    relu = next(node for node in graph.graph.node if node.op_type == "Relu")
    relu.op_type, relu.name = "Hardmax", "the_culprit"
    with pytest.raises(GraphError, match=r"the_culprit \(Hardmax\)"):
        SlicePlan.build(graph, spec)


def test_a_wrong_slice_table_is_caught_in_the_graph() -> None:
    """Shift one consumer's slice: torch would not notice before it runs, the graph says where it breaks."""
    from dataclasses import replace

    model, inputs, spec, _ = prepared("dense_concat")
    graph = to_onnx(model, inputs)
    group = next(group for group in spec.groups if group.name == "c2")
    moved = tuple(
        replace(piece, start=piece.start - 1) if piece.role == "in" else piece
        for piece in group.slices
    )
    broken = replace(
        spec, groups=tuple(replace(g, slices=moved) if g.name == "c2" else g for g in spec.groups)
    )
    with pytest.raises(GraphError, match="do not go together"):
        SlicePlan.build(graph, broken)
