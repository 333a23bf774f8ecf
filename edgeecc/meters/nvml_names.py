"""Which GPU is meant: NVML's indices, UUIDs and PCI bus ids, and what CUDA's environment says of its first.

Pure functions of what NVML lists; `nvml_driver` asks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence, Tuple, Union

from edgeecc.errors import MeterError, RuntimeUnavailableError

#: How a GPU is named: NVML's index, or its UUID (or a beginning of it), its PCI bus id, or the UUID of a MIG instance.
GpuName = Union[int, str]

_PCI = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})(?:\.([0-7]))?\Z")
_INDEX = re.compile(r"[0-9]{1,4}\Z")


@dataclass(frozen=True)
class GpuIdentity:
    """What tells a GPU board from another.

    Args:
        index: NVML's, which is neither CUDA's nor lasting.
        uuid: such as "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"; empty where the board tells none.
        pci_bus_id: such as "00000000:3B:00.0"; empty where it is on no PCI bus, as in a Jetson.
        model: such as "NVIDIA A40".
    """

    index: int
    uuid: str
    pci_bus_id: str
    model: str


def index_of(name: GpuName) -> Optional[int]:
    """Return the index that a name is, be it text; None of other names."""
    if isinstance(name, int):
        return name
    return int(name) if _INDEX.match(name) else None


def find_gpu(name: GpuName, gpus: Sequence[GpuIdentity]) -> GpuIdentity:
    """Return the one GPU of that index, UUID (or beginning of it) or PCI bus id.

    Raises: MeterError when none or several go by it, listing what there is.
    """
    index = index_of(name)
    if index is not None:
        found = [gpu for gpu in gpus if gpu.index == index]
    elif str(name).startswith("GPU-"):
        found = [gpu for gpu in gpus if gpu.uuid.lower().startswith(str(name).lower())]
    else:
        place = _pci_place(str(name))
        found = [gpu for gpu in gpus if gpu.pci_bus_id and _pci_place(gpu.pci_bus_id) == place]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(
        f"{gpu.index}: {gpu.model} {gpu.uuid} {gpu.pci_bus_id}".rstrip() for gpu in gpus
    )
    which = "several GPUs go" if found else "no GPU goes"
    raise MeterError(f"{which} by {name!r}; name one of {listed}")


def first_visible(environ: Mapping[str, str], gpus: Sequence[GpuIdentity]) -> GpuName:
    """Return the name of the GPU that CUDA calls its first in this environment.

    CUDA counts the fastest GPU first unless CUDA_DEVICE_ORDER is PCI_BUS_ID, NVML counts otherwise, and NVML knows
    nothing of CUDA_VISIBLE_DEVICES: among several GPUs, an index of CUDA's says which one only in that order
    (source: CUDA Programming Guide, Environment Variables; NVML API reference, nvmlDeviceGetIndex).

    Raises: RuntimeUnavailableError when CUDA sees none; MeterError when it cannot be known which is its first.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return first
    index = index_of(first)
    if index is None or index >= len(gpus):
        raise RuntimeUnavailableError(
            f"CUDA_VISIBLE_DEVICES={visible!r} leaves CUDA no GPU; unset it, or name a GPU by its UUID"
        )
    if len(gpus) == 1:
        return gpus[0].index
    if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise MeterError(
            f"{len(gpus)} GPUs are here, and CUDA counts them otherwise than NVML; name one by its UUID "
            "(nvidia-smi -L), in CUDA_VISIBLE_DEVICES or to the meter, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return sorted(gpus, key=lambda gpu: _pci_place(gpu.pci_bus_id or "0:0"))[index].index


def _pci_place(text: str) -> Tuple[int, int, int, int]:
    match = _PCI.match(text)
    if match is None:
        raise MeterError(
            f"{text!r} names no GPU; give NVML's index, a UUID such as GPU-8932f937, or a PCI bus id such as "
            "0000:3b:00.0"
        )
    domain, bus, device, function = (int(part or "0", 16) for part in match.groups())
    return domain, bus, device, function
