"""Runs for reports, written by hand from a spec: no torch, no training; and what every page must hold to."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from edgeecc.artifacts import load_json
from edgeecc.cost.exact import mac_cost, parameter_count, size_cost
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.terms import spec_groups
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.run_folder import (
    ENGINE_SCHEMA,
    HISTORY_SCHEMA,
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    RUN_SCHEMA,
    VERIFY_SCHEMA,
    RunFolder,
    profile_name,
)
from edgeecc.units import Metric

MARGIN = 0.05
SIMULATED = "virtual:tx2 (simulated)"
TRAINING = {
    "batch_size": 64, "lr": 0.001, "rise": 0.05, "weight_decay": 0.0001, "distill": 0.5, "seed": 3,
    "optimizer": "adam", "finetune": [], "class_weights": True,
}  # fmt: skip
REQUEST = {
    "kind": "channels", "weights_sha256": "0" * 64, "data": "digits", "steps": 40, "finetune_steps": 20,
    "method": "ecc", "paper_groups": False, "settings": {"metric": "taylor", "rho1": 10.0, "stand_in": True, "tile": 0},
    "held_out": 0, "judged": 0, "training": TRAINING, "precision": "fp32",
}  # fmt: skip
COMPUTE = {"accelerator": "cpu", "precision": "fp32", "channels_last": True, "processes": 1}


def profile_of(
    spec: NetworkSpec, form: Form, fixed: float, prices: Optional[Any] = None
) -> Profile:
    """Return a profile of energies made up: 1 mJ, 2 mJ, ... of the form's terms, or the prices that are given."""
    terms = form.terms(spec)
    coefficients = 1e-3 * np.arange(1, len(terms) + 1) if prices is None else np.asarray(prices)
    model = ProductModel(
        Metric.ENERGY, "model of somewhere", groups=spec_groups(spec), terms=terms, coefficients=coefficients,
        constant=fixed,
    )  # fmt: skip
    return Profile(
        "chain", "somewhere", spec.fingerprint(), model, form.text, "nnls", "m", None, {}
    )


def made_run(
    path: Path, spec: NetworkSpec, widths: Widths, *, profile: Optional[Profile] = None
) -> RunFolder:  # fmt: skip
    """Write a run that prune finished: a budget of energy where there is a profile, else of MACs.

    Args:
        path: of its folder.
        spec: of its network.
        widths: that stay.
        profile: its cost model.
    """
    folder, bound = RunFolder(path), 1.1
    path.mkdir(parents=True)
    model = mac_cost(spec) if profile is None else profile.model
    metric = Metric.MACS if profile is None else Metric.ENERGY
    dense, slim = (model.predict(spec.vector(w)) for w in (spec.dense_widths(), widths))
    device = "" if profile is None else profile.device
    text = f"{100.0 * bound * slim / dense:.4g}%"
    budget = {"metric": metric.value, "unit": metric.unit, "text": text, "value": bound * slim}
    entry = {
        **budget, "dense": dense, "cost": slim, "meter": model.meter, "device": device, "margin": MARGIN,
        "confidence": 0.95,
    }  # fmt: skip
    asked = {"budget": text, "metric": metric.value, "bound": bound * slim, "device": device}
    request = {**REQUEST, **asked, "margin": MARGIN}
    source = {
        "network": spec.network, "input_shape": list(spec.input_shapes[0][1:]), "options": {}, "paper_groups": False,
        "normalisation": None,
    }  # fmt: skip
    folder.write_json("run.json", RUN_SCHEMA, {"source": source, "request": request})
    folder.write_spec(spec)
    folder.write_keep(spec.keep_first(widths))
    if profile is not None:
        profile.save(folder.file(profile_name(metric)))
    result = {
        "run": str(path), "method": "ecc", "budget": budget, "cost": slim, "meter": model.meter, "device": device,
        "margin": MARGIN, "budgets": [entry], "dense": {"accuracy": 0.95, "cost": dense}, "accuracy": 0.94,
        "scores": {"dense": {"top-1": 0.95, "top-5": 1.0}, "pruned": {"top-1": 0.94, "top-5": 0.99}}, "score": "top-1",
        "task": "classification", "steps": 40, "finetune_steps": 20, "status": "converged", "compute": COMPUTE,
    }  # fmt: skip
    folder.write_json("result.json", RESULT_SCHEMA, result)
    folder.write_json("history.json", HISTORY_SCHEMA, history(spec, metric.value))
    return folder


def history(spec: NetworkSpec, metric: str, steps: int = 40) -> Dict[str, object]:
    """Return what ECC keeps of its steps: bounds that fall, duals that rise."""
    names = [group.name for group in spec.prunable]
    taken = range(1, steps + 1)
    rows = [[group.width * (1.0 - 0.5 * step / steps) for group in spec.prunable] for step in taken]
    values = [
        {
            "y": 0.1 * step, "s": sum(row), "primal": 0.0, "dual": 0.0, f"z.{metric}": 0.2 * step,
            f"load.{metric}": 2.0 - step / steps,
        }
        for step, row in zip(taken, rows)
    ]  # fmt: skip
    return {
        "prune": [
            {"step": step, "steps": steps, "loss": 2.0 / step, "cost": 1.0 / step, "values": told}
            for step, told in zip(taken, values)
        ],
        "pruned_accuracy": 0.9,
        "course": {"groups": names, "step": list(taken), "s": rows, "y": [[0.1 * step] * len(names) for step in taken]},
        "finetune": {"step": list(range(1, 21)), "loss": [1.0 / step for step in range(1, 21)]},
    }  # fmt: skip


def exported(
    folder: RunFolder, spec: NetworkSpec, widths: Widths, *, energy_j: Optional[float], meter: str = SIMULATED
) -> None:  # fmt: skip
    """Write what export leaves of a run; without an energy there was no meter."""
    result = load_json(folder.file("result.json"))
    body = {key: value for key, value in result.items() if key not in ("schema", "made_by")}
    entry = body["budgets"][0]  # type: ignore[index]
    found = energy_j if entry["metric"] == "energy" else entry["cost"]
    said = meter if entry["metric"] == "energy" else "exact count"
    verdict = {
        **{key: entry[key] for key in ("metric", "unit", "text", "value", "device")}, "found": found,
        "meter": None if found is None else said, "within": None if found is None else found <= entry["value"],
        "verdict": "told elsewhere",
    }  # fmt: skip
    figures = {
        "energy_j": energy_j, "energy_se_j": None if energy_j is None else 0.01 * energy_j,
        "meter": None if energy_j is None else meter, "latency_s": 2e-3, "latency_se_s": 1e-5, "latency_iqr_s": 1e-4,
        "latency_meter": "onnxruntime:cpu (1 thread)", "task": "classification", "score": "top-1", "accuracy": 0.94,
        "scores": {"top-1": 0.94, "top-5": 0.99}, "images": 364,
    }  # fmt: skip
    verified = {
        **figures, "run": str(folder.path), "max_abs_error": 1e-6, "outputs_agree": True, "budgets": [verdict],
        "within_budget": verdict["within"], "verdict": "told elsewhere", "missed": [], "pattern": None,
    }  # fmt: skip
    folder.write_json("verify.json", VERIFY_SCHEMA, verified)
    rows = []
    dense = spec.dense_widths()
    for name, left, factor in (
        ("dense", dense, 2.0),
        ("masked", dense, 2.0),
        ("slim", widths, 1.0),
    ):
        counts = {
            "params": parameter_count(spec, left), "macs": mac_cost(spec).predict(spec.vector(left)),
            "size_b": size_cost(spec).predict(spec.vector(left)),
        }  # fmt: skip
        energy = None if energy_j is None else factor * energy_j
        rows.append({**figures, **counts, "network": name, "energy_j": energy})
    report = {"result": body, "verify": verified, "networks": rows, "correction": []}
    folder.write_json("report.json", REPORT_SCHEMA, report)


def engine(folder: RunFolder, precision: str, device: str, energy_j: float, **more: object) -> None:
    """Write the manifest that export --trt leaves of an engine."""
    entry = load_json(folder.file("result.json"))["budgets"][0]  # type: ignore[index]
    told = {
        "device": device, "engine": f"slim-{precision}.engine", "engine_sha256": "ab" * 32,
        "runtime": f"tensorrt 10.3.0 {precision} on Orin", "task": "classification", "score": "top-1", "accuracy": 0.93,
        "scores": {"top-1": 0.93}, "images": 364, "max_abs_error": 1e-3, "onnxruntime_max_abs": 1e-3,
        "onnxruntime_relative": 1e-4, "energy_j": energy_j,
        "energy_interval_j": {"low": 0.9 * energy_j, "high": 1.1 * energy_j}, "latency_s": 1e-3,
        "latency_interval_s": {"low": 9e-4, "high": 1.1e-3}, "meter": "rail VDD_IN", "windows": 9, "converged": True,
        "summary": {
            "layers": 9, "precisions": {"fp16": 8, "fp32": 1},
            "largest": [{"name": "conv1", "kind": "Convolution", "weights": 100, "written": 4}],
        },
        "build": {
            "tensorrt": "tensorrt 10.3.0", "precision": precision, "how": "flag", "build_s": 12.0, "engine_bytes": 9000,
            "network_layers": 12, "notes": ["the timing cache was started anew"],
        },
        "conditions": {"clocks_hz": {}, "temperatures_c": {}, "mode": "15 W", "held_back": ["power cap"], "alerts": []},
        "within_budget": energy_j <= entry["value"], "verdict": "told elsewhere", "missed": [],
        "budgets": [
            {
                **{key: entry[key] for key in ("metric", "unit", "text", "value", "device")}, "found": energy_j,
                "meter": "rail VDD_IN", "within": energy_j <= entry["value"],
            }
        ],
        **more,
    }  # fmt: skip
    folder.write_json(f"slim-{precision}.engine.json", ENGINE_SCHEMA, told)


def changed(folder: RunFolder, name: str, **fields: object) -> None:
    """Write fields of a file anew; those of report.json's copy of the result too."""
    document = load_json(folder.file(name))
    document.update(fields)
    folder.file(name).write_text(json.dumps(document))
    if name == "result.json" and folder.has("report.json"):
        report = load_json(folder.file("report.json"))
        report["result"] = {k: v for k, v in document.items() if k not in ("schema", "made_by")}
        folder.file("report.json").write_text(json.dumps(report))


class Page(HTMLParser):
    """Every tag, attribute and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: List[Any] = []
        self.text = ""
        self.feed(text)

    @staticmethod
    def of(path: object) -> Page:
        return Page(Path(str(path)).read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Sequence[Any]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: Sequence[Any]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def charts(self) -> List[str]:
        """Return the ids of the charts."""
        return [told["id"] for tag, told in self.tags if tag == "figure"]


def check_page(found: Page) -> None:
    """Check what every page must hold to: nothing is fetched or run, ids are its own, headings go in order."""
    assert not {"script", "link", "a", "iframe", "object", "img", "style-src"} & {
        tag for tag, _ in found.tags
    }
    ids: List[str] = []
    for tag, told in found.tags:
        assert not any(name.startswith("on") for name in told), (tag, told)
        for name in ("src", "srcset", "action", "background", "xlink:href"):
            assert name not in told, (tag, told)
        assert told.get("href", "#").startswith("#"), (tag, told)
        assert "url(" not in (told.get("style") or "")
        ids += [told["id"]] if "id" in told else []
    assert len(ids) == len(set(ids))
    for _, told in found.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((told.get(name) or "").split()) <= set(ids)
        for reference in (
            told.get("href"),
            told.get("clip-path", "").replace("url(", "").rstrip(")"),
        ):
            assert not reference or reference[1:] in ids, told
    levels = [int(tag[1]) for tag, _ in found.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    assert ("html", {"lang": "en"}) in found.tags
    policy = next(
        told for tag, told in found.tags if told.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    for tag, told in found.tags:
        if tag == "svg":
            assert told["role"] == "img"
            assert told["aria-labelledby"]
