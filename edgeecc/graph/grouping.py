"""From units to channel groups: units that sit in the same places become one group with affine slices."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
from torch import nn

from edgeecc.graph.coupling import CONV, LAYERS, TRANSPOSED, Side, Unit
from edgeecc.graph.spec import ChannelGroup, IntArray, Role, Slice

#: More pieces than this along one axis are no regular pattern worth a table.
MAX_PIECES = 64
_BUFFERS = ("weight", "bias", "running_mean", "running_var")


def group_units(
    model: nn.Module, units: Sequence[Unit], order: Mapping[str, int]
) -> Tuple[ChannelGroup, ...]:
    """Return the channel groups of a network, in forward order.

    Args:
        model: the network.
        units: from `find_units`.
        order: module name -> place in forward order; layers that never run are left out.
    """
    families: Dict[Tuple[str, FrozenSet[Tuple[str, Side, int]], str], List[Unit]] = defaultdict(
        list
    )
    for unit in units:
        maker = _maker(unit, order)
        if maker is not None:
            families[maker, unit.signature(), unit.obstacle].append(unit)
    ordered = sorted(
        families.items(), key=lambda item: (order[item[0][0]], _first(item[0][0], item[1]))
    )
    taken: Set[str] = set()
    return tuple(
        _group(model, maker, _sorted(maker, members), taken) for (maker, _, _), members in ordered
    )


def _maker(unit: Unit, order: Mapping[str, int]) -> Optional[str]:
    """Return the first module in forward order that makes the unit's channels."""
    makers = [name for name, side in unit.places if side == "out" and name in order]
    return min(makers, key=order.__getitem__) if makers else None


def _first(maker: str, units: Sequence[Unit]) -> int:
    return min(unit.places[maker, "out"][0] for unit in units)


def _sorted(maker: str, units: Sequence[Unit]) -> List[Unit]:
    return sorted(units, key=lambda unit: unit.places[maker, "out"])


def _group(model: nn.Module, maker: str, units: Sequence[Unit], taken: Set[str]) -> ChannelGroup:
    name = maker
    while name in taken:
        head, _, number = name.partition("#")
        name = f"{head}#{int(number or 1) + 1}"
    taken.add(name)
    slices: List[Slice] = []
    reason = units[0].obstacle
    known = model.state_dict()
    aliases = shared_names(model)
    for place in sorted(units[0].places):
        module = model.get_submodule(place[0])
        for parameter, axis, modulus in _axes(module, place[1]):
            full = f"{place[0]}.{parameter}" if place[0] else parameter
            if full not in known:
                reason = (
                    reason or f"{place[0]} keeps its {parameter} under another name (parametrised)"
                )
                continue
            if full in aliases:
                reason = reason or f"{full} and {aliases[full]} are one tensor"
            rows = [sorted({index % modulus for index in unit.places[place]}) for unit in units]
            pieces = affine_slices(full, axis, _role(place[1]), rows)
            if pieces is None:
                reason = reason or f"its channels lie in no regular pattern in {full}"
            else:
                slices.extend(pieces)
    reason = reason or _plain_reason(units, slices)
    return ChannelGroup(name, len(units), tuple(slices), prunable=not reason, reason=reason)


def shared_names(model: nn.Module) -> Dict[str, str]:
    """Return parameter name -> another name of the same tensor.

    Cut by one name, the tensor would keep its size under the other.
    """
    first: Dict[int, str] = {}
    aliases: Dict[str, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        other = first.setdefault(id(value), name)
        if other != name:
            aliases[name], aliases[other] = other, name
    return aliases


def _plain_reason(units: Sequence[Unit], slices: Sequence[Slice]) -> str:
    if not any(piece.role == "in" for piece in slices):
        return "no layer reads its channels: they are an output of the network"
    if len(units) == 1:
        return "it has a single channel"
    return ""


def _role(side: Side) -> Role:
    return side


def _axes(module: nn.Module, side: Side) -> Iterator[Tuple[str, int, int]]:
    """Yield (parameter, axis, modulus) for the parameters that channels on one side of a module index.

    Grouped convolutions store one group's channels on the inner axis, hence the modulus.
    """
    if side == "through":
        for name in _BUFFERS:
            value = getattr(module, name, None)
            if value is not None and value.ndim and value.shape[0] > 1:
                yield name, 0, value.shape[0]
        return
    if not isinstance(module, LAYERS):
        return
    outer, inner = (1, 0) if isinstance(module, TRANSPOSED) else (0, 1)
    shape = module.weight.shape
    axis = outer if side == "out" else inner
    yield "weight", axis, shape[axis]
    if side == "out" and module.bias is not None:
        yield "bias", 0, module.bias.shape[0]


def affine_slices(
    parameter: str, axis: int, role: Role, rows: Sequence[Sequence[int]]
) -> Optional[List[Slice]]:  # fmt: skip
    """Express the indices of each unit as affine slices.

    Args:
        parameter, axis, role: where the indices live.
        rows: per unit its sorted indices; all rows are equally long.
    Returns: the slices, or None when there is no pattern of at most MAX_PIECES pieces.
    """
    if len({len(row) for row in rows}) != 1:
        return None
    table = np.asarray(rows, dtype=np.int64)
    if table.shape[0] > 1 and bool((table == table[0]).all()):
        return None  # several units share an index: removing one would remove the others' channel
    slices: List[Slice] = []
    for columns in _column_sets(table):
        part = table[:, columns]
        offsets = part[0] - part[0, 0]
        block, repeats, stride = _inner_pattern(offsets)
        for first, count in _runs(part):
            step = int(part[first + 1, 0] - part[first, 0]) if count > 1 else 1
            slices.append(
                Slice(
                    parameter,
                    axis,
                    role,
                    int(part[first, 0]),
                    step,
                    first,
                    count,
                    block,
                    repeats,
                    stride,
                )
            )
        if len(slices) > MAX_PIECES:
            return None
    return slices


def _column_sets(table: IntArray) -> List[List[int]]:
    """Split the columns so that within each set the offsets are the same in every row and regular."""
    everything = list(range(table.shape[1]))
    offsets = table - table[:, :1]
    if bool((offsets == offsets[0]).all()) and _is_regular(offsets[0]):
        return [everything]
    return [[column] for column in everything]


def _inner_pattern(offsets: IntArray) -> Tuple[int, int, int]:
    breaks = np.flatnonzero(np.diff(offsets) != 1)
    block = int(breaks[0]) + 1 if len(breaks) else len(offsets)
    repeats = len(offsets) // block
    return block, repeats, int(offsets[block]) if repeats > 1 else 0


def _is_regular(offsets: IntArray) -> bool:
    block, repeats, stride = _inner_pattern(offsets)
    pattern = (np.arange(repeats) * stride)[:, None] + np.arange(block)[None, :]
    return block * repeats == len(offsets) and bool((pattern.reshape(-1) == offsets).all())


def _runs(part: IntArray) -> Iterator[Tuple[int, int]]:
    """Yield (first, count) of the longest runs of rows with a constant step."""
    starts = part[:, 0]
    first = 0
    while first < len(starts):
        count = 1
        if first + 1 < len(starts):
            step = starts[first + 1] - starts[first]
            count = 2
            while (
                first + count < len(starts)
                and starts[first + count] - starts[first + count - 1] == step
            ):
                count += 1
            if step <= 0:
                count = 1
        yield first, count
        first += count


def conv_groups(module: nn.Module) -> int:
    """Return the groups of a convolution, 1 for other layers."""
    return module.groups if isinstance(module, CONV) else 1
