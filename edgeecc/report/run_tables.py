"""The tables of a run: their columns, and rows of text."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.report.fields import Fields
from edgeecc.report.page import Cell, Column, colored, with_meter
from edgeecc.report.run_files import RunFiles
from edgeecc.report.run_numbers import Row
from edgeecc.report.run_summary import name_of
from edgeecc.report.standing import Asked, Figure, Finding, Standing
from edgeecc.report.weights import WeightLayer
from edgeecc.report.why import Gap
from edgeecc.units import Metric, format_quantity

#: Columns and rows of a table.
Table = Tuple[Sequence[Column], List[Sequence[Cell]]]
_VERDICTS = {True: ("good", "held"), False: ("bad", "MISSED"), None: ("unsure", "not known")}


def budget_rows(standing: Standing) -> Table:
    """Return what was asked and what each command found."""
    columns = (
        Column("budget"), Column("at most", "n"), Column("found by"), Column("found", "n"), Column("to budget", "n"),
        Column("verdict"), Column("meter", "wide"),
    )  # fmt: skip
    rows: List[Sequence[Cell]] = []
    for one in standing.asked:
        listed = list(one.findings)
        if all(each.by != "prune" for each in listed):
            listed.append(Finding("prune (predicted)", one.predicted, None, "predicted"))
        rows += [_finding(one, each) for each in listed]
    return columns, rows


def _finding(one: Asked, each: Finding) -> Sequence[Cell]:
    metric = one.bound.metric
    kind, word = _VERDICTS[each.within]
    if each.figure is None:
        return (
            _asked(one),
            format_quantity(one.bound.value, metric),
            each.by,
            "no meter",
            "",
            colored(kind, word),
            "none here",
        )
    if each.by.startswith("prune") and each.within is None:
        kind, word = "muted", f"{one.margin:.1%} held off" if one.margin else "predicted"
    return (
        _asked(one),
        format_quantity(one.bound.value, metric),
        each.by,
        value_of(each.figure, metric),
        f"{each.figure.value / one.bound.value - 1.0:+.1%}",
        colored(kind, word),
        each.figure.meter,
    )


def _asked(one: Asked) -> str:
    device = f" on {one.bound.device}" if one.bound.device else ""
    text = "" if one.bound.text == "" else f"{one.bound.text} "
    return f"{text}{name_of(one.bound.metric)}{device}"


def network_rows(rows: Sequence[Row]) -> Table:
    """Return the networks of a run side by side."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    columns = [Column("network"), *(Column(name, "n") for name in names), Column("images", "n")]
    told: List[Tuple[Metric, str]] = [(Metric.ENERGY, "energy"), (Metric.LATENCY, "latency")]
    there = [(m, n) for m, n in told if any(getattr(row, n) for row in rows)]
    columns += [Column(name, "n") for _, name in there]
    columns += [Column("parameters", "n"), Column("MACs", "n"), Column("size", "n")]
    return columns, [_network(row, names, there) for row in rows]


def _network(row: Row, names: Sequence[str], there: Sequence[Tuple[Metric, str]]) -> Sequence[Cell]:
    cells: List[Cell] = [row.name]
    cells += [f"{row.scores[name]:.2%}" if name in row.scores else "" for name in names]
    cells.append("" if row.images is None else f"{row.images}")
    for metric, name in there:
        figure: Optional[Figure] = getattr(row, name)
        cells.append("" if figure is None else with_meter(value_of(figure, metric), figure.meter))
    cells.append("" if row.params is None else f"{row.params:,.0f}")
    cells.append("" if row.macs is None else format_quantity(row.macs, Metric.MACS))
    cells.append("" if row.size_b is None else format_quantity(row.size_b, Metric.SIZE))
    return cells


def value_of(figure: Figure, metric: Metric) -> str:
    """Return a value with half of its 95 % interval, where that is known."""
    if figure.low is None or figure.high is None:
        return format_quantity(figure.value, metric)
    return with_half(
        figure.value, max(figure.high - figure.value, figure.value - figure.low), metric
    )


def with_half(value: float, half: float, metric: Metric) -> str:
    """Return a value and what stands after its plus and minus, in one unit."""
    number, _, unit = format_quantity(value, metric).partition(" ")
    scale = float(number) / value if value else 1.0
    return f"{number} ± {half * scale:.2g} {unit}"


def round_rows(rounds: Sequence[Mapping[str, object]]) -> Table:
    """Return the rounds of export --fit-budget."""
    columns = (
        Column("round"), Column("metric"), Column("measured", "n"), Column("to budget", "n"), Column("units", "n"),
        Column("accuracy", "n"), Column("meter"),
    )  # fmt: skip
    rows: List[Sequence[Cell]] = []
    for told in rounds:
        metric, accuracy = Metric(told["metric"]), told["accuracy"]
        measured, error, budget = (
            float(str(told[key])) for key in ("measured", "standard_error", "budget")
        )
        rows.append(
            (
                f"{told['round']}{', taken' if told['chosen'] else ''}",
                metric.value,
                f"{with_half(measured, error, metric)} (s.e.)",
                f"{measured / budget - 1.0:+.2%}",
                f"-{told['removed']} +{told['returned']}",
                "" if accuracy is None else f"{float(str(accuracy)):.2%}",
                str(told["meter"]),
            )
        )
    return columns, rows


def width_rows(widths: Mapping[str, Tuple[int, int]]) -> Table:
    """Return the channels of every group."""
    columns = (Column("group"), Column("dense", "n"), Column("kept", "n"), Column("share", "n"))
    rows: List[Sequence[Cell]] = [
        (name, f"{dense}", f"{kept}", f"{kept / max(1, dense):.1%}")
        for name, (kept, dense) in widths.items()
    ]
    return columns, rows


def gap_rows(gap: Gap) -> Table:
    """Return every layer with what it adds to the gap, and why."""
    columns = (
        Column("layer"), Column("channels in x out"), Column("MACs kept", "n"), Column("dense", "n"),
        Column("pruned", "n"), Column("kept", "n"), Column("points", "n"), Column("MACs a byte", "n"),
        Column("why", "wide"),
    )  # fmt: skip
    rows: List[Sequence[Cell]] = [
        (
            part.name + (" (channels)" if part.kind == "group" else ""),
            part.channels.replace("->", "→"),
            "" if part.macs_share is None else f"{part.macs_share:.1%}",
            format_quantity(part.dense, gap.metric),
            format_quantity(part.slim, gap.metric),
            f"{part.slim / part.dense:.1%}" if part.dense else "",
            f"{part.points:+.2f}",
            "" if part.macs_per_byte is None else " → ".join(f"{one:.3g}" for one in part.macs_per_byte),
            part.why,
        )
        for part in gap.layers
    ]  # fmt: skip
    if gap.fixed > 0.0:
        cost = format_quantity(gap.fixed, gap.metric)
        total = sum(part.dense for part in gap.layers) + gap.fixed
        points = f"{100.0 * (1.0 - gap.mac_share) * gap.fixed / total:+.2f}"
        rows.append(
            ("fixed cost", "", "", cost, cost, "100.0%", points, "", "every inference pays it")
        )
    return columns, rows


def density_rows(layers: Sequence[WeightLayer]) -> Table:
    """Return every layer of a run that removed single weights."""
    levels = list(dict.fromkeys(name for layer in layers for name in layer.levels))
    columns = [
        Column("layer"), Column("weights kept", "n"), Column("inputs kept", "n"), Column("N:M"), Column("dense", "n"),
        Column("with zeros", "n"), *(Column(f"of that {name}", "n") for name in levels),
    ]  # fmt: skip
    rows: List[Sequence[Cell]] = [
        (
            layer.name,
            f"{layer.density:.1%}",
            "" if layer.mask_density is None else f"{layer.mask_density:.1%}",
            layer.pattern,
            format_quantity(layer.dense, Metric.ACCESSES),
            "" if layer.energy is None else format_quantity(layer.energy, Metric.ACCESSES),
            *(format_quantity(layer.levels[name], Metric.ACCESSES) if name in layer.levels else "" for name in levels),
        )
        for layer in layers
    ]  # fmt: skip
    return columns, rows


def engine_tables(files: RunFiles) -> List[Tuple[str, Dict[str, str], Table]]:
    """Return the name of each engine, what is told of it, and its largest layers."""
    return [(name, _engine(manifest), _largest(manifest)) for name, manifest in files.engines]


def _engine(manifest: Fields) -> Dict[str, str]:
    build, summary = manifest.under("build"), manifest.under("summary")
    told = {
        "engine": f"{manifest.text('device')}, {manifest.text('runtime')}",
        "file": f"{manifest.text('engine')}, sha256 {manifest.text('engine_sha256')[:16]}",
        "verdict": manifest.text("verdict", "not told"),
        "against ONNX Runtime": f"{manifest.number('onnxruntime_relative'):.2%} of the outputs, "
        f"{manifest.number('onnxruntime_max_abs'):.2e} at most",
    }
    if summary.data:
        precisions = summary.under("precisions").all_numbers()
        parts = ", ".join(f"{count:g} in {name}" for name, count in precisions.items())
        told["layers after fusion"] = f"{summary.number('layers'):g}: {parts}"
    if build.data:
        size = format_quantity(build.number("engine_bytes"), Metric.SIZE)
        told["build"] = f"{build.text('tensorrt')}, {build.number('build_s'):.1f} s, {size}"
        sparse = build.under("sparse")
        if sparse.data:
            told["sparse kernels"] = (
                f"in {sparse.number('chosen'):g} of {sparse.number('eligible'):g} layers whose weights allow them"
            )
        if build.texts("notes"):
            told["notes"] = "; ".join(build.texts("notes"))
    conditions = manifest.under("conditions")
    held = conditions.texts("held_back") + conditions.texts("alerts")
    if conditions.data:
        told["while measured"] = ", ".join([conditions.text("mode", "mode not told"), *held])
    return told


def _largest(manifest: Fields) -> Table:
    columns = (
        Column("layer"),
        Column("kind"),
        Column("weights", "n"),
        Column("elements written", "n"),
    )
    rows: List[Sequence[Cell]] = [
        (one.text("name"), one.text("kind", ""), f"{one.number('weights'):,.0f}", f"{one.number('written'):,.0f}")
        for one in manifest.under("summary").objects("largest")
    ]  # fmt: skip
    return columns, rows
