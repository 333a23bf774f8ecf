"""Every network of the zoo and of the table: what can be pruned, and whether cut, slim and masked agree.

python benchmarks/zoo_table.py [--side 128] [--only NAME ...]

Groups are those that trace finds, prunable those that both proofs let go. "prunable MACs" is the share of the dense
multiply-accumulates in layers that lose weights with some prunable group. Parameters are random, every layer scaled to
outputs of size one, so that an error anywhere shows; every prunable group is cut to a random half. "slim error" is the
largest difference between the outputs of the masked and of the slim torch network in float64, "ONNX error" between the
slim torch network and the cut ONNX graph in ONNX Runtime, both in float32. "seconds" is what trace, export and the
proofs took. Table networks whose input is larger than 224 run on one of at most `--side` squared.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Dict, Iterator, List, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.lively import lively_trial
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.outputs import tensors
from edgeecc.graph.settle import settle
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.surgery import mask_, slim
from edgeecc.graph.ties import ties_of
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.networks.table import NETWORKS, build, info
from edgeecc.runtimes.onnxrt import OnnxRuntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import zoo

COLUMNS = (
    "network", "input", "groups", "prunable", "prunable MACs", "slim error", "ONNX error", "seconds",
)  # fmt: skip
#: Inputs up to this side are taken as they are; some networks fit no other.
LARGEST = 224
Case = Tuple[str, nn.Module, Tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Errors:
    """The largest difference between masked and slim, and between slim and the cut graph."""

    slim: float
    onnx: float


def cases(side: int, only: List[str]) -> Iterator[Case]:
    """Yield name, network in eval mode and example inputs."""
    for name in sorted(zoo.ZOO):
        if not only or name in only:
            yield (name, *zoo.build(name))
    for name in sorted(NETWORKS):
        if not only or name in only:
            channels, *sizes = info(name).input_shape
            small = max(sizes) <= LARGEST
            shape = (1, channels, *(size if small else min(size, side) for size in sizes))
            example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            yield name, build(name).eval(), (example,)


def halved(spec: NetworkSpec) -> Dict[str, IntArray]:
    """Return a random half of every prunable group, at least one unit."""
    generator = np.random.default_rng(0)
    return {
        group.name: np.sort(
            generator.choice(group.width, max(1, group.width // 2), replace=False)
        ).astype(np.int64)
        for group in spec.prunable
    }


def largest(ones: List[np.ndarray], others: List[np.ndarray]) -> float:
    """Return the largest difference of two lists of outputs."""
    assert [one.shape for one in ones] == [other.shape for other in others]
    return max(float(np.abs(one - other).max()) for one, other in zip(ones, others))


def compared(
    model: nn.Module, inputs: Tuple[torch.Tensor, ...], spec: NetworkSpec, plan: SlicePlan
) -> Errors:
    """Cut every prunable group to a random half in three ways and compare."""
    keep = halved(spec)
    masked = copy.deepcopy(model)
    mask_(masked, spec, keep)
    small = slim(model, spec, keep)
    with torch.no_grad():
        expected = [x.numpy() for x in tensors(small(*(x.clone() for x in inputs)))]
        wide = tuple(x.double() for x in inputs)
        exact = [
            [x.numpy() for x in tensors(network.double()(*wide))] for network in (masked, small)
        ]
    with OnnxRuntime(plan.cut(keep)) as runtime:
        found = runtime.infer([x.numpy() for x in inputs])
    return Errors(largest(*exact), largest(found, expected))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    worst = Errors(0.0, 0.0)
    for name, dense, example in cases(args.side, args.only):
        started = perf_counter()
        trial = lively_trial(dense, example, 1)
        model, inputs = trial.model.float(), tuple(x.float() for x in trial.inputs)
        graph = to_onnx(model, inputs)
        spec = settle(trace(model, inputs, network=name), graph)
        seconds = perf_counter() - started
        errors = compared(model, inputs, spec, SlicePlan.build(graph, spec))
        worst = Errors(max(worst.slim, errors.slim), max(worst.onnx, errors.onnx))
        touched = {layer for ties in ties_of(spec) if ties.group.prunable for layer in ties.layers}
        macs = {layer.name: layer.dense_macs for layer in spec.layers}
        share = sum(macs[layer] for layer in touched if layer in macs) / sum(macs.values())
        shapes = " + ".join("x".join(map(str, x.shape[1:])) for x in inputs)
        print(
            f"| {name} | {shapes} | {len(spec.groups)} | {len(spec.prunable)} | {share:.1%} "
            f"| {errors.slim:.1e} | {errors.onnx:.1e} | {seconds:.1f} |",
            flush=True,
        )
    print(f"\nLargest slim error {worst.slim:.1e}, largest ONNX error {worst.onnx:.1e}.")


if __name__ == "__main__":
    main()
