"""Importance of units in units of loss: running averages of first-order terms, less what others can tell (ours).

The term of a unit is the sum, over the weights that read it, of w dL/dw, each layer's part along the residual of
what it reads on the other units (`standin`). Its square, averaged over batches, estimates the loss of removing the
unit to second order, with the Fisher information as curvature.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.solvers.standin import (
    ROWS,
    Reading,
    eliminated,
    inverse,
    readings,
    stand_in_,
    without,
)
from edgeecc.solvers.units import Alive, UnitTable

#: Sum of a tensor over processes.
Total = Callable[[torch.Tensor], torch.Tensor]
#: Decay of running sums over what layers read, per batch.
DECAY = 0.9
#: Share of a group's living units that may go in a round before importance is looked at anew.
FOLLOWED = 0.25


class Watched:
    """What is known of one reading.

    Attributes:
        shift: mean of the first batch, (n,); rows less it have moments without cancellation.
        moments: running sum of (x, 1)(x, 1)' over rows x of all processes, (n + 1, n + 1); None before the first batch.
        mean: as it was settled, (n,).
        live: living units of the reading, (m,).
        inverse: P of these, (m, m), float64.
        square: running square of the term, (n,), float64.
    """

    #: What a checkpoint keeps, where it is known.
    KEPT = ("shift", "moments", "mean", "live", "inverse", "square")

    def __init__(self, reading: Reading, each: int, total: Total) -> None:
        size = len(reading.columns)
        self.reading = reading
        self._each, self._total = each, total
        self.shift: Optional[torch.Tensor] = None
        self.moments: Optional[torch.Tensor] = None
        self.mean: Optional[torch.Tensor] = None
        self.live = torch.arange(size)
        self.inverse: Optional[torch.Tensor] = None
        self.square = torch.zeros(size, dtype=torch.float64)
        self.stopped = False
        self._scaled: Optional[torch.Tensor] = None

    def keep(self, live: torch.Tensor, inverse: torch.Tensor) -> None:
        """Take the living units, and P of them."""
        self.live, self.inverse, self._scaled = live, inverse, None

    @torch.no_grad()
    def look(self, x: torch.Tensor, axis: int) -> None:
        """Take in what the layer reads of a batch, its channels along an axis.

        Forward passes may run in half precision; products of rows in it are no covariance, whose inverse must exist.
        """
        if self.stopped:
            return
        with torch.autocast(x.device.type, enabled=False):
            self._add(x, axis)

    def _add(self, x: torch.Tensor, axis: int) -> None:
        rows = self.reading.rows(x, axis, self._each)
        one = rows.new_ones(len(rows), 1)
        if self.shift is None:
            sums = self._total(torch.cat([rows, one], 1).sum(0))
            self.shift = sums[:-1] / sums[-1]
        rows = torch.cat([rows - self.shift.to(rows), one], 1)
        new = self._total(rows.mT @ rows)
        self.moments = new if self.moments is None else DECAY * self.moments.to(new) + new

    def settle(self, alive: npt.NDArray[np.bool_]) -> None:
        """Bring mean and P up to date, for the units of the reading that live."""
        if self.moments is None or self.shift is None:
            return
        moments = self.moments.double() / self.moments[-1, -1]
        self.mean = self.shift.to(moments) + moments[-1, :-1]
        live = torch.from_numpy(np.flatnonzero(alive)).to(moments.device)
        mean = moments[-1, :-1][live]
        self.keep(live, inverse(moments[live][:, live] - torch.outer(mean, mean)))

    def term(self, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the term of each unit, (n,), float64; 0 where it is dead."""
        total = torch.zeros(len(self.reading.columns), dtype=torch.float64, device=weight.device)
        w, g = self.reading.of(weight), self.reading.of(gradient)
        if len(self.live) < len(w):
            w, g = w[self.live], g[self.live]
        if self.inverse is None:
            total[self.live] = (w * g).sum(1).double()
        else:
            if self._scaled is None:
                self._scaled = (self.inverse / self.inverse.diagonal().unsqueeze(1)).to(g)
            total[self.live] = (w * (self._scaled @ g)).sum(1).double()
        return total


class Importance:
    """Running importance of all units of a network.

    Args:
        spec: the network.
        model: the network.
        decay: of the averages, per step, in [0, 1).
        batch: images of a batch, over all processes.
        total: sum of a tensor over the processes of a distributed run; called alike in all of them.
        share: whether layers' terms leave out what other units can tell, and others stand in for what goes.
    """

    def __init__(
        self, spec: NetworkSpec, model: nn.Module, *, decay: float, batch: int, total: Total,
        share: bool = True,
    ) -> None:  # fmt: skip
        self._decay = decay
        self._watched = (
            [Watched(reading, max(1, ROWS // batch), total) for reading in readings(spec, model)]
            if share
            else []
        )
        known = {watched.reading.piece for watched in self._watched}
        self._plain = UnitTable(spec, owns=lambda piece: piece.role == "in" and piece not in known)
        self._totals = torch.zeros(sum(group.width for group in spec.prunable), dtype=torch.float64)
        self._first = np.cumsum([0] + [group.width for group in spec.prunable])

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Take in what layers read in training mode while the context is open."""
        by_module: Dict[str, List[Watched]] = {}
        for watched in self._watched:
            by_module.setdefault(watched.reading.module, []).append(watched)
        with contextlib.ExitStack() as stack:
            for name, several in by_module.items():
                handle = model.get_submodule(name).register_forward_pre_hook(
                    _watcher(several), with_kwargs=True
                )
                stack.callback(handle.remove)
            yield

    def take(self, model: nn.Module) -> None:
        """Take in the gradients of a batch.

        Raises: ConfigError for a weight without a gradient.
        """
        parameters = dict(model.named_parameters())

        def first_order(name: str) -> torch.Tensor:
            return parameters[name].detach() * _gradient(parameters, name)

        totals = self._plain.totals(first_order)
        for watched in self._watched:
            name = watched.reading.piece.parameter
            term = watched.term(parameters[name].detach(), _gradient(parameters, name))
            at = self._units(watched.reading)
            totals = totals.to(term.device)
            totals[at] += term
            watched.square = _averaged(watched.square.to(term.device), term**2, self._decay)
        self._totals = _averaged(self._totals.to(totals.device), totals**2, self._decay)

    def settle(self, alive: Alive) -> None:
        """Bring the residuals up to date with what layers read now, for the units that live."""
        for watched in self._watched:
            watched.settle(alive[watched.reading.group][watched.reading.units])

    def arrays(self) -> List[FloatArray]:
        """Return the importance per group, (c_g,)."""
        return self._plain.split(self._totals)

    def as_they_go(self, alive: Alive) -> List[FloatArray]:
        """Return the importance per group, (c_g,), of units as they go one after another; see `eliminated`."""
        result = self.arrays()
        for group, (a, living) in enumerate(zip(result, alive)):
            shares, inverses = [], []
            for watched in self._of(group):
                place = np.flatnonzero(living)
                local = np.searchsorted(
                    place, watched.live.cpu().numpy() + watched.reading.piece.first
                )
                assert watched.inverse is not None  # noqa: S101  # `_of` gives settled ones
                inside = np.zeros(len(place))
                inside[local] = watched.square[watched.live].cpu().numpy()
                whole = np.eye(len(place))
                whole[np.ix_(local, local)] = watched.inverse.cpu().numpy()
                shares.append(inside)
                inverses.append(whole)
            if inverses:
                summed = np.maximum(np.sum(shares, axis=0), 1e-300)
                most = max(1, round(FOLLOWED * int(living.sum())))
                a[living] = eliminated(a[living], [one / summed for one in shares], inverses, most)
        return result

    def let_go_(self, model: nn.Module, before: Alive, after: Alive) -> None:
        """Let those that stay stand in for units that die, in place; their importance grows with their residual."""
        for watched in self._watched:
            reading = watched.reading
            if watched.inverse is None or watched.mean is None:
                continue
            living = watched.live.cpu().numpy()
            stays = after[reading.group][reading.units][living]
            if stays.all() or not stays.any():
                continue
            device = watched.inverse.device
            stay, gone = (torch.from_numpy(np.flatnonzero(w)).to(device) for w in (stays, ~stays))
            weights, rest = without(watched.inverse, stay, gone)
            stand_in_(
                model, reading, stay=watched.live[stay], gone=watched.live[gone], weights=weights, mean=watched.mean
            )  # fmt: skip
            self._grow(
                watched, watched.live[stay], watched.inverse.diagonal()[stay] / rest.diagonal()
            )
            watched.keep(watched.live[stay], rest)

    def _grow(self, watched: Watched, units: torch.Tensor, factor: torch.Tensor) -> None:
        """Scale the part that a reading has in the importance of its units."""
        at = self._units(watched.reading)
        totals = self._totals[at]
        squares = sum(other.square for other in self._watched if self._units(other.reading) == at)
        share = watched.square[units] / torch.as_tensor(squares)[units].clamp(min=1e-300)
        totals[units] *= 1.0 + share * (factor - 1.0)
        watched.square[units] *= factor

    def _units(self, reading: Reading) -> slice:
        start = int(self._first[reading.group]) + reading.piece.first
        return slice(start, start + len(reading.columns))

    def _of(self, group: int) -> List[Watched]:
        return [
            watched
            for watched in self._watched
            if watched.reading.group == group and watched.inverse is not None
        ]

    def stop(self) -> None:
        """Watch no longer: nothing is left to choose."""
        for watched in self._watched:
            watched.stopped = True

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        state = {"totals": self._totals}
        for index, watched in enumerate(self._watched):
            for name in Watched.KEPT:
                value = getattr(watched, name)
                if value is not None:
                    state[f"{name}.{index}"] = value
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._totals = state["totals"]
        for index, watched in enumerate(self._watched):
            for name in Watched.KEPT:
                if f"{name}.{index}" in state:
                    setattr(watched, name, state[f"{name}.{index}"])


def _watcher(several: Sequence[Watched]) -> Any:  # a hook, whose type torch spells with Any
    def see(module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        if module.training:
            for watched in several:
                x = args[0] if args else kwargs["input"]
                watched.look(x, -1 if isinstance(module, nn.Linear) else 1)

    return see


def _averaged(old: torch.Tensor, new: torch.Tensor, decay: float) -> torch.Tensor:
    return decay * old + (1.0 - decay) * new


def _gradient(parameters: Mapping[str, nn.Parameter], name: str) -> torch.Tensor:
    gradient = parameters[name].grad
    if gradient is None:
        raise untrained(name)
    return gradient


def untrained(name: str) -> ConfigError:
    """Return the error for a weight that ECC must weigh and that gets no gradient."""
    return ConfigError(
        f"{name} gets no gradient, so ecc cannot weigh the channels it reads; unfreeze it or use --method uniform"
    )
