"""From the bytes of an ONNX graph to the bytes of an engine."""

from __future__ import annotations

import contextlib
import warnings
from time import perf_counter
from typing import Any, Iterator, List, Optional, Tuple

import onnx

from edgeecc.errors import ConfigError, GraphError
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.calibrator import Feed, calibrator
from edgeecc.runtimes.cuda_memory import Cuda
from edgeecc.runtimes.engine import BuildReport, Engine, EngineBuildError
from edgeecc.runtimes.precision import to_fp16
from edgeecc.runtimes.quantise import activation_ranges, is_quantised, quantise
from edgeecc.runtimes.tensors import check_inputs, graph_inputs, parse_graph
from edgeecc.runtimes.timing_cache import TimingCache
from edgeecc.runtimes.trt_api import TensorRT

#: Workspace where TensorRT's own default is none at all (8.2, 8.3). Ours: an eighth of a TX2's memory.
_OLD_WORKSPACE_BYTES = 2**30
#: Errors of the parser that are told; the rest follows from them.
_TOLD_ERRORS = 3


def build(
    trt: TensorRT,
    cuda: Cuda,
    graph: bytes,
    options: BuildOptions,
    timings: Optional[TimingCache] = None,
) -> Engine:
    """Build an engine.

    Args:
        trt: the TensorRT to build with.
        cuda: the GPU to build for.
        graph: bytes of an ONNX file, float32 or quantised, static shapes.
        options: how.
        timings: kernel timings to use and to add to; None times every kernel anew.
    Raises: EngineBuildError when TensorRT refuses the graph; GraphError when the graph cannot be brought to the
        precision; ConfigError when int8 has no samples; RuntimeUnavailableError without a usable GPU.
    """
    model, how = prepare(trt, parse_graph(graph), options)
    trt.messages.clear()
    try:
        builder = trt.module.Builder(trt.logger)
    except (RuntimeError, TypeError) as error:
        raise trt.without_gpu() from error
    network = builder.create_network(trt.network_flags())
    _parse(trt, network, model)
    with _deprecations_hidden(), contextlib.ExitStack() as stack:
        config = builder.create_builder_config()
        notes = _configure(trt, builder, config, options)
        cache = _use_timings(trt, config, timings, notes)
        feed = _calibrate(trt, cuda, config, options, stack) if how == "calibrator" else None
        start = perf_counter()
        plan = builder.build_serialized_network(network, config)
        seconds = perf_counter() - start
        if feed is not None and feed.error is not None:
            raise feed.error
        if plan is None:
            raise EngineBuildError(
                f"{trt.name} cannot build the engine in {options.precision}: {trt.messages.errors()}; -v shows its log"
            )
        if cache is not None and timings is not None:
            timings.keep(bytes(memoryview((config.get_timing_cache() or cache).serialize())))
    data = bytes(memoryview(plan))
    report = BuildReport(
        tensorrt=trt.name,
        precision=options.precision,
        how=how,
        build_s=seconds,
        engine_bytes=len(data),
        network_layers=network.num_layers,
        notes=tuple(notes),
        sparse=trt.messages.sparse_kernels() if options.sparse else None,
    )
    return Engine(data, report)


def prepare(
    trt: TensorRT, model: onnx.ModelProto, options: BuildOptions
) -> Tuple[onnx.ModelProto, str]:
    """Return the graph that is built, and what sets the precision.

    Raises: GraphError when it cannot be brought to the precision; ConfigError when int8 has no samples.
    """
    if is_quantised(model):
        if options.precision != "int8":
            raise ConfigError(
                f"the graph is quantised and would not be {options.precision}; ask for int8, or export it unquantised"
            )
        return model, "graph"
    if options.precision == "fp16":
        return (model, "flag") if trt.weakly_typed else (to_fp16(model), "casts")
    if options.precision == "int8":
        if not options.calibration:
            raise ConfigError("int8 needs samples to find its ranges; give calibration batches")
        if not trt.calibrates:
            return quantise(model, activation_ranges(model, options.calibration)), "q/dq"
        specs = graph_inputs(model)
        if len(specs) != 1:
            raise GraphError(
                f"int8 takes graphs with one input, this has {len(specs)}; build in fp16"
            )
        check_inputs(specs, options.calibration[:1])
        return model, "calibrator"
    return model, "graph"


def _parse(trt: TensorRT, network: Any, model: onnx.ModelProto) -> None:
    parser = trt.module.OnnxParser(network, trt.logger)
    if parser.parse(model.SerializeToString()):
        return
    told = [
        _told(parser.get_error(index), model)
        for index in range(min(parser.num_errors, _TOLD_ERRORS))
    ]
    more = parser.num_errors - len(told)
    reasons = "; ".join(told) or trt.messages.errors()
    raise EngineBuildError(
        f"{trt.name} cannot read the graph: {reasons}{f' (and {more} more)' if more > 0 else ''}; export it with "
        "operators that this release knows"
    )


def _told(error: Any, model: onnx.ModelProto) -> str:
    """Return an error of the parser in words: node, operator, reason."""
    index, nodes = error.node(), model.graph.node
    node = nodes[index] if 0 <= index < len(nodes) else None
    name = error.node_name() if hasattr(error, "node_name") else ""
    kind = error.node_operator() if hasattr(error, "node_operator") else ""
    if node is not None:
        name, kind = name or node.name or node.output[0], kind or node.op_type
    where = f"node {name} ({kind}): " if name or kind else ""
    return f"{where}{' '.join(error.desc().split())[:160]}"


def _configure(trt: TensorRT, builder: Any, config: Any, options: BuildOptions) -> List[str]:
    """Set what was asked for; return what this release or device cannot do of it."""
    flags = trt.module.BuilderFlag
    notes: List[str] = []
    _limit_workspace(trt, config, options.workspace_bytes)
    if options.level is not None:
        if hasattr(config, "builder_optimization_level"):
            config.builder_optimization_level = options.level
        else:
            notes.append(
                f"{trt.name} has no builder optimisation level; {options.level} is ignored"
            )
    if trt.weakly_typed and options.precision != "fp32":
        config.set_flag(getattr(flags, options.precision.upper()))
        if getattr(builder, f"platform_has_fast_{options.precision}", True) is False:
            notes.append(f"this GPU is not faster in {options.precision}")
    if not options.tf32:
        config.clear_flag(flags.TF32)
    if options.sparse:
        if hasattr(flags, "SPARSE_WEIGHTS"):
            config.set_flag(flags.SPARSE_WEIGHTS)
        else:
            notes.append(f"{trt.name} has no sparse kernels; zeros are multiplied")
    if hasattr(flags, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(
            flags.REQUIRE_USER_ALLOCATION
        )  # RTX can be captured in a CUDA graph only then
    config.profiling_verbosity = trt.module.ProfilingVerbosity.DETAILED
    return notes


def _limit_workspace(trt: TensorRT, config: Any, size: Optional[int]) -> None:
    if hasattr(config, "set_memory_pool_limit"):
        if size is not None:
            config.set_memory_pool_limit(trt.module.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = _OLD_WORKSPACE_BYTES if size is None else size


def _use_timings(
    trt: TensorRT, config: Any, timings: Optional[TimingCache], notes: List[str]
) -> Optional[Any]:
    """Give the build the timings so far; return TensorRT's cache of them."""
    if timings is None:
        return None
    if not trt.times_tactics:
        notes.append(f"{trt.name} compiles kernels when it runs and has no timing cache")
        return None
    cache = config.create_timing_cache(timings.data)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    if timings.data:
        notes.append("the timing cache is of another device or release, or damaged: started anew")
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        notes.append("this build takes no timing cache")
        return None
    return cache


def _calibrate(
    trt: TensorRT, cuda: Cuda, config: Any, options: BuildOptions, stack: contextlib.ExitStack
) -> Feed:
    asked, feed = stack.enter_context(calibrator(trt, cuda, options.calibration))
    config.int8_calibrator = asked
    return feed


@contextlib.contextmanager
def _deprecations_hidden() -> Iterator[None]:
    """Hide TensorRT's own notices: where a newer way exists, it is taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
