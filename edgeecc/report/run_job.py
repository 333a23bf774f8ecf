"""Report of a run: from its folder to RUN/report.html; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

from edgeecc.artifacts import write_bytes
from edgeecc.report import course as courses
from edgeecc.report import reproduce, run_charts, run_numbers, standing, why
from edgeecc.report.run_evidence import calibration_near
from edgeecc.report.run_files import RunFiles, read_run_files
from edgeecc.report.run_page import RunReport, page
from edgeecc.report.run_tables import engine_tables
from edgeecc.report.svg import Chart, check_here
from edgeecc.report.weights import weight_layers
from edgeecc.run_folder import RunFolder

#: Name of the page in the folder of a run or a calibration.
PAGE = "report.html"


def run(folder: RunFolder, workspace: Path) -> Dict[str, object]:
    """Write RUN/report.html; nothing else of the run is changed.

    Args:
        folder: of a finished run.
        workspace: where the calibration that its cost model came from may lie.
    Returns: what `edgeecc report --json` prints.
    Raises: RuntimeUnavailableError when matplotlib is not here; ArtifactError when the run is not finished, a file is
        damaged, they do not belong together, or the folder cannot be written.
    """
    check_here()
    report = told_of(read_run_files(folder), workspace)
    drawn = charts_of(report)
    write_bytes(folder.file(PAGE), page(report, drawn).encode())
    names = [chart.name for part in drawn.values() for chart in part]
    return {"report": str(folder.file(PAGE)), "charts": names, **as_json(report)}


def as_json(report: RunReport) -> Dict[str, object]:
    """Return the numbers of a report as JSON; SI."""
    return {
        "run": str(report.files.folder.path),
        "network": report.files.network,
        "method": report.files.result.text("method", ""),
        **standing.as_json(report.standing),
        **run_numbers.as_json(report.rows, report.calibrations),
        "why": [why.as_json(gap) for gap in report.gaps],
        "weights": [vars(layer) for layer in report.weights],
        "rounds": report.rounds,
        "reproduce": reproduce.as_json(report.recipe),
        "outdated": list(report.files.outdated),
    }


def told_of(files: RunFiles, workspace: Path) -> RunReport:
    """Return what is told of a run."""
    calibrations = run_numbers.calibrations_of(files)
    tiles = {one.metric: one.profile.model.tile for one in calibrations}
    explained = files.explained
    return RunReport(
        files,
        standing.standing_of(files),
        run_numbers.rows_of(files),
        calibrations,
        tuple(calibration_near(files, one.profile, workspace) for one in calibrations),
        () if explained is None else why.gaps_of(explained, files.spec, tiles),
        weight_layers(files),
        courses.course_of(files),
        reproduce.recipe_of(files),
        run_numbers.rounds_of(files),
        engine_tables(files),
    )


def charts_of(report: RunReport) -> Dict[str, List[Chart]]:
    """Return the charts of each part of the page."""
    layers: List[Chart] = []
    if report.weights:
        layers.append(run_charts.density_chart(report.weights))
        if report.weights[0].energy is not None:
            meter = report.standing.asked[0].predicted.meter
            layers.append(run_charts.array_chart(report.weights, meter))
    if report.files.explained is not None:
        layers += run_charts.widths_chart(report.files.explained["widths"])
        layers += [run_charts.costs_chart(gap) for gap in report.gaps]
    pairs = zip(report.calibrations, report.near)
    return {
        "layers": layers,
        "why": [run_charts.gap_chart(gap) for gap in report.gaps],
        "course": run_charts.course_charts(report.course, report.files.result.text("method", "")),
        "calibration": [
            chart for one, near in pairs for chart in run_charts.calibration_chart(one.metric, near)
        ],
    }
