"""Units: which channels must go together, from torch-pruning's dependency graph.

torch-pruning answers, for one root layer, which indices of which other layers hang on each of its output
channels. We ask it for every convolution and linear layer, unite what hangs together (an *atom* is one index
on one side of one module), add the residues that grouped convolutions tie, and read the connected components
as units.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterable, List, Literal, Mapping, Optional, Tuple

import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.outputs import tensors

Side = Literal["out", "in", "through"]
#: (module name, side, index)
Atom = Tuple[str, Side, int]

CONV = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
LAYERS = (*CONV, nn.Linear)
PER_CHANNEL = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.PReLU,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """Channels that must go together.

    Args:
        places: (module name, side) -> indices there, sorted.
        obstacle: why they cannot be removed; empty when nothing is known against it.
    """

    places: Mapping[Tuple[str, Side], Tuple[int, ...]]
    obstacle: str

    def signature(self) -> FrozenSet[Tuple[str, Side, int]]:
        """Return what units of one group have in common: the places and how many indices each holds."""
        return frozenset(
            (name, side, len(indices)) for (name, side), indices in self.places.items()
        )


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a convolution carries each channel alone."""
    if not isinstance(module, CONV):
        return False
    return module.groups == module.in_channels == module.out_channels and module.groups > 1


def find_units(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...]) -> List[Unit]:
    """Return the units of a network, in no particular order.

    Args:
        model: is traced in place by torch-pruning; hand in a copy.
        example_inputs: the forward arguments.
    Raises: GraphError when torch-pruning cannot follow the network.
    """
    import torch_pruning

    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            inputs = tuple(x.clone() for x in example_inputs)  # forward may work in place
            graph.build_dependency(model, inputs, output_transform=tensors, verbose=False)
            return _Coupling(model, graph).units()
    except GraphError:
        raise
    except Exception as error:
        message = f"the dependency graph cannot be built: {type(error).__name__}: {error}"
        raise GraphError(f"{message}; simplify the forward or leave the part out") from error


class _Coupling:
    """Union-find over atoms, filled from every root layer of the dependency graph."""

    def __init__(self, model: nn.Module, graph: object) -> None:
        self._graph = graph
        self._names = {module: name for name, module in model.named_modules()}
        self._parent: Dict[Atom, Atom] = {}
        self._obstacles: Dict[Atom, str] = {}

    def units(self) -> List[Unit]:
        for module, name in self._names.items():
            if isinstance(module, LAYERS) and module in self._graph.module2node:  # type: ignore[attr-defined]
                self._tie_groups(module, name)
                if not is_depthwise(module):
                    self._follow(module, name)
        members: Dict[Atom, List[Atom]] = defaultdict(list)
        for atom in self._parent:
            members[self._find(atom)].append(atom)
        return [self._unit(atoms) for atoms in members.values()]

    def _follow(self, root: nn.Module, name: str) -> None:
        """Unite each output channel of a root layer with all that hangs on it."""
        graph = self._graph
        prune_out = graph.get_pruner_of_module(root).prune_out_channels  # type: ignore[attr-defined]
        width = graph.get_out_channels(root)  # type: ignore[attr-defined]
        for channel in range(width):
            self._find((name, "out", channel))
        group = graph.get_pruning_group(root, prune_out, list(range(width)))  # type: ignore[attr-defined]
        for item in group:
            target, handler = item.dep.target.module, item.dep.handler
            side = self._side(target, handler)
            for index, channel in zip(item.idxs, item.root_idxs):
                self._attach((name, "out", int(channel)), target, side, int(index))

    def _attach(self, root: Atom, target: nn.Module, side: Optional[Side], index: int) -> None:
        obstacle = _obstacle(target)
        if obstacle:
            self._obstacles[self._find(root)] = obstacle
        elif side is not None and target in self._names:
            self._unite(root, (self._names[target], side, index))

    def _side(self, target: nn.Module, handler: object) -> Optional[Side]:
        if is_depthwise(target) or isinstance(target, PER_CHANNEL):
            return "through"
        if not isinstance(target, LAYERS):
            return None
        pruner = self._graph.get_pruner_of_module(target)  # type: ignore[attr-defined]
        return "out" if handler == pruner.prune_out_channels else "in"

    def _tie_groups(self, module: nn.Module, name: str) -> None:
        """Tie the channels that a grouped convolution must lose together: one of every group."""
        if not isinstance(module, CONV) or module.groups == 1 or is_depthwise(module):
            return
        sides: Tuple[Tuple[Side, int], ...] = (
            ("in", module.in_channels),
            ("out", module.out_channels),
        )
        for side, channels in sides:
            per_group = channels // module.groups
            for index in range(channels):
                self._unite((name, side, index % per_group), (name, side, index))

    def _find(self, atom: Atom) -> Atom:
        self._parent.setdefault(atom, atom)
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def _unite(self, one: Atom, other: Atom) -> None:
        root, leaf = self._find(one), self._find(other)
        if root != leaf:
            self._parent[leaf] = root
            if leaf in self._obstacles:
                self._obstacles[root] = self._obstacles[leaf]

    def _unit(self, atoms: Iterable[Atom]) -> Unit:
        atoms = list(atoms)
        places: Dict[Tuple[str, Side], List[int]] = defaultdict(list)
        for name, side, index in atoms:
            places[name, side].append(index)
        obstacle = self._obstacles.get(self._find(atoms[0]), "")
        return Unit({place: tuple(sorted(indices)) for place, indices in places.items()}, obstacle)


def _obstacle(target: object) -> str:
    """Return why a unit that reaches `target` must stay whole, or nothing."""
    kind = type(target).__name__
    if kind == "_OutputOp":
        return "its channels are an output of the network"
    if isinstance(target, nn.Parameter):
        return "it is combined with a parameter that belongs to no layer"
    if isinstance(target, (nn.LayerNorm, nn.GroupNorm)):
        return f"{kind} takes statistics over its channels"
    if isinstance(target, (nn.LSTM, nn.MultiheadAttention, nn.Embedding)):
        return f"edgeecc does not cut {kind}"
    return ""
