"""Imports, and does once, what a command is slow to begin with; for the server that forks the tests' processes."""

from __future__ import annotations

import torch
from torch import nn

import edgeecc.calibration_job
import edgeecc.cli.main
import edgeecc.export
import edgeecc.prune
import edgeecc.sparsify  # noqa: F401
from edgeecc.graph.to_onnx import to_onnx

# A second thread must not be there when a process is forked.
torch.set_num_threads(1)
to_onnx(nn.Conv2d(1, 1, 1), (torch.zeros(1, 1, 2, 2),))
