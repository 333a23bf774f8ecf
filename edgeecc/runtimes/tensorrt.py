"""TensorRT engines as a runtime: built or taken from the cache, run back to back, timed by the device."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.errors import ArtifactError, EdgeeccError, RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.cuda_memory import Cuda, Launchable, Mark, open_cuda
from edgeecc.runtimes.engine import Engine
from edgeecc.runtimes.engine_cache import EngineCache, origin
from edgeecc.runtimes.engine_summary import EngineSummary, summarise
from edgeecc.runtimes.tensors import (
    TensorSpec,
    check_inputs,
    graph_inputs,
    graph_outputs,
    in_order,
    parse_graph,
)
from edgeecc.runtimes.timing_cache import TimingCache
from edgeecc.runtimes.trt_api import TensorRT, bind, io_tensors, load_tensorrt
from edgeecc.runtimes.trt_build import build
from edgeecc.timing import DeviceTimes

_log = logging.getLogger(__name__)

#: Inferences between two events that are timed before the host waits for them, and those ahead of them that are not.
_TIMED_TOGETHER, _AHEAD = 100, 3


class DamagedEngineError(ArtifactError):
    """TensorRT cannot read an engine: it is damaged, or of another device or release."""


class TensorRTRuntime:
    """An engine on the GPU, as a context manager, for the thread that opens it.

    Args:
        trt: the TensorRT that reads it.
        cuda: the GPU; it is closed with the runtime.
        engine: what it runs.
        title: precision and the like, for the name.
        order: inputs and outputs of the graph, in its order; None takes the engine's.
    Raises: DamagedEngineError when TensorRT cannot read it; ArtifactError when its tensors are not the graph's or
        not of fixed size; RuntimeUnavailableError when the GPU has no room or refuses it. `cuda` is closed then.
    """

    def __init__(
        self,
        trt: TensorRT,
        cuda: Cuda,
        engine: Engine,
        title: str,
        order: Optional[Tuple[Sequence[TensorSpec], Sequence[TensorSpec]]] = None,
    ) -> None:
        self._trt, self._cuda = trt, cuda
        self.built = engine
        with contextlib.ExitStack() as stack:
            stack.callback(_quietly, cuda.close)
            self._engine: Any = trt.deserialize(engine.data)
            self._context: Any = None
            if self._engine is None:
                raise DamagedEngineError(
                    f"{trt.name} cannot read the engine of {len(engine.data)} bytes: {trt.messages.errors()}; build it "
                    "again on this device"
                )
            self._inputs, self._outputs = io_tensors(trt, self._engine)
            if order is not None:
                self._inputs = in_order(self._inputs, order[0])
                self._outputs = in_order(self._outputs, order[1])
            self._addresses = self._allocate(stack)
            self._enqueue = self._bind()
            self._standing = [spec.standing() for spec in self._inputs]
            self._standing_is_there = False
            self._graph: Optional[Launchable] = self._capture(stack)
            self._resources = stack.pop_all()
        way = "CUDA graph" if self._graph is not None else "enqueued one by one"
        self.name = f"{trt.name} {title} on {cuda.device} ({way})"
        self.summary = self._inspect()

    def __enter__(self) -> TensorRTRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        # an interrupted run leaves work behind that still needs what is let go of here
        _quietly(self._cuda.synchronize)
        self._graph = None
        del self._enqueue
        self._context = None  # before the engine that it lies on, and before the buffers
        self._engine = None
        self._resources.close()

    @property
    def captured(self) -> bool:
        """Whether inferences run as one captured CUDA graph each, without the host's work between kernels."""
        return self._graph is not None

    def run(self, count: int) -> None:
        """Run `count` inferences back to back on one fixed input.

        Raises: RuntimeUnavailableError when TensorRT or the GPU fails.
        """
        self._place_standing_input()
        self._put(count)
        self._cuda.synchronize()

    def device_times(self, count: int) -> DeviceTimes:
        """Return how long `count` inferences of the fixed input take, by CUDA events around each.

        They follow each other, so that the device mostly has the next one before it ends one, as in `run`.

        Raises: RuntimeUnavailableError when TensorRT or the GPU fails.
        """
        self._place_standing_input()
        seconds: List[float] = []
        while len(seconds) < count:
            self._put(_AHEAD)
            pairs = [self._timed() for _ in range(min(_TIMED_TOGETHER, count - len(seconds)))]
            seconds += [self._cuda.seconds(*pair) for pair in pairs]
        return DeviceTimes.of(seconds, "CUDA events")

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's.

        Raises: ArtifactError when the inputs are not the graph's in number, shape or type; RuntimeUnavailableError
            when TensorRT or the GPU fails.
        """
        check_inputs(self._inputs, inputs)
        self._standing_is_there = False
        self._upload(inputs)
        self._put(1)
        results = [spec.empty() for spec in self._outputs]
        for spec, result in zip(self._outputs, results):
            self._cuda.download(result, self._addresses[spec.name])
        self._cuda.synchronize()
        return results

    def _allocate(self, stack: contextlib.ExitStack) -> Dict[str, int]:
        addresses = {}
        for spec in (*self._inputs, *self._outputs):
            addresses[spec.name] = address = self._cuda.malloc(max(spec.nbytes, 1))
            stack.callback(_quietly, self._cuda.free, address)
        return addresses

    def _bind(self) -> Callable[[], bool]:
        self._trt.messages.clear()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeUnavailableError(
                f"the GPU cannot take the engine: {self._trt.messages.errors()}; close what else uses it, or build "
                "with less workspace"
            )
        return bind(self._engine, self._context, self._addresses, self._cuda.stream)

    def _capture(self, stack: contextlib.ExitStack) -> Optional[Launchable]:
        """Run once as it is, which TensorRT wants before a capture; return the captured graph where that works."""
        self._place_standing_input()
        self._put_one()
        self._cuda.synchronize()
        capturable = getattr(self._context, "is_stream_capturable", None)  # RTX
        if capturable is not None and not capturable(self._cuda.stream):
            return None
        graph = self._cuda.capture(self._enqueue)
        if graph is None:
            return None
        stack.callback(_quietly, graph.close)
        graph.launch()
        self._cuda.synchronize()
        return graph

    def _place_standing_input(self) -> None:
        if not self._standing_is_there:
            self._upload(self._standing)
            self._standing_is_there = True

    def _upload(self, inputs: Sequence[Array]) -> None:
        whole = [np.ascontiguousarray(value) for value in inputs]
        for spec, value in zip(self._inputs, whole):
            self._cuda.upload(self._addresses[spec.name], value)
        self._cuda.synchronize()  # the copies may go when it returns

    def _timed(self) -> Tuple[Mark, Mark]:
        first = self._cuda.mark()
        self._put(1)
        return first, self._cuda.mark()

    def _put(self, count: int) -> None:
        if self._graph is None:
            for _ in range(count):
                self._put_one()
        else:
            for _ in range(count):
                self._graph.launch()

    def _put_one(self) -> None:
        if not self._enqueue():
            raise RuntimeUnavailableError(
                f"{self._trt.name} refuses to run the engine: {self._trt.messages.errors()}; run edgeecc doctor"
            )

    def _inspect(self) -> EngineSummary:
        layers = int(self._engine.num_layers)
        try:
            inspector = self._engine.create_engine_inspector()
            text = inspector.get_engine_information(self._trt.module.LayerInformationFormat.JSON)
        except Exception as error:  # a summary is worth no failure
            _log.debug("the engine cannot be inspected: %s", brief(error))
            text = ""
        return summarise(text, layers)


def open_engine(
    graph: bytes,
    options: BuildOptions,
    *,
    cache: Optional[EngineCache] = None,
    timings: Optional[TimingCache] = None,
    device: int = 0,
) -> TensorRTRuntime:
    """Return a graph as an engine that is ready to run: from the cache, or built.

    Its `built` says which of the two, and how it was built. One from the cache that is damaged, or of another graph,
    device or release, is built again.

    Args:
        graph: bytes of an ONNX file, static shapes.
        options: how to build.
        cache: where engines are kept; None builds anew.
        timings: kernel timings shared by builds.
        device: number of the GPU.
    Raises: RuntimeUnavailableError when TensorRT, CUDA or the GPU is not here or fails; `EngineBuildError` and
        others, see `trt_build.build`.
    """
    model = parse_graph(graph)
    order = graph_inputs(model), graph_outputs(model)
    trt, cuda = load_tensorrt(), open_cuda(device)
    made_of = origin(trt, cuda, graph, options)
    kept = None if cache is None else cache.load(made_of)
    if cache is not None and kept is not None:
        try:
            return TensorRTRuntime(trt, cuda, kept, options.title, order)
        except ArtifactError as error:
            _log.warning("a cached engine is built again: %s", error)
            cache.drop(made_of)
            cuda = open_cuda(device)
    try:
        engine = build(trt, cuda, graph, options, timings)
    except BaseException:
        _quietly(cuda.close)
        raise
    runtime = TensorRTRuntime(trt, cuda, engine, options.title, order)
    try:
        if cache is not None:
            cache.save(made_of, engine)
    except EdgeeccError:
        runtime.__exit__()
        raise
    return runtime


def _quietly(release: Callable[..., None], *values: object) -> None:
    """Release something; a failure is logged, so that the rest is released too."""
    try:
        release(*values)
    except Exception as error:
        _log.debug("cannot release: %s", brief(error))
