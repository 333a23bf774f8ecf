"""Hold virtual:tx2 against what was published for the Jetson TX2: dense energies, and AlexNet layer by layer.

No constant of the virtual device is fitted to a network here; fixed, per-MAC and per-byte energies come from
AlexNet's published coefficients, so MobileNetV1 and ERFNet are predictions.

    python benchmarks/virtual_tx2.py
"""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import torch

from edgeecc.graph.onnx_work import work_of
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.meters.virtual import TX2, law_energy_j, node_energy_j
from edgeecc.networks.table import build, info
from edgeecc.workload import NodeWork

#: Network -> (builder options, dense energy on a Jetson TX2 as published in ECC, table 1, joules).
PUBLISHED: Dict[str, Tuple[Dict[str, int], float]] = {
    "alexnet": ({}, 0.0498),
    "mobilenet_v1": ({}, 0.0487),
    "erfnet": ({"classes": 20}, 1.3213),
}
#: The authors' fitted AlexNet model, joules when dense: constant, then layers in forward order.
PUBLISHED_ALEXNET_J = (
    0.00248206733, 0.00223370781, 0.00753995031, 0.00390925538, 0.00494066952, 0.00339309988, 0.0161565151,
    0.00721406378, 0.00195417996,
)  # fmt: skip


def dense_work(name: str, options: Dict[str, int]) -> Tuple[NodeWork, ...]:
    """Return the work of a dense table network."""
    model = build(name, **options)
    return work_of(to_onnx(model, (torch.zeros(1, *info(name).input_shape),)))


def layer_energies_j(nodes: Sequence[NodeWork]) -> List[Tuple[str, float]]:
    """Return (layer, joules): nodes without weights (ReLU, pooling) count to the layer before them."""
    found: List[Tuple[str, float]] = []
    for node in nodes:
        energy = node_energy_j(TX2, node)
        if node.macs or not found:
            found.append((node.name, energy))
        else:
            found[-1] = (found[-1][0], found[-1][1] + energy)
    return found


def main() -> None:
    """Print both tables."""
    work = {name: dense_work(name, options) for name, (options, _) in PUBLISHED.items()}
    print(f"| network | published, J | {TX2.name} (simulated), J | difference |\n|---|---|---|---|")
    for name, (_, published) in PUBLISHED.items():
        energy = law_energy_j(TX2, work[name])
        print(f"| {name} | {published} | {energy:.4f} | {energy / published - 1.0:+.1%} |")
    total = law_energy_j(TX2, work["alexnet"])
    rows = [("fixed", TX2.fixed_j), *layer_energies_j(work["alexnet"])]
    print(f"\n| AlexNet | published share | {TX2.name} (simulated) share |\n|---|---|---|")
    for (name, energy), published in zip(rows, PUBLISHED_ALEXNET_J):
        print(f"| {name} | {published / sum(PUBLISHED_ALEXNET_J):.1%} | {energy / total:.1%} |")


if __name__ == "__main__":
    main()
