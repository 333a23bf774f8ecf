"""Bring what is measured of a pruned run under its budget and close to it: correct, land, measure, then fine-tune once.

Rounds (`fit_rounds`) correct the run's cost models by what networks measured and choose new widths, from the present
ones and by what units are worth, not by a new run of the solver. What is settled on is fine-tuned for a share of the
run's steps and becomes the run's network: keep.json, masked.safetensors, profile-METRIC.json and result.json are its
own, history.json keeps its losses, and an export follows. fit.json keeps where the work stands; a killed command goes
on from there.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from time import perf_counter
from typing import Any, Dict, Mapping, Optional, Sequence

from edgeecc.artifacts import read_json, read_tensors
from edgeecc.budgets import refitted
from edgeecc.config import VerifyConfig
from edgeecc.cost.correction import corrected_profile
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.export import export_locked
from edgeecc.export_parts import network_of
from edgeecc.fit_config import FitBudgetConfig
from edgeecc.fit_rounds import WITHIN, Held, Rounds
from edgeecc.fit_training import training_of
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import FloatArray, IntArray, NetworkSpec
from edgeecc.graph.surgery import mask_, slim, widen_
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.meters.base import Measurement
from edgeecc.own_code import check_own_code
from edgeecc.progress import Load, OnProgress, Progress, silent
from edgeecc.run_folder import (
    FIT_SCHEMA,
    FIT_STATE,
    FIT_WEIGHTS,
    RESULT_SCHEMA,
    RunFolder,
    profile_name,
    staged_name,
)
from edgeecc.run_profiles import METERED, Measured, measured_value, model_of, profile_of
from edgeecc.run_request import task_of, tensors_of, thinned
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.finetune import slim_hooks
from edgeecc.solvers.regrowth import Order, Worth, revive_
from edgeecc.solvers.units import copied
from edgeecc.sources import NetworkSource, load_images
from edgeecc.telling import Teller
from edgeecc.training.loop import TorchTrainer
from edgeecc.units import Metric
from edgeecc.verdict import Bound, bounds_of, energy_device
from edgeecc.verify import Measuring, measure_energy, measure_latency


def fit_budget(
    folder: RunFolder,
    config: FitBudgetConfig = FitBudgetConfig(),  # noqa: B008  # frozen
    verify: VerifyConfig = VerifyConfig(),  # noqa: B008  # frozen
    *,
    on_progress: OnProgress = silent,
) -> Dict[str, Any]:
    """Export a run whose measured costs are within its budgets, with a confidence, and close to the tightest.

    Args:
        folder: a finished run that removed channels.
        config: see there.
        verify: of the export.
        on_progress: told of rounds, the first being the network as it was, of training, and of the export.
    Returns: what `edgeecc export --fit-budget --json` prints.
    Raises: ConfigError for a run whose budgets no meter here can tell, or that removed single weights; ArtifactError
        when its files are damaged, or it is being fitted with other options; any EdgeeccError of the steps on the way.
    """
    with folder.locked():
        told = _Fit(folder, config, on_progress).finish()
        exported = export_locked(folder, verify, on_progress)
        folder.drop((FIT_STATE,))  # first: without it the rest is of no use, and the run is done
        folder.tidy()
    return {**exported, "fit_budget": told}


class _Fit:
    """One command on one run, whose lock is held; until everything is staged nothing of the run is changed."""

    def __init__(self, folder: RunFolder, config: FitBudgetConfig, on_progress: OnProgress) -> None:
        run = folder.read_finished()
        if folder.kind() == "weights":
            raise ConfigError(
                f"{folder.path} removed single weights, --fit-budget fits the widths of channels; export it without"
            )
        self._folder, self._config = folder, config
        self._on_progress = on_progress
        self._teller = Teller(on_progress, ())
        self._started = perf_counter()
        self._result = read_json(folder.file("result.json"), RESULT_SCHEMA)
        self._bounds = bounds_of(self._result, folder.file("result.json"))
        _check_meters(self._bounds, folder)
        self._run, self._spec = run, folder.read_spec()
        check_own_code(folder, run)
        self._source = NetworkSource.from_json(run.get("source"), folder.path)
        self._made: Optional[TorchTrainer] = None

    def finish(self) -> Dict[str, Any]:
        """Do what is left to do; return what is told of it."""
        state = self._read_state()
        if state.get("result") is None:
            state = self._staged(state)
        self._adopt(state)
        return dict(state["result"]["fit_budget"])

    def _read_state(self) -> Dict[str, Any]:
        """Return what an interrupted command of the same options left, or a fresh start.

        Raises: ArtifactError when its options were others.
        """
        asked = json.loads(json.dumps(asdict(self._config)))
        if not self._folder.has(FIT_STATE):
            self._folder.tidy()
            return {"asked": asked, "rounds": [], "chosen": None, "reason": "", "result": None}
        state = read_json(self._folder.file(FIT_STATE), FIT_SCHEMA)
        if state.get("asked") != asked:
            raise ArtifactError(
                f"{self._folder.path} is being fitted with other options ({_options(state)}); give these to go on, or "
                f"remove its {FIT_STATE} to start over"
            )
        return state

    def _write_state(self, state: Mapping[str, Any]) -> None:
        body = {name: value for name, value in state.items() if name not in ("schema", "made_by")}
        self._folder.write_json(FIT_STATE, FIT_SCHEMA, body)

    def _staged(self, state: Dict[str, Any]) -> Dict[str, Any]:
        """Go through the rounds, train what they settle on, and put beside the run's files what is to replace them."""
        self._training = training_of(self._run, self._result, self._folder)
        self._held = [
            Held(bound, model_of(self._folder, bound.metric, self._spec)) for bound in self._bounds
        ]
        self._keep = self._folder.read_keep(self._spec)
        self._dense = network_of(self._folder, self._source, "dense")
        pruned = network_of(self._folder, self._source, "masked")
        self._whole = copy.deepcopy(pruned)
        revive_(self._whole, self._dense, self._spec, self._keep)
        rounds = Rounds(self._spec, self._held, self._config)
        rounds.load(state["rounds"], self._folder.file(FIT_STATE))
        if state["chosen"] is None:
            state.update(self._settled(rounds, state))
            self._write_state(state)
        keep = self._spec.checked_keep(state["units"])
        changed = bool(state["chosen"])
        trained = self._trained(keep) if changed else {}
        rounds.told[0]["accuracy"] = self._result.get("accuracy")
        if changed:
            rounds.told[state["chosen"]]["accuracy"] = trained["accuracy"]
        told = self._told(rounds, state, trained)
        result = self._new_result(rounds, keep, trained, told)
        staged = {**state, "result": result, "losses": trained.get("losses")}
        self._write_state(staged)
        return staged

    def _settled(self, rounds: Rounds, state: Dict[str, Any]) -> Dict[str, Any]:
        """Measure and correct until rounds end; return the chosen one."""
        plan = SlicePlan.build(to_onnx(self._dense, self._source.example()), self._spec)
        order: Optional[Order] = None
        widths: Optional[FloatArray] = _vector(self._spec, self._keep)
        reason = ""
        if rounds.told:
            order = self._order()
            widths, reason = rounds.next(order.worth)
        while widths is not None:
            started = perf_counter()
            keep = self._keep if order is None else order.first(self._spec, widths)
            found = self._measure(plan, keep)
            rounds.add(widths, found, perf_counter() - started)
            self._tell_round(rounds.told[-1])
            self._write_state({**state, "rounds": rounds.told})
            widths = None
            reason = WITHIN
            if not rounds.is_close(-1):
                order = order or self._order()
                widths, reason = rounds.next(order.worth)
        chosen = rounds.best()
        keep = self._keep
        if chosen:
            assert order is not None  # noqa: S101  # for the type checker: there was a round
            keep = order.first(self._spec, rounds.widths(chosen))
        return {
            "rounds": rounds.told, "chosen": chosen, "reason": reason,
            "units": {name: [int(unit) for unit in units] for name, units in keep.items()},
        }  # fmt: skip

    def _tell_round(self, told: Mapping[str, Any]) -> None:
        """Tell what a round measured; training after it tells the same."""
        self._teller.loads = tuple(
            Load(Metric(row["metric"]), row["measured"], row["budget"], row["meter"])
            for row in told["budgets"]
        )
        self._on_progress(
            Progress("rounds of measuring", told["round"], self._config.rounds, at_most=True,
                     loads=self._teller.loads)
        )  # fmt: skip

    def _measure(self, plan: SlicePlan, keep: Mapping[str, IntArray]) -> Dict[Metric, Measured]:
        """Return what the metered budgets measured of the dense graph, cut."""
        graph = plan.cut(keep)
        metrics = {bound.metric for bound in self._bounds}
        measuring = Measuring.to(self._config.tolerance, self._config.max_windows, metrics)
        found: Dict[Metric, Measured] = {}
        if Metric.ENERGY in metrics:
            energy = measure_energy(graph, energy_device(self._bounds), measuring.energy)
            found[Metric.ENERGY] = self._told_by_meter(Metric.ENERGY, energy)
        if Metric.LATENCY in metrics:
            latency = measure_latency(graph, measuring.latency)
            found[Metric.LATENCY] = self._told_by_meter(Metric.LATENCY, latency)
        return found

    def _told_by_meter(self, metric: Metric, found: Optional[Measurement]) -> Measured:
        value = measured_value(metric, found)
        if value is None:
            raise _no_meter(self._folder, energy_device(self._bounds), metric)
        return value

    def _order(self) -> Order:
        """Weigh every unit on some batches, at the pruned network."""
        probe = copy.deepcopy(self._whole)
        mask_(probe, self._spec, self._keep)
        cost = self._held[0].model.predict(_vector(self._spec, self._keep))
        hooks = Worth(self._spec, copied(self._whole), cost)
        training = self._training
        self._trainer.on(probe).train(
            "worth", self._config.batches, hooks, first_batch=training.first_batch, rate=0.0
        )
        return Order.of(self._spec, hooks.arrays(), self._keep)

    def _trained(self, keep: Mapping[str, IntArray]) -> Dict[str, Any]:
        """Fine-tune the new widths as a slim network, and write the weights beside those of the run."""
        mask_(self._whole, self._spec, keep)
        small = slim(self._whole, self._spec, keep)
        trainer = self._trainer.on(small)
        before = trainer.evaluate()
        self._teller.scored({str(self._result.get("score", "score")): before}, "before fine-tuning")
        limits = tuple(Limit(held.model, held.bound.value) for held in self._held)
        steps = self._training.steps(self._config.finetune)
        history = trainer.train(
            "finetune",
            steps,
            slim_hooks(Problem(self._spec, limits, 0), keep),
            first_batch=self._training.first_batch,
        )
        scores, judged = trainer.scores(), trainer.judged()
        widen_(self._whole, small, self._spec, keep)
        metadata = {"network": self._source.reference, "fingerprint": self._spec.fingerprint()}
        self._folder.write_tensors(FIT_WEIGHTS, tensors_of(self._whole), metadata)
        return {
            "accuracy": next(iter(scores.values())),
            "scores": scores,
            "judged_score": judged,
            "accuracy_before_finetuning": before,
            "finetune_steps": steps,
            "losses": thinned(history),
        }

    @property
    def _trainer(self) -> TorchTrainer:
        """The trainer of the run, made when it is first needed."""
        if self._made is None:
            data = load_images(self._source, self._training.data, self._training.training.seed)
            data.check_fits(self._dense, self._source.example(), task_of(data))
            self._made = self._training.trainer(
                self._folder, self._dense, data, self._config, self._teller.step
            )
        return self._made

    def _told(
        self, rounds: Rounds, state: Mapping[str, Any], trained: Mapping[str, Any]
    ) -> Dict[str, Any]:
        """Return what results tell of the rounds."""
        chosen = state["chosen"]
        return {
            "rounds": rounds.told,
            "chosen": chosen,
            "holds": rounds.holds(chosen),
            "close": rounds.is_close(chosen),
            "reason": state["reason"],
            "confidence": self._config.confidence,
            "band": self._config.band,
            "tolerance": self._config.tolerance,
            "max_windows": self._config.max_windows,
            "finetune_steps": trained.get("finetune_steps", 0),
            "accuracy_before_finetuning": trained.get("accuracy_before_finetuning"),
            "seconds": perf_counter() - self._started,
        }

    def _new_result(
        self, rounds: Rounds, keep: Mapping[str, IntArray], trained: Mapping[str, Any], told: Mapping[str, Any]
    ) -> Dict[str, Any]:  # fmt: skip
        """Write the corrected profiles beside those of the run; return the result with the corrected costs."""
        widths = _vector(self._spec, keep)
        dense = self._spec.vector(self._spec.dense_widths())
        costs = []
        for place, (held, correction) in enumerate(zip(self._held, rounds.corrections())):
            model = held.model
            if held.is_measured:
                profile = profile_of(self._folder, held.bound.metric)
                meter = rounds.told[-1]["budgets"][place]["meter"]
                better = corrected_profile(profile, correction, rounds.pairs(place), meter)
                better.save(self._folder.file(staged_name(held.bound.metric)))
                model = better.model
            costs.append(
                {"cost": model.predict(widths), "dense": model.predict(dense), "meter": model.meter}
            )
        result = {k: v for k, v in self._result.items() if k not in ("schema", "made_by")}
        result.update(refitted(result, costs))
        if trained:
            scores = result.get("scores")
            shown = dict(scores) if isinstance(scores, dict) else {}
            result.update(
                accuracy=trained["accuracy"],
                scores={**shown, "pruned": trained["scores"]},
                judged_score=trained["judged_score"],
            )
        result["widths"] = {
            group.name: [len(keep[group.name]), group.width] for group in self._spec.prunable
        }
        return {**result, "fit_budget": dict(told)}

    def _adopt(self, state: Mapping[str, Any]) -> None:
        """Make what is staged the run's own; doing it again does no harm."""
        folder = self._folder
        for bound in self._bounds:
            if bound.metric in METERED:
                Profile.load(folder.file(staged_name(bound.metric))).save(
                    folder.file(profile_name(bound.metric))
                )
        if state["chosen"]:
            tensors, metadata = read_tensors(folder.file(FIT_WEIGHTS))
            folder.write_tensors("masked.safetensors", tensors, metadata)
            if state.get("losses") and folder.has("history.json"):
                folder.add_history(fitting=state["losses"])
        folder.write_keep(self._spec.checked_keep(state["units"]))
        folder.write_json("result.json", RESULT_SCHEMA, state["result"])


def _check_meters(bounds: Sequence[Bound], folder: RunFolder) -> None:
    """Check that every budget that needs a meter has one here, and one does.

    Raises: ConfigError.
    """
    for bound in bounds:
        fine = {
            Metric.ENERGY: bound.device.startswith("virtual:"),
            Metric.LATENCY: bound.device == "onnxruntime:cpu",
        }
        if not fine.get(bound.metric, True):
            raise _no_meter(folder, bound.device, bound.metric)
    if not any(bound.metric in METERED for bound in bounds):
        names = " and ".join(bound.metric.value for bound in bounds)
        raise ConfigError(
            f"{names} of {folder.path} are counted, so nothing measured could correct them; export it without "
            "--fit-budget"
        )


def _no_meter(folder: RunFolder, device: str, metric: Metric) -> ConfigError:
    return ConfigError(
        f"no meter here tells the {metric.value} of {device}, which a budget of {folder.path} bounds; export it "
        "without --fit-budget, or prune for virtual:tx2 or onnxruntime:cpu"
    )


def _options(state: Mapping[str, object]) -> str:
    asked = state.get("asked")
    values = asked if isinstance(asked, dict) else {}
    return ", ".join(f"{name} {values.get(name)}" for name in ("rounds", "confidence"))


def _vector(spec: NetworkSpec, keep: Mapping[str, IntArray]) -> FloatArray:
    return spec.vector({name: len(units) for name, units in keep.items()})
