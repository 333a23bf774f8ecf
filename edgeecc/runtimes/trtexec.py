"""TensorRT through trtexec, for boards whose TensorRT has no bindings for our Python, such as the TX2.

An engine is built once; every measurement runs it in a process of its own. Starting that process takes seconds, so
a meter around `run` would count them too: `observe` reads the meter while inferences follow each other.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Callable, FrozenSet, Generic, List, Optional, Sequence, Tuple, TypeVar

from edgeecc.errors import ConfigError, RuntimeUnavailableError
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.child import Child, last_words
from edgeecc.runtimes.engine import Engine
from edgeecc.runtimes.engine_cache import EngineCache
from edgeecc.runtimes.tensors import check_inputs, graph_inputs, graph_outputs, parse_graph
from edgeecc.runtimes.trtexec_build import BuildOrder, build
from edgeecc.runtimes.trtexec_output import (
    ENDED,
    STARTING,
    TrtexecTiming,
    options_in,
    parse_timing,
    read_outputs,
)
from edgeecc.timing import DeviceTimes

_log = logging.getLogger(__name__)

#: Where JetPack puts it, outside the PATH.
JETPACK_PATH = Path("/usr/src/tensorrt/bin/trtexec")
#: Seconds for its help.
_HELP_S = 60.0
#: Seconds beyond what was asked, for starting, reading the engine, and a TX2 that starts cold. Ours.
_START_S = 120.0
#: Seconds after the first inference until windows begin, and after the last until it ends. Ours: ten periods of the
#: slowest counter, and room for a late reading.
SETTLE_S = 1.0
#: Seconds of warm-up before single inferences are timed: trtexec's own default.
_WARMUP_S = 0.2
#: An average printed every so many inferences: in effect never, or a long run prints one line each ten.
_RARELY = 10**9

Reading = TypeVar("Reading")


@dataclass(frozen=True)
class Observation(Generic[Reading]):
    """What was read while inferences followed each other.

    Args:
        readings: one at each border of the windows, so one more than windows.
        timing: of the same run, as trtexec printed it.
    """

    readings: Tuple[Reading, ...]
    timing: TrtexecTiming


def find_trtexec(path: Optional[Path] = None) -> Path:
    """Return the path of trtexec: the given one, that on the PATH, or JetPack's.

    Raises: RuntimeUnavailableError when there is none.
    """
    if path is not None:
        if not path.is_file():
            raise RuntimeUnavailableError(f"{path} is no file; name the trtexec program")
        return path
    found = shutil.which("trtexec")
    if found is not None:
        return Path(found)
    if JETPACK_PATH.is_file():
        return JETPACK_PATH
    raise RuntimeUnavailableError(
        f"trtexec is neither on the PATH nor at {JETPACK_PATH}; on a Jetson apt install libnvinfer-bin"
    )


def run_arguments(
    known: FrozenSet[str],
    engine: Path,
    *,
    count: int = 1,
    warmup_s: float = 0.0,
    duration_s: int = 0,
) -> List[str]:
    """Return trtexec's arguments to run an engine: at least `count` inferences and at least `duration_s`.

    Like our own runtime: one stream, a captured graph where it works, no copies of inputs and outputs, and a host
    that sleeps while it waits. From release 11 on the first three are the default, and it spins.
    """
    arguments = [
        f"--loadEngine={engine}",
        f"--iterations={count}",
        f"--warmUp={math.ceil(1e3 * warmup_s)}",
        f"--duration={duration_s}",
        f"--avgRuns={_RARELY}",
    ]
    for option, default_since in (
        ("useCudaGraph", "noCudaGraph"),
        ("noDataTransfers", "includeDataTransfers"),
    ):
        if option in known and default_since not in known:
            arguments.append(f"--{option}")
    if "noSpinWait" in known:
        arguments.append("--noSpinWait")
    return arguments


class TrtexecRuntime:
    """An engine that trtexec built and runs, as a context manager over a temporary folder.

    int8 is written into the graph, as trtexec takes no samples.

    Args:
        graph: bytes of an ONNX file, float32 or quantised, static shapes.
        options: how to build.
        program: trtexec; None looks for it.
        timings: file of kernel timings shared by builds.
        cache: where engines are kept; None builds anew.
        limit_s: seconds that a build may take.
    Raises: RuntimeUnavailableError when trtexec is not here or takes too long; EngineBuildError when it refuses the
        graph; ConfigError when int8 has no samples; ArtifactError when the cache cannot be written.
    """

    def __init__(
        self,
        graph: bytes,
        options: BuildOptions,
        *,
        program: Optional[Path] = None,
        timings: Optional[Path] = None,
        cache: Optional[EngineCache] = None,
        limit_s: float,
    ) -> None:
        self._program = find_trtexec(program)
        model = parse_graph(graph)
        self._inputs, self._outputs = graph_inputs(model), graph_outputs(model)
        with Child([str(self._program), "--help"], _HELP_S) as child:
            child.finish()
            self._known = options_in(child.text())
        if "onnx" not in self._known:
            raise RuntimeUnavailableError(
                f"{self._program} lists no option --onnx: {last_words(child.text())}; is it TensorRT's?"
            )
        order = BuildOrder(self._program, child.text(), graph, options)
        self._folder = tempfile.TemporaryDirectory(prefix="edgeecc-trtexec-")
        self._engine = Path(self._folder.name) / "network.engine"
        self.name = f"trtexec {options.title}"
        try:
            #: The engine, and how it came about.
            self.built = self._kept(order, cache) or build(order, self._engine, timings, limit_s)
            if cache is not None and not self.built.cached:
                cache.save(order.origin(), self.built)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> TrtexecRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, count: int) -> None:
        """Run at least `count` inferences back to back, in a process that starts and ends with them.

        Raises: RuntimeUnavailableError when trtexec fails.
        """
        self._timing(count)

    def device_times(self, count: int) -> DeviceTimes:
        """Return how long at least `count` inferences take, by the CUDA events that trtexec puts around each.

        Raises: RuntimeUnavailableError when trtexec fails.
        """
        return self._timing(count, _WARMUP_S).events(count)

    def _timing(self, count: int, warmup_s: float = 0.0) -> TrtexecTiming:
        limit_s = _START_S + 10.0 * count  # no inference takes ten seconds
        with Child(
            self._command(run_arguments(self._known, self._engine, count=count, warmup_s=warmup_s)),
            limit_s,
        ) as child:
            self._ended_well(child)
            return parse_timing(child.text())

    def observe(
        self,
        read: Callable[[], Reading],
        *,
        windows: int,
        window_s: float,
        settle_s: float = SETTLE_S,
    ) -> Observation[Reading]:
        """Let inferences follow each other, and call `read` at the borders of windows amid them.

        The energy of an inference is the joules between two readings, over their seconds, over `timing.rate_hz`.

        Args:
            read: such as the clock and the joules of a meter.
            windows: at least 1.
            window_s: their length.
            settle_s: between the first inference and the first window, and after the last.
        Raises: RuntimeUnavailableError when trtexec fails, or ends before the last window; ConfigError when a number
            is out of range; whatever `read` raises. trtexec is ended in any case.
        """
        if windows < 1 or window_s <= 0.0 or settle_s < 0.0:
            raise ConfigError(
                f"{windows} windows of {window_s} s, {settle_s} s to settle: none can be read"
            )
        lasting = math.ceil(windows * window_s + settle_s) + 1
        arguments = run_arguments(self._known, self._engine, warmup_s=settle_s, duration_s=lasting)
        with Child(self._command(arguments), _START_S + settle_s + lasting) as child:
            child.wait_for(STARTING)
            sleep(settle_s)
            readings = [read()]
            for _ in range(windows):
                sleep(window_s)
                readings.append(read())
            if child.printed(ENDED):
                raise RuntimeUnavailableError(
                    f"trtexec ended before the last of {windows} windows; the machine is too busy to read in time, "
                    "measure again"
                )
            self._ended_well(child)
            return Observation(tuple(readings), parse_timing(child.text()))

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's, to the six digits trtexec writes.

        Raises: ArtifactError when the inputs are not the graph's, or the outputs cannot be read;
            RuntimeUnavailableError when trtexec fails.
        """
        check_inputs(self._inputs, inputs)
        with tempfile.TemporaryDirectory(dir=self._folder.name) as name:
            pairs = []
            for index, (spec, value) in enumerate(zip(self._inputs, inputs)):
                file = Path(name) / f"input{index}"
                file.write_bytes(value.tobytes())
                title = f"'{spec.name}'" if ":" in spec.name else spec.name
                pairs.append(f"{title}:{file}")
            outputs = Path(name) / "outputs.json"
            arguments = [
                f"--loadEngine={self._engine}",
                "--iterations=1",
                "--warmUp=0",
                "--duration=0",
                f"--loadInputs={','.join(pairs)}",
                f"--exportOutput={outputs}",
            ]
            with Child(self._command(arguments), _START_S) as child:
                self._ended_well(child)
            return read_outputs(outputs, self._outputs)

    def _kept(self, order: BuildOrder, cache: Optional[EngineCache]) -> Optional[Engine]:
        """Return the engine that was kept of an earlier build, laid ready; None when none is, or it does not run."""
        kept = None if cache is None else cache.load(order.origin())
        if cache is None or kept is None:
            return None
        self._engine.write_bytes(kept.data)
        with Child(self._command(run_arguments(self._known, self._engine)), _START_S) as child:
            if not child.finish():
                return kept
        _log.warning("a cached engine is built again: %s", last_words(child.text()))
        cache.drop(order.origin())
        self._engine.unlink()
        return None

    def _ended_well(self, child: Child) -> None:
        status = child.finish()
        if status:
            raise RuntimeUnavailableError(
                f"trtexec ended with status {status}: {last_words(child.text())}; run it by hand"
            )

    def _command(self, arguments: Sequence[str]) -> List[str]:
        return [str(self._program), *arguments]
