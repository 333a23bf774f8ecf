"""NVML through NVIDIA's own bindings (nvidia-ml-py): one GPU board, in SI units, its faults in one line each.

Nothing here decides what is measured; `nvml` does. The bindings are imported when a GPU is asked for, not before.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, Sequence, Tuple

from edgeecc.errors import MeterError, RuntimeUnavailableError, brief
from edgeecc.meters.nvml_names import GpuIdentity, GpuName, find_gpu, index_of

_INVALID_ARGUMENT = 2
_NOT_SUPPORTED = 3
_FUNCTION_NOT_FOUND = 13
#: After these, an older function for the same question may still answer: not supported, not there, another version of
#: its structure, deprecated.
_ASK_ON = (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND, 25, 26)
#: The field of watts now, without averaging (NVML_FI_DEV_POWER_INSTANT).
_POWER_INSTANT = 186
#: Code of NVML (nvmlReturn_t) -> what it says of the subject, and what to do.
_FAULTS: Dict[int, str] = {
    1: "NVML was shut down; open the GPU again",
    4: "no permission; join the group that may open /dev/nvidia*, or start the container with --gpus all",
    6: "not found; nvidia-smi -L lists what there is",
    9: "NVIDIA's kernel driver is not loaded; load or install it until nvidia-smi works",
    10: "NVML gave no answer in time; close other monitors of the GPU and try again",
    12: "libnvidia-ml.so.1 is not here; install NVIDIA's driver, or start the container with --gpus all and "
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    15: "the GPU is lost, it fell off the bus; look for Xid in dmesg and restart the machine",
    16: "the GPU must be reset; run nvidia-smi --gpu-reset as root, or restart the machine",
    17: "the operating system blocks it; give the container or job the devices /dev/nvidia*",
    18: "the driver in the kernel and its library differ in version, as after an update; restart the machine",
}
#: Type of a field's value (nvmlValueType_t) -> its member of the union.
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal"}


class UnsupportedError(MeterError):
    """A board, or its driver, does not tell what it was asked for."""


class Nvml:
    """NVML, started; a context manager, which stops it.

    Raises: RuntimeUnavailableError when the bindings, the library or the driver are not here or do not fit.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise RuntimeUnavailableError(
                "nvidia-ml-py is not here; pip install 'edgeecc[nvml]'"
            ) from error
        self._api: Any = pynvml
        try:
            self.ask("NVML", ["nvmlInit"])
        except MeterError as error:
            raise RuntimeUnavailableError(str(error)) from error

    def __enter__(self) -> Nvml:
        return self

    def __exit__(self, *_: object) -> None:
        # A GPU that was lost may let it fail; what there is to say of it has been said by then.
        with contextlib.suppress(MeterError):
            self.ask("NVML", ["nvmlShutdown"])

    def ask(self, subject: str, names: Sequence[str], *arguments: object) -> Any:
        """Return what the first of the functions says that the bindings, the driver and the board all know.

        Raises: UnsupportedError when there is none; MeterError for other faults.
        """
        fault = _FUNCTION_NOT_FOUND
        for name in names:
            function = getattr(self._api, name, None)
            if function is None:
                continue
            try:
                return function(*arguments)
            except self._api.NVMLError as error:
                fault = error.value
                if fault not in _ASK_ON:
                    break
        raise self.fault(subject, fault)

    def fault(self, subject: str, code: int) -> MeterError:
        """Return a code of NVML as an error of ours."""
        if code == _NOT_SUPPORTED:
            return UnsupportedError(f"{subject}: this board does not tell it through NVML")
        if code in _ASK_ON:
            return UnsupportedError(f"{subject}: the driver does not know it; update the driver")
        text = _FAULTS.get(code)
        if text is None:
            said = brief(self._api.NVMLError(code))
            text = f"NVML says {said!r} (error {code}); see whether nvidia-smi works"
        return MeterError(f"{subject}: {text}")

    def gpus(self) -> List[GpuIdentity]:
        """Return the GPUs that can be reached, in NVML's order; others are left out.

        Raises: RuntimeUnavailableError when there is none, saying why of the last.
        """
        found, why = [], "there is none; see whether nvidia-smi -L lists any"
        for index in range(self._count()):
            try:
                found.append(self.identity(index))
            except MeterError as error:
                why = str(error)
        if not found:
            raise RuntimeUnavailableError(f"no GPU to measure: {why}")
        return found

    def identity(self, index: int) -> GpuIdentity:
        """Return what tells the GPU of NVML's index from others.

        Raises: MeterError when it cannot be reached.
        """
        subject = f"GPU {index}"
        handle = self._handle(index)
        model = str(self.ask(subject, ["nvmlDeviceGetName"], handle))
        uuid = bus = ""
        with contextlib.suppress(UnsupportedError):
            uuid = str(self.ask(subject, ["nvmlDeviceGetUUID"], handle))
        with contextlib.suppress(UnsupportedError):
            bus = _text(self.ask(subject, ["nvmlDeviceGetPciInfo"], handle).busId)
        return GpuIdentity(index, uuid, bus, model)

    def board(self, name: GpuName) -> Board:
        """Return a GPU's board.

        Args:
            name: see `GpuName`; of a MIG instance, the board that carries it.
        Raises: MeterError when no GPU or several go by that name.
        """
        index = index_of(name)
        if isinstance(name, str) and name.startswith("MIG-"):
            identity = self._parent(name)
        elif index is not None and 0 <= index < self._count():
            identity = self.identity(
                index
            )  # even one that is not among those that can be reached, for its fault
        else:
            identity = find_gpu(name, self.gpus())
        return Board(self, self._handle(identity.index), identity, str(name))

    def _count(self) -> int:
        return int(self.ask("the number of GPUs", ["nvmlDeviceGetCount"]))

    def _handle(self, index: int) -> Any:
        return self.ask(f"GPU {index}", ["nvmlDeviceGetHandleByIndex"], index)

    def _parent(self, name: str) -> GpuIdentity:
        instance = self.ask(f"MIG instance {name}", ["nvmlDeviceGetHandleByUUID"], name)
        functions = ["nvmlDeviceGetDeviceHandleFromMigDeviceHandle"]
        parent = self.ask(f"the board of MIG instance {name}", functions, instance)
        return self.identity(int(self.ask(f"the board of {name}", ["nvmlDeviceGetIndex"], parent)))


class Board:
    """One GPU board, read in SI units. Every reader raises UnsupportedError or MeterError.

    Args:
        nvml: what to ask; must outlive it.
        handle: of the board.
        identity: which it is.
        called: the name by which it was asked for.
    """

    def __init__(self, nvml: Nvml, handle: Any, identity: GpuIdentity, called: str) -> None:
        self._nvml, self._handle, self.identity = nvml, handle, identity
        self.name = f"{identity.model}, GPU board {called}"
        if self._is_partitioned():
            self.name += ", all its MIG instances"

    def energy_j(self) -> float:
        """Return the energy counter: joules since the driver was loaded."""
        return float(self._ask("the energy counter", "nvmlDeviceGetTotalEnergyConsumption")) * 1e-3

    def power_w(self) -> float:
        """Return watts now, or their mean over the last second: see `nvml.NvmlPowerSource`."""
        return float(self._ask("the power", "nvmlDeviceGetPowerUsage")) * 1e-3

    def instant_power_w(self) -> float:
        """Return watts now, by field; the field's own code is checked, its value means nothing without."""
        subject = f"the instant power of {self.name}"
        answer = self._ask("the instant power", "nvmlDeviceGetFieldValues", [_POWER_INSTANT])[0]
        code = int(answer.nvmlReturn)
        if code:  # a driver that does not know the field finds it invalid
            code = _NOT_SUPPORTED if code == _INVALID_ARGUMENT else code
            raise self._nvml.fault(subject, code)
        member = _MEMBERS.get(int(answer.valueType))
        if member is None:
            raise MeterError(
                f"{subject} has unknown type {answer.valueType}; pip install -U nvidia-ml-py"
            )
        return float(getattr(answer.value, member)) * 1e-3

    def sm_clock_hz(self) -> float:
        """Return the clock of the streaming multiprocessors."""
        return float(self._ask("the SM clock", "nvmlDeviceGetClockInfo", 1)) * 1e6

    def memory_clock_hz(self) -> float:
        """Return the clock of the memory."""
        return float(self._ask("the memory clock", "nvmlDeviceGetClockInfo", 2)) * 1e6

    def temperature_c(self) -> float:
        """Return the temperature of the GPU, degrees Celsius."""
        names = ["nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"]
        return float(self._nvml.ask(f"the temperature of {self.name}", names, self._handle, 0))

    def power_limit_w(self) -> float:
        """Return the limit of power that is enforced."""
        return float(self._ask("the power limit", "nvmlDeviceGetEnforcedPowerLimit")) * 1e-3

    def clock_events(self) -> int:
        """Return the bits of what holds the clocks down; drivers before 535 know the older name only."""
        names = [
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ]
        return int(self._nvml.ask(f"the clocks' limits of {self.name}", names, self._handle))

    def capability(self) -> Tuple[int, int]:
        """Return CUDA's compute capability."""
        major, minor = self._ask("the capability", "nvmlDeviceGetCudaComputeCapability")
        return int(major), int(minor)

    def _is_partitioned(self) -> bool:
        try:
            return bool(self._ask("the MIG mode", "nvmlDeviceGetMigMode")[0])
        except UnsupportedError:
            return False

    def _ask(self, what: str, name: str, *arguments: object) -> Any:
        return self._nvml.ask(f"{what} of {self.name}", [name], self._handle, *arguments)


def _text(raw: object) -> str:
    return raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)
