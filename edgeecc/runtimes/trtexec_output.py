"""What trtexec prints and writes, read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, List, Optional, Sequence

import numpy as np

from edgeecc.errors import ArtifactError, RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.tensors import TensorSpec
from edgeecc.timing import DeviceTimes

#: Printed when the first inference is about to run (release 8.2 to 11).
STARTING = "Starting inference"
#: Printed when the last one is done.
ENDED = "Timing trace has"
#: Largest file of outputs that is read: a thousand times those of a classifier.
_MAX_OUTPUT_BYTES = 256 * 2**20
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"


@dataclass(frozen=True)
class TrtexecTiming:
    """What a run of trtexec took, per inference.

    Args:
        rate_hz: inferences per second of wall-clock time.
        median_s, mean_s: time on the GPU.
        p95_s, p99_s: percentiles of it; None where they are not printed.
        gpu_share: share of the wall-clock time in which the GPU worked; 1 where it is not printed.
        runs: inferences that were timed; None where it is not printed.
    """

    rate_hz: float
    median_s: float
    mean_s: float
    gpu_share: float
    p95_s: Optional[float] = None
    p99_s: Optional[float] = None
    runs: Optional[int] = None

    def events(self, asked: int) -> DeviceTimes:
        """Return the time on the GPU, of as many inferences as are told, else as were asked for."""
        runs = asked if self.runs is None else self.runs
        return DeviceTimes(runs, self.median_s, self.p95_s, self.p99_s, "CUDA events of trtexec")


def options_in(help_text: str) -> FrozenSet[str]:
    """Return the options that trtexec's help lists, without dashes."""
    return frozenset(re.findall(r"--([A-Za-z][A-Za-z0-9]*)", help_text))


def parse_timing(text: str) -> TrtexecTiming:
    """Return what the summary of a run says.

    Raises: RuntimeUnavailableError when there is no summary, or its numbers are none.
    """
    before, _, summary = text.rpartition("=== Performance summary ===")
    computing = _line(summary, "GPU Compute Time")
    rate = _after(_line(summary, "Throughput"), "Throughput:")
    mean_s = _milliseconds(computing, "mean")
    median_s = _milliseconds(computing, "median")
    wall_s = _after(_line(summary, "Total Host Walltime"), "Total Host Walltime:")
    busy_s = _after(_line(summary, "Total GPU Compute Time"), "Total GPU Compute Time:")
    if rate is None or mean_s is None or median_s is None or min(rate, mean_s, median_s) <= 0.0:
        raise RuntimeUnavailableError(
            f"trtexec printed no timing summary that can be read, but {' '.join(text[-160:].split())!r}; run it by hand"
        )
    share = min(1.0, busy_s / wall_s) if wall_s and busy_s else 1.0
    timed = re.search(rf"{ENDED} ([0-9]{{1,12}}) queries", before)
    return TrtexecTiming(
        rate,
        median_s,
        mean_s,
        share,
        p95_s=_milliseconds(computing, r"percentile\(95%\)"),
        p99_s=_milliseconds(computing, r"percentile\(99%\)"),
        runs=int(timed.group(1)) if timed else None,
    )


def read_outputs(path: Path, specs: Sequence[TensorSpec]) -> List[Array]:
    """Return the outputs that trtexec wrote, in the order of `specs`; it writes six digits of each number.

    Raises: ArtifactError when the file is no JSON, lacks an output, or one has another size.
    """
    try:
        if path.stat().st_size > _MAX_OUTPUT_BYTES:
            raise ArtifactError(
                f"{path} is larger than {_MAX_OUTPUT_BYTES} bytes; these are no outputs of a network"
            )
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"trtexec wrote no outputs: {error.strerror}; run it by hand"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"trtexec's outputs cannot be read: {brief(error)}; NaN among them is no JSON"
        ) from error
    found: Dict[str, object] = {
        item["name"]: item.get("values")
        for item in (document if isinstance(document, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    }
    return [_array(spec, found.get(spec.name)) for spec in specs]


def _array(spec: TensorSpec, values: object) -> Array:
    if values is None:
        raise ArtifactError(
            f"trtexec wrote no output {spec.name}; the engine is of another graph, build it again"
        )
    try:
        array = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"trtexec's output {spec.name} holds no numbers; run it by hand"
        ) from error
    if array.size != math.prod(spec.shape):
        raise ArtifactError(
            f"trtexec wrote {array.size} numbers for output {spec}; the engine is of another graph, build it again"
        )
    return array.reshape(spec.shape).astype(spec.dtype)


def _line(summary: str, title: str) -> str:
    """Return the rest of the line with a title; lines that only explain titles have no numbers after them."""
    for line in summary.splitlines():
        if re.search(rf"(?:^|\]\s+){re.escape(title)}:", line):
            return line
    return ""


def _after(line: str, title: str) -> Optional[float]:
    found = re.search(rf"{re.escape(title)}\s*{_NUMBER}", line)
    return float(found.group(1)) if found else None


def _milliseconds(line: str, name: str) -> Optional[float]:
    found = re.search(rf"\b{name}\s*=\s*{_NUMBER}\s*ms", line)
    return 1e-3 * float(found.group(1)) if found else None
