"""What a device is like while it is measured: clocks, temperatures, power mode, and whether it is held back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Protocol, Tuple


@dataclass(frozen=True)
class Conditions:
    """What its sensors say of a device at one moment.

    Args:
        clocks_hz: "gpu", "cpu0", "memory", as far as they are known -> Hz.
        temperatures_c: thermal zone -> degrees Celsius.
        mode: of power, as the device calls it, such as "MAXN" or "250 W"; empty where it has none.
        held_back: why it runs slower than it was asked to, such as "thermal" or "power cap"; empty when it does not.
        alerts: what happened since the last time and is to be kept, though windows count with it: over-current events
            last microseconds, and some boards have several a second at full load.
    """

    clocks_hz: Mapping[str, float] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    mode: str = ""
    held_back: Tuple[str, ...] = ()
    alerts: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, object]:
        """Return it JSON-ready."""
        return {
            "clocks_hz": dict(self.clocks_hz),
            "temperatures_c": dict(self.temperatures_c),
            "mode": self.mode,
            "held_back": list(self.held_back),
            "alerts": list(self.alerts),
        }


class Sensors(Protocol):
    """Says what a device is like."""

    def conditions(self) -> Conditions:
        """Return what it is like now.

        Raises: MeterError when a sensor that was there is gone.
        """
