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
slim.safetensors, dense.onnx, masked.onnx, slim.onnx, check.safetensors, calib.safetensors, verify.json, report.json
                     from export
slim-PRECISION.engine, slim-PRECISION.engine.json   from export --trt, with timings-RUNTIME.cache, of kernels
report.html          from report
profile-METRIC-corrected.json   the cost model as what export measured corrects it
fit.json, fit.safetensors, fit-profile-METRIC.json   where export --fit-budget stands; gone when it is done
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, Mapping

import numpy as np

from edgeecc.artifacts import Tensors, exclusive, read_json, write_json, write_tensors
from edgeecc.device_names import PRECISIONS
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


def engine_name(precision: str) -> str:
    """Return the name of the engine of a precision; its manifest has .json behind it."""
    return f"slim-{precision}.engine"


#: Where export --fit-budget stands, and the weights that are to replace the run's.
FIT_STATE, FIT_WEIGHTS = "fit.json", "fit.safetensors"
#: Everything that pruning and export leave in a run folder, but for the request itself: what --force clears.
FILES = (
    "result.json", "keep.json", "history.json", "masked.safetensors", "pruned.safetensors", "checkpoint.safetensors",
    "profile.json", "slim.safetensors", "dense.onnx", "masked.onnx", "slim.onnx", "check.safetensors", "verify.json",
    "calib.safetensors", "report.json", "report.html", "sparse.safetensors", "phase.safetensors", "best.safetensors",
    "search.safetensors", FIT_STATE, FIT_WEIGHTS, *map(profile_name, BOUNDED), *map(corrected_name, BOUNDED),
    *map(staged_name, BOUNDED), *map(engine_name, PRECISIONS), *(f"{engine_name(name)}.json" for name in PRECISIONS),
)  # fmt: skip
#: What only an interrupted run needs, or an interrupted export --fit-budget.
UNFINISHED = (
    "checkpoint.safetensors",
    "search.safetensors",
    "pruned.safetensors",
    "phase.safetensors",
    "best.safetensors",
    FIT_WEIGHTS,
    *map(staged_name, BOUNDED),
)


@dataclass(frozen=True)
class RunFolder:
    """Names and artefacts of a run folder.

    Args:
        path: of the folder.
        writes: whether this process writes it; of a job of several only the first does, and the others read.
        own_code: whether the user vouches for code that its run.json names, see `edgeecc.own_code`.
    """

    path: Path
    writes: bool = True
    own_code: bool = False

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
        with exclusive(self.path, "wait for it, or take another run folder"):
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

    def write_run(self, body: Mapping[str, object]) -> None:
        """Write run.json, newer than that of every other run here, whatever the clock says: see `latest_run`."""
        self.write_json("run.json", RUN_SCHEMA, body)
        if self.writes:
            mine = self.file("run.json")
            others = [
                _made_ns(path) for path in self.path.parent.glob("*/run.json") if path != mine
            ]
            newest = max(others, default=0)
            if newest >= _made_ns(
                mine
            ):  # the clock was set back, or was ahead when that one was made
                os.utime(mine, ns=(newest + 10**6, newest + 10**6))

    def tidy(self) -> None:
        """Remove what a command left that was killed after its result was written."""
        if self.has("result.json") and not self.has(FIT_STATE):
            self.drop(UNFINISHED)

    def is_staged(self) -> bool:
        """Return whether export --fit-budget was interrupted while it replaced the run's files.

        Raises: ArtifactError when what it left is damaged.
        """
        return (
            self.has(FIT_STATE)
            and read_json(self.file(FIT_STATE), FIT_SCHEMA).get("result") is not None
        )

    def check_settled(self) -> None:
        """Check that the run's files belong together.

        Raises: ArtifactError when they are being replaced.
        """
        if self.is_staged():
            raise ArtifactError(
                f"{self.path} is being fitted to its budget; give edgeecc export --fit-budget again to go on"
            )

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
    """Return the run of `workspace`/runs that was begun last.

    Raises: ArtifactError when there is none.
    """
    runs = [path.parent for path in (workspace / "runs").glob("*/run.json")]
    if not runs:
        raise ArtifactError(
            f"no run in {workspace / 'runs'}; make one with edgeecc prune, or name its folder"
        )
    return RunFolder(max(runs, key=lambda run: _made_ns(run / "run.json")))


def differing(before: Mapping[str, object], now: Mapping[str, object], most: int = 3) -> str:
    """Return in words what two requests have otherwise, empty where they are the same.

    Args:
        before, now: trees as JSON gives them.
        most: entries that are told.
    """
    one, other = leaves(before), leaves(now)
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(
        f"{name} {_short(one.get(name))} (now {_short(other.get(name))})" for name in names[:most]
    )


def leaves(tree: Mapping[str, object], prefix: str = "") -> Dict[str, object]:
    """Return the leaves of a tree by their dotted names."""
    flat: Dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _made_ns(path: Path) -> int:
    """Return when a file was last written, 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_units(value: object) -> bool:
    return isinstance(value, list) and all(
        type(unit) is int and abs(unit) < 2**62 for unit in value
    )
