"""Energy and conditions of NVIDIA's desktop and data-centre GPUs, through NVML.

A board is measured by its energy counter where it has one that moves, and by sampled power elsewhere. Both are of the
whole GPU board, with its memory and voltage regulators, whoever uses it: another process on it is counted too.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Callable, Iterator, List, Optional, Tuple

from edgeecc.errors import MeterError
from edgeecc.meters.base import Meter
from edgeecc.meters.conditions import Conditions
from edgeecc.meters.nvml_driver import Board, Nvml, UnsupportedError
from edgeecc.meters.nvml_names import GpuName, first_visible
from edgeecc.meters.sampled import SampledMeter

#: Seconds between updates of counter and power. NVIDIA states none; 20 to 100 ms are published for the counter, and the
#: longest is taken (source: PETSc's manual, PetscLogGpuEnergyMeter).
PERIOD_S = 0.1
#: Seconds over which NVML averages power on newer boards (source: NVML API reference, nvmlDeviceGetPowerUsage).
AVERAGED_S = 1.0
#: A counter that has not moved for so many periods stands still: no board that is on draws nothing.
STUCK_PERIODS = 10
#: No GPU board draws more; several times the largest of today. A reading above is no power.
MOST_W = 10_000.0
#: GA100's compute capability: power is averaged on boards above it (A100 and A30 are 8.0, other Amperes 8.6 and 8.7).
_GA100 = (8, 0)
#: Seconds between two looks at a counter that is waited for.
POLL_S = 0.01

#: Bits of what holds the clocks down, as they are told -> the word for it.
_HELD_BACK = (
    (0x20 | 0x40, "thermal"),  # by software and by hardware
    (0x80, "power brake"),
    (0x10, "sync boost"),
)
_HW_SLOWDOWN = 0x08
#: The kinds of hardware slowdown that have a bit of their own besides.
_HW_KINDS = 0x40 | 0x80


class NvmlEnergyMeter:
    """The energy counter of a GPU board: joules since the driver was loaded, on Volta and later.

    In 64 bits of millijoules it never wraps; a smaller count than before means that the driver was loaded anew.

    Args:
        board: what to read.
        clock: monotonic seconds.
    """

    period_s, step_w = PERIOD_S, 0.0

    def __init__(self, board: Board, clock: Callable[[], float] = perf_counter) -> None:
        self.name = f"nvml: {board.name}, energy counter"
        self._board, self._clock = board, clock
        self._seen: Optional[Tuple[float, float]] = None

    def clock_s(self) -> float:
        """Return monotonic seconds."""
        return self._clock()

    def read_j(self) -> float:
        """Return cumulative joules.

        Raises: MeterError when the counter is zero, stands still, ran back or jumped, or the board does not answer.
        """
        joules, now = self._board.energy_j(), self._clock()
        if joules <= 0.0:
            raise MeterError(f"{self.name} reads {joules:g} J: it does not count; sample the power")
        if self._seen is None:
            self._seen = (now, joules)
            return joules
        passed, counted = now - self._seen[0], joules - self._seen[1]
        self._check(passed, counted)
        if counted > 0.0:
            self._seen = (now, joules)
        return joules

    def blind_s(self) -> float:
        """Return 0: a counter misses nothing."""
        return 0.0

    def _check(self, passed: float, counted: float) -> None:
        if passed < 0.0:
            raise MeterError(
                f"the clock ran back by {-passed:.3g} s between two readings of {self.name}; measure again"
            )
        if counted < 0.0:
            raise MeterError(
                f"{self.name} fell by {-counted:.4g} J: the driver was loaded anew; measure again"
            )
        if counted == 0.0 and passed > STUCK_PERIODS * PERIOD_S:
            raise MeterError(
                f"{self.name} stood still for {passed:.3g} s: it does not count; sample the power"
            )
        if counted > MOST_W * (passed + 2.0 * PERIOD_S):
            raise MeterError(
                f"{self.name} jumped by {counted:.4g} J in {passed:.3g} s, which no board draws; measure again"
            )


class NvmlPowerSource:
    """Watts of a GPU board, for boards without the counter and to check it by.

    What NVML calls the power usage is instantaneous on GA100 and on boards before Ampere. On others, from Ampere on, it
    is a mean over one second, and watts now are a field of their own (source: NVML API reference,
    nvmlDeviceGetPowerUsage). So boards above compute capability 8.0 are asked for the field. Where a driver does not
    know it, the mean is taken; its name says so, and its period makes windows ten times as long.

    On A100 and H100 the sensor sees a quarter of the time (Yang et al., "Part-time Power Measurements", arXiv
    2312.02741): work whose power changes in step with it is mismeasured, steady work is not.

    Args:
        board: what to read.
    Raises: UnsupportedError when the board tells no power; MeterError when it cannot be read or is none.
    """

    step_w = 0.0  # milliwatts

    def __init__(self, board: Board) -> None:
        self._read, self.period_s, kind = _power_reader(board)
        self.name = f"nvml: {board.name}, {kind}"
        self.read_w()

    def read_w(self) -> float:
        """Return watts now.

        Raises: MeterError when the board does not answer, or with what no board draws: nothing, less, or too much.
        """
        watts = self._read()
        if not (math.isfinite(watts) and 0.0 < watts <= MOST_W):
            raise MeterError(
                f"{self.name} reads {watts:.4g} W, which no board that is on draws; update the driver"
            )
        return watts


def _power_reader(board: Board) -> Tuple[Callable[[], float], float, str]:
    """Return how watts are read, how often they are new, and what they are."""
    try:
        averaged = board.capability() > _GA100
    except UnsupportedError:
        averaged = True  # unknown, so the slower is taken, which is safe
    if not averaged:
        return board.power_w, PERIOD_S, "sampled power"
    try:
        board.instant_power_w()
    except UnsupportedError:
        return board.power_w, AVERAGED_S, "sampled one-second power"
    return board.instant_power_w, PERIOD_S, "sampled power"


def held_back(events: int) -> Tuple[str, ...]:
    """Return why a GPU runs slower than it was asked to, from the bits of what holds its clocks down.

    What comes from outside of the work counts: heat, the power brake of the supply, other boards of a sync boost group,
    and a hardware slowdown of no such kind, as by a current that is too high. Not so what belongs to the mode in which
    the board was put, and comes back with the work each time: clocks that were set, idleness, and the power limit kept
    by software. At full load a board is at its limit as a rule; windows without it are not to be had, and its clocks
    and its limit are recorded beside. (Bits: NVML API reference, NvmlClocksEventReasons. The choice is ours.)
    """
    found = [word for bits, word in _HELD_BACK if events & bits]
    if events & _HW_SLOWDOWN and not events & _HW_KINDS:
        found.append("hardware slowdown")
    return tuple(found)


class NvmlSensors:
    """Clocks, temperature, power limit and slowdowns of a GPU board, as far as it tells them.

    Args:
        board: what to read.
    """

    def __init__(self, board: Board) -> None:
        clocks = {"gpu": board.sm_clock_hz, "memory": board.memory_clock_hz}
        self._clocks = {name: read for name, read in clocks.items() if _answers(read)}
        self._temperature = board.temperature_c if _answers(board.temperature_c) else None
        self._limit = board.power_limit_w if _answers(board.power_limit_w) else None
        self._events = board.clock_events if _answers(board.clock_events) else None

    def conditions(self) -> Conditions:
        """Return what the board is like now; its power limit is its mode.

        Raises: MeterError when a sensor that was there is gone.
        """
        return Conditions(
            clocks_hz={name: read() for name, read in self._clocks.items()},
            temperatures_c={"gpu": self._temperature()} if self._temperature else {},
            mode=f"{self._limit():g} W" if self._limit else "",
            held_back=held_back(self._events()) if self._events else (),
        )


def _answers(read: Callable[[], float]) -> bool:
    """Return whether the board supports a reader."""
    try:
        read()
    except UnsupportedError:
        return False
    return True


@dataclass(frozen=True)
class Gpu:
    """One GPU board, opened for measuring.

    Args:
        board: which it is.
        meter: the energy counter, or else the sampled power; None when the board tells neither.
        counter: the energy counter; None where there is none that moves.
        power: the power sensor; None where there is none.
        sensors: its conditions.
        missing: why there is no counter, no power; empty when there are both.
    """

    board: Board
    meter: Optional[Meter]
    counter: Optional[NvmlEnergyMeter]
    power: Optional[NvmlPowerSource]
    sensors: NvmlSensors
    missing: Tuple[str, ...]


@contextmanager
def open_gpu(
    name: Optional[GpuName] = None,
    *,
    clock: Callable[[], float] = perf_counter,
    pause: Callable[[float], None] = sleep,
) -> Iterator[Gpu]:
    """Open a GPU board for measuring.

    Args:
        name: NVML's index, a UUID, a PCI bus id; None for the one that CUDA calls its first.
        clock: monotonic seconds.
        pause: waits for so many seconds.
    Raises: RuntimeUnavailableError when there is no NVML or no GPU; MeterError when it is not clear which is meant, or
        when the board fails to answer what it supports. A board that merely tells no energy has no meter, see `Gpu`.
    """
    with Nvml() as nvml, ExitStack() as stack:
        board = nvml.board(first_visible(os.environ, nvml.gpus()) if name is None else name)
        missing: List[str] = []
        counter = power = None
        try:
            counter = _counter(board, clock, pause)
        except UnsupportedError as error:
            missing.append(str(error))
        try:
            power = NvmlPowerSource(board)
        except MeterError as error:
            if counter is None and not isinstance(error, UnsupportedError):
                raise
            missing.append(str(error))
        meter: Optional[Meter] = counter
        if counter is None and power is not None:
            meter = stack.enter_context(SampledMeter(power, clock))
        yield Gpu(board, meter, counter, power, NvmlSensors(board), tuple(missing))


def _counter(
    board: Board, clock: Callable[[], float], pause: Callable[[float], None]
) -> NvmlEnergyMeter:
    """Return the counter once it has been seen to move, which takes it a period even on an idle board."""
    first, start = board.energy_j(), clock()
    while first > 0.0 and clock() - start <= STUCK_PERIODS * PERIOD_S:
        pause(POLL_S)
        if board.energy_j() != first:
            return NvmlEnergyMeter(board, clock)
    seen = "reads 0 J" if first <= 0.0 else f"stands still at {first:.6g} J"
    raise UnsupportedError(f"the energy counter of {board.name} {seen}: it does not count")
