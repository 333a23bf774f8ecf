"""The settings of the methods beside ECC, with their sources, and settings from text."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Sequence, TypeVar, get_args, get_origin, get_type_hints

from edgeecc.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class NoSettings:
    """Of a method that has none."""


def with_settings(base: T, texts: Sequence[str]) -> T:
    """Return settings with some replaced, each given as name=value; the type of the field reads the value.

    Args:
        base: a frozen dataclass whose fields are whole numbers, numbers, flags or closed sets of texts.
        texts: "name=value" each.
    Raises: ConfigError for an unknown name or a value that does not fit.
    """
    known = {field.name for field in fields(base)}  # type: ignore[arg-type]  # a dataclass, as the docstring asks
    types = get_type_hints(type(base))
    values = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{text!r} sets nothing; write name=value, names are {names}")
        values[name] = _read(types[name], value, text)
    return replace(base, **values)  # type: ignore[type-var]  # a dataclass, as the docstring asks


def _read(kind: object, value: str, text: str) -> object:
    if kind is bool:
        if value not in ("true", "false"):
            raise ConfigError(f"{text!r} must be true or false")
        return value == "true"
    choices = get_args(kind)
    if choices and get_origin(kind) is not None and all(isinstance(one, str) for one in choices):
        if value not in choices:
            raise ConfigError(f"{text!r} is none of {', '.join(choices)}")
        return value
    if kind in (int, float):
        try:
            return int(value) if kind is int else float(value)
        except ValueError as error:
            raise ConfigError(f"{text!r} is no {'whole ' if kind is int else ''}number") from error
    raise ConfigError(f"{text!r} cannot be set from text")
