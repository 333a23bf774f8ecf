"""What a host and `edgeecc measure` on a board say to each other: JSON lines, bounded and checked on both sides.

The board greets with what it measures; then each line asked is a variant and each line answered a measurement.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from edgeecc import __version__
from edgeecc.artifacts import figure, parse_json
from edgeecc.cost.samples import THINNEST, Failure, Row
from edgeecc.errors import ConfigError, MeterError
from edgeecc.graph.spec import NetworkSpec, Widths

#: Longest line, bytes: widths of a network of a hundred thousand groups.
MAX_LINE = 2**20
MAX_NUMBER = 2**31
_MAX_COUNT = 10**12
#: Longest reason why a variant cannot be built, characters.
MAX_WHY = 1000
#: Longest conditions, characters of JSON.
MAX_CONDITIONS = 2**14


def greeting(device: str, spec: NetworkSpec) -> Dict[str, object]:
    """Return what a board says first."""
    return {"edgeecc": __version__, "device": device, "fingerprint": spec.fingerprint()}


def check_greeting(line: bytes, device: str, fingerprint: str) -> None:
    """Check that a board measures what it was asked to.

    Raises: MeterError saying what differs.
    """
    found = _object(line)
    wanted = {"edgeecc": __version__, "device": device, "fingerprint": fingerprint}
    hints = {
        "edgeecc": "install the same version there",
        "device": "name its kind in the fleet file",
        "fingerprint": "copy spec.json and dense.onnx of this calibration there",
    }
    for key, value in wanted.items():
        if found.get(key) != value:
            raise MeterError(f"it has {key} {_short(found.get(key))}, not {value}; {hints[key]}")


def task_line(number: int, widths: Sequence[int]) -> bytes:
    """Return the line that asks for a variant."""
    return json.dumps({"number": number, "widths": list(widths)}).encode() + b"\n"


def read_task(line: str, spec: NetworkSpec) -> Tuple[int, Widths]:
    """Return number and widths of a line that asks for a variant.

    Raises: ConfigError when it is none of this network.
    """
    try:
        found = parse_json(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or set(found) != {"number", "widths"}:
        raise ConfigError(
            f'{_short(line.strip())} is no variant; write {{"number": 0, "widths": [8, 16]}} in one line'
        )
    number, widths = found["number"], found["widths"]
    if not _is_count(number, MAX_NUMBER, THINNEST):
        raise ConfigError(f"number {_short(number)} must lie in {THINNEST}..{MAX_NUMBER}")
    if not isinstance(widths, list) or not all(_is_count(one, MAX_NUMBER) for one in widths):
        raise ConfigError(f"widths {_short(widths)} must be a list of whole numbers")
    return number, spec.widths(widths)


def row_object(row: Row, meter: str) -> Dict[str, object]:
    """Return a measurement as it is sent."""
    return {
        "number": row.number,
        "widths": [int(width) for width in row.widths],
        "value": row.value,
        "standard_error": row.standard_error,
        "spread": row.spread,
        "latency_s": row.latency_s,
        "windows": row.windows,
        "runs": row.runs,
        "converged": row.converged,
        "dropped": row.dropped,
        "conditions": dict(row.conditions),
        "meter": meter,
    }


def failure_object(failure: Failure) -> Dict[str, object]:
    """Return what is sent of a variant that cannot be built."""
    why = " ".join("".join(c if c.isprintable() else " " for c in failure.why).split())
    return {"number": failure.number, "failed": why[:MAX_WHY] or "no reason was told"}


def read_answer(line: bytes, number: int, widths: Sequence[int]) -> Tuple[Union[Row, Failure], str]:
    """Return what a board says of a variant: its measurement with the meter's name, or that it cannot be built.

    Raises: MeterError when it is neither, or of another variant.
    """
    found = _object(line)
    if "failed" not in found:
        return _row(found, number, widths)
    why = found["failed"]
    if found.get("number") != number:
        raise MeterError(f"it answered with variant {_short(found.get('number'))}, not {number}")
    if not isinstance(why, str) or not 0 < len(why) <= MAX_WHY or not why.isprintable():
        raise MeterError(f"it could not build variant {number} for a reason that it did not tell")
    return Failure(number, why), ""


def _row(found: Mapping[str, Any], number: int, widths: Sequence[int]) -> Tuple[Row, str]:
    if found.get("number") != number or found.get("widths") != list(widths):
        raise MeterError(f"it answered with variant {_short(found.get('number'))}, not {number}")
    meter = found.get("meter")
    if not isinstance(meter, str) or not 0 < len(meter) <= 200 or not meter.isprintable():
        raise MeterError(f"it named the meter {_short(meter)}")
    for key in ("windows", "runs"):
        if not _is_count(found.get(key), _MAX_COUNT):
            raise MeterError(f"it answered with {key} {_short(found.get(key))}, no count")
    if not isinstance(found.get("converged"), bool):
        raise MeterError(f"it answered with converged {_short(found.get('converged'))}")
    value = _figure(found, "value")
    if value is None or value <= 0.0:
        raise MeterError(f"it answered with value {value}, which is not positive")
    conditions = _conditions(found.get("conditions", {}))
    dropped = found.get("dropped", 0)
    if not _is_count(dropped, _MAX_COUNT, 0):
        raise MeterError(f"it answered with dropped {_short(dropped)}, no count")
    row = Row(
        number=number,
        widths=tuple(widths),
        value=value,
        standard_error=_figure(found, "standard_error"),
        spread=_figure(found, "spread"),
        latency_s=_figure(found, "latency_s"),
        windows=found["windows"],
        runs=found["runs"],
        converged=found["converged"],
        dropped=dropped,
        conditions=conditions,
    )
    return row, meter


def _conditions(found: object) -> Mapping[str, Any]:
    try:
        fine = isinstance(found, dict) and len(json.dumps(found)) <= MAX_CONDITIONS
    except RecursionError:
        fine = False
    if not fine:
        raise MeterError(f"it answered with conditions {_short(type(found).__name__)}, too large")
    return found  # type: ignore[return-value]  # a dict


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        found = parse_json(line.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MeterError(f"it answered {_short(line)}, no JSON object")
    return found


def _figure(found: Mapping[str, Any], key: str) -> Optional[float]:
    """Return a figure, which may be absent but not negative."""
    if found.get(key) is None:
        return None
    value = figure(found[key])
    if value is None or value < 0.0:
        raise MeterError(f"it answered with {key} {_short(found[key])}, no finite figure")
    return value


def _is_count(value: object, most: int, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _short(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return repr(" ".join(text.split())[:80])
