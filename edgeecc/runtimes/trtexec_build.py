"""Engines built by trtexec."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import FrozenSet, List, Mapping, Optional, Tuple

from edgeecc.artifacts import file_sha256
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.child import Child, last_words
from edgeecc.runtimes.engine import BuildReport, Engine, EngineBuildError
from edgeecc.runtimes.precision import to_fp16
from edgeecc.runtimes.quantise import activation_ranges, is_quantised, quantise
from edgeecc.runtimes.sparse_kernels import sparse_kernels
from edgeecc.runtimes.tensors import parse_graph
from edgeecc.runtimes.trtexec_output import options_in

#: How trtexec names its release, such as [TensorRT v8201].
_RELEASE = re.compile(r"\[TensorRT v([0-9]{1,9})\]")


@dataclass(frozen=True)
class BuildOrder:
    """What trtexec is to build.

    Args:
        program: trtexec.
        help_text: what its help prints.
        graph: bytes of an ONNX file.
        options: how to build.
    """

    program: Path
    help_text: str
    graph: bytes
    options: BuildOptions

    @property
    def known(self) -> FrozenSet[str]:
        """Options that its help lists; what it does not know is left out."""
        return options_in(self.help_text)

    @property
    def title(self) -> str:
        """Its name, with its release where it tells it."""
        release = _RELEASE.search(self.help_text)
        return f"trtexec of TensorRT {release[1]}" if release else "trtexec"

    def notes(self) -> Tuple[str, ...]:
        """Return what it cannot do of what was asked for."""
        if self.options.sparse and "sparsity" not in self.known:
            return (f"{self.title} has no sparse kernels; zeros are multiplied",)
        return ()

    def origin(self) -> Mapping[str, object]:
        """Return all that decides the engine but the board, JSON-ready."""
        return {
            "graph_sha256": hashlib.sha256(self.graph).hexdigest(),
            "trtexec": self.title,
            "trtexec_sha256": file_sha256(self.program),
            "options": self.options.to_json(),
        }

    def prepared(self) -> Tuple[bytes, str]:
        """Return the graph brought to the precision where no option does that, and what sets it, see `BuildReport`.

        Raises: GraphError when it cannot be brought there; ConfigError when int8 has no samples.
        """
        if self.options.precision == "fp16":
            if "fp16" in self.known:
                return self.graph, "flag"
            return to_fp16(parse_graph(self.graph)).SerializeToString(), "casts"
        if self.options.precision == "int8":
            model = parse_graph(self.graph)
            if not is_quantised(model):
                ranges = activation_ranges(model, self.options.calibration)
                return quantise(model, ranges).SerializeToString(), "q/dq"
        return self.graph, "graph"


def build(order: BuildOrder, engine: Path, timings: Optional[Path], limit_s: float) -> Engine:
    """Build an engine into a file.

    Args:
        order: what is built.
        engine: file to write; the graph is laid beside it.
        timings: file of kernel timings to use and to add to.
        limit_s: seconds that it may take.
    Raises: EngineBuildError when trtexec refuses the graph; RuntimeUnavailableError when it takes too long; as
        `BuildOrder.prepared`.
    """
    source = engine.with_suffix(".onnx")
    graph, how = order.prepared()
    source.write_bytes(graph)
    arguments = build_arguments(order.known, order.options, (source, engine), timings)
    start = perf_counter()
    with Child([str(order.program), *arguments], limit_s) as child:
        status = child.finish()
        if status or not engine.is_file():
            raise EngineBuildError(
                f"trtexec cannot build the engine (status {status}): {last_words(child.text())}; export the graph "
                "with operators that this release knows"
            )
        sparse = sparse_kernels(child.text()) if order.options.sparse else None
    seconds, data = perf_counter() - start, engine.read_bytes()
    report = BuildReport(
        order.title, order.options.precision, how, seconds, len(data), notes=order.notes(), sparse=sparse
    )  # fmt: skip
    return Engine(data, report)


def build_arguments(
    known: FrozenSet[str], options: BuildOptions, files: Tuple[Path, Path], timings: Optional[Path]
) -> List[str]:
    """Return trtexec's arguments to build an engine.

    Args:
        known: options that its help lists; what it does not know is left out.
        options: how to build.
        files: the graph to read, the engine to write.
        timings: file of kernel timings to use and to add to.
    """
    graph, engine = files
    arguments = [f"--onnx={graph}", f"--saveEngine={engine}"]
    arguments.append("--skipInference" if "skipInference" in known else "--buildOnly")
    if options.precision != "fp32" and options.precision in known:
        arguments.append(f"--{options.precision}")
    if not options.tf32 and "noTF32" in known:
        arguments.append("--noTF32")
    if options.sparse and "sparsity" in known:
        arguments.append("--sparsity=enable")
    if options.level is not None and "builderOptimizationLevel" in known:
        arguments.append(f"--builderOptimizationLevel={options.level}")
    if options.workspace_bytes is not None:
        mebibytes = max(1, options.workspace_bytes // 2**20)
        pools = "memPoolSize" in known
        arguments.append(
            f"--memPoolSize=workspace:{mebibytes}" if pools else f"--workspace={mebibytes}"
        )
    if timings is not None and "timingCacheFile" in known:
        arguments.append(f"--timingCacheFile={timings}")
    return arguments
