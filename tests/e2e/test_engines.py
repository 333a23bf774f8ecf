"""Engines of a pruned run through the command line: real digits, real outputs, stand-ins at the drivers' borders."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any, Iterator

import numpy as np
import pytest

from edgeecc import export_engine as use_case
from edgeecc.artifacts import load_json, read_tensors, write_json
from edgeecc.config import VerifyConfig
from edgeecc.meters.nvml import NvmlEnergyMeter
from edgeecc.run_folder import RESULT_SCHEMA, RunFolder
from edgeecc.runtimes import trtexec
from tests import fake_trtexec
from tests.cli_runs import complaint, run, run_json, wide_network
from tests.fake_nvml import FakeBoard, FakeNvml, installed
from tests.fake_tensorrt import builds, install

torch = pytest.importorskip("torch")
TICK_S = 5e-4
A40 = "nvidia-a40:tensorrt"
NETWORK = ["--network", "engine_nets:net", "--input", "1x8x8", "--data", "digits"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run whose budget is 40 % of the MACs."""
    from edgeecc.artifacts import write_tensors
    from edgeecc.data.sources import load
    from edgeecc.run_request import tensors_of
    from tests.trained import on_digits

    home = tmp_path_factory.mktemp("engines")
    model = wide_network(home, "engine_nets")
    on_digits(model, load("digits", input_shape=(1, 8, 8)), steps=80, lr=3e-3)
    write_tensors(home / "net.safetensors", tensors_of(model), {})
    words = [
        *NETWORK,
        "--method",
        "uniform",
        "--steps",
        10,
        "--finetune-steps",
        20,
        "--batch-size",
        64,
        "--budget",
        "40%",
        "--of",
        "macs",
    ]
    run("prune", home / "net.safetensors", *words, "--run", home / "run")
    run("export", home / "run")
    return home / "run"


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be a GPU of 250 W whose counter ticks fast, in real time."""
    monkeypatch.setattr(NvmlEnergyMeter, "period_s", TICK_S)
    monkeypatch.setattr(use_case, "measuring_of", lambda *_: Quick())
    with installed(FakeNvml(FakeBoard(tick_s=TICK_S), clock=perf_counter)):
        yield


class Quick:
    from edgeecc.config import MeasureProtocol

    energy = MeasureProtocol(window_s=0.02, tolerance=0.5)


def bounded(folder: Path, device: str, share: float) -> None:
    """Bound the run's energy on the device at a share of what it takes, so that the verdict is known.

    Far from 1: the stand-in's energy goes by the clock, and a busy machine takes several times as long.
    """
    path = folder / "result.json"
    document = load_json(path)
    told = run_json("export", folder, "--trt", "--device", device, code=0)["engine"]
    entry = {
        "metric": "energy",
        "unit": "J",
        "value": share * told["energy_j"],
        "text": "b",
        "device": device,
    }
    document.update(budget=entry, device=device)
    document.pop("budgets", None), document.pop("schema"), document.pop("made_by")
    write_json(path, RESULT_SCHEMA, document)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_scored_and_measured_on_its_board(
    pruned: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10")
    if precision != "fp16":  # with torch the run is exported anew, which takes its time
        monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
    verified = load_json(pruned / "verify.json")
    told = run_json("export", pruned, "--trt", "--device", A40, "--precision", precision)["engine"]
    assert told["device"] == f"{A40}:{precision}"
    assert told["accuracy"] == pytest.approx(verified["accuracy"], abs=0.02)
    assert told["images"] == verified["images"]
    bounds = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.2}
    assert told["onnxruntime_relative"] < bounds[precision]
    assert told["energy_interval_j"]["low"] < told["energy_j"] < told["energy_interval_j"]["high"]
    assert (
        told["latency_interval_s"]["low"] <= told["latency_s"] <= told["latency_interval_s"]["high"]
    )
    assert "energy counter, tensorrt 10.3.0" in told["meter"]
    assert told["within_budget"] is True, "the MACs are counted"
    assert told["summary"]["layers"] > 0
    engine = Path(told["engine"])
    assert told["build"]["build_s"] > 0.0
    assert told["build"]["precision"] == precision
    ranges = {"images": 64, "split": "train"} if precision == "int8" else None
    assert told["ranges"] == ranges
    times = told["latency_events_s"]
    assert times["clock"] == "CUDA events"
    assert 0.0 < times["median"] <= times["p95"] <= times["p99"]
    manifest = load_json(pruned / f"slim-{precision}.engine.json")
    assert {name: manifest[name] for name in told} == told
    assert use_case.hashlib.sha256(engine.read_bytes()).hexdigest() == told["engine_sha256"]


def test_a_pattern_is_given_sparse_kernels_and_the_engine_tells_where(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10")
    home = pruned.parent
    run("prune", home / "net.safetensors", *NETWORK, "--method", "wsp", "--pattern", "2:4", "--budget", "100%",
        "--steps", 4, "--finetune-steps", 4, "--batch-size", 64, "--run", home / "pattern")  # fmt: skip
    run("export", home / "pattern")
    words = ["export", home / "pattern", "--trt", "--device", A40, "--precision", "fp16"]
    told = run_json(*words)["engine"]
    assert told["build"]["sparse"] == {"eligible": 1, "chosen": 0}, "the second convolution"
    assert "sparse kernels     in 0 of 1 layers whose weights allow them" in run(*words).stdout
    assert run_json("export", pruned, *words[2:])["engine"]["build"]["sparse"] is None


def test_given_again_it_does_not_build_and_a_damaged_engine_is_built_anew(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10")
    monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
    board = copied(pruned, tmp_path / "board")
    words = ["export", board, "--trt", "--device", A40]
    plain = use_case.measure_loaded

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(use_case, "measure_loaded", interrupted)
    run(*words, code=130)
    monkeypatch.setattr(use_case, "measure_loaded", plain)
    assert builds(trt) == 1
    assert not (board / "slim-fp32.engine").exists()
    told = run_json(*words)["engine"]
    assert builds(trt) == 1, "the engine of the interrupted command is taken"
    assert told["build"]["cached"] is True
    assert told["build"]["build_s"] > 0.0
    assert "from the cache, built earlier in " in run(*words).stdout
    (kept,) = (board / "cache" / "engines").glob("*.engine")
    assert kept.read_bytes() == Path(told["engine"]).read_bytes()
    kept.write_bytes(b"of another board")
    again = run(*words).stdout
    assert builds(trt) == 2
    assert "build              built in " in again
    assert "single inferences  median " in again
    install(monkeypatch, "8.6")
    assert run_json(*words)["engine"]["build"]["cached"] is False, "of another release"
    assert run_json(*words, "--precision", "fp16")["engine"]["build"]["cached"] is False


def test_a_run_without_training_images_holds_check_images_apart(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10")
    monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
    old = copied(pruned, tmp_path / "old")
    (old / "calib.safetensors").unlink()
    words = ["export", old, "--trt", "--device", A40, "--precision", "int8"]
    told = run_json(*words)["engine"]
    check = read_tensors(pruned / "check.safetensors")[0]["input"]
    assert told["ranges"] == {"images": 64, "split": "check"}
    assert told["images"] == len(check) - 64
    seen = {bytes(batch) for batch in trt.calibrated_with}
    assert len(seen) == 64
    assert seen < {image.tobytes() for image in check}
    assert "on 64 check images, which are not scored" in run(*words).stdout
    trt.calibrated_with.clear()
    run("export", pruned, "--trt", "--device", A40, "--precision", "int8")
    if trt.calibrated_with:  # else its engine is in the cache
        assert not {bytes(one) for one in trt.calibrated_with} & {one.tobytes() for one in check}


def test_what_is_priced_on_a_device_is_built_and_measured_once(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export measures dense and slim; verify and --trt take the slim engine that it built."""
    from edgeecc import export, verify
    from edgeecc.graph.onnx_slice import load_model

    trt, _ = install(monkeypatch, "10")
    monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
    folder = RunFolder(copied(pruned, tmp_path / "priced"))
    bounded(folder.path, f"{A40}:fp32", 50.0)
    shutil.rmtree(folder.path / "cache")
    trt.calls.clear()
    quick = verify.Measuring(Quick.energy, Quick.energy)
    for module in (export, verify):
        monkeypatch.setattr(module, "measuring_of", lambda *_: quick)
    measured = []
    plain = verify.measure_graph
    monkeypatch.setattr(
        verify, "measure_graph", lambda *a, **k: measured.append(1) or plain(*a, **k)
    )
    graphs = {name: load_model(folder.file(f"{name}.onnx")) for name in ("dense", "masked", "slim")}
    costs = export._measured(folder, graphs)
    assert (len(measured), builds(trt)) == (2, 2)
    assert costs["masked"].energy is None, "it costs what the dense one does"
    assert costs["masked"].latency.latency_s > 0.0
    assert costs["dense"].energy.energy_j > 0.0
    told = verify.verify_locked(folder, VerifyConfig(), costs["slim"])
    assert len(measured) == 2
    assert (told["energy_j"], told["latency_s"]) == (
        costs["slim"].energy.energy_j,
        costs["slim"].latency.latency_s,
    )
    assert "energy counter, tensorrt" in told["latency_events_s"]["meter"]
    text = run("verify", folder.path).stdout
    assert "single inferences" in text
    assert run_json("export", folder.path, "--trt")["engine"]["build"]["cached"] is True
    assert builds(trt) == 2


def copied(run_folder: Path, to: Path) -> Path:
    """Return a copy of a run, as it is brought to a board: alone, and without engines."""
    return Path(
        shutil.copytree(run_folder, to, ignore=shutil.ignore_patterns("cache", "*.engine*"))
    )


def test_a_missed_budget_exits_with_three_and_tells_the_interval(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6")
    kept = (pruned / "result.json").read_text()
    try:
        monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
        bounded(pruned, f"{A40}:fp32", 0.02)
        told = run_json("export", pruned, "--trt", code=3)["engine"]
        assert told["device"] == f"{A40}:fp32", "the run's own"
        assert told["within_budget"] is False
        text = run("export", pruned, "--trt", code=3).stdout
        assert "(95 %: " in text
        assert "NO (" in text
    finally:
        (pruned / "result.json").write_text(kept)


def without_torch(find: Any) -> Any:
    return lambda name, *more: None if name == "torch" else find(name, *more)


def test_a_board_without_bindings_takes_trtexec(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trtexec.program(tmp_path / "trtexec")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(trtexec.TrtexecRuntime.observe, "__kwdefaults__", {"settle_s": 0.1})
    monkeypatch.setattr(use_case, "TRTEXEC_IMAGES", 3)
    monkeypatch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
    told = run_json("export", pruned, "--trt", "--device", "nvidia-a40:trtexec:fp32")["engine"]
    assert told["images"] == 3
    assert "trtexec fp32" in told["meter"]
    assert told["onnxruntime_relative"] < 1e-4
    assert np.isfinite(told["energy_j"])
    assert json.loads((pruned / "slim-fp32.engine.json").read_text())["runtime"] == "trtexec fp32"
    assert told["latency_events_s"]["clock"] == "CUDA events of trtexec"
    assert told["build"]["tensorrt"] == "trtexec of TensorRT 8601"
    words = ["export", pruned, "--trt", "--device", "nvidia-a40:trtexec:fp32"]
    assert run_json(*words)["engine"]["build"]["cached"] is True


def test_what_cannot_be_built_is_one_line(pruned: Path, tmp_path: Path) -> None:
    assert "builds no engines" in complaint(
        "export", pruned, "--trt", "--device", "onnxruntime:cpu"
    )
    assert "this machine is nvidia-a40" in complaint(
        "export", pruned, "--trt", "--device", "nvidia-t4:tensorrt"
    )
    assert "TensorRT's Python bindings" in complaint("export", pruned, "--trt", "--device", A40)
    assert "goes with --trt" in complaint("export", pruned, "--precision", "fp16", code=2)
    (tmp_path / "run").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", without_torch(importlib.util.find_spec))
        assert "has no slim.onnx; run edgeecc export first" in complaint(
            "export", tmp_path / "run", "--trt"
        )
