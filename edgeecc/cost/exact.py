"""Costs that need no device: multiply-accumulates and bytes, counted exactly from the spec."""

from __future__ import annotations

import math

import numpy as np

from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import Term, layer_terms, spec_groups
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.units import Metric

METER = "exact count"
#: Bytes of a float32.
ELEMENT_BYTES = 4


def mac_cost(spec: NetworkSpec) -> ProductModel:
    """Return the multiply-accumulates of an inference, batch 1, as a function of the widths."""
    return ProductModel(
        Metric.MACS,
        METER,
        groups=spec_groups(spec),
        terms=layer_terms(spec),
        coefficients=np.array([layer.dense_macs for layer in spec.layers], dtype=np.float64),
        constant=0.0,
    )


def size_cost(spec: NetworkSpec) -> ProductModel:
    """Return the bytes of all parameters and buffers in float32 as a function of the widths."""
    terms = [Term.of(p.name, spec.parameter_form(p)) for p in spec.parameters if p.shape]
    dense = [ELEMENT_BYTES * math.prod(p.shape) for p in spec.parameters if p.shape]
    return ProductModel(
        Metric.SIZE,
        METER,
        groups=spec_groups(spec),
        terms=terms,
        coefficients=np.array(dense, dtype=np.float64),
        constant=float(ELEMENT_BYTES * sum(1 for p in spec.parameters if not p.shape)),
    )


def parameter_count(spec: NetworkSpec, widths: Widths) -> int:
    """Return the number of trained parameters at the given widths."""
    trained = [parameter for parameter in spec.parameters if parameter.trained]
    return sum(
        math.prod(form.at(widths) for form in spec.parameter_form(parameter))
        for parameter in trained
    )
