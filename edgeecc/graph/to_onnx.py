"""Export a torch network to ONNX so that it can be sliced: names kept, batch norm kept, shapes static."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from typing import Any, Iterator, Optional, Set, Tuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from edgeecc.errors import GraphError

#: Read by TensorRT 10 and by ONNX Runtime from 1.14 on.
OPSET = 18
#: ONNX Runtime 1.19, the last for Python 3.8, reads IR versions up to 10.
IR_VERSION = 10


def to_onnx(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    """Export in eval mode with static shapes.

    Initializers carry the names of the state dict. Batch norms stay nodes: folding would hide a pass that the
    virtual devices count, and engines fold by themselves.

    Args:
        model: any traceable module; left as it is.
        example_inputs: forward arguments with the batch size that the graph shall have.
    Returns: a checked model with inputs `input` (or `input_0`...), outputs `output` (or `output_0`...).
    Raises: GraphError when torch cannot export it.
    """
    work = copy.deepcopy(model).cpu().float().eval()
    try:
        with _quiet():
            proto = _export(work, example_inputs)
    except Exception as error:
        raise GraphError(f"torch cannot export the network: {_detail(error)}") from error
    _lift_constants_(proto)
    _drop_zero_biases_(proto, set(work.state_dict()))
    _rename_ends_(proto)
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto)
    return proto


def _detail(error: BaseException) -> str:
    """Return the first cause of an export that failed, and what to do: the exporter's own words are a page long."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    if "data-dependent" in text:
        return "forward branches on the values of a tensor; write it with torch.where, or decide outside of forward"
    return f"{type(error).__name__}: {text[:300]}"


def _export(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    from onnxscript import optimizer

    program = torch.onnx.export(
        model, example_inputs, dynamo=True, optimize=False, verbose=False, opset_version=OPSET
    )  # fmt: skip
    if program is None:
        raise GraphError("torch exported nothing")
    # Folding turns the exporter's shape arithmetic into constants; weights must keep their names.
    own = set(model.state_dict())
    optimizer.fold_constants(program.model, should_fold=lambda node: _may_fold(node, own))
    optimizer.remove_unused_nodes(program.model)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _may_fold(node: Any, own: Set[str]) -> Optional[bool]:  # onnx_ir is untyped
    reads_weights = any(value is not None and value.name in own for value in node.inputs)
    return False if reads_weights and node.op_type != "Shape" else None


def _lift_constants_(proto: onnx.ModelProto) -> None:
    """Turn Constant nodes into initializers, so that every constant is found in one place."""
    for index in reversed(range(len(proto.graph.node))):
        node = proto.graph.node[index]
        if node.op_type == "Constant" and node.attribute[0].name in (
            "value",
            "value_ints",
            "value_int",
        ):
            value = onnx.helper.get_attribute_value(node.attribute[0])
            array = (
                numpy_helper.to_array(value)
                if isinstance(value, onnx.TensorProto)
                else np.asarray(value)
            )
            proto.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            del proto.graph.node[index]


def _drop_zero_biases_(proto: onnx.ModelProto, own: Set[str]) -> None:
    """Remove the zero biases that the exporter gives convolutions without one."""
    zeros = {
        tensor.name
        for tensor in proto.graph.initializer
        if tensor.name not in own and tensor.data_type == onnx.TensorProto.FLOAT
        if not np.any(numpy_helper.to_array(tensor))
    }
    for node in proto.graph.node:
        if (
            node.op_type in ("Conv", "ConvTranspose")
            and len(node.input) == 3
            and node.input[2] in zeros
        ):
            del node.input[2]
    used = {name for node in proto.graph.node for name in node.input}
    for index in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[index].name not in used:
            del proto.graph.initializer[index]


def _rename_ends_(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    names = {}
    for ends, word in ((graph.input, "input"), (graph.output, "output")):
        for index, value in enumerate(ends):
            names[value.name] = word if len(ends) == 1 else f"{word}_{index}"
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on packages that it did not find off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
