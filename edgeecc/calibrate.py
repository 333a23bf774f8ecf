"""Calibrate: measure width variants of a network on a device, fit its cost model, write its profile.

Needs no torch: it works from a spec and a dense ONNX graph, on the device itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, Mapping, Optional

import onnx

from edgeecc.artifacts import exclusive, write_bytes, write_json
from edgeecc.bench import open_bench
from edgeecc.calibration_fit import Fitted, Fitting, recipes_told
from edgeecc.calibration_folder import device_metric
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.design import Sampling
from edgeecc.cost.fit import HeldoutError
from edgeecc.cost.offsets import corrected, offsets, per_board
from edgeecc.cost.profile import Profile
from edgeecc.cost.rows import check_widths, identity_of
from edgeecc.cost.samples import DENSE, THINNEST, SampleStore
from edgeecc.cost.stopping import round_ends
from edgeecc.crew import BenchCrew, Crew, boards_told, keep
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import NetworkSpec
from edgeecc.meters.virtual import LAWS
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.run_folder import SPEC_SCHEMA

#: How a protocol tells a design.
_DESIGNS = {
    "uniform": "uniform on 1..c for every group",
    "i-optimal": "an I-optimal design first, then uniform on 1..c for every group; held-out ones uniform",
    "d-optimal": "a D-optimal design first, then uniform on 1..c for every group; held-out ones uniform",
}
#: How it tells what a bench says of its device.
_ABOUT = {"idle_power_w": "Idle power, W", "conditions": "The device afterwards"}
#: What progress calls it.
MEASURING, FITTING = "measuring", "fitting"


@dataclass(frozen=True)
class Job:
    """What is calibrated: a network on a device, with its folder.

    Args:
        spec, model: of the network.
        device: its name.
        folder: of the calibration; keeps the spec, for reports.
        leaves_graph: whether it keeps the dense graph too, so that the same can be calibrated on a board.
    """

    spec: NetworkSpec
    model: onnx.ModelProto
    device: str
    folder: Path
    leaves_graph: bool = False


def calibrate(
    job: Job,
    config: CalibrateConfig,
    protocol: MeasureProtocol,
    on_progress: OnProgress = silent,
    *,
    crew: Optional[Crew] = None,
    like: Optional[Profile] = None,
) -> Dict[str, object]:  # fmt: skip
    """Measure in rounds, fit after each, and write samples.db, profile.json and PROTOCOL.md.

    Samples that are there already are kept, so an interrupted calibration goes on where it stopped. Where several
    boards measured, what is fitted is corrected by their offsets; the store keeps what they measured.

    Args:
        job, config, protocol: what is calibrated, and how.
        on_progress: told of samples and fits.
        crew: who measures; None is the device at hand.
        like: profile of this network on another device, which warms this one up.
    Returns: what `edgeecc calibrate --json` prints.
    Raises: ConfigError when the network has nothing to prune or the device measures nothing here;
        ArtifactError when the folder holds another calibration or cannot be written, or `like` is of another network.
    """
    if not job.spec.prunable:
        raise ConfigError(f"{job.spec.network} has no prunable group; edgeecc inspect says why")
    fitting = Fitting(
        job.spec, job.device, device_metric(job.device), config, protocol,
        like=None if like is None else like.cost_for(job.spec),
    )  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(exclusive(job.folder, "wait for it or choose another --workspace"))
        if crew is None:
            plan = SlicePlan.build(job.model, job.spec)
            bench = stack.enter_context(open_bench(plan, job.device, config.seed, job.folder))
            crew = BenchCrew(bench, job.spec, protocol)
        with SampleStore(job.folder / "samples.db", _identity(job, config, protocol)) as store:
            _leave_network(job)
            before = len([n for n in store.numbers() if 0 <= n < config.samples])
            started = perf_counter()
            fitted = _rounds(store, crew, fitting, before, on_progress)
            seconds = perf_counter() - started
            now = crew.about()
            if now:
                store.tell(now)
            about = store.about()
            failures = store.failures()
        profile = fitted.profile
        profile.save(job.folder / "profile.json")
        write_bytes(job.folder / "PROTOCOL.md", _protocol_text(profile, about).encode())
    samples = sum(profile.samples.values())
    return {
        "profile": str(job.folder / "profile.json"),
        "samples": samples,
        "asked": config.samples,
        "heldout_error": asdict(profile.heldout) if profile.heldout else None,
        "upper_error": fitted.upper_error,
        "target_error": config.target_error,
        "margin": asdict(profile.margin()),
        "model": profile.form,
        "fit": profile.fit,
        "design": profile.design,
        "tried": recipes_told(fitted.tried),
        "meter": profile.meter,
        "variants_per_s": (samples - before) / max(1e-9, seconds),
        "resumed_from": before,
        "boards": boards_told(profile, crew),
        "about": dict(about),
        "failed": [asdict(failure) for failure in failures],
    }


def _leave_network(job: Job) -> None:
    """Write spec.json and, where that is asked for, dense.onnx into a folder that is held and of this network."""
    write_json(job.folder / "spec.json", SPEC_SCHEMA, {"spec": job.spec.to_json()})
    if job.leaves_graph:
        write_bytes(job.folder / "dense.onnx", job.model.SerializeToString())


def _rounds(
    store: SampleStore, crew: Crew, fitting: Fitting, before: int, on_progress: OnProgress
) -> Fitted:
    """Measure and fit until the held-out error is low enough or all samples are spent.

    Args:
        before: samples that are there: an earlier calibration went on after rounds that end below.
    """
    spec, config = fitting.spec, fitting.config
    sampling = Sampling(spec, seed=config.seed, design=config.design, heldout=config.heldout)
    groups = [group.name for group in spec.prunable]
    ends = round_ends(config.samples) if config.target_error else [config.samples]
    teller = _Teller(crew, config, on_progress)
    for end in (end for end in ends if end >= before):
        _measure_missing(store, crew, sampling, end, teller.measured)
        rows = [row for row in store.rows() if row.number < end]
        check_widths(rows, groups, sampling.widths, source=store.path)
        boards = offsets([*rows, *store.repeats()], config.reference)
        teller.fits(end)
        fitted = fitting(corrected(rows, boards), sampling, crew.meter())
        teller.error = fitted.upper_error
        if fitted.upper_error < config.target_error:
            break
    return replace(fitted, profile=replace(fitted.profile, boards=per_board(rows, boards)))


class _Teller:
    """Tells the progress of a calibration.

    Args:
        crew: who measures.
        config: see `CalibrateConfig`.
        on_progress: is told.
    """

    def __init__(self, crew: Crew, config: CalibrateConfig, on_progress: OnProgress) -> None:
        self._crew, self._config, self._on_progress = crew, config, on_progress
        self._round = 1
        #: What the mean held-out error is at most, by the last fit.
        self.error: Optional[float] = None

    def measured(self, done: int) -> None:
        """Tell how many samples there are."""
        self._tell(MEASURING, done, self._crew.note)

    def fits(self, done: int) -> None:
        """Tell that a cost model is fitted to so many samples."""
        self._tell(FITTING, done, self._crew.note)
        self._round += 1

    def _tell(self, phase: str, done: int, note: str) -> None:
        wanted = self._config.target_error
        if wanted:
            note = f"round {self._round}  {note}".rstrip()
        if self.error is not None and math.isfinite(self.error):
            aim = f" of {wanted:.1%} wanted" if wanted else ""
            note = f"error at most {self.error:.1%}{aim}" + (f"  {note}" if note else "")
        self._on_progress(
            Progress(phase, done, self._config.samples, "samples", at_most=bool(wanted), note=note)
        )


def _measure_missing(
    store: SampleStore, crew: Crew, sampling: Sampling, end: int, on_done: Callable[[int], None]
) -> None:
    """Measure the anchors and the samples below `end` that are not there."""
    while True:
        present = store.numbers() | {failure.number for failure in store.failures()}
        missing = [number for number in (THINNEST, DENSE, *range(end)) if number not in present]
        if not missing:
            return
        tasks = [(number, sampling.widths(number)) for number in missing]
        done = end - len([number for number in missing if number >= 0])
        on_done(done)
        for more in keep(store, crew, tasks):
            on_done(done + more)


def _identity(job: Job, config: CalibrateConfig, protocol: MeasureProtocol) -> Dict[str, object]:
    """Return what the samples of a store are of; it must not mix two laws, should a virtual device's ever change."""
    identity = identity_of(
        fingerprint=job.spec.fingerprint(), device=job.device, protocol=asdict(protocol), seed=config.seed,
        design=config.design,
    )  # fmt: skip
    return {**identity, "law": _law_fingerprint(job.device)}


def _law_fingerprint(device: str) -> Optional[str]:
    if device not in LAWS:
        return None
    text = json.dumps(asdict(LAWS[device]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _protocol_text(profile: Profile, about: Mapping[str, object]) -> str:
    error = profile.heldout or HeldoutError(0.0, 0.0, 0.0)
    protocol = ", ".join(f"{key} {value}" for key, value in profile.protocol.items())
    anchors = ", ".join(f"{key} {value:.4g}" for key, value in profile.anchors.items())
    errors = f"mean {error.mean:.2%}, p95 {error.p95:.2%}, max {error.max:.2%}"
    lines = [
        f"# Calibration of {profile.network} on {profile.device}",
        "",
        f"- Meter: {profile.meter}. Metric: {profile.metric.value}, {profile.metric.unit} per inference, batch 1.",
        f"- Widths: {_DESIGNS[profile.design]}; seed {profile.seed}; input and output whole.",
        f"- Samples: {profile.samples['train']} fitted, {profile.samples['heldout']} held out.",
        f"- Model: {profile.form}, fitted by {profile.fit}. Held-out relative error: {errors}.",
        f"- Anchors (measured, not fitted): {anchors} {profile.metric.unit}.",
        f"- A sample: {protocol}; idle power is not subtracted.",
        *(f"- {_ABOUT[key]}: {value}." for key, value in about.items()),
        *profile.board_lines(),
        "",
    ]
    return "\n".join(lines)
