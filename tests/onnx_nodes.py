"""ONNX graphs of one node."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def node(
    op: str, shape: Tuple[int, ...], *constants: Any, outputs: int = 1, opset: int = 18, **attributes: Any
) -> onnx.ModelProto:  # fmt: skip
    """Return a graph of one node; constants are its further inputs, None leaves one out."""
    names = ["" if value is None else f"c{at}" for at, value in enumerate(constants)]
    made = [f"y{at}" for at in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], made, name="it", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names, constants) if n],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
