"""Operators met by channels, on hand-made graphs: the cut graph is the masked one, or the node is named."""

from __future__ import annotations

from typing import Any, Dict, List

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeecc.errors import GraphError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work, work_of
from edgeecc.graph.settle import settle
from edgeecc.graph.spec import ChannelGroup, NetworkSpec, ParameterSpec, Slice
from edgeecc.runtimes.onnxrt import OnnxRuntime

pytestmark = pytest.mark.device
WIDTH = 8


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = [name.strip() for name in inputs.split(",")]
    return helper.make_node(op, names, outputs.split(","), name=outputs, **attributes)


def network(
    middle: List[onnx.NodeProto], constants: Dict[str, np.ndarray], opset: int = 18
) -> tuple[onnx.ModelProto, NetworkSpec]:
    """Return conv `x` (8 channels of 8x8) -> middle -> conv of `y`, and the spec of its one group."""
    generator = np.random.default_rng(0)
    values = {
        "a.weight": generator.standard_normal((WIDTH, 3, 3, 3)).astype(np.float32),
        "b.weight": generator.standard_normal((4, WIDTH, 1, 1)).astype(np.float32),
        **constants,
    }
    nodes = [
        node("Conv", "input,a.weight", "x", pads=[1, 1, 1, 1]),
        *middle,
        node("Conv", "y,b.weight", "z"),
        node("GlobalAveragePool", "z", "output"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 1, 1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    slices = (
        Slice("a.weight", 0, "out", 0, 1, 0, WIDTH),
        Slice("b.weight", 1, "in", 0, 1, 0, WIDTH),
    )
    parameters = tuple(
        ParameterSpec(name, value.shape, True)
        for name, value in values.items()
        if name.endswith(".weight")
    )
    group = ChannelGroup("a", WIDTH, slices, prunable=True, reason="")
    return model, NetworkSpec("n", ((1, 3, 8, 8),), (group,), (), parameters)


def masked(model: onnx.ModelProto, keep: np.ndarray) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name == "b.weight":
            value = numpy_helper.to_array(tensor).copy()
            value[:, np.setdiff1d(np.arange(WIDTH), keep)] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return made


FOLLOWED = {
    "resize with axes": ([node("Resize", "x,,,s", axes=[2, 3], mode="nearest")], {"s": ints(16, 16)}),
    "resize with axes turned": ([node("Resize", "x,,,s", axes=[3, 1], mode="nearest")], {"s": ints(16, 8)}),
    "resize of all axes": ([node("Resize", "x,,,s", mode="nearest")], {"s": ints(1, 8, 4, 16)}),
    "expand by fewer axes": ([node("Expand", "x,s")], {"s": ints(8, 8)}),
    "expand by ones": ([node("Expand", "x,s")], {"s": ints(1, 1, 1, 1)}),
    "expand by sizes": ([node("Expand", "x,s")], {"s": ints(1, 8, 8, 8)}),
    "reshape with 0 and -1": (
        [node("Reshape", "x,s", "t"), node("Reshape", "t,u")], {"s": ints(0, 0, -1), "u": ints(1, -1, 8, 8)}
    ),
    "reshape by one constant twice": (
        [node("Reshape", "x,s", "t"), node("Reshape", "t,s")], {"s": ints(1, 8, 8, 8)}
    ),
    "flatten and back": ([node("Flatten", "x", "t", axis=2), node("Reshape", "t,s")], {"s": ints(1, 8, 8, 8)}),
    "slice by negative axes": (
        [node("Slice", "x,st,en,ax")], {"st": ints(0, 1), "en": ints(2**62, -1), "ax": ints(-3, -1)}
    ),
    "slice without axes": ([node("Slice", "x,st,en")], {"st": ints(0, 0, 1), "en": ints(1, 8, 7)}),
    "slice backwards": (
        [node("Slice", "x,st,en,ax,sp")],
        {"st": ints(-1), "en": ints(-(2**62)), "ax": ints(2), "sp": ints(-1)},
    ),
    "split by number": (
        [node("Split", "x", "p,q", axis=1, num_outputs=2), node("Concat", "p,q", axis=1)], {}
    ),
    "split by sizes": ([node("Split", "x,s", "p,q", axis=-3), node("Concat", "p,q", axis=-3)], {"s": ints(3, 5)}),
    "split of rows": ([node("Split", "x", "p,q", axis=2, num_outputs=2), node("Concat", "q,p", axis=2)], {}),
    "gather of rows": ([node("Gather", "x,i", axis=2)], {"i": ints(0, 3)}),
    "gather by two axes of indices": (
        [node("Gather", "x,i", "t", axis=-1), node("Reshape", "t,s")],
        {"i": ints(0, 3, 1, 2).reshape(2, 2), "s": ints(0, 0, 8, 4)},
    ),
    "transpose": (
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Transpose", "t", perm=[0, 3, 1, 2])], {}
    ),
    "where": ([node("Greater", "x,c", "g"), node("Where", "g,x,c")], {"c": np.float32(0)}),
    "pow": ([node("Pow", "x,c")], {"c": np.float32(2)}),
    "mean and difference": (
        [node("ReduceMean", "x,ax", "t", keepdims=1), node("Sub", "x,t")], {"ax": ints(2, 3)}
    ),
    "pad of two axes": ([node("Pad", "x,p,,ax")], {"p": ints(1, 1, 1, 1), "ax": ints(2, 3)}),
    "dropout with its mask": ([node("Dropout", "x", "y,mask")], {}),
    "constant per channel": ([node("Mul", "x,c")], {"c": np.arange(8, dtype=np.float32).reshape(8, 1, 1)}),
    "constant per value": ([node("Add", "c,x")], {"c": np.arange(512, dtype=np.float32).reshape(1, 8, 8, 8)}),
    "constant per column": ([node("Mul", "x,c")], {"c": np.arange(8, dtype=np.float32)}),
    "one constant for two": (
        [node("Mul", "x,c", "t"), node("Transpose", "t", "u", perm=[0, 2, 3, 1]), node("Add", "u,d", "v"),
         node("Transpose", "v", "w", perm=[0, 3, 1, 2]), node("Mul", "w,c")],
        {"c": np.arange(8, dtype=np.float32).reshape(8, 1, 1), "d": np.arange(8, dtype=np.float32)},
    ),
    "tile of rows": ([node("Tile", "x,r")], {"r": ints(1, 1, 2, 2)}),
    "softmax of rows": ([node("Softmax", "x", axis=3)], {}),
}  # fmt: skip
REFUSED = {
    "local response norm": ([node("LRN", "x", size=3)], {}, "LRN"),
    "tile of channels": ([node("Tile", "x,r", "t"), node("Slice", "t,st,en,ax")],
        {"r": ints(1, 2, 1, 1), "st": ints(0), "en": ints(8), "ax": ints(1)}, "repetition"),
    "sum along rows": ([node("CumSum", "x,ax")], {"ax": ints(3)}, "CumSum"),
    "shape": ([node("Shape", "x", "s"), node("Reshape", "x,s")], {}, "Shape"),
    "channels padded and cut": (
        [node("Pad", "x,p", "t"), node("Slice", "t,st,en,ax")],
        {"p": ints(0, 1, 0, 0, 0, -1, 0, 0), "st": ints(0), "en": ints(8), "ax": ints(1)},
        "padding",
    ),
    "channels shifted": ([node("Pad", "x,p")], {"p": ints(0, 1, 0, 0, 0, -1, 0, 0)}, "padding"),
    "chosen channels": ([node("Gather", "x,i", axis=1)], {"i": ints(7, 6, 5, 4, 3, 2, 1, 0)}, "chosen indices"),
    "softmax of channels": ([node("Softmax", "x", axis=1)], {}, "normalisation"),
    "mean of channels": (
        [node("ReduceMean", "x,ax", "t", keepdims=1), node("Sub", "x,t")], {"ax": ints(1)}, "reduction"
    ),
    "every second channel": (
        [node("Slice", "x,st,en,ax,sp", "t"), node("Concat", "t,t", axis=1)],
        {"st": ints(0), "en": ints(8), "ax": ints(1), "sp": ints(2)},
        "steps",
    ),
    "cropping resize": (
        [node("Resize", "x,roi,,s", mode="nearest", coordinate_transformation_mode="tf_crop_and_resize")],
        {"s": ints(1, 8, 8, 8), "roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.float32)},
        "crops",
    ),
    "parameter that no group owns": (
        [node("Mul", "x,g.weight")], {"g.weight": np.ones((8, 1, 1), dtype=np.float32)}, "do not go together"
    ),
    "channels and rows turned": (
        [node("Transpose", "x", "t", perm=[0, 2, 1, 3]), node("Add", "x,t")], {}, "do not go together"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLLOWED)
def test_the_cut_is_the_masked_graph(case: str) -> None:
    model, spec = network(*FOLLOWED[case])
    plan = SlicePlan.build(model, spec)
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    for keep in (ints(0, 1, 2), ints(1, 4, 5, 7), ints(3)):
        cut = plan.cut({"a": keep})
        onnx.checker.check_model(cut, full_check=True)
        with OnnxRuntime(cut) as one, OnnxRuntime(masked(model, keep)) as other:
            np.testing.assert_allclose(
                one.infer([image])[0], other.infer([image])[0], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("case", FOLLOWED)
def test_shapes_and_work_are_those_of_the_cut(case: str) -> None:
    model, spec = network(*FOLLOWED[case])
    plan = SlicePlan.build(model, spec)
    cut = plan.cut(spec.keep_first({"a": 3}))
    assert work(plan, {"a": 3}) == work_of(cut)
    shapes = plan.shapes({"a": 3})
    for value in shape_inference.infer_shapes(
        cut, strict_mode=True, data_prop=True
    ).graph.value_info:
        dims = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        assert shapes.get(value.name, dims) == dims


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_named_and_stays_whole(case: str) -> None:
    middle, constants, why = REFUSED[case]
    model, spec = network(middle, constants)
    with pytest.raises(
        GraphError, match=rf"ONNX node \w+ \(\w+\).*{why}.*whole|ONNX node \w+ \({why}\)"
    ):
        SlicePlan.build(model, spec)
    settled = settle(spec, model)
    assert not settled.prunable
    assert why in settled.groups[0].reason
    assert "report" not in settled.groups[0].reason
    SlicePlan.build(model, settled)


def test_softmax_of_the_older_sets_runs_over_all_axes_behind() -> None:
    model, spec = network([node("Softmax", "x", axis=0)], {}, opset=11)
    with pytest.raises(GraphError, match="normalisation"):
        SlicePlan.build(model, spec)


def test_groups_of_a_depthwise_convolution_follow_its_width() -> None:
    weight = np.ones((WIDTH, 1, 3, 3), dtype=np.float32)
    model, spec = network(
        [node("Conv", "x,d.weight", group=WIDTH, pads=[1, 1, 1, 1])], {"d.weight": weight}
    )
    through = Slice("d.weight", 0, "through", 0, 1, 0, WIDTH)
    group = spec.groups[0]
    whole = ChannelGroup("a", WIDTH, (*group.slices, through), prunable=True, reason="")
    plan = SlicePlan.build(
        model, NetworkSpec("n", spec.input_shapes, (whole,), (), spec.parameters)
    )
    depthwise = work(plan, {"a": 3})[1]
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.conv_groups) == (1, 1, 3)
    assert depthwise.macs == 64 * 9 * 3


def test_a_slice_of_computed_axes_is_refused() -> None:
    nodes = [node("Identity", "ax0", "ax"), node("Slice", "x,st,en,ax")]
    model, spec = network(nodes, {"st": ints(0), "en": ints(8), "ax0": ints(1)})
    with pytest.raises(GraphError, match="computed axes"):
        SlicePlan.build(model, spec)
    with pytest.raises(GraphError, match="y of the ONNX graph has no fixed shape"):
        settle(spec, model)
