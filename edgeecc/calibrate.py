"""Calibrate: measure width variants of a network on a device, fit its cost model, write its profile.

Needs no torch: it works from a spec and a dense ONNX graph, on the device itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Optional, Protocol, Sequence, Tuple

import onnx

from edgeecc.artifacts import exclusive, write_bytes
from edgeecc.calibration_folder import device_metric
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.choose import Tried, choose
from edgeecc.cost.fit import HeldoutError, fit, heldout_error, split
from edgeecc.cost.forms import Form
from edgeecc.cost.offsets import corrected, offsets, per_board
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.samples import (
    DENSE,
    THINNEST,
    Row,
    SampleStore,
    as_arrays,
    check_widths,
    sample_widths,
)
from edgeecc.crew import BenchCrew, Crew, keep, told
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import FloatArray, NetworkSpec, Widths
from edgeecc.meters.base import ClockMeter, Measurement, measure
from edgeecc.meters.virtual import LAWS, VirtualDevice
from edgeecc.runtimes.onnxrt import DEVICE as ORT_DEVICE
from edgeecc.runtimes.onnxrt import OnnxRuntime

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
    crew: Optional[Crew] = None,
) -> Dict[str, object]:  # fmt: skip
    """Measure, fit and write samples.db, profile.json and PROTOCOL.md.

    Samples that are there already are kept, so an interrupted calibration goes on where it stopped. Where several
    boards measured, what is fitted is corrected by their offsets; the store keeps what they measured.

    Args:
        job, config, protocol: what is calibrated and how.
        on_sample: told of progress.
        crew: who measures; None is the device at hand.
    Returns: what `edgeecc calibrate --json` prints.
    Raises: ConfigError when the network has nothing to prune or the device measures nothing here;
        ArtifactError when the folder holds another calibration or cannot be written.
    """
    if not job.spec.prunable:
        raise ConfigError(f"{job.spec.network} has no prunable group; edgeecc inspect says why")
    if crew is None:
        bench = make_bench(SlicePlan.build(job.model, job.spec), job.device, config.seed)
        crew = BenchCrew(bench, job.spec, protocol)
    with exclusive(job.folder, "wait for it or choose another --workspace"):
        identity = {
            "fingerprint": job.spec.fingerprint(),
            "device": job.device,
            "protocol": asdict(protocol),
            "seed": config.seed,
            # A store must not mix samples of two laws, should a virtual device's constants ever change.
            "law": _law_fingerprint(job.device),
        }
        with SampleStore(job.folder / "samples.db", identity) as store:
            before = len([n for n in store.numbers() if 0 <= n < config.samples])
            started = perf_counter()
            _measure_missing(store, crew, job.spec, config, on_sample)
            rate = (config.samples - before) / max(1e-9, perf_counter() - started)
            rows = [row for row in store.rows() if row.number < config.samples]
            check_widths(rows, job.spec, config.seed, source=job.folder / "samples.db")
            boards = offsets([*rows, *store.repeats()], config.reference)
            meter = crew.meter()
        on_sample(config.samples, config.samples, "fitting")
        profile, tried = _fit(job, config, protocol, corrected(rows, boards), meter)
        profile = replace(profile, boards=per_board(rows, boards))
        profile.save(job.folder / "profile.json")
        write_bytes(job.folder / "PROTOCOL.md", _protocol_text(profile).encode())
    return {
        "profile": str(job.folder / "profile.json"),
        "samples": config.samples,
        "heldout_error": asdict(profile.heldout) if profile.heldout else None,
        "margin": asdict(profile.margin()),
        "model": profile.form,
        "tried": [
            {
                "model": one.form.text,
                "terms": one.terms,
                "error": one.error,
                "standard_error": one.standard_error,
                "level": one.level,
            }
            for one in tried
        ],
        "meter": meter,
        "variants_per_s": rate,
        "resumed_from": before,
        "boards": told(profile, crew),
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
    store: SampleStore, crew: Crew, spec: NetworkSpec, config: CalibrateConfig, on_sample: OnSample
) -> None:  # fmt: skip
    numbers = (THINNEST, DENSE, *range(config.samples))
    while True:
        present = store.numbers()
        missing = [number for number in numbers if number not in present]
        if not missing:
            return
        tasks = [(number, sample_widths(spec, config.seed, number)) for number in missing]
        done = config.samples - len([number for number in missing if number >= 0])
        for more in keep(store, crew, tasks):
            on_sample(done + more, config.samples, crew.note)


def _law_fingerprint(device: str) -> Optional[str]:
    if device not in LAWS:
        return None
    text = json.dumps(asdict(LAWS[device]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fit(
    job: Job, config: CalibrateConfig, protocol: MeasureProtocol, rows: Sequence[Row], meter: str
) -> Tuple[Profile, List[Tried]]:  # fmt: skip
    """Return the profile, and the forms that were tried for it."""
    samples = [row for row in rows if row.number >= 0]
    widths, values = as_arrays(samples)
    train, held = split(len(samples), config.heldout, config.seed)

    def fitted(form: Form, widths: FloatArray, values: FloatArray) -> ProductModel:
        return fit(
            job.spec, widths, values, form=form, method=config.fit, meter=meter, metric=device_metric(job.device),
        )  # fmt: skip

    tried: List[Tried] = []
    if config.model == "auto":
        tried = choose(
            job.spec, widths[train], values[train],
            predict=lambda form, at, known, wanted: fitted(form, at, known).predict_many(wanted), seed=config.seed,
        )  # fmt: skip
    form = tried[0].form if tried else Form.parse(config.model)
    model = fitted(form, widths[train], values[train])
    anchors = {row.number: row.value for row in rows if row.number < 0}
    profile = Profile(
        network=job.spec.network,
        device=job.device,
        fingerprint=job.spec.fingerprint(),
        model=model,
        form=form.text,
        fit=config.fit,
        meter=meter,
        heldout=heldout_error(model, widths[held], values[held]),
        ratios=tuple(sorted((values[held] / model.predict_many(widths[held])).tolist())),
        samples={"train": len(train), "heldout": len(held)},
        seed=config.seed,
        protocol=asdict(protocol),
        anchors={"dense": anchors[DENSE], "thinnest": anchors[THINNEST]},
    )
    return profile, tried


def _protocol_text(profile: Profile) -> str:
    error = profile.heldout or HeldoutError(0.0, 0.0, 0.0)
    protocol = ", ".join(f"{key} {value}" for key, value in profile.protocol.items())
    anchors = ", ".join(f"{key} {value:.4g}" for key, value in profile.anchors.items())
    errors = f"mean {error.mean:.2%}, p95 {error.p95:.2%}, max {error.max:.2%}"
    lines = [
        f"# Calibration of {profile.network} on {profile.device}",
        "",
        f"- Meter: {profile.meter}. Metric: {profile.metric.value}, {profile.metric.unit} per inference, batch 1.",
        f"- Widths: uniform on 1..c for every group, seed {profile.seed}; input and output whole.",
        f"- Samples: {profile.samples['train']} fitted, {profile.samples['heldout']} held out.",
        f"- Model: {profile.form}, fitted by {profile.fit}. Held-out relative error: {errors}.",
        f"- Anchors (measured, not fitted): {anchors} {profile.metric.unit}.",
        f"- A sample: {protocol}; idle power is not subtracted.",
        *profile.board_lines(),
        "",
    ]
    return "\n".join(lines)
