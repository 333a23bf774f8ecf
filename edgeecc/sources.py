"""From what the user names to a network: a table name, a factory of their own, a weights file.

A `NetworkSource` is everything needed to build the same module again, so that a run folder can be picked up
later by another command or on another machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple, Union

import onnx
import torch
from torch import nn

from edgeecc.calibration_folder import folder_name
from edgeecc.errors import ArtifactError, ConfigError, GraphError
from edgeecc.graph.paper_groups import keep_streams_whole
from edgeecc.graph.settle import settle
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.networks.public_names import in_our_names
from edgeecc.networks.table import NETWORKS, build, infer, info
from edgeecc.networks.weights import load_into, load_state
from edgeecc.plugins import call_own

OptionValue = Union[int, float, str, bool]


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from.

    Args:
        reference: name in the table, or `package.module:factory`.
        input_shape: without batch.
        options: keyword arguments of the builder.
        paper_groups: whether residual streams stay whole, as in the paper.
    """

    reference: str
    input_shape: Tuple[int, ...]
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    paper_groups: bool = False

    @property
    def folder(self) -> str:
        """A name that is safe as a folder; other groups are another calibration."""
        return folder_name(self.reference) + ("-paper-groups" if self.paper_groups else "")

    def example(self) -> Tuple[torch.Tensor, ...]:
        """Return an example input, batch 1, the same each time."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randn((1, *self.input_shape), generator=generator),)

    def build(self) -> nn.Module:
        """Return the module with fresh weights.

        Raises: ConfigError when the factory fails or returns no module.
        """
        if ":" not in self.reference:
            return build(self.reference, **self.options)
        return _own_network(self.reference)

    def to_json(self) -> Dict[str, object]:
        """Return the source as JSON-ready values."""
        return {
            "network": self.reference,
            "input_shape": list(self.input_shape),
            "options": dict(self.options),
            "paper_groups": self.paper_groups,
        }

    @staticmethod
    def from_json(data: object) -> NetworkSource:
        """Read what `to_json` wrote.

        Raises: ArtifactError when a field is wrong.
        """
        if not isinstance(data, dict):
            raise ArtifactError("run.json names no network; run edgeecc prune again")
        reference, shape, options = (
            data.get("network"),
            data.get("input_shape"),
            data.get("options"),
        )
        fine = isinstance(reference, str) and isinstance(options, dict) and _is_shape(shape)
        if not fine:
            raise ArtifactError(
                f"run.json describes its network wrongly: {data!r}; run edgeecc prune again"
            )
        return NetworkSource(
            str(reference),
            tuple(shape or ()),
            dict(options or {}),
            paper_groups=data.get("paper_groups") is True,
        )


def open_network(
    network: Optional[str],
    input_shape: Optional[Tuple[int, ...]],
    weights: Optional[Path],
    *,
    paper_groups: bool = False,
) -> Tuple[nn.Module, NetworkSource]:  # fmt: skip
    """Build the network that the user named, and load the weights when given.

    Without `network` the weights must tell it; width and number of classes of table networks are read off
    the weights.

    Raises: ConfigError when the network cannot be told; ArtifactError when the weights do not load.
    """
    state = load_state(weights) if weights is not None else None
    reference, options = _choose(network, state, weights)
    shape = _input_shape(reference, input_shape)
    source = NetworkSource(reference, shape, options, paper_groups=paper_groups)
    model = source.build()
    if state is not None:
        load_into(model, in_our_names(reference, state)[0])
    return model, source


@dataclass(frozen=True)
class Traced:
    """A network's spec, and its dense ONNX graph, in which every prunable group can be cut."""

    spec: NetworkSpec
    graph: onnx.ModelProto


def trace_source(model: nn.Module, source: NetworkSource) -> Traced:
    """Trace and export a network on its example input.

    Raises: GraphError when it cannot run on the input, which is said, or be traced or exported.
    """
    try:
        spec = trace(model, source.example(), network=source.reference)
        graph = to_onnx(model, source.example())
        spec = settle(spec, graph)
        return Traced(keep_streams_whole(spec) if source.paper_groups else spec, graph)
    except GraphError as error:
        raise GraphError(
            f"{error} (input {'x'.join(map(str, source.input_shape))}, see --input)"
        ) from error


def _choose(
    network: Optional[str], state: Optional[Mapping[str, torch.Tensor]], weights: Optional[Path]
) -> Tuple[str, Dict[str, OptionValue]]:
    if network is None:
        inferred = infer(state) if state is not None else None
        if inferred is None:
            what = (
                f"the tensors of {weights} fit no known network"
                if weights
                else "no network is given"
            )
            raise ConfigError(
                f"{what}; give --network (known: {', '.join(sorted(NETWORKS))}, or package.module:factory)"
            )
        return inferred
    if ":" in network:
        return network, {}
    if network not in NETWORKS:
        raise ConfigError(
            f"unknown network {network!r}; known are {', '.join(sorted(NETWORKS))}, or package.module:factory"
        )
    return (infer(state, network) if state is not None else None) or (network, {})


def _input_shape(reference: str, given: Optional[Tuple[int, ...]]) -> Tuple[int, ...]:
    if given is not None:
        return given
    if ":" in reference:
        raise ConfigError(
            f"the input shape of {reference} is not known; give --input such as 3x224x224"
        )
    return info(reference).input_shape


def _own_network(reference: str) -> nn.Module:
    model = call_own(reference)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{reference}() returned {type(model).__name__}; it must return a torch.nn.Module"
        )
    return model


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 5
        and all(type(n) is int and 0 < n <= 65536 for n in shape)
    )
