"""What a channel is worth when the others stand in for it, and the weights with which they do (ours).

A removed channel is rarely lost: much of it can be had from the channels that stay. For a layer that reads x, let C
be the covariance of its channels over images and positions, K those that stay and R those that go. The best linear
stand-in for x_R is A'x_K with A = C_KK^-1 C_KR, so the layer keeps what can be kept of its output when its weights
take W_K + W_R A' and its bias what the means leave. That is a primal step in closed form, and it tells importance
too. The first-order loss of dropping channel i is sum(w_i g_i), g the gradient; of dropping only what the others
cannot tell of it, sum(w_i (P g)_i / P_ii) with P the inverse of C: the same term along the residual of x_i on the
others, as regression has it. Two channels that tell the same are then worth little each, until one is gone.

Convolutions of one group, transposed ones and linear layers can take stand-ins; the other readers keep their plain
term. Where a reader has no bias, its means are left to the batch norm behind it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import NetworkSpec
from edgeecc.solvers.unfold import is_known
from edgeecc.solvers.units import Alive

#: Added to the diagonal of a covariance, as a share of its mean: channels that hardly vary stay out of stand-ins.
RIDGE = 1e-2
#: Of the running means and covariances, per batch.
DECAY = 0.9
#: Rows that a batch adds at most; they are spread over its images and positions.
ROWS = 4096
#: Of positions one in so many along each axis is taken where there are more rows than that.
APART = 3
#: Units of a reading at most: the covariance of more takes over 64 MiB.
UNITS = 4096


@dataclass(frozen=True)
class Reading:
    """Where a layer reads units of a prunable group.

    Args:
        group: index of the group among the prunable ones.
        module, parameter: names of the layer and its weight.
        axis: of the weight, along its inputs.
        first: unit of the group that comes first.
        columns: (n, b), the inputs of the layer that each unit owns.
    """

    group: int
    module: str
    parameter: str
    axis: int
    first: int
    columns: torch.Tensor

    @property
    def units(self) -> slice:
        """The units of the group that are read."""
        return slice(self.first, self.first + len(self.columns))

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the weight's shape by units, (n, b * rest)."""
        moved = weight.movedim(self.axis, 0)
        return moved[self.columns.to(weight.device)].reshape(len(self.columns), -1)

    def add_(self, weight: torch.Tensor, units: torch.Tensor, change: torch.Tensor) -> None:
        """Add to the weights of some units, (m,), what `of` would give of the change, (m, b * rest)."""
        moved = weight.movedim(self.axis, 0)
        at = self.columns.to(weight.device)[units].reshape(-1)
        moved.index_add_(0, at, change.reshape(len(at), *moved.shape[1:]).to(weight.dtype))

    def rows(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Return what a layer read as rows of units, (r, n), float32, at most about ROWS of them."""
        columns = self.columns.to(x.device)
        x = _thinned(x.detach().movedim(axis, -1), columns.shape[1])
        return x[..., columns].movedim(-2, -1).reshape(-1, len(columns)).float()


def readings(spec: NetworkSpec, model: nn.Module) -> List[Reading]:
    """Return every place where others can stand in for units of a prunable group."""
    found = []
    for index, group in enumerate(spec.prunable):
        for piece in group.slices:
            module = piece.parameter.rpartition(".")[0]
            layer = model.get_submodule(module)
            fine = piece.role == "in" and is_known(layer) and getattr(layer, "groups", 1) == 1
            if fine and 2 <= piece.count <= UNITS:
                columns = torch.from_numpy(piece.indices(np.arange(group.width)))
                found.append(
                    Reading(index, module, piece.parameter, piece.axis, piece.first, columns)
                )
    return found


@dataclass
class _Moments:
    """Running mean, (n,), and covariance, (n, n), of what a layer reads."""

    mean: torch.Tensor
    covariance: torch.Tensor


class StandIns:
    """Running moments of what layers read in training, and what they give.

    Args:
        spec: the network.
        model: its layers are watched, and changed by `take_over_`.
        average: mean of a tensor over the processes of a distributed run; called alike in all of them.
    """

    def __init__(
        self, spec: NetworkSpec, model: nn.Module, average: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.readings = readings(spec, model)
        self._average = average
        self._moments: List[Optional[_Moments]] = [None] * len(self.readings)
        self._residual: List[Tuple[torch.Tensor, torch.Tensor]] = []

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Take in what the layers read in training mode while the context is open."""
        by_module: Dict[str, List[int]] = {}
        for index, reading in enumerate(self.readings):
            by_module.setdefault(reading.module, []).append(index)
        with contextlib.ExitStack() as stack:
            for name, indices in by_module.items():
                handle = model.get_submodule(name).register_forward_pre_hook(self._watch(indices))
                stack.callback(handle.remove)
            yield

    def ready(self) -> bool:
        """Return whether every layer was seen."""
        return all(moments is not None for moments in self._moments)

    def settle(self, alive: Alive) -> None:
        """Take the moments as they are now for `residuals`, with the units that live now."""
        self._residual = []
        for index, reading in enumerate(self.readings):
            live = torch.from_numpy(np.flatnonzero(alive[reading.group][reading.units]))
            covariance = self._shared(index).covariance
            live = live.to(covariance.device)
            inverse = torch.linalg.inv(_ridged(covariance[live][:, live]))
            scaled = inverse / inverse.diagonal().unsqueeze(1)
            self._residual.append((live, scaled.to(covariance.dtype)))

    def residuals(self, reading: int, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return sum(w_i (P g)_i / P_ii) of the units of a reading, (n,); 0 where they are dead."""
        place = self.readings[reading]
        live, scaled = self._residual[reading]
        w, g = place.of(weight)[live], place.of(gradient)[live]
        total = weight.new_zeros(len(place.columns))
        total[live] = (w * (scaled.to(g.dtype) @ g)).sum(1)
        return total

    def take_over_(self, model: nn.Module, before: Alive, after: Alive) -> None:
        """Give the weights of units that die to those that stay, in place."""
        for index, reading in enumerate(self.readings):
            old, new = before[reading.group][reading.units], after[reading.group][reading.units]
            if self._moments[index] is None or not (old & ~new).any() or not new.any():
                continue
            moments = self._shared(index)
            device = moments.covariance.device
            stay, gone = (
                torch.from_numpy(np.flatnonzero(which)).to(device) for which in (new, old & ~new)
            )
            covariance = moments.covariance
            stand_in = torch.linalg.solve(
                _ridged(covariance[stay][:, stay]), covariance[stay][:, gone].double()
            )
            self._move_(model, reading, stay=stay, gone=gone, stand_in=stand_in, mean=moments.mean)

    def _move_(  # keyword-only, one each
        self, model: nn.Module, reading: Reading, *, stay: torch.Tensor, gone: torch.Tensor,
        stand_in: torch.Tensor, mean: torch.Tensor,
    ) -> None:  # fmt: skip
        layer = model.get_submodule(reading.module)
        weight = layer.get_parameter("weight")
        with torch.no_grad():
            lost = reading.of(weight)[gone].double()
            bias = getattr(layer, "bias", None)
            if bias is not None:
                left = mean[gone].double() - stand_in.T @ mean[stay].double()
                outputs = _outputs(reading, weight, lost)
                bias.add_((left @ outputs).to(bias.dtype))
            reading.add_(weight, stay, stand_in @ lost)

    def _watch(self, indices: Sequence[int]) -> Any:  # a hook, whose type torch spells with Any
        def see(module: nn.Module, args: Tuple[Any, ...]) -> None:
            if module.training and args:
                axis = -1 if isinstance(module, nn.Linear) else 1
                with torch.no_grad():
                    for index in indices:
                        self._take(index, self.readings[index].rows(args[0], axis))

        return see

    def _take(self, index: int, rows: torch.Tensor) -> None:
        mean = rows.mean(0)
        centred = rows - mean
        covariance = centred.T @ centred / len(rows)
        old = self._moments[index]
        if old is None:
            self._moments[index] = _Moments(mean, covariance)
            return
        old.mean.lerp_(mean, 1.0 - DECAY)
        old.covariance.lerp_(covariance, 1.0 - DECAY)

    def _shared(self, index: int) -> _Moments:
        own = self._moments[index]
        assert own is not None  # noqa: S101  # callers ask `ready` first
        return _Moments(self._average(own.mean), self._average(own.covariance))

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        state = {}
        for index, moments in enumerate(self._moments):
            if moments is not None:
                state[f"mean.{index}"] = moments.mean
                state[f"covariance.{index}"] = moments.covariance
        return state

    def load_state(self, state: Dict[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        for index in range(len(self._moments)):
            if f"mean.{index}" in state:
                self._moments[index] = _Moments(
                    state[f"mean.{index}"], state[f"covariance.{index}"]
                )


def _ridged(covariance: torch.Tensor) -> torch.Tensor:
    """Return a covariance in float64 with the ridge on its diagonal; any will do where nothing varies."""
    whole = covariance.double()
    mean = float(whole.diagonal().mean())
    ridge = RIDGE * mean if mean > 0.0 else 1.0
    return whole + ridge * torch.eye(len(whole), dtype=whole.dtype, device=whole.device)


def _outputs(reading: Reading, weight: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
    """Return the weights of units summed over all but the layer's outputs, (m, outputs)."""
    rest = [size for axis, size in enumerate(weight.shape) if axis != reading.axis]
    return lost.reshape(len(lost), -1, *rest).sum([1, *range(3, 2 + len(rest))])


def _thinned(x: torch.Tensor, block: int) -> torch.Tensor:
    """Return a layer's input, (N, *positions, channels), with every few images and positions left out."""
    for axis in range(x.ndim - 2, -1, -1):
        count = block * x[..., 0].numel()
        stride = (
            min(x.shape[axis], -(-count // ROWS)) if axis == 0 else (APART if count > ROWS else 1)
        )
        if stride > 1:
            index = [slice(None)] * x.ndim
            index[axis] = slice(None, None, stride)
            x = x[tuple(index)]
    return x
