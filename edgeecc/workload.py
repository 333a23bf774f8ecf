"""What an inference does, node by node: the input of the virtual devices and of the energy receipts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeWork:
    """The work of one ONNX node at given widths, batch 1.

    Args:
        name: name of the layer or node.
        op: ONNX operator.
        macs: multiply-accumulates.
        weight_bytes: bytes of constant tensors that it reads.
        read_bytes: bytes of activations that it reads.
        written_bytes: bytes of activations that it writes.
        in_channels, out_channels: channels per group on either side of a convolution or matrix product
            (what the device's channel tiles pad); 0 for other nodes.
        conv_groups: convolution groups; 1 for other nodes.
    """

    name: str
    op: str
    macs: float
    weight_bytes: float
    read_bytes: float
    written_bytes: float
    in_channels: int = 0
    out_channels: int = 0
    conv_groups: int = 1
