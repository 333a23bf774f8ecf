"""The energy counter of a GPU board against the integral of its power: two readings of one thing must agree."""

from __future__ import annotations

from dataclasses import dataclass
from time import sleep
from typing import Callable

from edgeecc.errors import MeterError
from edgeecc.meters.nvml import POLL_S, NvmlEnergyMeter, NvmlPowerSource
from edgeecc.meters.sampled import BLIND_PERIODS, Integral

#: Counter and integral may differ by this share: twice the 5 % to which NVIDIA says older sensors are accurate
#: (NVML API reference, nvmlDeviceGetPowerUsage).
TOLERATED = 0.1


@dataclass(frozen=True)
class CrossCheck:
    """What counter and sampled power say of one stretch.

    Args:
        ratio: the counter's joules over those under the power.
        agrees: whether they differ by no more than the tolerated share.
        verdict: in words.
    """

    ratio: float
    agrees: bool
    verdict: str


def judge(counted_j: float, integrated_j: float, tolerated: float = TOLERATED) -> CrossCheck:
    """Compare the joules of a counter with those under sampled power.

    Args:
        counted_j: of the counter, > 0.
        integrated_j: under the power, > 0.
        tolerated: share of the integral by which they may differ.
    Raises: MeterError when one of them is nothing.
    """
    if not (counted_j > 0.0 and integrated_j > 0.0):
        raise MeterError(
            f"{counted_j:.4g} J were counted and {integrated_j:.4g} J integrated: no energy; check longer"
        )
    ratio = counted_j / integrated_j
    seen = f"{counted_j:.4g} J counted, {integrated_j:.4g} J under the sampled power"
    if abs(ratio - 1.0) <= tolerated:
        return CrossCheck(ratio, True, f"counter and power agree: {seen}, ratio {ratio:.3f}")
    more = "more" if ratio > 1.0 else "less"
    return CrossCheck(
        ratio,
        False,
        f"the counter says {abs(ratio - 1.0):.0%} {more} than the power, over {tolerated:.0%}: {seen}; check again "
        "under a steady load, update the driver, and trust neither until they agree",
    )


def cross_check(
    counter: NvmlEnergyMeter,
    power: NvmlPowerSource,
    seconds: float,
    *,
    pause: Callable[[float], None] = sleep,
) -> CrossCheck:
    """Read both for a while and compare; begins and ends as the counter moves, so that its tick drops out.

    Args:
        counter: of the board.
        power: of the same board.
        seconds: for how long; ten periods of the power and more.
        pause: waits for so many seconds.
    Raises: MeterError when either fails, the counter does not move, or the process was kept from reading.
    """
    integral = Integral(power.name, BLIND_PERIODS * power.period_s)
    first = counter.read_j()
    while (last := counter.read_j()) == first:
        pause(POLL_S)
    first, start = last, counter.clock_s()
    integral.add(start, power.read_w())
    while True:
        pause(POLL_S)
        joules = counter.read_j()
        integral.add(counter.clock_s(), power.read_w())
        if joules != last and counter.clock_s() - start >= seconds:
            break
        last = joules
    if integral.blind_s > 0.0:
        raise MeterError(
            f"{power.name} went unread for {integral.blind_s:.3g} s; check again when the machine is less busy"
        )
    return judge(joules - first, integral.joules)
