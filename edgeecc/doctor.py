"""What this machine can measure and run, and how to enable what it cannot."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from edgeecc import __version__
from edgeecc.device_names import CPU
from edgeecc.errors import EdgeeccError
from edgeecc.machine import boards_here, runtimes_here
from edgeecc.meters.ina3221 import find_rails
from edgeecc.meters.nvml import open_gpu
from edgeecc.meters.nvml_check import cross_check

#: package -> (what it does for us, how to get it)
_PACKAGES = {
    "onnxruntime": (
        "runs exported networks on the CPU and measures their latency",
        "pip install 'edgeecc[ort]'",
    ),
    "torch": ("traces, trains, prunes and slims", "pip install 'edgeecc[host]'"),
    "torch_pruning": ("finds the channels that go together", "pip install 'edgeecc[host]'"),
    "onnxscript": ("exports torch networks to ONNX", "pip install 'edgeecc[host]'"),
    "sklearn": ("brings the digits data set", "pip install 'edgeecc[host]'"),
    "distributed": ("calibrates over several boards", "pip install 'edgeecc[fleet]'"),
    "PIL": ("reads image folders", "pip install 'edgeecc[host]'"),
    "pynvml": ("reads the energy of NVIDIA GPUs", "pip install 'edgeecc[nvml]'"),
    "jtop": (
        "tells clocks and temperatures of a Jetson by jetson-stats",
        "pip install 'edgeecc[jtop]'",
    ),
}
#: Seconds for which a GPU's counter is held against its power: twenty periods of both.
CROSS_CHECK_S = 2.0
_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        ok: whether it can be used here.
        detail: version or purpose.
        hint: how to enable it; empty when it is usable.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(workspace: Path, root: Path = Path("/")) -> Dict[str, List[Finding]]:
    """Look at devices, what runs networks on them, meters, packages, data and the workspace.

    Args:
        workspace: that commands would work in.
        root: of the file system.
    Returns: section -> findings.
    """
    return {
        "devices": _devices(root),
        "runtimes": _runtimes(),
        "meters": _meters(root),
        "packages": [_package(name) for name in _PACKAGES],
        "data": [_fashion_mnist()],
        "workspace": [_workspace(workspace)],
    }


def as_json(sections: Dict[str, List[Finding]]) -> Dict[str, object]:
    """Return the findings as JSON-ready values, with versions of edgeecc and Python."""
    found = {
        section: [asdict(finding) for finding in findings] for section, findings in sections.items()
    }
    return {"edgeecc": __version__, "python": platform.python_version(), **found}


def _devices(root: Path) -> List[Finding]:
    ort = importlib.util.find_spec("onnxruntime") is not None
    found, missing = boards_here(root)
    del found[CPU]  # told with what runs on it
    return [
        Finding(
            "virtual:tx2",
            ok=True,
            detail="simulated energy of a Jetson TX2, from published coefficients",
        ),
        Finding(
            "onnxruntime:cpu",
            ok=ort,
            detail="measured latency on this machine's CPU",
            hint="" if ort else _PACKAGES["onnxruntime"][1],
        ),
        *(
            Finding(name, ok=True, detail=f"measured energy: {told}")
            for name, told in found.items()
        ),
        *(_lacking(name, "measured energy", why) for name, why in missing.items()),
    ]


def _runtimes() -> List[Finding]:
    """Look at what runs networks on a GPU or a Jetson."""
    found, missing = runtimes_here()
    return [
        *(Finding(name, ok=True, detail=told) for name, told in found.items()),
        *(
            _lacking(name, "runs networks on a GPU or a Jetson", why)
            for name, why in missing.items()
        ),
    ]


def _meters(root: Path) -> List[Finding]:
    """Look at the rails of a Jetson, and hold the counter of a GPU against its power."""
    try:
        rails = find_rails(root)
    except EdgeeccError as error:
        return [_lacking("ina3221", "power of a Jetson's rails", str(error))]
    found = [
        Finding(f"ina3221 {rail.label}", ok=True, detail=f"steps of {rail.step_w:.3g} W")
        for rail in rails
    ]
    try:
        with open_gpu() as gpu:
            if gpu.counter is not None and gpu.power is not None:
                check = cross_check(gpu.counter, gpu.power, CROSS_CHECK_S)
                hint = (
                    ""
                    if check.agrees
                    else "--device BOARD:RUNTIME:PRECISION:power, or :counter, takes one of them"
                )
                found.append(Finding(gpu.board.name, check.agrees, check.verdict, hint))
    except EdgeeccError:
        pass  # told with the devices
    return found


def _lacking(name: str, purpose: str, why: str) -> Finding:
    return Finding(name, ok=False, detail=purpose, hint=why)


def _package(name: str) -> Finding:
    purpose, hint = _PACKAGES[name]
    if importlib.util.find_spec(name) is None:
        return Finding(name, ok=False, detail=purpose, hint=hint)
    return Finding(name, ok=True, detail=f"{_version(name)}: {purpose}")


def _version(name: str) -> str:
    import importlib.metadata as metadata

    for distribution in (
        name,
        name.replace("_", "-"),
        {
            "sklearn": "scikit-learn",
            "PIL": "pillow",
            "pynvml": "nvidia-ml-py",
            "jtop": "jetson-stats",
        }.get(name, name),
    ):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "present"


def _fashion_mnist() -> Finding:
    ok = (_FASHION_MNIST / "train-images-idx3-ubyte.gz").is_file()
    hint = "" if ok else "apt-get install dataset-fashion-mnist, or --data fashion-mnist:FOLDER"
    return Finding(
        "fashion-mnist", ok=ok, detail="60,000 images of clothing, Debian package", hint=hint
    )


def _workspace(workspace: Path) -> Finding:
    name = f"workspace {workspace}"
    writable, free_b = _space(workspace)
    if not writable:
        return Finding(
            name, ok=False, detail="cannot be written", hint="choose another with --workspace"
        )
    hint = "" if free_b > 200e6 else "free some space: runs take up to 200 MB"
    return Finding(name, ok=not hint, detail=f"{free_b / 1e9:.1f} GB free", hint=hint)


def _space(workspace: Path) -> Tuple[bool, int]:
    if not (workspace.is_dir() and os.access(workspace, os.W_OK)):
        return False, 0
    return True, shutil.disk_usage(workspace).free
