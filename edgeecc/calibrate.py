"""Calibrate: measure width variants of a network on a device, fit its cost model, write its profile.

Needs no torch: it works from a spec and a dense ONNX graph, on the device itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Optional, Protocol, Tuple

import onnx

from edgeecc.artifacts import exclusive, write_bytes
from edgeecc.calibration_fit import Fitting, told
from edgeecc.calibration_folder import device_metric
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.design import Sampling
from edgeecc.cost.fit import HeldoutError
from edgeecc.cost.profile import Profile
from edgeecc.cost.samples import DENSE, THINNEST, Row, SampleStore, check_widths
from edgeecc.cost.stopping import round_ends
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.meters.base import ClockMeter, Measurement, measure
from edgeecc.meters.virtual import LAWS, VirtualDevice
from edgeecc.runtimes.onnxrt import DEVICE as ORT_DEVICE
from edgeecc.runtimes.onnxrt import OnnxRuntime

#: Longest time between commits: what a kill can lose.
COMMIT_S = 0.5
#: How a protocol tells a design.
_DESIGNS = {
    "uniform": "uniform on 1..c for every group",
    "i-optimal": "an I-optimal design first, then uniform on 1..c for every group; held-out ones uniform",
    "d-optimal": "a D-optimal design first, then uniform on 1..c for every group; held-out ones uniform",
}
#: Called with (samples done, samples asked, a note).
OnSample = Callable[[int, int, str], None]


class Bench(Protocol):
    """A device on which variants are measured."""

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant; what simulated noise does depends on `number` alone."""


class VirtualBench:
    """A virtual device: the variant's work is counted, nothing is built."""

    def __init__(self, plan: SlicePlan, device: str, seed: int) -> None:
        self._plan, self._seed = plan, seed
        self._device = VirtualDevice.named(device)

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant in simulated time."""
        self._device.load(work(self._plan, widths), (self._seed, number + 2, 1))
        return measure(self._device.run, self._device, protocol)


class OnnxRuntimeBench:
    """The CPU at hand: the variant is cut, loaded and timed."""

    def __init__(self, plan: SlicePlan) -> None:
        self._plan = plan

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant's latency."""
        del number
        with OnnxRuntime(self._plan.cut(self._plan.spec.keep_first(widths))) as runtime:
            return measure(runtime.run, ClockMeter(runtime.name), protocol)


@dataclass(frozen=True)
class Job:
    """What is calibrated: a network on a device, with its folder."""

    spec: NetworkSpec
    model: onnx.ModelProto
    device: str
    folder: Path


def calibrate(
    job: Job,
    config: CalibrateConfig,
    protocol: MeasureProtocol,
    on_sample: OnSample = lambda done, total, note: None,
    like: Optional[Profile] = None,
) -> Dict[str, object]:  # fmt: skip
    """Measure in rounds, fit after each, and write samples.db, profile.json and PROTOCOL.md.

    Samples that are there already are kept, so an interrupted calibration goes on where it stopped.

    Args:
        job, config, protocol: what is calibrated, and how.
        on_sample: told of progress.
        like: profile of this network on another device, which warms this one up.
    Returns: what `edgeecc calibrate --json` prints.
    Raises: ConfigError when the network has nothing to prune or the device measures nothing here;
        ArtifactError when the folder holds another calibration or cannot be written, or `like` is of another network.
    """
    if not job.spec.prunable:
        raise ConfigError(f"{job.spec.network} has no prunable group; edgeecc inspect says why")
    plan = SlicePlan.build(job.model, job.spec)
    bench = make_bench(plan, job.device, config.seed)
    fitting = Fitting(
        job.spec, job.device, device_metric(job.device), config, protocol,
        like=None if like is None else like.cost_for(job.spec),
    )  # fmt: skip
    sampling = Sampling(job.spec, seed=config.seed, design=config.design, heldout=config.heldout)

    def measured(number: int, widths: Widths) -> Tuple[Row, str]:
        found = bench.measure(number, widths, protocol)
        return _row(number, job.spec, widths, found), found.meter

    def on_done(done: int, note: str) -> None:
        on_sample(done, config.samples, note)

    with exclusive(job.folder, "wait for it or choose another --workspace"):
        with SampleStore(job.folder / "samples.db", _identity(job, config, protocol)) as store:
            before = len([n for n in store.numbers() if 0 <= n < config.samples])
            started = perf_counter()
            for end in round_ends(config.samples) if config.target_error else [config.samples]:
                if end < before:
                    continue  # an earlier calibration went on after this round
                meter = _measure_missing(store, measured, sampling, end, on_done)
                rows = [row for row in store.rows() if row.number < end]
                groups = [group.name for group in job.spec.prunable]
                check_widths(rows, groups, sampling.widths, source=job.folder / "samples.db")
                on_sample(end, config.samples, "fitting")
                fitted = fitting(rows, sampling, meter)
                if fitted.upper_error < config.target_error:
                    break
            seconds = perf_counter() - started
        profile = fitted.profile
        profile.save(job.folder / "profile.json")
        write_bytes(job.folder / "PROTOCOL.md", _protocol_text(profile).encode())
    return {
        "profile": str(job.folder / "profile.json"),
        "samples": end,
        "asked": config.samples,
        "heldout_error": asdict(profile.heldout) if profile.heldout else None,
        "upper_error": fitted.upper_error,
        "target_error": config.target_error,
        "margin": asdict(profile.margin()),
        "model": profile.form,
        "fit": profile.fit,
        "design": profile.design,
        "tried": told(fitted.tried),
        "meter": profile.meter,
        "variants_per_s": (end - before) / max(1e-9, seconds),
        "resumed_from": before,
    }


def check_measurable(device: str) -> None:
    """Check that a device can be measured from here; asked before a network is traced, which may take a minute.

    Raises: ConfigError for an unknown device, or one that cannot.
    """
    device_metric(device)
    if not device.startswith("virtual:") and device != ORT_DEVICE:
        raise ConfigError(
            f"{device} cannot be measured by this version; its shipped profile can be used with --device"
        )


def make_bench(plan: SlicePlan, device: str, seed: int) -> Bench:
    """Return the bench of a device.

    Raises: ConfigError for an unknown device, or one that cannot be measured from here.
    """
    check_measurable(device)
    if device == ORT_DEVICE:
        return OnnxRuntimeBench(plan)
    return VirtualBench(plan, device, seed)


def _measure_missing(
    store: SampleStore,
    measured: Callable[[int, Widths], Tuple[Row, str]],
    sampling: Sampling,
    end: int,
    on_done: Callable[[int, str], None],
) -> str:  # fmt: skip
    """Measure the anchors and the samples below `end` that are not there, and return the meter."""
    present = store.numbers()
    missing = [number for number in (THINNEST, DENSE, *range(end)) if number not in present]
    done = end - len([number for number in missing if number >= 0])
    pending: List[Row] = []
    last = perf_counter()
    meter = ""
    try:
        for number in missing:
            row, meter = measured(number, sampling.widths(number))
            pending.append(row)
            done += number >= 0
            if perf_counter() - last >= COMMIT_S:
                store.add(pending)
                pending, last = [], perf_counter()
                on_done(done, f"{row.windows} windows")
    finally:
        store.add(pending)  # also on Ctrl-C or when a meter fails: what is measured is kept
    on_done(done, "")
    return meter or measured(DENSE, sampling.widths(DENSE))[1]


def _identity(job: Job, config: CalibrateConfig, protocol: MeasureProtocol) -> Dict[str, object]:
    """Return what the samples of a store are of."""
    identity: Dict[str, object] = {
        "fingerprint": job.spec.fingerprint(),
        "device": job.device,
        "protocol": asdict(protocol),
        "seed": config.seed,
        # A store must not mix samples of two laws, should a virtual device's constants ever change.
        "law": _law_fingerprint(job.device),
    }
    if config.design != "uniform":  # stores of versions that knew no other name none
        identity["design"] = config.design
    return identity


def _law_fingerprint(device: str) -> Optional[str]:
    if device not in LAWS:
        return None
    text = json.dumps(asdict(LAWS[device]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _row(number: int, spec: NetworkSpec, widths: Widths, found: Measurement) -> Row:
    is_energy = found.energy_j is not None
    return Row(
        number=number,
        widths=[widths[group.name] for group in spec.prunable],
        value=found.energy_j if found.energy_j is not None else found.latency_s,
        standard_error=found.energy_se_j,
        spread=found.energy_iqr_j if is_energy else found.latency_iqr_s,
        latency_s=found.latency_s,
        windows=found.windows,
        runs=found.runs,
        converged=found.converged,
    )


def _protocol_text(profile: Profile) -> str:
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
        "",
    ]
    return "\n".join(lines)
