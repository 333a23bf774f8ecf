"""A trtexec of the tests: options and output of the real one at 8.2, 8.6 and 11; results by ONNX Runtime.

Run as `python fake_trtexec.py RELEASE FAULT [OPTION ...]`.
"""

# ruff: noqa: T201  a program prints
from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Dict, List

OPTIONS = {
    "8.2": "onnx saveEngine loadEngine buildOnly fp16 int8 workspace timingCacheFile noTF32 iterations warmUp duration "
    "avgRuns useCudaGraph noDataTransfers useSpinWait loadInputs exportOutput sparsity help",
    "8.6": "onnx saveEngine loadEngine skipInference fp16 int8 memPoolSize timingCacheFile noTF32 iterations warmUp "
    "builderOptimizationLevel duration avgRuns useCudaGraph noDataTransfers useSpinWait loadInputs exportOutput "
    "sparsity help",
    "11": "onnx saveEngine loadEngine skipInference memPoolSize timingCacheFile noTF32 builderOptimizationLevel "
    "iterations warmUp duration avgRuns useCudaGraph noCudaGraph noDataTransfers includeDataTransfers useSpinWait "
    "noSpinWait loadInputs exportOutput sparsity help",
}
#: Inferences per second that it claims, and their time.
RATE_HZ, MEAN_MS, MEDIAN_MS = 500.0, 1.9, 1.85
#: Layers that it claims could run, and do run, by sparse kernels.
ELIGIBLE, CHOSEN = 3, 2
#: Real seconds for each second that it is asked to run.
HASTE = 0.5


def program(path: Path, release: str = "8.6", fault: str = "none") -> Path:
    """Write a program that is this one, with that release's options and that fault; return its path."""
    path.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' '{__file__}' '{release}' '{fault}' \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def counting(path: Path) -> Path:
    """Have a program write down what it is asked, into a file beside it; return its path."""
    text = path.read_text()
    path.write_text(text.replace("exec ", f"echo \"$@\" >> '{path.with_name('asked')}'\nexec "))
    return path


def say(text: str, kind: str = "I") -> None:
    print(f"[11/22/2025-07:00:00] [{kind}] {text}", flush=True)


def main(release: str, fault: str, arguments: List[str]) -> int:
    known = OPTIONS[release].split()
    given: Dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not name.startswith("--") or name[2:] not in known:
            say(f"Unknown option: {argument}", "E")
            return 1
        given[name[2:]] = value
    major, minor = (*release.split("."), "0")[:2]
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{major}{minor}01] # trtexec", flush=True)
    if "help" in given:
        print("=== Model Options ===")
        if fault != "stranger":
            print(
                "\n".join(
                    f"  --{name}=N   it does something (default = disabled)" for name in known
                )
            )
        return 0
    return build(given, fault) if "onnx" in given else run(given, fault, release)


def build(given: Dict[str, str], fault: str) -> int:
    if fault == "slow build":
        time.sleep(60)
    if fault == "build":
        say("ModelImporter.cpp:773: While parsing node number 0 [Conv]:", "E")
        say("Error[2]: [builder.cpp::buildSerializedNetwork::417] out of memory", "E")
        print("&&&& FAILED TensorRT.trtexec # trtexec")
        return 1
    if fault == "no engine":
        return 0
    Path(given["saveEngine"]).write_bytes(Path(given["onnx"]).read_bytes())
    if "sparsity" in given:
        say(f"[TRT] (Sparsity) Found {ELIGIBLE} layer(s) eligible to use sparse tactics")
        say(f"[TRT] (Sparsity) Chose {CHOSEN} layer(s) using sparse tactics")
    if "timingCacheFile" in given:
        Path(given["timingCacheFile"]).write_bytes(b"timings")
    return 0


def run(given: Dict[str, str], fault: str, release: str) -> int:
    if fault == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(given["loadEngine"]).with_suffix(".pid").write_text(str(os.getpid()))
    if fault == "no start":
        say("Error Code 1: Cuda Runtime (out of memory)", "E")
        return 1
    say("Starting inference")
    if fault in ("hang", "deaf"):
        time.sleep(60)
    if fault != "short":
        time.sleep(HASTE * (float(given["duration"]) + 1e-3 * float(given["warmUp"])))
    if "exportOutput" in given:
        export(given)
    if fault != "mute":
        summary(fault, old=release == "8.2")
    return 3 if fault == "status" else 0


def summary(fault: str, *, old: bool) -> None:
    mean = "nan" if fault == "nan" else MEAN_MS
    say("Warmup completed 100 queries over 200 ms")
    say("Timing trace has 1500 queries over 3.0 s")
    say("=== Trace details ===")
    say("Average on 10 runs - GPU latency: 9.9 ms - Host latency: 9.9 ms (enqueue 0.1 ms)")
    say("=== Performance summary ===")
    say(f"Throughput: {RATE_HZ} qps")
    say("Latency: min = 1.9 ms, max = 9e+00 ms, mean = 7 ms, median = 7 ms, percentile(99%) = 8 ms")
    say(
        "Enqueue Time: min = 0.1 ms, max = 0.2 ms, mean = 0.1 ms, median = 0.1 ms, percentile(99%) = 0.2 ms"
    )
    say(
        f"GPU Compute Time: min = 1.8e+00 ms, max = 2.5 ms, mean = {mean} ms, median = {MEDIAN_MS} ms, "
        f"{'' if old else 'percentile(90%) = 2 ms, percentile(95%) = 2.2 ms, '}percentile(99%) = 2.4 ms"
    )
    say("Total Host Walltime: 3.0 s")
    say("Total GPU Compute Time: 2.7 s")
    say("Explanations of the performance metrics are printed in the verbose logs.")
    say("GPU Compute Time: the GPU latency to execute the kernels for a query.", "V")
    print("&&&& PASSED TensorRT.trtexec # trtexec", flush=True)


def export(given: Dict[str, str]) -> None:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(given["loadEngine"], providers=["CPUExecutionProvider"])
    files = {}
    for pair in given["loadInputs"].split(","):
        name, _, file = pair.rpartition(":")
        files[name.strip("'")] = file
    feed = {}
    for item in session.get_inputs():
        dtype = np.float32 if item.type == "tensor(float)" else np.int32
        feed[item.name] = np.fromfile(files[item.name], dtype).reshape(item.shape)
    names = [item.name for item in session.get_outputs()]
    outputs = [
        {
            "name": name,
            "dimensions": "x".join(map(str, value.shape)),
            "values": [float(f"{number:.6g}") for number in value.ravel()],
        }
        for name, value in reversed(list(zip(names, session.run(names, feed))))
    ]
    Path(given["exportOutput"]).write_text(json.dumps(outputs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
