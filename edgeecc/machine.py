"""What this machine is and has: boards that tell their energy, and what runs networks on them."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from edgeecc.device_names import AUTO, CPU, ORT_CPU, PACKAGE, RUNS_IN, gpu_board, parse_device
from edgeecc.errors import ConfigError, EdgeeccError, RuntimeUnavailableError
from edgeecc.loaders import eager
from edgeecc.meters.jetson import identify
from edgeecc.meters.nvml import open_gpu
from edgeecc.meters.rapl import RaplMeter, find_domains
from edgeecc.runtimes.cuda_memory import open_cuda
from edgeecc.runtimes.onnxrt import check_gpu
from edgeecc.runtimes.trt_api import load_tensorrt
from edgeecc.runtimes.trtexec import find_trtexec


def boards_here(root: Path = Path("/")) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return the boards that this machine is or has, with what is known of them, and why others cannot be read."""
    found: Dict[str, str] = {}
    missing: Dict[str, str] = {}
    jetson = identify(root)
    if jetson is not None:
        found[jetson.name] = " ".join(
            part for part in (jetson.model, jetson.l4t and f"L4T {jetson.l4t}") if part
        )
    else:
        if (root / "etc/nv_tegra_release").is_file():
            missing["jetson"] = (
                "this is a Jetson whose device tree is hidden; in Docker, --security-opt systempaths=unconfined"
            )
        try:
            with open_gpu() as gpu:
                told = "; ".join(gpu.missing)
                if gpu.meter is None:
                    missing[gpu_board(gpu.board.identity.model)] = told
                else:
                    found[gpu_board(gpu.board.identity.model)] = told or gpu.meter.name
        except EdgeeccError as error:
            missing["nvidia"] = str(error)
    try:
        found[PACKAGE] = RaplMeter(find_domains(root)).name
    except EdgeeccError as error:
        missing[PACKAGE] = str(error)
    found[CPU] = "the clock of this machine"
    return found, missing


def runtimes_here() -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return what can run networks on this machine's GPU or Jetson, the quickest first, and why others cannot."""
    found: Dict[str, str] = {}
    missing: Dict[str, str] = {}
    for runtime, look in _LOOKS.items():
        try:
            found[runtime] = look()
        except EdgeeccError as error:
            missing[runtime] = str(error)
    return found, missing


def resolve(text: str, precision: Optional[str] = None, root: Path = Path("/")) -> str:
    """Return a device's whole name: "auto" is the best board here, and a board without a runtime gets the quickest.

    Args:
        text: as it was given.
        precision: for a device that names none; None is fp32.
        root: of the file system.
    Raises: ConfigError for an unknown device, or a precision that it names otherwise; RuntimeUnavailableError when
        nothing here runs networks on the board.
    """
    if text == AUTO:
        text = next(iter(boards_here(root)[0]))
        text = ORT_CPU if text == CPU else f"{text}:onnxruntime" if text == PACKAGE else text
    board, _, rest = text.partition(":")
    runtime, _, named = rest.partition(":")
    if precision is not None and named and named.partition(":")[0] != precision:
        raise ConfigError(
            f"{text} names another precision than --precision {precision}; leave one out"
        )
    if not board.startswith(("jetson-", "nvidia-")):
        return parse_device(text).text
    if not runtime:
        found, missing = runtimes_here()
        usable = [name for name in found if (precision or "fp32") in RUNS_IN[name]]
        if not usable:
            told = "; ".join(missing.values())
            raise RuntimeUnavailableError(
                f"nothing here runs networks on {board} in {precision or 'fp32'}: {told}"
            )
        runtime = usable[0]
    return parse_device(f"{board}:{runtime}:{named or precision or 'fp32'}").text


def _look_at_tensorrt() -> str:
    trt, cuda = load_tensorrt(), open_cuda()
    try:
        return f"{trt.name} on {cuda.device}"
    finally:
        cuda.close()


def _look_at_onnxruntime() -> str:
    check_gpu()
    return "onnxruntime's CUDA provider"


def _look_at_torch() -> str:
    return f"torch on {eager().gpu_name()}"


_LOOKS: Dict[str, Callable[[], str]] = {
    "tensorrt": _look_at_tensorrt,
    "trtexec": lambda: str(find_trtexec()),
    "onnxruntime": _look_at_onnxruntime,
    "torch": _look_at_torch,
}
