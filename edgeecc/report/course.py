"""The course of a run: what its method and its training told step by step, as history.json keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.errors import ArtifactError
from edgeecc.report.fields import Fields
from edgeecc.report.run_files import RunFiles

#: What steps call the cost of a limit as a share of what is held, and the dual of a limit.
_LOAD, _DUAL = "load.", "z"
#: Values of steps that have charts of their own, or that tell nothing to people.
_OWN = ("s", "y", "primal", "dual")
#: Most values of a method that get a chart each.
_MOST = 4
#: Names of values -> what they are; others are shown by their names.
VALUES = {
    "gap": "gap between what was asked of a round and what it reached",
    "share": "share of input places that are kept",
    "score": "score of the candidate, on held-out training images",
    "best": "best score so far",
    "sigma": "deviation of the agent's noise",
}


@dataclass(frozen=True)
class Track:
    """Numbers by step."""

    x: Tuple[float, ...]
    y: Tuple[float, ...]


@dataclass(frozen=True)
class Groups:
    """Bounds s and duals y by group.

    Args:
        names: of the groups.
        step: of each row.
        s, y: a tuple for each group, a number for each step.
    """

    names: Tuple[str, ...]
    step: Tuple[float, ...]
    s: Tuple[Tuple[float, ...], ...]
    y: Tuple[Tuple[float, ...], ...]


@dataclass(frozen=True)
class Course:
    """What was told, step by step; what a history does not keep is empty.

    Args:
        loss: of training while pruning.
        finetuning: losses after that; its steps go on from there.
        fitting: losses of the training that --fit-budget ended with; its steps go on in turn.
        phi: metric -> predicted cost as a share of its budget.
        duals: metric, empty where there is only one -> z.
        total: sum of the bounds s, channels, and the largest y.
        groups: s and y by group.
        values: what else the method told.
        missing: what cannot be shown, in words.
    """

    loss: Optional[Track]
    finetuning: Optional[Track]
    fitting: Optional[Track]
    phi: Mapping[str, Track]
    duals: Mapping[str, Track]
    total: Mapping[str, Track]
    groups: Optional[Groups]
    values: Mapping[str, Track]
    missing: Tuple[str, ...]


def course_of(files: RunFiles) -> Course:
    """Return the course of a run.

    Raises: ArtifactError when history.json is damaged.
    """
    if files.history is None:
        return Course(None, None, None, {}, {}, {}, None, {}, ("The run keeps no history.json.",))
    steps = files.history.objects("prune")
    x = tuple(step.number("step") for step in steps)
    loss = Track(x, tuple(step.number("loss") for step in steps)) if steps else None
    values = _values(steps)
    groups = _groups(files.history)
    finetuning = _training(files.history, "finetune", x)
    fitting = _training(files.history, "fitting", x if finetuning is None else finetuning.x)
    return Course(
        loss,
        finetuning,
        fitting,
        _phi(files, steps, values),
        {name[1:].lstrip("."): track for name, track in values.items() if name.partition(".")[0] == _DUAL},
        {name: values[name] for name in ("s", "y") if name in values},
        groups,
        _others(values),
        tuple(_missing(files, steps, groups, finetuning)),
    )  # fmt: skip


def _values(steps: List[Fields]) -> Dict[str, Track]:
    found: Dict[str, Tuple[List[float], List[float]]] = {}
    for step in steps:
        for name, value in step.under("values").all_numbers().items():
            x, y = found.setdefault(name, ([], []))
            x.append(step.number("step"))
            y.append(value)
    return {name: Track(tuple(x), tuple(y)) for name, (x, y) in found.items()}


def _phi(files: RunFiles, steps: List[Fields], values: Mapping[str, Track]) -> Dict[str, Track]:
    """Return predicted costs as shares of the budgets; those that steps tell are shares of what pruning held."""
    request = files.run.under("request")
    asked = [request, *request.objects("further_budgets")]
    found = {}
    for bound, entry in zip(files.bounds, asked):
        track = values.get(f"{_LOAD}{bound.metric.value}")
        if track is not None:
            held = 1.0 + (entry.maybe("margin") or 0.0)
            if held <= 0.0:
                raise ArtifactError(f"margin in {entry.source} is below -1; the file is damaged")
            found[bound.metric.value] = Track(track.x, tuple(one / held for one in track.y))
    if not found and steps:
        first = files.bounds[0]
        shares = tuple(step.number("cost") / first.value for step in steps)
        found[first.metric.value] = Track(tuple(step.number("step") for step in steps), shares)
    return found


def _groups(history: Fields) -> Optional[Groups]:
    told = history.under("course")
    if not told.data:
        return None
    names, step = told.texts("groups"), told.numbers("step")
    s, y = (tuple(map(tuple, told.table(key, len(names)))) for key in ("s", "y"))
    if not step or any(len(column) != len(step) for column in (*s, *y)):
        raise ArtifactError(
            f"course in {history.source} has rows without a step; the file is damaged"
        )
    return Groups(tuple(names), tuple(step), s, y)


def _training(history: Fields, part: str, before: Tuple[float, ...]) -> Optional[Track]:
    """Return the losses of training after pruning, its steps counted on from those before it."""
    told = history.under(part)
    x, y = told.numbers("step"), told.numbers("loss")
    if len(x) != len(y):
        raise ArtifactError(
            f"{part} in {history.source} has steps without a loss; the file is damaged"
        )
    after = before[-1] if before else 0.0
    return Track(tuple(after + one for one in x), tuple(y)) if x else None


def _others(values: Mapping[str, Track]) -> Dict[str, Track]:
    names = [
        name
        for name, track in values.items()
        if name not in _OWN and name.partition(".")[0] not in (_LOAD[:-1], _DUAL) and len(set(track.y)) > 1
    ]  # fmt: skip
    return {name: values[name] for name in names[:_MOST]}


def _missing(
    files: RunFiles, steps: List[Fields], groups: Optional[Groups], finetuning: Optional[Track]
) -> List[str]:
    words = []
    method, status = files.result.text("method", ""), files.result.text("status", "")
    if status == "already_within":
        return ["The dense network is within the budget, so nothing was trained."]
    if not steps:
        words.append(f"{method} chose what goes at once: there are no steps of pruning to show.")
    elif method == "ecc" and groups is None:
        words.append(
            "The run is of a version that kept no bounds and duals by group: sums and largest ones are shown."
        )
    if finetuning is None and (files.result.maybe("finetune_steps") or 0.0) > 0.0:
        words.append("The run is of a version that kept no losses of fine-tuning.")
    return words
