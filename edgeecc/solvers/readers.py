"""The layers that read a group of channels, and which input of theirs belongs to which unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import ChannelGroup, NetworkSpec, Slice
from edgeecc.solvers.unfold import is_known, matrix


@dataclass(frozen=True)
class Reader:
    """A weight that reads units of a group.

    Args:
        parameter: its name.
        pieces: where the units sit in it, all on one axis.
    """

    parameter: str
    pieces: Tuple[Slice, ...]

    @property
    def layer(self) -> str:
        """Name of its module."""
        return self.parameter.rpartition(".")[0]

    def is_known(self, model: nn.Module) -> bool:
        """Return whether the product that the weight takes part in is known."""
        return self.parameter.endswith("weight") and is_known(model.get_submodule(self.layer))

    def matrix(self, model: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor in the layout of the weight as matrices, (g, o, d), d counting what it reads."""
        if self.is_known(model):
            return matrix(model.get_submodule(self.layer), tensor)
        size = tensor.shape[self.pieces[0].axis]
        return tensor.movedim(self.pieces[0].axis, -1).reshape(1, -1, size)

    def units(self, model: nn.Module) -> torch.Tensor:
        """Return the unit of the group that each input belongs to, (g, d) int64, -1 for none."""
        weight = model.get_parameter(self.parameter)
        axis = self.pieces[0].axis
        along = np.full(weight.shape[axis], -1, dtype=np.int64)
        for piece in self.pieces:
            units = np.arange(piece.first, piece.first + piece.count)
            along[piece.indices(units)] = units[:, None]
        view = [-1 if place == axis else 1 for place in range(weight.ndim)]
        wide = torch.from_numpy(along).to(weight.device).reshape(view).expand(weight.shape)
        return self.matrix(model, wide)[:, 0]

    def allowed(self, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return which inputs are not masked, (g, d) bool; `masks` as of `UnitTable.masks`."""
        weight = model.get_parameter(self.parameter)
        mask = masks.get(self.parameter, torch.ones(()))
        return self.matrix(model, mask.to(weight.device).expand(weight.shape))[:, 0] > 0

    def weight(self, model: nn.Module) -> torch.Tensor:
        """Return the weight as matrices, (g, o, d), float64."""
        return self.matrix(model, model.get_parameter(self.parameter).detach()).double()


def readers(spec: NetworkSpec, group: ChannelGroup) -> Tuple[Reader, ...]:
    """Return what reads a group, in forward order."""
    pieces: Dict[str, List[Slice]] = {}
    for piece in group.slices:
        if piece.role == "in":
            pieces.setdefault(piece.parameter, []).append(piece)
    place = {layer.name: index for index, layer in enumerate(spec.layers)}
    found = [Reader(parameter, tuple(parts)) for parameter, parts in pieces.items()]
    return tuple(sorted(found, key=lambda reader: place.get(reader.layer, len(place))))
