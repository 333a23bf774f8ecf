"""ONNX operators by torch's: those of the graphs that edgeecc exports, and what convolutional networks use beside.

Each takes the node's attributes and its inputs, tensors or None where one is left out, and returns its output, or all
of them where there may be several. What an operator does is the ONNX specification's; opset 13 to 21.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch.nn import functional

from edgeecc.errors import GraphError

Attributes = Mapping[str, Any]
Inputs = Sequence[Optional[torch.Tensor]]
Outputs = Union[torch.Tensor, Tuple[torch.Tensor, ...]]
Operator = Callable[[Attributes, Inputs], Outputs]


def _given(values: Inputs, at: int) -> Optional[torch.Tensor]:
    """Return an input that may be left out."""
    return values[at] if at < len(values) else None


def _first(values: Inputs) -> torch.Tensor:
    assert values[0] is not None  # noqa: S101  # the checker of ONNX saw to it
    return values[0]


def _ints(tensor: Optional[torch.Tensor]) -> List[int]:
    return [] if tensor is None else [int(value) for value in tensor.reshape(-1).tolist()]


def _padded(
    attributes: Attributes, data: torch.Tensor, kernel: Sequence[int], fill: float = 0.0
) -> torch.Tensor:
    """Return a map with the padding of a convolution or a pool around it."""
    spatial = data.dim() - 2
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides = attributes.get("strides", [1] * spatial)
        dilations = attributes.get("dilations", [1] * spatial)
        before, after = [], []
        for size, reach, stride, dilation in zip(data.shape[2:], kernel, strides, dilations):
            last = (-(-size // stride) - 1) * stride + (reach - 1) * dilation + 1
            total = max(0, last - size)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        pads = before + after
    if not any(pads):
        return data
    ends = [side for at in reversed(range(spatial)) for side in (pads[at], pads[spatial + at])]
    return functional.pad(data, ends, value=fill)


def _conv(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, weight = _first(values), values[1]
    assert weight is not None  # noqa: S101
    spatial = data.dim() - 2
    made = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    return made(
        _padded(attributes, data, weight.shape[2:]), weight, _given(values, 2),
        stride=attributes.get("strides", [1] * spatial), dilation=attributes.get("dilations", [1] * spatial),
        groups=attributes.get("group", 1),
    )  # fmt: skip


def _conv_transpose(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, weight = _first(values), values[1]
    assert weight is not None  # noqa: S101
    spatial = data.dim() - 2
    pads = attributes.get("pads", [0] * 2 * spatial)
    if pads[:spatial] != pads[spatial:] or "output_shape" in attributes:
        raise GraphError(
            "a transposed convolution with uneven padding or an output shape is not run by torch here"
        )
    made = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
    return made[spatial - 1](
        data, weight, _given(values, 2), stride=attributes.get("strides", [1] * spatial), padding=pads[:spatial],
        output_padding=attributes.get("output_padding", [0] * spatial), groups=attributes.get("group", 1),
        dilation=attributes.get("dilations", [1] * spatial),
    )  # fmt: skip


def _max_pool(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, kernel = _first(values), attributes["kernel_shape"]
    spatial = len(kernel)
    made = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[spatial - 1]
    found: torch.Tensor = made(
        _padded(attributes, data, kernel, float("-inf")), kernel, attributes.get("strides", [1] * spatial),
        0, attributes.get("dilations", [1] * spatial), bool(attributes.get("ceil_mode", 0)),
    )  # fmt: skip
    return found


def _average_pool(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, kernel = _first(values), attributes["kernel_shape"]
    spatial = len(kernel)
    strides = attributes.get("strides", [1] * spatial)
    if attributes.get("ceil_mode", 0) or any(one != 1 for one in attributes.get("dilations", [1])):
        raise GraphError("an average pool with ceil_mode or dilations is not run by torch here")
    made = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[spatial - 1]
    found: torch.Tensor = made(_padded(attributes, data, kernel), kernel, strides)
    if attributes.get("count_include_pad", 0):
        return found
    seen: torch.Tensor = made(
        _padded(attributes, torch.ones_like(data[:1, :1]), kernel), kernel, strides
    )
    return found / seen


def _over_space(values: Inputs) -> List[int]:
    return list(range(2, _first(values).dim()))


def _batch_norm(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, scale, shift, mean, variance = values[:5]
    assert data is not None  # noqa: S101
    return functional.batch_norm(
        data, mean, variance, scale, shift, training=False, eps=attributes.get("epsilon", 1e-5)
    )


def _gemm(attributes: Attributes, values: Inputs) -> torch.Tensor:
    first, second = _first(values), values[1]
    assert second is not None  # noqa: S101
    first = first.T if attributes.get("transA", 0) else first
    second = second.T if attributes.get("transB", 0) else second
    made: torch.Tensor = attributes.get("alpha", 1.0) * (first @ second)
    more = _given(values, 2)
    return made if more is None else made + attributes.get("beta", 1.0) * more


def _instance_norm(attributes: Attributes, values: Inputs) -> torch.Tensor:
    return functional.instance_norm(
        _first(values), weight=values[1], bias=values[2], eps=attributes.get("epsilon", 1e-5)
    )


def _layer_norm(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data = _first(values)
    axis = attributes.get("axis", -1) % data.dim()
    return functional.layer_norm(
        data, data.shape[axis:], values[1], _given(values, 2), attributes.get("epsilon", 1e-5)
    )


def _depth_to_space(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, block = _first(values), attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"CRD":
        return functional.pixel_shuffle(data, block)
    images, channels, rows, columns = data.shape
    parts = data.reshape(images, block, block, channels // block**2, rows, columns)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(
        images, channels // block**2, rows * block, columns * block
    )


def _gather(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, places = _first(values), values[1]
    assert places is not None  # noqa: S101
    axis = attributes.get("axis", 0) % data.dim()
    places = places.to(data.device) % data.shape[axis]
    picked = data.index_select(axis, places.reshape(-1))
    return picked.reshape(*data.shape[:axis], *places.shape, *data.shape[axis + 1 :])


def _split(attributes: Attributes, values: Inputs) -> Tuple[torch.Tensor, ...]:
    data, sizes = _first(values), _ints(_given(values, 1))
    axis, count = attributes.get("axis", 0), attributes.get("num_outputs")
    if not sizes and count is None:
        raise GraphError("a split without sizes is not run by torch here")
    each = -(-data.shape[axis] // count) if count else 0
    return torch.split(data, sizes or each, axis)


def _clip(attributes: Attributes, values: Inputs) -> torch.Tensor:
    return torch.clamp(_first(values), _given(values, 1), _given(values, 2))


def _reshape(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, wanted = _first(values), _ints(_given(values, 1))
    if not attributes.get("allowzero", 0):
        wanted = [data.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    return data.reshape(wanted)


def _flatten(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, axis = _first(values), attributes.get("axis", 1)
    axis = axis + data.dim() if axis < 0 else axis
    rows = 1
    for size in data.shape[:axis]:
        rows *= size
    return data.reshape(rows, -1)


def _squeeze(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, axes = _first(values), _ints(_given(values, 1))
    return data.squeeze(tuple(axes)) if axes else data.squeeze()


def _unsqueeze(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, axes = _first(values), _ints(_given(values, 1))
    rank = data.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        data = data.unsqueeze(axis)
    return data


def _slice(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data = _first(values)
    starts, ends = _ints(_given(values, 1)), _ints(_given(values, 2))
    axes = _ints(_given(values, 3)) or list(range(len(starts)))
    steps = _ints(_given(values, 4)) or [1] * len(starts)
    if any(step < 1 for step in steps):
        raise GraphError("a slice with a step below 1 is not run by torch here")
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index = [slice(None)] * data.dim()
        index[axis] = slice(start, end, step)
        data = data[tuple(index)]
    return data


def _pad(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, pads, fill = _first(values), _ints(_given(values, 1)), _given(values, 2)
    axes = _ints(_given(values, 3)) or list(range(len(pads) // 2))
    mode = attributes.get("mode", b"constant").decode()
    ends = [0] * (2 * data.dim())
    for at, axis in enumerate(axes):
        place = 2 * (data.dim() - 1 - axis % data.dim())
        ends[place], ends[place + 1] = pads[at], pads[len(axes) + at]
    if mode == "constant":
        return functional.pad(data, ends, value=0.0 if fill is None else float(fill))
    if mode not in ("reflect", "edge") or any(ends[2 * (data.dim() - 2) :]):
        raise GraphError(f"padding of mode {mode} over these axes is not run by torch here")
    return functional.pad(
        data, ends[: 2 * (data.dim() - 2)], mode={"edge": "replicate"}.get(mode, mode)
    )


def _resize(attributes: Attributes, values: Inputs) -> torch.Tensor:
    data, scales, sizes = _first(values), _given(values, 2), _ints(_given(values, 3))
    if not sizes:
        assert scales is not None  # noqa: S101
        sizes = [int(size * scale) for size, scale in zip(data.shape, scales.tolist())]
    mode = attributes.get("mode", b"nearest").decode()
    aligned = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if sizes[:2] != list(data.shape[:2]):
        raise GraphError("a resize of images or channels is not run by torch here")
    if mode == "nearest" and aligned == "asymmetric":
        return functional.interpolate(data, sizes[2:], mode="nearest")
    if (
        mode == "linear"
        and data.dim() == 4
        and aligned in ("half_pixel", "pytorch_half_pixel", "align_corners")
    ):
        return functional.interpolate(
            data, sizes[2:], mode="bilinear", align_corners=aligned == "align_corners"
        )
    raise GraphError(f"a resize of mode {mode}, {aligned} is not run by torch here")


def _reduced(made: Callable[..., torch.Tensor]) -> Operator:
    def operator(attributes: Attributes, values: Inputs) -> torch.Tensor:
        data = _first(values)
        axes = _ints(_given(values, 1)) or list(attributes.get("axes", range(data.dim())))
        return made(data, dim=axes, keepdim=bool(attributes.get("keepdims", 1)))

    return operator


def _unary(made: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda attributes, values: made(_first(values))


def _binary(made: Callable[[Any, Any], Any]) -> Operator:
    return lambda attributes, values: made(values[0], values[1])


OPERATORS: Dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "CastLike": _binary(lambda data, like: data.to(like.dtype)),
    "Clip": _clip,
    "Concat": lambda attributes, values: torch.cat(
        [v for v in values if v is not None], attributes["axis"]
    ),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _binary(torch.div),
    "Dropout": _unary(lambda data: data),
    "Elu": lambda attributes, values: functional.elu(_first(values), attributes.get("alpha", 1.0)),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda attributes, values: _first(values).mean(
        _over_space(values), keepdim=True
    ),
    "GlobalMaxPool": lambda attributes, values: _first(values).amax(
        _over_space(values), keepdim=True
    ),
    "HardSigmoid": lambda attributes, values: torch.clamp(
        attributes.get("alpha", 0.2) * _first(values) + attributes.get("beta", 0.5), 0.0, 1.0
    ),
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda data: data),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda attributes, values: functional.leaky_relu(
        _first(values), attributes.get("alpha", 0.01)
    ),
    "LogSoftmax": lambda attributes, values: torch.log_softmax(
        _first(values), attributes.get("axis", -1)
    ),
    "MatMul": _binary(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _binary(torch.mul),
    "PRelu": _binary(lambda data, slope: torch.where(data >= 0, data, slope * data)),
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Selu": _unary(functional.selu),
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda attributes, values: torch.softmax(_first(values), attributes.get("axis", -1)),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda attributes, values: _first(values).permute(
        *attributes.get("perm", reversed(range(_first(values).dim())))
    ),
    "Unsqueeze": _unsqueeze,
}
