"""What TensorRT's messages tell of sparse kernels, in the words of its releases."""

from __future__ import annotations

import pytest

from edgeecc.errors import ArtifactError
from edgeecc.runtimes.engine import BuildReport
from edgeecc.runtimes.sparse_kernels import SparseKernels, sparse_kernels

pytestmark = pytest.mark.device

NAMED = """\
[08/05/2024-12:06:54] [I] [TRT] (Sparsity) Layers eligible for sparse math: MatMul_401, Conv_619 + Relu_620, Conv_622
[08/05/2024-12:06:59] [I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: Conv_622"""
NONE_NAMED = """\
(Sparsity) Layers eligible for sparse math: Conv_0
(Sparsity) TRT inference plan picked sparse implementation for layers:"""
COUNTED = """\
(Sparsity) Found 39 layer(s) eligible to use sparse tactics: a, b
something else
(Sparsity) Chose 0 layer(s) using sparse tactics"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (NAMED, SparseKernels(3, 1)),
        (NONE_NAMED, SparseKernels(1, 0)),
        (COUNTED, SparseKernels(39, 0)),
        (f"{NAMED}\n{COUNTED}", SparseKernels(39, 0)),
        (f"{COUNTED}\n{NONE_NAMED}", SparseKernels(1, 0)),
        ("", None),
        (COUNTED.replace("(Sparsity)", "(sparsely)"), None),
        (COUNTED.splitlines()[0], None),
        (COUNTED.splitlines()[-1], None),
        (COUNTED.replace("39", "many"), None),
    ],
)
def test_every_release_is_understood(text: str, told: SparseKernels) -> None:
    assert sparse_kernels(text) == told


def test_a_report_keeps_what_was_told() -> None:
    plain = BuildReport("tensorrt 10", "fp16", "casts", 1.0, 5)
    full = BuildReport("tensorrt 10", "fp16", "casts", 1.0, 5, 7, ("slow",), SparseKernels(39, 2))
    for report in (plain, full):
        assert BuildReport.from_json(report.to_json(), "m.json") == report
    before = {name: value for name, value in plain.to_json().items() if name != "sparse"}
    assert BuildReport.from_json(before, "m.json") == plain
    for damage in ([], {"eligible": 3}, {"eligible": 3, "chosen": "all"}):
        with pytest.raises(ArtifactError, match=r"m\.json"):
            BuildReport.from_json({**full.to_json(), "sparse": damage}, "m.json")
