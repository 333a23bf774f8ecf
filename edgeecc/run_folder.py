"""A run folder: where one pruning run keeps its files, and the lock that keeps a second run out.

run.json             what was asked, resolved: enough to rebuild the network and to resume
spec.json            the traced network
profile-METRIC.json  the cost model of each budget whose metric needs one (profile.json in runs of 0.1.0)
dense.safetensors    the weights that were given
program.pt2          the program that was given, where the network came as one
checkpoint-*.safetensors   training in progress
masked.safetensors   the pruned weights, dense shapes
keep.json            the units that stay
history.json         the course of pruning and of fine-tuning, for the report
result.json          what prune printed
search.safetensors         what a search over candidates remembers
phase.safetensors, best.safetensors   where rounds of weights and input masks stand
sparse.safetensors   weights with zeros, compressed, where single weights went
slim.safetensors, dense.onnx, masked.onnx, slim.onnx, check.safetensors, verify.json, report.json   from export
slim-PRECISION.engine, slim-PRECISION.engine.json   from export --trt
report.html          from report
profile-METRIC-corrected.json   the cost model as what export measured corrects it
fit.json, fit.safetensors, fit-profile-METRIC.json   where export --fit-budget stands; gone when it is done
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, Mapping

import numpy as np

from edgeecc.artifacts import Tensors, exclusive, read_json, write_json, write_tensors
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.spec_io import read_spec
from edgeecc.units import BOUNDED, Metric

RUN_SCHEMA = "edgeecc/run/1"
SPEC_SCHEMA = "edgeecc/spec/1"
KEEP_SCHEMA = "edgeecc/keep/1"
RESULT_SCHEMA = "edgeecc/result/1"
VERIFY_SCHEMA = "edgeecc/verify/1"
REPORT_SCHEMA = "edgeecc/report/1"
HISTORY_SCHEMA = "edgeecc/history/1"
FIT_SCHEMA = "edgeecc/fit/1"
ENGINE_SCHEMA = "edgeecc/run-engine/1"


def profile_name(metric: Metric) -> str:
    """Return the name of the file that keeps the profile behind the budget of a metric."""
    return f"profile-{metric.value}.json"


def corrected_name(metric: Metric) -> str:
    """Return the name of the file that keeps the profile of a metric as export's measurements correct it."""
    return f"profile-{metric.value}-corrected.json"


def staged_name(metric: Metric) -> str:
    """Return the name of the file in which export --fit-budget keeps a profile that is to replace the run's."""
    return f"fit-profile-{metric.value}.json"


#: Where export --fit-budget stands, and the weights that are to replace the run's.
FIT_STATE, FIT_WEIGHTS = "fit.json", "fit.safetensors"
#: Everything that pruning and export leave in a run folder, but for the request itself: what --force clears.
FILES = (
    "result.json", "keep.json", "history.json", "masked.safetensors", "pruned.safetensors", "checkpoint.safetensors",
    "profile.json", "slim.safetensors", "dense.onnx", "masked.onnx", "slim.onnx", "check.safetensors", "verify.json",
    "report.json", "report.html", "sparse.safetensors", "phase.safetensors", "best.safetensors",
    "search.safetensors", FIT_STATE, FIT_WEIGHTS, *map(profile_name, BOUNDED), *map(corrected_name, BOUNDED),
    *map(staged_name, BOUNDED),
)  # fmt: skip
#: What only an interrupted run needs.
UNFINISHED = (
    "checkpoint.safetensors",
    "search.safetensors",
    "pruned.safetensors",
    "phase.safetensors",
    "best.safetensors",
)


@dataclass(frozen=True)
class RunFolder:
    """Names and artefacts of a run folder.

    Args:
        path: of the folder.
        writes: whether this process writes it; of a job of several only the first does, and the others read.
    """

    path: Path
    writes: bool = True

    def file(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.path / name

    def has(self, name: str) -> bool:
        """Return whether the run has this file."""
        return self.file(name).is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises: ArtifactError when another process holds it or the folder cannot be written.
        """
        if not self.writes:
            yield
            return
        with exclusive(self.path, "wait for it or choose another with --run"):
            yield

    def write_json(self, name: str, schema: str, body: Mapping[str, object]) -> None:
        """Write a JSON artefact, see `artifacts.write_json`."""
        if self.writes:
            write_json(self.file(name), schema, body)

    def write_tensors(self, name: str, tensors: Tensors, metadata: Mapping[str, str]) -> None:
        """Write named arrays as safetensors, see `artifacts.write_tensors`."""
        if self.writes:
            write_tensors(self.file(name), tensors, metadata)

    def drop(self, names: Iterable[str]) -> None:
        """Remove files that are there."""
        for name in names if self.writes else ():
            self.file(name).unlink(missing_ok=True)

    def add_history(self, **courses: object) -> None:
        """Write further parts of history.json beside those that are there."""
        if self.writes:
            kept = read_json(self.file("history.json"), HISTORY_SCHEMA)
            body = {
                name: value for name, value in kept.items() if name not in ("schema", "made_by")
            }
            self.write_json("history.json", HISTORY_SCHEMA, {**body, **courses})

    def read_run(self) -> Dict[str, object]:
        """Return run.json.

        Raises: ArtifactError when this is no run folder.
        """
        if not self.has("run.json"):
            raise ArtifactError(
                f"{self.path} is no run folder (no run.json); make one with edgeecc prune"
            )
        return read_json(self.file("run.json"), RUN_SCHEMA)

    def read_finished(self) -> Dict[str, object]:
        """Return run.json of a finished run.

        Raises: ArtifactError when this is no run folder, or the run is not finished.
        """
        run = self.read_run()
        if not self.has("result.json"):
            raise ArtifactError(
                f"{self.path} is not finished; give the edgeecc prune command again to go on"
            )
        return run

    def kind(self) -> str:
        """Return what the run removes: "channels" or "weights"."""
        request = self.read_run().get("request")
        return (
            "weights"
            if isinstance(request, dict) and request.get("kind") == "weights"
            else "channels"
        )

    def write_spec(self, spec: NetworkSpec) -> None:
        """Write spec.json."""
        self.write_json("spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})

    def read_spec(self) -> NetworkSpec:
        """Return the traced network of this run."""
        return read_spec_file(self.file("spec.json"))

    def write_keep(self, keep: Mapping[str, IntArray]) -> None:
        """Write keep.json."""
        units = {name: [int(unit) for unit in kept] for name, kept in keep.items()}
        self.write_json("keep.json", KEEP_SCHEMA, {"keep": units})

    def read_keep(self, spec: NetworkSpec) -> Dict[str, IntArray]:
        """Return the units that stay, checked against the spec.

        Raises: ArtifactError when keep.json is missing or damaged.
        """
        document = read_json(self.file("keep.json"), KEEP_SCHEMA)
        keep = document.get("keep")
        if not isinstance(keep, dict) or not all(_is_units(value) for value in keep.values()):
            raise ArtifactError(
                f"{self.file('keep.json')} is damaged: no lists of units; run edgeecc prune again"
            )
        return spec.checked_keep(
            {name: np.asarray(units, dtype=np.int64) for name, units in keep.items()}
        )


def read_spec_file(path: Path) -> NetworkSpec:
    """Read a spec.json.

    Raises: ArtifactError when missing or of another schema; GraphError when a field is wrong.
    """
    spec = read_json(path, SPEC_SCHEMA).get("spec")
    if not isinstance(spec, dict):
        raise ArtifactError(f"{path} is damaged: it holds no spec; make it again")
    return read_spec(spec)


def latest_run(workspace: Path) -> RunFolder:
    """Return the run of `workspace`/runs that was changed last.

    Raises: ArtifactError when there is none.
    """
    runs = [path.parent for path in (workspace / "runs").glob("*/run.json")]
    if not runs:
        raise ArtifactError(
            f"no run in {workspace / 'runs'}; make one with edgeecc prune, or name its folder"
        )
    return RunFolder(max(runs, key=lambda run: (run / "run.json").stat().st_mtime))


def _is_units(value: object) -> bool:
    return isinstance(value, list) and all(
        type(unit) is int and abs(unit) < 2**62 for unit in value
    )
