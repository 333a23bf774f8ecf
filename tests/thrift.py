"""What spares the tests time and leaves what they test as it is: one export a model, short windows of the clock."""

from __future__ import annotations

import contextlib
import functools
import pickle  # noqa: TID251  # a key is written, nothing is read
from collections import OrderedDict
from typing import Any, Callable, Iterator

import onnx
from torch import nn

from edgeecc.config import LATENCY_PROTOCOL
from edgeecc.graph import to_onnx

#: Exports that are held at a time, and the most values that a model may have for its export to be held.
HELD, VALUES = 64, 2_000_000
#: Seconds of a window of the clock; no test asserts how long an inference takes.
WINDOW_S = 0.01


def once_a_model(export: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Let torch export a model once: another of the same classes, attributes and weights is given the same graph."""
    held: OrderedDict[Any, bytes] = OrderedDict()

    @functools.wraps(export)
    def exported(model: nn.Module, inputs: Any) -> onnx.ModelProto:
        if sum(value.numel() for value in model.state_dict().values()) > VALUES:
            return export(model, inputs)
        try:
            key = pickle.dumps((model, inputs)), tuple(map(type, model.modules()))
        except Exception:
            # A class inside a function, a hook: whether two are the same cannot be told.
            return export(model, inputs)
        if key in held:
            held.move_to_end(key)
            return onnx.load_from_string(held[key])
        proto = export(model, inputs)
        held[key] = proto.SerializeToString()
        if len(held) > HELD:
            held.popitem(last=False)
        return proto

    return exported


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Spare the time while the context is open."""
    export, window_s = to_onnx._export, LATENCY_PROTOCOL.window_s
    to_onnx._export = once_a_model(export)
    object.__setattr__(LATENCY_PROTOCOL, "window_s", WINDOW_S)
    try:
        yield
    finally:
        to_onnx._export = export
        object.__setattr__(LATENCY_PROTOCOL, "window_s", window_s)
