"""A group declared whole is a constant everywhere: in widths, layers, parameters and costs."""

from __future__ import annotations

import pytest

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.graph.spec_io import read_spec
from edgeecc.graph.trace import trace
from tests import zoo


@pytest.mark.parametrize("name", ["residual", "dense_concat", "grouped", "depthwise", "flatten"])
def test_every_count_is_that_of_full_width(name: str) -> None:
    model, inputs = zoo.build(name)
    spec = trace(model, inputs, network=name)
    for group in spec.prunable:
        whole = spec.with_whole({group.name: "asked"})
        assert next(g for g in whole.groups if g.name == group.name).reason == "asked"
        assert read_spec(whole.to_json()) == whole
        widths = {g.name: max(1, g.width // 2) for g in whole.prunable}
        full = {**widths, group.name: group.width}
        for cost in (mac_cost, size_cost):
            assert cost(whole).predict(whole.vector(widths)) == cost(spec).predict(
                spec.vector(full)
            )


def test_an_unknown_or_whole_group_changes_nothing() -> None:
    model, inputs = zoo.build("plain")
    spec = trace(model, inputs, network="plain")
    assert spec.with_whole({"nowhere": "asked", "fc": "asked"}) == spec
