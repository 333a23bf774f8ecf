"""The operators that an exported program may run: functions of their arguments, and nothing else.

A program names its operators, and among torch's own are some that open files or never end. So the names are looked
up in a list of what convolutional networks are made of; any other is refused by name.
"""

from __future__ import annotations

import operator
import re
from typing import Callable, Dict, Mapping, cast

import torch

from edgeecc.errors import GraphError
from edgeecc.networks.exported.program import Operation

Operator = Callable[..., object]

#: Operators of torch.ops.aten, in any overload but those that write into an argument `out`.
_ATEN_NAMES = """
    abs add add_ addcmul alias amax amin arange argmax avg_pool1d avg_pool2d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d batch_norm bmm cat celu channel_shuffle chunk clamp
    clamp_ clamp_max clamp_min clone concat contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d cos detach detach_ div div_ dropout dropout_ einsum elu elu_ empty_like eq erf exp expand
    expand_as feature_dropout flatten full full_like ge gelu glu group_norm gt hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ instance_norm layer_norm le leaky_relu leaky_relu_ lift_fresh_copy linear
    log log_softmax log_sigmoid logical_and logical_not logsumexp lt masked_fill matmul max max_pool1d max_pool2d
    max_pool2d_with_indices maximum mean min minimum mish mish_ mul mul_ narrow ne neg new_ones new_zeros norm ones
    ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu reciprocal relu relu6 relu6_ relu_ repeat
    reshape reshape_as roll rsqrt rsub scalar_tensor scaled_dot_product_attention select selu selu_ sigmoid
    sigmoid_ silu silu_ sin slice softmax softplus split split_with_sizes sqrt square squeeze stack std sub sub_
    sum sym_size t tanh tanh_ tensor_split tile to transpose true_divide type_as unbind unflatten unfold unsafe_chunk
    unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d var view view_as where zeros zeros_like
"""
_ATEN = frozenset(_ATEN_NAMES.split())
#: Arithmetic on sizes.
_PYTHON: Dict[str, Operator] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg")
}
#: Operators that check and return nothing: a rebuilt network runs without them.
_CHECKS = frozenset({"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size"})
#: Operators that only a decomposed program has.
_DECOMPOSED = frozenset({"convolution", "_native_batch_norm_legit_no_training", "addmm", "mm"})
_TARGET = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)


def kind_of(target: str) -> str:
    """Return the aten operator's name without its overload, empty for what is none."""
    match = _TARGET.fullmatch(target)
    return match.group(1) if match else ""


def is_check(target: str) -> bool:
    """Return whether an operator only checks, and can be left out."""
    return kind_of(target) in _CHECKS


def operator_of(operation: Operation) -> Operator:
    """Return the function that a node of a program names.

    Raises: GraphError naming an operator that is not in the list.
    """
    if operation.target in _PYTHON:
        return _PYTHON[operation.target]
    match = _TARGET.fullmatch(operation.target)
    found = None
    if match and match.group(1) in _ATEN and not match.group(2).endswith("out"):
        found = getattr(getattr(torch.ops.aten, match.group(1), None), match.group(2), None)
    if found is None:
        decomposed = kind_of(operation.target) in _DECOMPOSED
        way_out = (
            "save the program before run_decompositions"
            if decomposed
            else "leave that part out of the network, or give the network as --network package.module:factory"
        )
        raise GraphError(
            f"node {operation.name} runs {operation.target}, which edgeecc does not rebuild; {way_out}"
        )
    return cast(Operator, found)


def bound(operation: Operation) -> Dict[str, object]:
    """Return all arguments of an aten operator by name, defaults included."""
    schema = operator_of(operation)._schema  # type: ignore[attr-defined]  # of an OpOverload
    defaults = {item.name: item.default_value for item in schema.arguments}
    given: Mapping[str, object] = operation.arguments
    return {**defaults, **given}
