"""The paper's multilayer perceptrons on bilinear features, for comparison (ECC, CVPR 2019, Figure 3).

One to three hidden layers of 128 units with SELU after the products of input and output channels. Trained by
full-batch Adam on squared relative errors, which is what all models here are judged by; the learning rate falls to
nothing along a cosine. Neither monotone nor non-negative, so no solver can rely on them: they are not in the package.
"""

from __future__ import annotations

from typing import List

import numpy as np
import torch
from torch import nn

from edgeecc.cost.terms import Features, layer_terms, spec_groups
from edgeecc.graph.spec import FloatArray, NetworkSpec

HIDDEN = 128
STEPS, LR = 4000, 1e-3


def mlp_predictions(
    spec: NetworkSpec, known: FloatArray, told: FloatArray, wanted: FloatArray, *, depth: int, seed: int
) -> FloatArray:  # fmt: skip
    """Fit a perceptron and return its predictions.

    Args:
        spec: the network.
        known, told: widths (N, G) and values (N,) to fit.
        wanted: widths (M, G).
        depth: hidden layers.
        seed: of the first weights.
    Returns: (M,), in the unit of the values.
    """
    features = Features(spec_groups(spec), layer_terms(spec))
    inputs, others = features(known), features(wanted)
    centre, spread, scale = inputs.mean(0), inputs.std(0), float(told.mean())
    model = _perceptron(inputs.shape[1], depth, seed)
    seen, unseen = (
        torch.tensor((rows - centre) / spread, dtype=torch.float32) for rows in (inputs, others)
    )
    target = torch.tensor(told / scale, dtype=torch.float32)[:, None]
    optimiser = torch.optim.Adam(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        ((model(seen) / target - 1.0) ** 2).mean().backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return np.asarray(model(unseen)[:, 0].double().numpy() * scale)


def _perceptron(inputs: int, depth: int, seed: int) -> nn.Sequential:
    """Return a perceptron whose first weights keep the scale of what passes through SELU."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [inputs, *[HIDDEN] * depth, 1]
    layers: List[nn.Module] = []
    for size, following in zip(sizes, sizes[1:]):
        linear = nn.Linear(size, following)
        nn.init.normal_(linear.weight, 0.0, size**-0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SELU()]
    return nn.Sequential(*layers[:-1])
