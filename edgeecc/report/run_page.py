"""The page of a run: first the verdict, then the numbers, then the charts, then how to make it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from edgeecc.report.course import Course
from edgeecc.report.page import (
    Html,
    beside,
    charts,
    code,
    details,
    document,
    pairs,
    paragraph,
    points,
    section,
    table,
    tiles,
    verdict,
)
from edgeecc.report.reproduce import Recipe, command
from edgeecc.report.run_evidence import Near
from edgeecc.report.run_files import RunFiles
from edgeecc.report.run_numbers import Calibration, Row
from edgeecc.report.run_summary import asked_words, ground, open_ends, tiles_of
from edgeecc.report.run_tables import (
    Table,
    budget_rows,
    density_rows,
    gap_rows,
    network_rows,
    round_rows,
    width_rows,
)
from edgeecc.report.standing import Standing, words_of
from edgeecc.report.svg import Chart
from edgeecc.report.weights import WeightLayer
from edgeecc.report.why import Gap

_ZEROS = (
    "No channel went: the network keeps its shape and gains zeros, which save energy only on hardware that skips them. "
    "Dense energies are counted as budgets count them, an upper bound; those with zeros exactly."
)
#: Rows of a table that stands open.
_OPEN = 30
_FOOT = "Every figure stands beside its meter; what is called a model is predicted."


@dataclass(frozen=True)
class RunReport:
    """Everything that the page of a run shows.

    Args:
        files: the run.
        standing: what can be said of its budgets.
        rows: its networks.
        calibrations, near: its cost models, and where each came from.
        gaps: why costs fell as they did; empty for single weights.
        weights: layers of a run that removed single weights.
        course: of its solver.
        recipe: how it is made again.
        rounds: of export --fit-budget.
        engines: name, what is told, and largest layers of each.
    """

    files: RunFiles
    standing: Standing
    rows: Tuple[Row, ...]
    calibrations: Tuple[Calibration, ...]
    near: Tuple[Near, ...]
    gaps: Tuple[Gap, ...]
    weights: Tuple[WeightLayer, ...]
    course: Course
    recipe: Recipe
    rounds: List[Dict[str, object]]
    engines: List[Tuple[str, Dict[str, str], Table]]


def page(report: RunReport, drawn: Mapping[str, Sequence[Chart]]) -> str:
    """Return the HTML text.

    Args:
        report: what is told.
        drawn: charts of "layers", "why", "course" and "calibration".
    """
    files, standing = report.files, report.standing
    asked = " and ".join(map(asked_words, files.bounds))
    name = files.folder.path.resolve().name
    last = next(row for row in reversed(report.rows) if not row.name.startswith("engine"))
    head = [
        paragraph(f"Pruned by {files.result.text('method', '?')} to {asked}. Run {name}.", "muted"),
        verdict(*words_of(standing), [ground(one) for one in standing.asked]),
        tiles(tiles_of(standing, report.rows[0], last, files.kind)),
    ]  # fmt: skip
    networks = table(*network_rows(report.rows), "networks of the run")
    body = [
        section("Asked and reached", table(*budget_rows(standing), "budgets"), points(open_ends(files, standing))),
        section("The networks", networks, *_rounds(report)),
        _layers(report, drawn["layers"]),
        *_why(report, drawn["why"]),
        section("Course of the run", points(report.course.missing), charts(drawn["course"])),
        *_calibration(report, drawn["calibration"]),
        *_engines(report),
        _recipe(report.recipe),
    ]  # fmt: skip
    made = files.result.under("made_by").text("made_at", "on a day that is not told")
    return document(
        f"{files.network} within {asked}",
        head,
        body,
        f"{files.folder.path}, finished {made}. {_FOOT}",
    )


def _rounds(report: RunReport) -> List[Html]:
    if not report.rounds:
        return []
    fit = report.files.result.under("fit_budget")
    holds = "holds" if fit.flag("holds") else "does NOT hold"
    words = (
        f"Brought to its budget by export --fit-budget: round {fit.number('chosen'):g} {holds} it with "
        f"{fit.number('confidence'):g} confidence ({fit.text('reason', '')}), then {fit.number('finetune_steps'):g} "
        "steps of fine-tuning."
    )
    return [paragraph(words), table(*round_rows(report.rounds), "rounds of fit-budget")]


def _layers(report: RunReport, shown: Sequence[Chart]) -> Html:
    if report.weights:
        words, rows = _ZEROS, table(*density_rows(report.weights), "layers")
        if report.weights[0].energy is None:
            words += (
                f" {command('export', path=report.files.folder.path)} counts what the zeros save."
            )
    else:
        explained = report.files.explained or {}
        widths: Mapping[str, Tuple[int, int]] = explained.get("widths", {})
        whole = sum(1 for group in report.files.spec.groups if not group.prunable)
        rows = table(*width_rows(widths), "widths")
        words = f"Groups of channels that may be pruned: {len(widths)}; that stay whole: {whole}."
    return section("Layer by layer", paragraph(words), charts(shown), details("As a table", rows))


def _why(report: RunReport, shown: Sequence[Chart]) -> List[Html]:
    found = []
    for gap in report.gaps:
        chart = [one for one in shown if one.name == f"gap-{gap.metric.value}"]
        rows = table(*gap_rows(gap), f"{gap.metric.value} by layer")
        fell = "less" if gap.share > gap.mac_share else "more"
        heading = f"Why {gap.metric.value} fell {fell} than the MACs"
        told = beside(points(gap.words), charts(chart))
        is_open = len(gap.layers) <= _OPEN
        found.append(section(heading, told, details("Layer by layer", rows, is_open=is_open)))
    return found


def _calibration(report: RunReport, shown: Sequence[Chart]) -> List[Html]:
    found = []
    for one, near in zip(report.calibrations, report.near):
        chart = [each for each in shown if each.name == f"predicted-{one.metric.value}"]
        told = Html(
            pairs(_quality(one), f"cost model of {one.metric.value}") + paragraph(near.words)
        )
        heading = f"How good the model of {one.metric.value} is"
        found.append(section(heading, beside(told, charts(chart))))
    return found


def _quality(one: Calibration) -> Dict[str, str]:
    profile, error = one.profile, one.profile.heldout
    samples = ", ".join(f"{count} {name}" for name, count in profile.samples.items())
    told = {
        "model": f"{profile.form} by {profile.fit}",
        "figures": profile.model.meter,
        "measured by": profile.meter,
        "samples": samples or "not told",
    }
    if error is not None:
        told["held-out error"] = f"mean {error.mean:.2%}, p95 {error.p95:.2%}, max {error.max:.2%}"
    confidence = "" if one.confidence is None else f", for {one.confidence:.3g} confidence"
    told["held off the budget"] = f"{one.margin:.2%}{confidence}"
    return {**told, "note": profile.note} if profile.note else told


def _engines(report: RunReport) -> List[Html]:
    found = [
        Html(pairs(told, f"engine {name}") + table(*layers, f"largest layers of engine {name}"))
        for name, told, layers in report.engines
    ]
    return [section("Engines", *found)] if found else []


def _recipe(recipe: Recipe) -> Html:
    made = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    notes = [*recipe.notes, f"The run was made by {made}."]
    commands = code(recipe.text()) if recipe.commands else Html("")
    return section("How to make it again", commands, points(notes))
