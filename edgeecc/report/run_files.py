"""What a run folder keeps, read and checked: the files may come from anywhere, and nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from edgeecc.artifacts import file_sha256
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError, GraphError
from edgeecc.explain import explain
from edgeecc.graph.spec import NetworkSpec
from edgeecc.report.fields import Fields
from edgeecc.run_folder import (
    ENGINE_SCHEMA,
    HISTORY_SCHEMA,
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    RUN_SCHEMA,
    VERIFY_SCHEMA,
    RunFolder,
    engine_name,
)
from edgeecc.verdict import Bound, bounds_of

#: Engines of a run that are told at most: one for each precision, and some to spare.
_ENGINES = 20
#: What names an artefact, beside what it holds.
_HEAD = ("schema", "made_by")


@dataclass(frozen=True)
class RunFiles:
    """A finished run.

    Args:
        folder: of the run.
        kind: what it removed: "channels" or "weights".
        run, result: run.json and result.json.
        spec: of its network.
        bounds: its budgets.
        verified, exported, history: verify.json, report.json and history.json, None where they are not there.
        engines: name and manifest of each engine of the exported network.
        explained: what `edgeecc explain` tells, None for runs that removed single weights.
        outdated: what is left aside, as it is of an earlier result of this run.
    """

    folder: RunFolder
    kind: str
    run: Fields
    result: Fields
    spec: NetworkSpec
    bounds: Tuple[Bound, ...]
    verified: Optional[Fields]
    exported: Optional[Fields]
    history: Optional[Fields]
    engines: Tuple[Tuple[str, Fields], ...]
    explained: Optional[Dict[str, Any]]
    outdated: Tuple[str, ...]

    @property
    def network(self) -> str:
        """The network, as it was named."""
        return self.run.under("source").text("network", self.spec.network)


def read_run_files(folder: RunFolder) -> RunFiles:
    """Read a run folder.

    Raises: ArtifactError when it is none, the run is not finished, or its files are damaged or do not belong together.
    """
    folder.read_finished()
    try:
        return _read(folder)
    except (ConfigError, GraphError, BudgetInfeasibleError) as error:
        raise ArtifactError(f"the files of {folder.path} are damaged: {error}") from error


def _read(folder: RunFolder) -> RunFiles:
    result = Fields.read(folder.file("result.json"), RESULT_SCHEMA)
    exported = _maybe(folder, "report.json", REPORT_SCHEMA)
    verified = _maybe(folder, "verify.json", VERIFY_SCHEMA)
    engines = _engines(folder)
    outdated: List[str] = []
    if exported is not None and exported.under("result").data != _body(result):
        outdated += ["report.json", *(["verify.json"] if verified else [])]
        outdated += [engine_name(name) for name, _ in engines]
        exported, verified, engines = None, None, []
    older = [name for name, manifest in engines if _is_outdated(folder, manifest)]
    outdated += [engine_name(name) for name in older]
    kind, bounds = folder.kind(), bounds_of(result.data, result.source)
    if any(bound.value <= 0.0 for bound in bounds):
        raise ArtifactError(f"a budget in {result.source} is not above 0; the file is damaged")
    return RunFiles(
        folder,
        kind,
        Fields.read(folder.file("run.json"), RUN_SCHEMA),
        result,
        folder.read_spec(),
        bounds,
        verified,
        exported,
        _maybe(folder, "history.json", HISTORY_SCHEMA),
        tuple(each for each in engines if each[0] not in older),
        None if kind == "weights" else explain(folder),
        tuple(outdated),
    )


def _maybe(folder: RunFolder, name: str, schema: str) -> Optional[Fields]:
    return Fields.read(folder.file(name), schema) if folder.has(name) else None


def _body(fields: Fields) -> Dict[str, object]:
    return {key: value for key, value in fields.data.items() if key not in _HEAD}


def _engines(folder: RunFolder) -> List[Tuple[str, Fields]]:
    """Return the manifests that export --trt left, by the precision that their files are named after."""
    start, end = "slim-", ".engine.json"
    found = sorted(folder.path.glob(f"{start}*{end}"))[:_ENGINES]
    return [(path.name[len(start) : -len(end)], Fields.read(path, ENGINE_SCHEMA)) for path in found]


def _is_outdated(folder: RunFolder, manifest: Fields) -> bool:
    """Return whether an engine is of another export; manifests of earlier versions do not tell."""
    of = manifest.text("onnx_sha256", "")
    return bool(of) and folder.has("slim.onnx") and file_sha256(folder.file("slim.onnx")) != of
