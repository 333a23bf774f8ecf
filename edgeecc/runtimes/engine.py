"""A built engine and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Tuple

from edgeecc.artifacts import number
from edgeecc.errors import ArtifactError
from edgeecc.runtimes.sparse_kernels import SparseKernels


class EngineBuildError(ArtifactError):
    """TensorRT cannot build an engine of this graph; another graph may well build."""


@dataclass(frozen=True)
class BuildReport:
    """How an engine came about.

    Args:
        tensorrt: name and version.
        precision: as asked.
        how: what set the precision: "flag", "casts", "calibrator", "q/dq", or "graph" where it was in the graph.
        build_s: seconds that TensorRT took.
        engine_bytes: size of the engine.
        network_layers: layers before TensorRT fused them; None where it does not say.
        notes: what the release or the device could not do as asked.
        sparse: what came of the leave to use sparse kernels; None where it was not given, or nothing is told.
    """

    tensorrt: str
    precision: str
    how: str
    build_s: float
    engine_bytes: int
    network_layers: Optional[int] = None
    notes: Tuple[str, ...] = ()
    sparse: Optional[SparseKernels] = None

    def to_json(self) -> Dict[str, object]:
        """Return it JSON-ready."""
        sparse = None if self.sparse is None else self.sparse.to_json()
        return {**vars(self), "notes": list(self.notes), "sparse": sparse}

    @staticmethod
    def from_json(values: object, source: object) -> BuildReport:
        """Read what `to_json` wrote.

        Args:
            values: the object.
            source: where it was found, for the message.
        Raises: ArtifactError when a field is missing or wrong.
        """
        found: Mapping[str, object] = values if isinstance(values, dict) else {}
        words = [found.get(name) for name in ("tensorrt", "precision", "how")]
        layers, notes, sparse = (found.get(name) for name in ("network_layers", "notes", "sparse"))
        if not all(isinstance(word, str) for word in words) or not isinstance(notes, list):
            raise ArtifactError(f"{source} does not say how its engine was built; build it again")
        tensorrt, precision, how = map(str, words)
        return BuildReport(
            tensorrt,
            precision,
            how,
            number(found.get("build_s"), "build_s", source),
            int(number(found.get("engine_bytes"), "engine_bytes", source)),
            None if layers is None else int(number(layers, "network_layers", source)),
            tuple(map(str, notes)),
            None if sparse is None else _sparse(sparse, source),
        )


@dataclass(frozen=True)
class Engine:
    """A serialised engine and how it came about.

    Args:
        data: as it is saved.
        report: of the build.
        cached: whether it was built earlier and kept.
    """

    data: bytes
    report: BuildReport
    cached: bool = False


def _sparse(values: object, source: object) -> SparseKernels:
    found: Mapping[str, object] = values if isinstance(values, dict) else {}
    eligible, chosen = (
        int(number(found.get(name), name, source)) for name in ("eligible", "chosen")
    )
    return SparseKernels(eligible, chosen)
