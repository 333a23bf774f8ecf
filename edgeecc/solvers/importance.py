"""Importance of units: running averages of squared first-order terms, less what other units can tell (ours).

Each layer that reads a unit has a part in its importance. The layer's term is the sum, over the weights with which it
reads the unit, of w dL/dw, along the residual of what it reads on the other units (`standin`). Its square, averaged
over batches, estimates to second order what the loss of losing the unit there is, with the Fisher information as
curvature. Importance is the sum of the parts, each on the level of its layer (`levels`).
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
from edgeecc.solvers.levels import levels
from edgeecc.solvers.standin import (
    ROWS,
    Reading,
    eliminated,
    inverse,
    may_stand_in,
    readings,
    second_moments,
    stand_in_,
    without,
)
from edgeecc.solvers.units import Alive

#: Sum of a tensor over processes.
Total = Callable[[torch.Tensor], torch.Tensor]
#: Decay of running sums over what layers read, per batch.
DECAY = 0.9
#: Share of a group's living units that may go in a round before importance is looked at anew.
FOLLOWED = 0.25


class Part:
    """What one reading tells of its units.

    Args:
        reading: the layer and the units.
        each: rows of an image that are looked at, about.
        total: see `Importance`.
        shared: whether what other units can tell is left out, and others stand in for what goes.

    Attributes:
        square: running square of the term, (n,), float64.
        factor: on it, by which readings are levelled.
        shift: mean of the first batch, (n,); rows less it have moments without cancellation.
        moments: running sum of (x, 1)(x, 1)' over rows x of living units, less the shift, of all processes,
            (m + 1, m + 1); None before the first batch.
        mean: as it was settled, (n,); of units that live then.
        live: living units of the reading, (m,).
        inverse: P of these, (m, m), float64.
    """

    #: What a checkpoint keeps where it is known, beside square and factor.
    KNOWN_LATER = ("shift", "moments", "mean", "live", "inverse")

    def __init__(self, reading: Reading, each: int, total: Total, *, shared: bool) -> None:
        size = len(reading.columns)
        self.reading, self.shared = reading, shared
        self._each, self._total = each, total
        self.square = torch.zeros(size, dtype=torch.float64)
        self.factor = torch.ones((), dtype=torch.float64)
        self.shift: Optional[torch.Tensor] = None
        self.moments: Optional[torch.Tensor] = None
        self.mean: Optional[torch.Tensor] = None
        self.live = torch.arange(size)
        self.inverse: Optional[torch.Tensor] = None
        self.stopped = False
        self._scaled: Optional[torch.Tensor] = None

    def importance(self) -> FloatArray:
        """Return what it adds to the importance of its units, (n,)."""
        return np.asarray(float(self.factor) * self.square.cpu().numpy(), dtype=np.float64)

    def keep(self, live: torch.Tensor, inverse: torch.Tensor) -> None:
        """Take the living units, of those that lived, and P of them."""
        self._leave(live)
        self.inverse, self._scaled = inverse, None

    def _leave(self, live: torch.Tensor) -> None:
        """Look at these units only, of those that lived."""
        if self.moments is not None and len(live) < len(self.live):
            place = torch.searchsorted(self.live.to(live), live)
            place = torch.cat([place, place.new_tensor([len(self.live)])])
            self.moments = self.moments[place][:, place]
        self.live = live

    def load_state(self, known: Mapping[str, torch.Tensor]) -> None:
        """Take back what was known of KNOWN_LATER."""
        for name in known:
            if name != "live":
                setattr(self, name, known[name])
        if self.moments is not None and len(self.moments) > len(self.square):
            self._leave(known["live"])  # moments of an earlier version are of all units
        else:
            self.live = known["live"]

    def grow_(self, units: torch.Tensor, factor: torch.Tensor) -> None:
        """Scale what it tells of some of its units."""
        self.square[units] *= factor

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
        if self.shift is None:
            sums = self._total(torch.cat([rows.sum(0), rows.new_tensor([len(rows)])]))
            self.shift = sums[:-1] / sums[-1]
        shift = self.shift.to(rows)
        if len(self.live) < len(shift):
            live = self.live.to(rows.device)
            rows, shift = rows[:, live], shift[live]
        new = self._total(second_moments(rows - shift))
        self.moments = new if self.moments is None else DECAY * self.moments.to(new) + new

    def settle(self, alive: npt.NDArray[np.bool_]) -> None:
        """Bring mean and P up to date, for the units of the reading that live."""
        if self.moments is None or self.shift is None:
            return
        live = torch.from_numpy(np.flatnonzero(alive)).to(self.moments.device)
        self._leave(live)
        moments = self.moments.double() / self.moments[-1, -1]
        mean = moments[-1, :-1]
        self.mean = self.shift.to(moments).index_add(0, live, mean)
        self.keep(live, inverse(moments[:-1, :-1] - torch.outer(mean, mean)))

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
        self._widths = [group.width for group in spec.prunable]
        self._parts = [
            Part(
                reading, max(1, ROWS // batch), total, shared=share and may_stand_in(reading, model)
            )
            for reading in readings(spec)
        ]

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Take in what layers read in training mode while the context is open."""
        by_module: Dict[str, List[Part]] = {}
        for part in self._parts:
            if part.shared:
                by_module.setdefault(part.reading.module, []).append(part)
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
        for part in self._parts:
            name = part.reading.piece.parameter
            term = part.term(parameters[name].detach(), _gradient(parameters, name))
            part.square = _averaged(part.square.to(term.device), term**2, self._decay)

    def settle(self, alive: Alive) -> None:
        """Bring the residuals up to date with what layers read now, for the units that live."""
        for part in self._parts:
            part.settle(alive[part.reading.group][part.reading.units])

    def level_(self, power: float) -> None:
        """Bring readings to their levels, see `levels`; they stay there. To be called before any unit goes."""
        found = levels([part.square.cpu().numpy() for part in self._parts], power)
        for part, factor in zip(self._parts, found):
            part.factor = torch.tensor(factor, dtype=torch.float64)

    def arrays(self) -> List[FloatArray]:
        """Return the importance per group, (c_g,)."""
        result = [np.zeros(width) for width in self._widths]
        for part in self._parts:
            result[part.reading.group][part.reading.units] += part.importance()
        return result

    def as_they_go(self, alive: Alive) -> List[FloatArray]:
        """Return the importance per group, (c_g,), of units as they go one after another; see `eliminated`."""
        result = self.arrays()
        for group, (a, living) in enumerate(zip(result, alive)):
            place = np.flatnonzero(living)
            whole = np.maximum(a[place], 1e-300)
            shares, inverses = [], []
            for part in self._parts:
                if part.reading.group != group or part.inverse is None:
                    continue
                live = part.live.cpu().numpy()
                local = np.searchsorted(place, live + part.reading.piece.first)
                share, inverse = np.zeros(len(place)), part.inverse.cpu().numpy()
                share[local] = part.importance()[live] / whole[local]
                if len(local) < len(place):  # the layer reads a part of the group
                    own, inverse = inverse, np.eye(len(place))
                    inverse[np.ix_(local, local)] = own
                shares.append(share)
                inverses.append(inverse)
            if inverses:
                most = max(1, round(FOLLOWED * len(place)))
                a[place] = eliminated(a[place], shares, inverses, most)
        return result

    def let_go_(self, model: nn.Module, before: Alive, after: Alive) -> None:
        """Let those that stay stand in for units that die, in place; their importance grows with their residual."""
        for part in self._parts:
            reading = part.reading
            if part.inverse is None or part.mean is None:
                continue
            living = part.live.cpu().numpy()
            stays = after[reading.group][reading.units][living]
            if stays.all() or not stays.any():
                continue
            device = part.inverse.device
            stay, gone = (torch.from_numpy(np.flatnonzero(w)).to(device) for w in (stays, ~stays))
            weights, rest = without(part.inverse, stay, gone)
            stand_in_(
                model, reading, stay=part.live[stay], gone=part.live[gone], weights=weights, mean=part.mean
            )  # fmt: skip
            part.grow_(part.live[stay], part.inverse.diagonal()[stay] / rest.diagonal())
            part.keep(part.live[stay], rest)

    def stop(self) -> None:
        """Watch no longer: nothing is left to choose."""
        for part in self._parts:
            part.stopped = True

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        state = {}
        for index, part in enumerate(self._parts):
            state[f"square.{index}"], state[f"factor.{index}"] = part.square, part.factor
            for name in Part.KNOWN_LATER:
                value = getattr(part, name)
                if value is not None:
                    state[f"{name}.{index}"] = value
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned.

        Raises: KeyError where that was of an earlier version, which did not level readings.
        """
        for index, part in enumerate(self._parts):
            part.square, part.factor = state[f"square.{index}"], state[f"factor.{index}"]
            part.load_state(
                {
                    name: state[f"{name}.{index}"]
                    for name in Part.KNOWN_LATER
                    if f"{name}.{index}" in state
                }
            )


def _watcher(several: Sequence[Part]) -> Any:  # a hook, whose type torch spells with Any
    def see(module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        if module.training:
            for part in several:
                x = args[0] if args else kwargs["input"]
                part.look(x, -1 if isinstance(module, nn.Linear) else 1)

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
