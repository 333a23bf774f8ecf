"""A slim network written back into the one that it was cut from."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeecc.errors import GraphError
from edgeecc.graph.surgery import mask_, slim, widen_
from edgeecc.graph.trace import trace
from tests import zoo


@pytest.mark.parametrize(
    "name", ["residual", "depthwise", "dense_concat", "flatten", "transposed_chain", "grouped"]
)
def test_the_masked_network_computes_what_the_trained_slim_one_does(name: str) -> None:
    model, inputs = zoo.build(name)
    spec = trace(model, inputs, network=name)
    generator = np.random.default_rng(0)
    keep = {
        group.name: np.sort(generator.permutation(group.width)[: max(1, group.width // 2)])
        for group in spec.prunable
    }
    mask_(model, spec, keep)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = slim(model, spec, keep)
    widen_(model, small, spec, keep)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    batch = [torch.cat([one, 0.5 * one, -one]) for one in inputs]
    found = small(*batch)
    outputs = found if isinstance(found, torch.Tensor) else found[0]
    outputs.square().mean().backward()
    optimizer.step()
    widen_(model, small, spec, keep)
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    small.eval(), model.eval()
    with torch.no_grad():
        wanted, found = (
            small.double()(*(x.double() for x in inputs)),
            model.double()(*(x.double() for x in inputs)),
        )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_another_slim_network_is_refused() -> None:
    model, inputs = zoo.build("residual")
    spec = trace(model, inputs, network="residual")
    keep = {group.name: np.arange(2) for group in spec.prunable}
    other = slim(copy.deepcopy(model), spec, {name: np.arange(3) for name in keep})
    with pytest.raises(GraphError, match="cut by other units"):
        widen_(model, other, spec, keep)
