"""Read a `NetworkSpec` from JSON that may come from anywhere: every field is checked."""

from __future__ import annotations

from typing import Mapping, Sequence, Tuple

from edgeecc.errors import GraphError
from edgeecc.graph.spec import ChannelGroup, LayerSpec, NetworkSpec, ParameterSpec, Slice, WidthForm

#: Bounds on what a spec may hold: far above any network, far below what would exhaust memory.
MAX_ITEMS = 100_000
MAX_WIDTH = 10_000_000

_KINDS = ("conv", "depthwise", "grouped", "transposed", "linear")
_ROLES = ("out", "through", "in")


def read_spec(data: Mapping[str, object]) -> NetworkSpec:
    """Read what `NetworkSpec.to_json` wrote.

    Raises: GraphError when a field is missing, of the wrong kind, or out of bounds.
    """
    spec = NetworkSpec(
        network=_text(data, "network"),
        input_shapes=tuple(_ints(shape, "input_shapes") for shape in _list(data, "input_shapes")),
        groups=tuple(_group(_object(item, "groups")) for item in _list(data, "groups")),
        layers=tuple(_layer(_object(item, "layers")) for item in _list(data, "layers")),
        parameters=tuple(
            _parameter(_object(item, "parameters")) for item in _list(data, "parameters")
        ),
    )
    _check_references(spec)
    return spec


def _group(data: Mapping[str, object]) -> ChannelGroup:
    return ChannelGroup(
        name=_text(data, "name"),
        width=_int(data, "width", 1),
        slices=tuple(_slice(_object(item, "slices")) for item in _list(data, "slices")),
        prunable=_flag(data, "prunable"),
        reason=_text(data, "reason"),
    )


def _slice(data: Mapping[str, object]) -> Slice:
    role = _text(data, "role")
    if role not in _ROLES:
        raise GraphError(
            f"slice role {role!r} in the spec is none of {', '.join(_ROLES)}; make the spec again"
        )
    numbers = {
        key: _int(data, key)
        for key in ("axis", "start", "step", "first", "count", "block", "repeats", "stride")
    }
    return Slice(parameter=_text(data, "parameter"), role=role, **numbers)  # type: ignore[arg-type]  # checked above


def _layer(data: Mapping[str, object]) -> LayerSpec:
    kind = _text(data, "kind")
    if kind not in _KINDS:
        raise GraphError(
            f"layer kind {kind!r} in the spec is none of {', '.join(_KINDS)}; make the spec again"
        )
    return LayerSpec(
        name=_text(data, "name"),
        kind=kind,  # type: ignore[arg-type]  # checked above
        input=_form(data, "input"),
        output=_form(data, "output"),
        kernel=_pair(data, "kernel"),
        stride=_pair(data, "stride"),
        dilation=_pair(data, "dilation"),
        padding=_pair(data, "padding"),
        groups=_int(data, "groups", 1),
        in_size=_pair(data, "in_size"),
        out_size=_pair(data, "out_size"),
        calls=_int(data, "calls", 1),
        dense_macs=_int(data, "dense_macs", limit=10**18),
        bias=_flag(data, "bias"),
    )


def _parameter(data: Mapping[str, object]) -> ParameterSpec:
    return ParameterSpec(
        _text(data, "name"), _ints(data.get("shape"), "shape"), _flag(data, "trained")
    )


def _form(data: Mapping[str, object], key: str) -> WidthForm:
    form = _object(data.get(key), key)
    terms = []
    for item in _list(form, "terms"):
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)):
            raise GraphError(
                f"field {key!r} of the spec must list [group, factor] pairs; make the spec again"
            )
        terms.append((item[0], _ints([item[1]], key)[0]))
    return WidthForm(_int(form, "fixed"), tuple(terms))


def _check_references(spec: NetworkSpec) -> None:
    shapes = {parameter.name: parameter.shape for parameter in spec.parameters}
    for group in spec.groups:
        for piece in group.slices:
            shape = shapes.get(piece.parameter)
            if shape is None or piece.axis >= len(shape):
                raise GraphError(
                    f"group {group.name} points at axis {piece.axis} of {piece.parameter!r}, which is absent"
                )
            last = (
                piece.start
                + (piece.count - 1) * piece.step
                + (piece.repeats - 1) * piece.stride
                + piece.block
            )
            if (
                last > shape[piece.axis]
                or piece.first + piece.count > group.width
                or piece.count < 1
            ):
                raise GraphError(
                    f"group {group.name} reaches outside {piece.parameter!r}; make the spec again"
                )
    known = set(spec.dense_widths())
    for layer in spec.layers:
        for group_name, _ in layer.input.terms + layer.output.terms:
            if group_name not in known:
                raise GraphError(
                    f"layer {layer.name} depends on group {group_name!r}, which the spec lacks"
                )


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise GraphError(f"field {what!r} of the spec must hold objects; make the spec again")
    return value


def _list(data: Mapping[str, object], key: str) -> Sequence[object]:
    value = data.get(key)
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise GraphError(
            f"field {key!r} of the spec must be a list of at most {MAX_ITEMS}; make the spec again"
        )
    return value


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise GraphError(
            f"field {key!r} of the spec must be text, found {value!r}; make the spec again"
        )
    return value


def _flag(data: Mapping[str, object], key: str) -> bool:
    value = data.get(key)
    if not isinstance(value, bool):
        raise GraphError(
            f"field {key!r} of the spec must be true or false, found {value!r}; make the spec again"
        )
    return value


def _int(data: Mapping[str, object], key: str, least: int = 0, limit: int = MAX_WIDTH) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
        raise GraphError(
            f"field {key!r} of the spec must be an integer in {least}..{limit}, found {value!r}"
        )
    return value


def _ints(value: object, what: str) -> Tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise GraphError(
            f"field {what!r} of the spec must list at most 8 integers; make the spec again"
        )
    return tuple(_int({what: item}, what) for item in value)


def _pair(data: Mapping[str, object], key: str) -> Tuple[int, int]:
    values = _ints(data.get(key), key)
    if len(values) != 2:
        raise GraphError(
            f"field {key!r} of the spec must be a pair, found {data.get(key)!r}; make the spec again"
        )
    return values[0], values[1]
