"""Between tensors and units: sums over what a unit owns, and masks over what it feeds."""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray, IntArray, NetworkSpec, Slice

#: Per group one boolean per unit: whether it is alive.
Alive = List["np.typing.NDArray[np.bool_]"]


class UnitTable:
    """Where each prunable group's units sit in the parameters that read or carry them.

    Args:
        spec: the network.
        through: whether to count depthwise weights too, as the published code does.
        owns: which slices a unit owns instead of these; only `sums` heeds slices that do not read.
    """

    def __init__(
        self, spec: NetworkSpec, *, through: bool = False, owns: Optional[Callable[[Slice], bool]] = None
    ) -> None:  # fmt: skip
        self.spec = spec
        ndim = {parameter.name: len(parameter.shape) for parameter in spec.parameters}
        self._pieces: List[List[Tuple[Slice, torch.Tensor]]] = []
        for group in spec.prunable:
            units = np.arange(group.width)
            self._pieces.append(
                [
                    (piece, torch.from_numpy(piece.indices(units)))
                    for piece in group.slices
                    if (
                        owns(piece)
                        if owns is not None
                        else piece.role == "in"
                        or (through and piece.role == "through" and ndim[piece.parameter] > 1)
                    )
                ]
            )
        self._keys, self._places = self._table()

    def _table(self) -> Tuple[List[Tuple[str, int]], torch.Tensor]:
        """Return (parameter, axis) of every reduction, and per unit its places in them, (U, n), padded."""
        sizes = {parameter.name: parameter.shape for parameter in self.spec.parameters}
        starts: Dict[Tuple[str, int], int] = {}
        end = 0
        rows: List[List[int]] = []
        for group, pieces in zip(self.spec.prunable, self._pieces):
            owned: List[List[int]] = [[] for _ in range(group.width)]
            for piece, indices in pieces:
                key = (piece.parameter, piece.axis)
                if key not in starts:
                    starts[key] = end
                    end += sizes[piece.parameter][piece.axis]
                for unit, places in enumerate(indices.tolist(), start=piece.first):
                    owned[unit] += [starts[key] + place for place in places]
            rows += owned
        widest = max((len(row) for row in rows), default=0)
        padded = [row + [end] * (widest - len(row)) for row in rows]
        return list(starts), torch.tensor(padded, dtype=torch.int64).reshape(len(rows), widest)

    def sums(self, values: Callable[[str], torch.Tensor]) -> List[FloatArray]:
        """Return, per group, the sum of a tensor over what each unit owns, (c_g,), float64.

        Args:
            values: parameter name -> tensor of its shape.
        """
        return self.split(self.totals(values))

    def totals(self, values: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """Return the sums of all groups one after another, (U,), float64, on the values' device.

        A parameter takes one reduction; the rest is one gather, and the order of its sums never changes.
        """
        reduced = []
        for name, axis in self._keys:
            tensor = values(name)
            others = [place for place in range(tensor.ndim) if place != axis]
            reduced.append((tensor.sum(others) if others else tensor).double())  # no axes mean all
        if not reduced:
            return torch.zeros(len(self._places), dtype=torch.float64)
        flat = torch.cat([*reduced, reduced[0].new_zeros(1)])
        self._places = self._places.to(flat.device)
        return flat[self._places].sum(1)

    def split(self, totals: torch.Tensor) -> List[FloatArray]:
        """Return a vector over all units, (U,), as one array a group, (c_g,)."""
        whole = totals.double().cpu().numpy()
        ends = np.cumsum([group.width for group in self.spec.prunable])
        return [part.copy() for part in np.split(whole, ends[:-1])]

    def masks(self, alive: Alive) -> Dict[str, torch.Tensor]:
        """Return parameter name -> 0/1 tensor that broadcasts to it, for parameters that read a dead unit."""
        shapes = {parameter.name: parameter.shape for parameter in self.spec.parameters}
        masks: Dict[str, torch.Tensor] = {}
        for living, pieces in zip(alive, self._pieces):
            if living.all():
                continue
            for piece, indices in pieces:
                if piece.role != "in":
                    continue
                shape = shapes[piece.parameter]
                axis = torch.ones(shape[piece.axis])
                axis[
                    indices[
                        torch.from_numpy(~living[piece.first : piece.first + piece.count])
                    ].reshape(-1)
                ] = 0.0
                view = axis.reshape(
                    [-1 if place == piece.axis else 1 for place in range(len(shape))]
                )
                old = masks.get(piece.parameter)
                masks[piece.parameter] = view if old is None else old * view
        return masks


def beside_weights(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Return the masks of a network's parameters, each on the device and of the type of its parameter."""
    return {
        name: masks[name].to(parameter)
        for name, parameter in model.named_parameters()
        if name in masks
    }


def mask_weights_(
    model: nn.Module, optimizer: torch.optim.Optimizer, masks: Mapping[str, torch.Tensor]
) -> None:
    """Zero masked weights and their optimiser moments in place: momentum alone would revive them."""
    if not masks:
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mask = masks.get(name)
            if mask is not None:
                mask = mask.to(parameter)
                parameter.mul_(mask)
                for moment in optimizer.state.get(parameter, {}).values():
                    if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape:
                        moment.mul_(mask)


def copied(model: nn.Module) -> Dict[str, torch.Tensor]:
    """Return a copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def keep_of(spec: NetworkSpec, alive: Sequence[np.typing.NDArray[np.bool_]]) -> Dict[str, IntArray]:
    """Return the units that stay, per group."""
    return {
        group.name: np.flatnonzero(living).astype(np.int64)
        for group, living in zip(spec.prunable, alive)
    }


def widths_of(alive: Sequence[np.typing.NDArray[np.bool_]]) -> FloatArray:
    """Return the widths, (G,)."""
    return np.array([living.sum() for living in alive], dtype=np.float64)
