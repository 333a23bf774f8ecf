"""A network at any widths, in place: of each group the strongest units stay, and what reads them is fitted.

Source: AMC (ECCV 2018) and its published code: a unit is as strong as the sum of the magnitudes of the weights that
read it, and the layers are fitted on what they read in the whole network to what they gave there. The published
code fits layers of kernel 1 only; here any convolution, transposed convolution and linear layer is (ours). Second
moments are collected once; after that a width costs one triangular system for each layer that reads the group
(`refit`), and a layer that reads several groups one factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray, IntArray, NetworkSpec
from edgeecc.solvers.moments import grams
from edgeecc.solvers.refit import Nested, refitted
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.unfold import from_matrix, matrix
from edgeecc.solvers.units import Alive, UnitTable, widths_of

#: Weights of a layer, (o, d), for which of its inputs stay, (d,) bool.
Fit = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reader:
    """A parameter that reads prunable groups.

    Args:
        parameter: its name.
        axis: along which it reads.
        groups: places of the groups that it reads, in the order of width vectors.
        owner: (n,) int64, per index of the axis the place of its group, -1 where none is prunable.
        rank: (n,) int64, the rank of its unit in the group, the strongest 0; 0 where there is no group.
    """

    parameter: str
    axis: int
    groups: Tuple[int, ...]
    owner: torch.Tensor
    rank: torch.Tensor

    def kept(self, widths: FloatArray) -> torch.Tensor:
        """Return which indices of the axis stay at widths (G,), (n,) bool."""
        room = torch.from_numpy(np.append(widths, 1.0).astype(np.int64))
        return self.rank < room[self.owner]  # the last entry serves owner -1

    def along(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return values of the axis, (n,), in a shape that broadcasts to the parameter."""
        view: List[int] = [-1 if axis == self.axis else 1 for axis in range(like.ndim)]
        return values.to(like.device).reshape(view)


class Thinned:
    """The network of a problem at widths that change.

    Args:
        spec: of the network.
        model: changed in place by `apply_` alone.
        alive: units that are there; the weights that read others are zero.
        sample: images to fit on.
    """

    def __init__(self, spec: NetworkSpec, model: nn.Module, alive: Alive, sample: Sample) -> None:
        self._model = model
        self._parameters = dict(model.named_parameters())
        self.available = widths_of(alive)
        self.strength = UnitTable(spec).sums(lambda name: self._parameters[name].detach().abs())
        self.ranks = [_ranks(strength, on) for strength, on in zip(self.strength, alive)]
        self.readers = readers(spec, self.ranks)
        self._whole = {r.parameter: self._parameters[r.parameter].detach().clone() for r in self.readers}  # fmt: skip
        self._fits = self._fitting(sample)
        self._applied = {reader.parameter: self._key(reader, self.available) for reader in self.readers}  # fmt: skip

    def apply_(self, widths: FloatArray) -> None:
        """Give the network integer widths (G,), each at most what is available; those before do not matter."""
        with torch.no_grad():
            for reader in self.readers:
                key = self._key(reader, widths)
                if self._applied[reader.parameter] != key:
                    self._parameters[reader.parameter].copy_(self._weights(reader, widths))
                    self._applied[reader.parameter] = key

    def alive(self, widths: FloatArray) -> Alive:
        """Return which units stay at widths (G,)."""
        return [rank < int(width) for rank, width in zip(self.ranks, widths)]

    def _weights(self, reader: Reader, widths: FloatArray) -> torch.Tensor:
        """Return the weights of a reader; at the available widths exactly those that it had."""
        whole = self._whole[reader.parameter]
        if self._key(reader, widths) == self._key(reader, self.available):
            return whole
        kept = reader.kept(widths)
        fits = self._fits.get(reader.parameter)
        if fits is None:
            return whole * reader.along(kept, whole)
        module = self._module(reader)
        stays = columns_of(module, reader, kept)
        fitted = torch.stack([fit(on) for fit, on in zip(fits, stays)])
        return from_matrix(module, fitted).to(whole)

    def _fitting(self, sample: Sample) -> Dict[str, List[Fit]]:
        """Return what fits each convolution group of each reader that can be fitted and may change."""
        open_to = [r for r in self.readers if self._parameters[r.parameter].requires_grad]
        layers = {r.parameter.rpartition(".")[0]: r for r in open_to if r.parameter.endswith(".weight")}  # fmt: skip
        found = grams(self._model, list(layers), sample)
        fits: Dict[str, List[Fit]] = {}
        for layer in list(found):
            reader, moments = layers[layer], found.pop(layer)  # freed as they are factorised
            module = self._module(reader)
            weight = matrix(module, self._whole[reader.parameter]).double()
            order = torch.where(reader.owner < 0, -1, reader.rank)
            places = columns_of(module, reader, order) if len(reader.groups) == 1 else None
            fits[reader.parameter] = [
                _fit(moments[g], weight[g], None if places is None else places[g])
                for g in range(len(moments))
            ]
        return fits

    def _module(self, reader: Reader) -> nn.Module:
        return self._model.get_submodule(reader.parameter.rpartition(".")[0])

    def _key(self, reader: Reader, widths: FloatArray) -> Tuple[int, ...]:
        return tuple(int(widths[place]) for place in reader.groups)


def readers(spec: NetworkSpec, ranks: Sequence[IntArray]) -> Tuple[Reader, ...]:
    """Return every parameter that reads prunable groups, in the order of the groups.

    Args:
        spec: the network.
        ranks: per prunable group the rank of each unit.
    """
    shapes = {parameter.name: parameter.shape for parameter in spec.parameters}
    made: Dict[Tuple[str, int], Tuple[IntArray, IntArray]] = {}
    for place, (group, rank) in enumerate(zip(spec.prunable, ranks)):
        units = np.arange(group.width)
        for piece in (piece for piece in group.slices if piece.role == "in"):
            length = shapes[piece.parameter][piece.axis]
            fresh = (np.full(length, -1, dtype=np.int64), np.zeros(length, dtype=np.int64))
            owner, order = made.setdefault((piece.parameter, piece.axis), fresh)
            at = piece.indices(units)
            owner[at] = place
            order[at] = rank[piece.first : piece.first + piece.count, None]
    return tuple(
        Reader(
            name, axis, tuple(int(place) for place in np.unique(owner[owner >= 0])),
            torch.from_numpy(owner), torch.from_numpy(order),
        )
        for (name, axis), (owner, order) in made.items()
    )  # fmt: skip


def columns_of(module: nn.Module, reader: Reader, values: torch.Tensor) -> torch.Tensor:
    """Return values along a reader's axis, (n,), for the inputs of each convolution group, (g, d)."""
    shape = list(module.get_parameter("weight").shape)
    if reader.axis == 0:  # transposed: inputs first
        shape[1] = 1
    else:
        shape[0] = int(getattr(module, "groups", 1))
    spread = torch.empty(shape, dtype=values.dtype)
    spread[:] = reader.along(values, spread)
    return matrix(module, spread)[:, 0]


def _fit(gram: torch.Tensor, weight: torch.Tensor, place: Optional[torch.Tensor]) -> Fit:
    """Return what fits one convolution group; `place` orders its inputs where the sets that stay are nested."""
    if place is None:
        return lambda kept: refitted(gram, weight, kept.to(gram.device))
    nested = Nested.of(gram, weight, place.argsort(stable=True).to(gram.device))
    return lambda kept: nested.weights(int(kept.sum()))


def _ranks(strength: FloatArray, alive: np.typing.NDArray[np.bool_]) -> IntArray:
    """Return the rank of each unit, the strongest 0, ties by index; units that are gone come last."""
    order = np.argsort(-np.where(alive, strength, -1.0), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks
