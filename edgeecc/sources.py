"""From what the user names to a network: a table name, a factory of their own, a weights file, a program.

A `NetworkSource` is everything needed to build the same module again, so that a run folder can be picked up
later by another command or on another machine. Of a program (.pt2) the run folder keeps a copy.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple, Union

import onnx
import torch
from torch import nn

from edgeecc.artifacts import atomic_path, file_sha256
from edgeecc.calibration_folder import folder_name
from edgeecc.data.sources import DataBundle, load
from edgeecc.errors import ArtifactError, ConfigError, GraphError
from edgeecc.graph.paper_groups import keep_streams_whole
from edgeecc.graph.settle import settle
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.networks.exported.program import Program
from edgeecc.networks.exported.pt2 import read_program
from edgeecc.networks.exported.rebuild import input_shape_of, rebuild
from edgeecc.networks.exported.replay import ExportedNetwork
from edgeecc.networks.public_names import in_our_names
from edgeecc.networks.table import NETWORKS, build, infer, info
from edgeecc.networks.weights import check_finite, load_into, load_state
from edgeecc.normalisation import Normalisation, read_normalisation
from edgeecc.plugins import call_own
from edgeecc.training.randomness import own_random_state, seed_

OptionValue = Union[int, float, str, bool]
#: Ending of a program's file, and its name in a run folder.
PROGRAM_SUFFIX = ".pt2"
PROGRAM_FILE = "program.pt2"


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from.

    Args:
        reference: name in the table, `package.module:factory`, or `pt2:NAME` of a program.
        input_shape: without batch.
        options: keyword arguments of the builder.
        paper_groups: whether residual streams stay whole, as in the paper.
        program: the program's file, None for other networks.
        sha256: what the program's file must hash to.
        normalisation: of its images; None takes the data set's.
    """

    reference: str
    input_shape: Tuple[int, ...]
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    paper_groups: bool = False
    program: Optional[Path] = None
    sha256: str = ""
    normalisation: Optional[Normalisation] = None

    @property
    def folders(self) -> Tuple[str, ...]:
        """Names, safe as folders, under which a calibration of it may lie, its own first.

        Other groups are another calibration, except in a network without residual streams, which has no others.
        """
        name = folder_name(self.reference)
        return (f"{name}-paper-groups", name) if self.paper_groups else (name,)

    @property
    def folder(self) -> str:
        """The name of its own calibration's folder."""
        return self.folders[0]

    @property
    def argument(self) -> str:
        """What names this network on the command line."""
        named = f"--network {self.reference if self.program is None else self.program}"
        return named + (" --paper-groups" if self.paper_groups else "")

    def example(self) -> Tuple[torch.Tensor, ...]:
        """Return an example input, batch 1, the same each time."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randn((1, *self.input_shape), generator=generator),)

    def build(self) -> nn.Module:
        """Return the module, with the weights of its program or fresh ones, which are always the same.

        Raises: ConfigError when the factory fails or returns no module; ArtifactError when the program is not the
            one that it was.
        """
        if self.program is not None:
            if file_sha256(self.program) != self.sha256:
                raise ArtifactError(
                    f"{self.program} is not the program that was pruned; restore it or prune again"
                )
            return _rebuilt(read_program(self.program), self.program, self.input_shape)
        cpu = torch.device("cpu")
        with own_random_state(cpu):
            seed_(cpu, 0)
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
            **({"program_sha256": self.sha256} if self.program is not None else {}),
            "normalisation": None if self.normalisation is None else self.normalisation.to_json(),
        }

    def keep_in(self, folder: Path) -> None:
        """Copy the program, where there is one, to where `from_json` looks for it.

        Raises: ArtifactError when the folder cannot be written.
        """
        if self.program is not None and self.program != folder / PROGRAM_FILE:
            with atomic_path(folder / PROGRAM_FILE) as temporary:
                shutil.copyfile(self.program, temporary)

    @staticmethod
    def from_json(data: object, folder: Path) -> NetworkSource:
        """Read what `to_json` wrote; `folder` is the run's.

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
        sha256 = data.get("program_sha256")
        return NetworkSource(
            str(reference),
            tuple(shape or ()),
            dict(options or {}),
            paper_groups=data.get("paper_groups") is True,
            program=None if sha256 is None else folder / PROGRAM_FILE,
            sha256=str(sha256 or ""),
            normalisation=read_normalisation(data.get("normalisation"), "run.json"),
        )


def open_network(
    network: Optional[str],
    input_shape: Optional[Tuple[int, ...]],
    weights: Optional[Path],
    *,
    paper_groups: bool = False,
    normalisation: Optional[Normalisation] = None,
) -> Tuple[nn.Module, NetworkSource]:  # fmt: skip
    """Build the network that the user named, and load the weights when given.

    Without `network` the weights must tell it; width and number of classes of table networks are read off
    the weights. A program (.pt2), given as either, carries its network and its weights. Images are normalised as
    the table says where `normalisation` does not.

    Raises: ConfigError when the network cannot be told; ArtifactError when the weights or the program do not load;
        GraphError when the program holds what cannot be rebuilt.
    """
    model, source = _opened(network, input_shape, weights)
    if normalisation is None and source.reference in NETWORKS:
        normalisation = info(source.reference).normalisation
    return model, replace(source, paper_groups=paper_groups, normalisation=normalisation)


def _opened(
    network: Optional[str], input_shape: Optional[Tuple[int, ...]], weights: Optional[Path]
) -> Tuple[nn.Module, NetworkSource]:
    if weights is not None and weights.suffix == PROGRAM_SUFFIX:
        if network is not None:
            raise ConfigError(f"{weights} carries its own network; leave out --network")
        return _open_program(weights, input_shape)
    if network is not None and network.endswith(PROGRAM_SUFFIX):
        model, source = _open_program(Path(network), input_shape)
        if weights is not None:
            load_into(model, load_state(weights))
        return model, source
    state = load_state(weights) if weights is not None else None
    reference, options = _choose(network, state, weights)
    source = NetworkSource(reference, _input_shape(reference, input_shape), options)
    model = source.build()
    if state is not None:
        load_into(model, in_our_names(reference, state)[0])
    return model, source


def _open_program(
    path: Path, input_shape: Optional[Tuple[int, ...]]
) -> Tuple[nn.Module, NetworkSource]:  # fmt: skip
    program = read_program(path)
    shape = input_shape_of(program, input_shape, path)
    model = _rebuilt(program, path, shape)
    check_finite(model.state_dict(), path)
    reference = f"pt2:{folder_name(path.stem)}"
    return model, NetworkSource(reference, shape, program=path, sha256=file_sha256(path))


def _rebuilt(program: Program, path: Path, input_shape: Tuple[int, ...]) -> ExportedNetwork:
    try:
        return rebuild(program, [(1, *input_shape)])
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error


def load_images(source: NetworkSource, text: str, seed: int = 0) -> DataBundle:
    """Load the data set that `text` names as the network takes it; see `edgeecc.data.sources.load`."""
    return load(text, input_shape=source.input_shape, seed=seed, normalisation=source.normalisation)


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
