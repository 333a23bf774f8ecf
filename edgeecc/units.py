"""Quantities as people write them, and SI floats inside.

Text is parsed once, at the border (`parse_quantity`, `parse_budget`), and formatted once, at the border
(`format_quantity`). A bare number is refused: a budget without its unit is how joules become millijoules.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from typing import Sequence

from edgeecc.errors import UnitError


class Metric(enum.Enum):
    """What a cost model predicts; the value is the metric's name in artefacts."""

    ENERGY = "energy"
    LATENCY = "latency"
    SIZE = "size"
    MACS = "macs"
    #: Energy of an analytic model, in accesses of a register file.
    ACCESSES = "accesses"

    @property
    def unit(self) -> str:
        """SI unit of this metric's numbers."""
        return _SI_UNIT[self]


_SI_UNIT = {
    Metric.ENERGY: "J",
    Metric.LATENCY: "s",
    Metric.SIZE: "B",
    Metric.MACS: "MAC",
    Metric.ACCESSES: "RF",
}

#: Unit as written -> (metric, factor to SI). Prefixes are case sensitive: mJ and MJ differ by a billion.
UNITS = {
    "J": (Metric.ENERGY, 1.0),
    "mJ": (Metric.ENERGY, 1e-3),
    "uJ": (Metric.ENERGY, 1e-6),
    "µJ": (Metric.ENERGY, 1e-6),
    "s": (Metric.LATENCY, 1.0),
    "ms": (Metric.LATENCY, 1e-3),
    "us": (Metric.LATENCY, 1e-6),
    "µs": (Metric.LATENCY, 1e-6),
    "B": (Metric.SIZE, 1.0),
    "kB": (Metric.SIZE, 1e3),
    "MB": (Metric.SIZE, 1e6),
    "GB": (Metric.SIZE, 1e9),
    "KiB": (Metric.SIZE, 1024.0),
    "MiB": (Metric.SIZE, 1024.0**2),
    "MAC": (Metric.MACS, 1.0),
    "kMAC": (Metric.MACS, 1e3),
    "MMAC": (Metric.MACS, 1e6),
    "GMAC": (Metric.MACS, 1e9),
}

#: What a budget can bound; accesses are counted for single weights only, whose budget is a share of energy.
BOUNDED = tuple(sorted({metric for metric, _ in UNITS.values()}, key=lambda metric: metric.value))

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*\Z")
#: A share of dense that names its metric: 60%macs, 60% macs or 60% of macs.
_SHARE = re.compile(r"\s*(?P<share>[^%]*%)\s*(?:of\s+)?(?P<metric>[A-Za-z]+)\s*\Z")
_ACCEPTED = ", ".join(sorted(UNITS, key=lambda unit: (UNITS[unit][0].value, UNITS[unit][1])))
_DISPLAY = {
    Metric.ENERGY: (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)),
    Metric.LATENCY: (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)),
    Metric.SIZE: (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
    Metric.MACS: (("GMAC", 1e9), ("MMAC", 1e6), ("kMAC", 1e3), ("MAC", 1.0)),
    Metric.ACCESSES: (("GRF", 1e9), ("MRF", 1e6), ("kRF", 1e3), ("RF", 1.0)),
}


@dataclass(frozen=True)
class Quantity:
    """A value in the SI unit of its metric."""

    value: float
    metric: Metric

    def __str__(self) -> str:
        return format_quantity(self.value, self.metric)


@dataclass(frozen=True)
class Budget:
    """An upper bound on one metric, absolute or as a share of the dense network's cost.

    Args:
        value: bound in the metric's SI unit, or the share in (0, 1] when `relative`.
        metric: what is bounded.
        relative: whether `value` is a share of dense.
        text: the budget as the user wrote it.
    """

    value: float
    metric: Metric
    relative: bool
    text: str

    def resolve(self, dense: float) -> float:
        """Return the bound in the metric's SI unit, given the dense network's cost in it."""
        return self.value * dense if self.relative else self.value


def parse_quantity(text: str) -> Quantity:
    """Read a positive quantity with its unit, as `25mJ`, `0.025 J`, `12ms`, `5MB` or `200MMAC`.

    Raises: UnitError for a bare number, an unknown unit, or a value that is not positive and finite.
    """
    value, unit = _split(text)
    if unit not in UNITS:
        raise UnitError(_unit_complaint(text, unit))
    metric, factor = UNITS[unit]
    return Quantity(_positive(value * factor, text), metric)


def parse_budget(text: str, relative_metric: Metric = Metric.ENERGY) -> Budget:
    """Read a budget: a quantity with its unit, or a percentage of dense such as `60%` or `60% of macs`.

    Args:
        text: what the user wrote.
        relative_metric: what a percentage that names no metric refers to; a unit speaks for itself.
    Raises: UnitError as `parse_quantity`, for a percentage over 100, and for one of an unknown metric.
    """
    named = _SHARE.match(text)
    if named is not None:
        relative_metric = _metric(named["metric"], text)
    value, unit = _split(text if named is None else named["share"])
    if unit != "%":
        quantity = parse_quantity(text)
        return Budget(quantity.value, quantity.metric, relative=False, text=text.strip())
    share = _positive(value, text) / 100.0
    if share > 1.0:
        raise UnitError(
            f"budget {text.strip()!r} is more than the dense network; give at most 100%"
        )
    return Budget(share, relative_metric, relative=True, text=text.strip())


def parse_budgets(
    texts: Sequence[str], relative_metric: Metric = Metric.ENERGY
) -> tuple[Budget, ...]:
    """Read budgets that are to hold together, each as `parse_budget`.

    Raises: UnitError as `parse_budget`, and as `check_distinct`.
    """
    budgets = tuple(parse_budget(text, relative_metric) for text in texts)
    check_distinct(budgets)
    return budgets


def check_distinct(budgets: Sequence[Budget]) -> None:
    """Check that each budget bounds a metric of its own.

    Raises: UnitError that names the two budgets of one metric.
    """
    first: dict[Metric, str] = {}
    for budget in budgets:
        if budget.metric in first:
            both = f"{first[budget.metric]!r} and {budget.text!r}"
            raise UnitError(
                f"budgets {both} both bound {budget.metric.value}; give one of them, or name what a percentage is of: "
                "'60% of macs'"
            )
        first[budget.metric] = budget.text


def format_quantity(value: float, metric: Metric, digits: int = 4) -> str:
    """Write an SI value with the largest unit in which it is at least 1, to `digits` significant digits."""
    if not math.isfinite(value):
        return f"{value} {metric.unit}"
    scales = _DISPLAY[metric]
    for unit, factor in scales:
        if abs(value) >= factor:
            return f"{value / factor:.{digits}g} {unit}"
    unit, factor = scales[-1]
    return f"{value / factor:.{digits}g} {unit}"


def format_against(value: float, bound: float, metric: Metric, digits: int = 4) -> str:
    """Write two SI values in the unit of the second, as `4.13 of 3.304 mJ`."""
    number, _, unit = format_quantity(bound, metric, digits).partition(" ")
    factor = dict(_DISPLAY[metric]).get(unit, 1.0)
    return f"{value / factor:.{digits}g} of {number} {unit}"


def _split(text: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if match is None:
        raise UnitError(
            f"cannot read {text!r} as a quantity; write a number and a unit, such as 25mJ or 60%"
        )
    return float(match.group(1)), match.group(2)


def _metric(name: str, text: str) -> Metric:
    for metric in BOUNDED:
        if metric.value == name:
            return metric
    known = ", ".join(metric.value for metric in BOUNDED)
    raise UnitError(f"unknown metric {name!r} in {text.strip()!r}; a percentage is of {known}")


def _unit_complaint(text: str, unit: str) -> str:
    if not unit:
        return f"{text.strip()!r} is a bare number; add a unit ({_ACCEPTED}) or % of dense"
    return f"unknown unit {unit!r} in {text.strip()!r}; accepted are {_ACCEPTED}, or % of dense"


def _positive(value: float, text: str) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise UnitError(f"{text.strip()!r} must be a positive, finite quantity")
    return value
