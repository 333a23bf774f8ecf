"""What a Jetson is like, by jetson-stats: its model, power mode, clocks and temperatures.

An extra, imported when it is asked for: its licence is the AGPL, and it needs its own service on the board. Only its
documented Python interface is used (https://rnext.it/jetson_stats/reference/jtop.html), of version 4, and of version 3
where that differs. It tells nothing of throttling, so neither does this.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from edgeecc.errors import MeterError, RuntimeUnavailableError, brief
from edgeecc.meters.conditions import Conditions, Sensors

_LOG = logging.getLogger(__name__)

#: Where the service listens, as documented.
SOCKET = Path("/run/jtop.sock")
#: A zone that is switched off reads far below what a board works at.
_COLDEST_C = -100.0
#: Clocks of a Jetson lie between 10 MHz and 10 GHz, so that a number says by its size which unit it is in: from here on
#: that unit, as far as a thousand times more. Version 4 tells kHz; of older ones it is not documented.
_UNITS = ((1e1, 1e6), (1e4, 1e3), (1e7, 1.0))
#: No number that a board tells of itself is larger.
_MOST = 1e12


class JtopSensors:
    """The service of jetson-stats; a context manager, which connects to it and lets it go.

    Args:
        socket: where the service listens; looked at only when it does not answer.
    """

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._jetson: Any = None
        #: The board's model, such as "NVIDIA Jetson TX2"; empty where it is not told.
        self.model = ""

    def __enter__(self) -> JtopSensors:
        try:
            from jtop import jtop
        except ImportError as error:
            raise RuntimeUnavailableError(
                "jetson-stats is not here; pip install 'edgeecc[jtop]', in the version that the board's service has"
            ) from error
        try:
            self._jetson = jtop()
            self._jetson.start()
            alive, said = bool(self._jetson.ok()), ""
            self.model = board_model(_told(self._jetson, "board")) if alive else ""
        except Exception as error:  # of its own kind, or of the socket's
            alive, said = False, brief(error)
        if not alive:
            self._close()
            raise RuntimeUnavailableError(diagnosis(said, self._socket))
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def conditions(self) -> Conditions:
        """Return what the board was like at the service's last update, about a second ago at most.

        Raises: MeterError when the connection is not open or broke.
        """
        if self._jetson is None:
            raise MeterError("the connection to jtop's service is closed; open it before reading")
        try:
            found, said = _conditions(self._jetson) if _is_alive(self._jetson) else None, ""
        except Exception as error:  # what its thread met, told now
            found, said = None, brief(error)
        if found is None:
            raise MeterError(diagnosis(said, self._socket))
        return found

    def _close(self) -> None:
        jetson, self._jetson = self._jetson, None
        if jetson is not None:
            try:
                jetson.close()
            except Exception as error:
                _LOG.debug("jtop did not close: %s", brief(error))


class CompletedSensors:
    """What one tells of a device, completed by what the other does; what holds it back is told by both."""

    def __init__(self, first: Sensors, second: Sensors) -> None:
        self._first, self._second = first, second

    def conditions(self) -> Conditions:
        """Return what it is like now.

        Raises: MeterError as either.
        """
        one, other = self._first.conditions(), self._second.conditions()
        return Conditions(
            clocks_hz={**other.clocks_hz, **one.clocks_hz},
            temperatures_c={**other.temperatures_c, **one.temperatures_c},
            mode=one.mode or other.mode,
            held_back=tuple(dict.fromkeys((*one.held_back, *other.held_back))),
            alerts=(*one.alerts, *other.alerts),
        )


def diagnosis(said: str, socket: Path) -> str:
    """Return why jtop's service does not serve us, and what to do, from what its client said and from its socket."""
    quoted = f" ({said})" if said else ""
    if "mismatch" in said.lower():
        return (
            f"jetson-stats here and the board's service differ in version{quoted}; install the service's version here, "
            "then run sudo systemctl restart jtop.service"
        )
    if not socket.exists():
        return (
            f"{socket} is not there: jtop's service does not run{quoted}; run sudo systemctl restart jtop.service, or "
            f"give the container -v {socket}:{socket}"
        )
    if not os.access(socket, os.R_OK | os.W_OK):
        return (
            f"{socket} may not be opened{quoted}; join its group (sudo usermod -aG jtop $USER) and log in again, or "
            "give the container --group-add with the number of that group"
        )
    return f"jtop's service does not answer{quoted}; run sudo systemctl restart jtop.service"


def board_model(board: Mapping[str, Any]) -> str:
    """Return the model from `jtop.board`: of version 4 in its hardware, of version 3 there by type or in its info."""
    places = (
        ("hardware", "Model"),
        ("hardware", "Module"),
        ("info", "machine"),
        ("hardware", "TYPE"),
    )
    for section, key in places:
        text = str(_mapping(board.get(section)).get(key) or "").strip()
        if text:
            return text
    return ""


def power_mode(nvpmodel: object) -> str:
    """Return the power mode from `jtop.nvpmodel`: an object with a name, or a name; empty where there is none."""
    return "" if nvpmodel is None else str(getattr(nvpmodel, "name", nvpmodel))


def temperatures_c(zones: Mapping[str, Any]) -> Dict[str, float]:
    """Return zone -> degrees Celsius from `jtop.temperature`: of version 4 a mapping each, of version 3 a number.

    Zones that are switched off are left out.
    """
    found = {}
    for name, zone in zones.items():
        value = _number(zone.get("temp") if isinstance(zone, Mapping) else zone)
        if value is not None and value > _COLDEST_C and _is_on(zone):
            found[str(name)] = value
    return found


def clocks_hz(
    gpu: Mapping[str, Any], cpu: Mapping[str, Any], emc: Mapping[str, Any]
) -> Dict[str, float]:
    """Return "gpu", "cpu0" and so on, "memory" -> Hz, as far as they are on.

    Args:
        gpu: `jtop.gpu`: of version 4 name -> its state; of version 3 the state of the only one.
        cpu: `jtop.cpu`: of version 4 the list "cpu"; of version 3 "CPU1" and so on -> its state.
        emc: the memory controller's state.
    """
    named = [("gpu", gpu if "frq" in gpu else next(iter(gpu.values()), None)), ("memory", emc)]
    cores = cpu.get("cpu")
    if isinstance(cores, (list, tuple)):
        named += [(f"cpu{core}", state) for core, state in enumerate(cores)]
    else:
        named += list(_numbered(cpu))
    clocks = {name: _clock_hz(_mapping(state)) for name, state in named if _is_on(state)}
    return {name: clock for name, clock in clocks.items() if clock is not None}


def _numbered(cpu: Mapping[str, Any]) -> Iterator[Tuple[str, Any]]:
    """Yield "cpu0" for "CPU1", whose state may be empty when it is off."""
    for name, state in cpu.items():
        if name.startswith("CPU") and name[3:].isdecimal():
            yield f"cpu{int(name[3:]) - 1}", state


def _clock_hz(state: Mapping[str, Any]) -> Optional[float]:
    """Return the clock of a state: "freq" -> "cur", "cur", or "frq"; None when there is none or it stands."""
    value = _number(_mapping(state.get("freq")).get("cur", state.get("cur", state.get("frq"))))
    if value is None:
        return None
    for least, factor in _UNITS:
        if least <= value < 1e3 * least:
            return value * factor
    return None


def _conditions(jetson: Any) -> Conditions:
    emc = _told(jetson, "memory").get("EMC") or _told(jetson, "emc")
    return Conditions(
        clocks_hz=clocks_hz(_told(jetson, "gpu"), _told(jetson, "cpu"), emc),
        temperatures_c=temperatures_c(_told(jetson, "temperature")),
        mode=power_mode(getattr(jetson, "nvpmodel", None)),
    )


def _is_alive(jetson: Any) -> bool:
    """Return whether the connection stands, without waiting for the next update where that can be had."""
    try:
        return bool(jetson.ok(spin=True))
    except TypeError:  # a version that always waits
        return bool(jetson.ok())


def _is_on(state: object) -> bool:
    return not isinstance(state, Mapping) or bool(state.get("online", True))


def _told(jetson: Any, name: str) -> Mapping[str, Any]:
    return _mapping(getattr(jetson, name, None))


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as one; version 4 tells some by classes of its own with keys and items only."""
    if isinstance(value, Mapping):
        return value
    keys = getattr(value, "keys", None)
    return {key: value[key] for key in keys()} if callable(keys) else {}


def _number(value: object) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_MOST < value < _MOST else None
