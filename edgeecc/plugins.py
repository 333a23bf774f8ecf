"""Resolve a `package.module:attribute` reference, and look names up in a literal table of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Mapping

from edgeecc.errors import ConfigError, RuntimeUnavailableError


def resolve(reference: str) -> object:
    """Import `package.module:attribute` and return the attribute.

    Raises: ConfigError when the text has no colon, the module is absent, or it lacks the attribute.
    """
    module_name, colon, attribute = reference.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigError(f"{reference!r} is no reference; write package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {module_name!r} of {reference!r}: {error}; is it on PYTHONPATH?"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(
            f"module {module_name!r} has no {attribute!r}; check the name after the colon"
        ) from error


def call_own(reference: str) -> object:
    """Call a function of the user's own, looked for in the working directory too, and return its result.

    Raises: ConfigError when it cannot be found, is no function, or fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(
            0, here
        )  # a console script does not look in the working directory by itself
    function = resolve(reference)
    if not callable(function):
        raise ConfigError(
            f"{reference} is no function; name one that can be called without arguments"
        )
    try:
        return function()
    except Exception as error:
        raise ConfigError(
            f"{reference}() failed: {type(error).__name__}: {error}; try it in Python first"
        ) from error


def lookup(table: Mapping[str, str], name: str, *, kind: str, extra: str = "") -> object:
    """Resolve entry `name` of a plug-in table.

    Args:
        table: name -> `package.module:attribute`.
        name: what the user asked for.
        kind: what the table holds, for the message ("meter", "solver", ...).
        extra: the extra that installs what the entry needs.
    Raises: ConfigError for an unknown name (the known ones are listed); RuntimeUnavailableError when the
        entry needs a package that is not installed.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; known are {', '.join(sorted(table))}")
    module_name, _, attribute = table[name].partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        hint = f"; pip install 'edgeecc[{extra}]'" if extra else ""
        raise RuntimeUnavailableError(
            f"{kind} {name!r} needs a package that is not here: {error}{hint}"
        ) from error
