"""NVIDIA's management library as a Python object: what libnvidia-ml.so.1 is to the bindings, without a driver.

It takes the place of the library that `pynvml` loads, below NVIDIA's own code, and answers in C's way: through
pointers, with a code. Boards, time and faults are scripted.
"""

from __future__ import annotations

import ctypes
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple, Union
from unittest import mock

import pynvml

SUCCESS, UNINITIALIZED, INVALID, UNSUPPORTED, NO_PERMISSION = 0, 1, 2, 3, 4
NOT_FOUND, DRIVER_NOT_LOADED, LOST, MISMATCH = 6, 9, 15, 18
COUNTER, USAGE = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"
FIELDS = "nvmlDeviceGetFieldValues"
#: Where the handles of boards, and of their MIG instances, point to.
_BOARDS, _INSTANCES = 0x1000, 0x9000


class FakeClock:
    """Seconds that pass only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeBoard:
    """A board under constant power, unless its functions of time say otherwise."""

    model: str = "NVIDIA A40"
    uuid: str = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    bus: str = "00000000:3B:00.0"
    capability: Tuple[int, int] = (8, 6)
    watts: float = 250.0
    tick_s: float = 0.1
    energy_mj: Optional[Callable[[float], int]] = None
    usage_mw: Optional[Callable[[float], int]] = None
    #: Of the field of instant power: its own code, the type of its value, and its value.
    instant: Optional[Callable[[float], Tuple[int, int, float]]] = None
    clocks_mhz: Dict[int, int] = field(default_factory=lambda: {1: 1740, 2: 7251})
    temperature_c: int = 61
    limit_mw: int = 300_000
    events: int = 0
    mig: Optional[int] = None
    instances: List[str] = field(default_factory=list)

    def count_mj(self, now: float) -> int:
        if self.energy_mj is not None:
            return self.energy_mj(now)
        return int(1e3 * self.watts * self.tick_s * math.floor(now / self.tick_s + 1e-9))

    def power_mw(self, now: float) -> int:
        return self.usage_mw(now) if self.usage_mw else int(1e3 * self.watts)

    def instant_mw(self, now: float) -> Tuple[int, int, float]:
        return self.instant(now) if self.instant else (SUCCESS, 1, 1e3 * self.watts)


class FakeNvml:
    """The library.

    Attributes:
        faults: function -> the code that it returns, or what gives it (0 lets it work).
        missing: functions that this driver does not have.
        calls: every function that was called.
        started: how often it was started and not stopped.
    """

    def __init__(self, *boards: FakeBoard, clock: Optional[FakeClock] = None) -> None:
        self.boards, self.clock = list(boards), clock or FakeClock()
        self.faults: Dict[str, Union[int, Callable[[], int]]] = {}
        self.missing: Set[str] = set()
        self.calls: List[str] = []
        self.started = 0
        self._functions: Dict[str, Callable[..., int]] = {
            "nvmlInitWithFlags": self._start,
            "nvmlShutdown": self._stop,
            "nvmlDeviceGetCount_v2": self._put(lambda: len(self.boards)),
            "nvmlDeviceGetHandleByIndex_v2": self._by_index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": self._parent,
            "nvmlDeviceGetIndex": self._of(lambda board: self.boards.index(board)),
            "nvmlDeviceGetName": self._text(lambda board: board.model),
            "nvmlDeviceGetUUID": self._text(lambda board: board.uuid),
            "nvmlDeviceGetPciInfo_v3": self._pci,
            "nvmlDeviceGetCudaComputeCapability": self._capability,
            "nvmlDeviceGetMigMode": self._mig,
            COUNTER: self._of(lambda board: board.count_mj(self.clock())),
            USAGE: self._of(lambda board: board.power_mw(self.clock())),
            FIELDS: self._fields,
            "nvmlDeviceGetClockInfo": self._clock_mhz,
            "nvmlDeviceGetTemperatureV": self._temperature_v,
            "nvmlDeviceGetTemperature": self._temperature,
            "nvmlDeviceGetEnforcedPowerLimit": self._of(lambda board: board.limit_mw),
            "nvmlDeviceGetCurrentClocksEventReasons": self._of(lambda board: board.events),
            "nvmlDeviceGetCurrentClocksThrottleReasons": self._of(lambda board: board.events),
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in self.missing:
            raise AttributeError(name)
        if name == "nvmlErrorString":
            return _Function(lambda code: b"Something  else\nwent wrong")
        if name not in self._functions:
            raise AttributeError(name)
        return _Function(lambda *arguments: self._call(name, arguments))

    def _call(self, name: str, arguments: Tuple[Any, ...]) -> int:
        self.calls.append(name)
        fault = self.faults.get(name, SUCCESS)
        code = fault() if callable(fault) else fault
        if code:
            return code
        if not self.started and name != "nvmlInitWithFlags":
            return UNINITIALIZED
        return self._functions[name](*arguments)

    def _start(self, flags: int) -> int:
        self.started += 1
        return SUCCESS

    def _stop(self) -> int:
        self.started -= 1
        return SUCCESS

    def _board(self, handle: Any) -> FakeBoard:
        return self.boards[_address(handle) - _BOARDS]

    def _put(self, value: Callable[[], int]) -> Callable[[Any], int]:
        def function(result: Any) -> int:
            result._obj.value = value()
            return SUCCESS

        return function

    def _of(self, value: Callable[[FakeBoard], int]) -> Callable[[Any, Any], int]:
        def function(handle: Any, result: Any) -> int:
            result._obj.value = value(self._board(handle))
            return SUCCESS

        return function

    def _text(self, value: Callable[[FakeBoard], str]) -> Callable[[Any, Any, Any], int]:
        def function(handle: Any, result: Any, size: Any) -> int:
            result.value = value(self._board(handle)).encode()[: size.value - 1]
            return SUCCESS

        return function

    def _by_index(self, index: Any, result: Any) -> int:
        if index.value >= len(self.boards):
            return INVALID
        return _point(result, _BOARDS + index.value)

    def _by_uuid(self, uuid: Any, result: Any) -> int:
        for place, board in enumerate(self.boards):
            if uuid.value.decode() in board.instances:
                return _point(result, _INSTANCES + place)
        return NOT_FOUND

    def _parent(self, handle: Any, result: Any) -> int:
        return _point(result, _address(handle) - _INSTANCES + _BOARDS)

    def _pci(self, handle: Any, result: Any) -> int:
        bus = self._board(handle).bus
        if not bus:
            return UNSUPPORTED
        result._obj.busId = bus.encode()
        return SUCCESS

    def _capability(self, handle: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = self._board(handle).capability
        return SUCCESS

    def _mig(self, handle: Any, current: Any, pending: Any) -> int:
        mode = self._board(handle).mig
        if mode is None:
            return UNSUPPORTED
        current._obj.value = pending._obj.value = mode
        return SUCCESS

    def _fields(self, handle: Any, count: Any, values: Any) -> int:
        for place in range(count.value):
            answer = values._obj[place]
            assert answer.fieldId == 186, "only the instant power is scripted"
            code, kind, value = self._board(handle).instant_mw(self.clock())
            answer.nvmlReturn, answer.valueType = code, kind
            names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal")
            if kind < len(names):
                setattr(answer.value, names[kind], value if kind == 0 else int(value))
        return SUCCESS

    def _clock_mhz(self, handle: Any, domain: Any, result: Any) -> int:
        clock = self._board(handle).clocks_mhz.get(domain.value)
        if clock is None:
            return UNSUPPORTED
        result._obj.value = clock
        return SUCCESS

    def _temperature_v(self, handle: Any, result: Any) -> int:
        result._obj.temperature = self._board(handle).temperature_c
        return SUCCESS

    def _temperature(self, handle: Any, sensor: Any, result: Any) -> int:
        result._obj.value = self._board(handle).temperature_c
        return SUCCESS


class _Function:
    """A function of a C library: it can be called, and told its result's type."""

    restype: Any = ctypes.c_int

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def _point(result: Any, address: int) -> int:
    ctypes.c_void_p.from_buffer(result._obj).value = address
    return SUCCESS


def _address(handle: Any) -> int:
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)


@contextmanager
def installed(library: Optional[FakeNvml]) -> Iterator[None]:
    """Let the bindings load this library; without one, there is none on the machine."""

    def load(name: str) -> FakeNvml:
        if library is None:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return library

    with mock.patch.multiple(
        pynvml, CDLL=load, nvmlLib=None, _nvmlGetFunctionPointer_cache={}, _nvmlLib_refcount=0
    ):
        yield
