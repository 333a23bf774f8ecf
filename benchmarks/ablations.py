"""Parts of ECC, each taken out, exchanged or added alone; `ecc_ablation.py` measures what that does.

What is a setting of ECC is set. The rest is exchanged in memory, as the library offers no choice of it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Sequence, Tuple
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from edgeecc.config import EccConfig, TrainConfig
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.solvers import ecc, importance, schedule
from edgeecc.solvers.base import Limit, Problem, Trainer
from edgeecc.solvers.importance import Importance, Part
from edgeecc.solvers.levels import levels
from edgeecc.solvers.living import Living
from edgeecc.solvers.sstep import flow
from edgeecc.solvers.uniform import norm_shares
from edgeecc.solvers.units import (
    Alive,
    UnitTable,
    beside_weights,
    mask_weights_,
    widths_of,
)

#: Weight of the distilled features beside the loss.
FEATURES = 0.3


@dataclass(frozen=True)
class Variant:
    """ECC with one part another.

    Args:
        settings: that differ, NAME=VALUE each.
        rise: of the learning rate, see `TrainConfig`.
        parts: place in the library -> what stands there while the variant runs.
    """

    settings: Tuple[str, ...] = ()
    rise: float = TrainConfig.rise
    parts: Dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Exchange the parts while the context is open."""
        with contextlib.ExitStack() as stack:
            for place, part in self.parts.items():
                stack.enter_context(patch(place, part))
            yield


class ByNorm(Importance):
    """A unit is worth the share that its squared weights have in its group's."""

    def __init__(self, spec: NetworkSpec, model: nn.Module, **rest: Any) -> None:
        super().__init__(spec, model, **rest)
        self._model, self._problem = model, Problem(spec, (), 0)

    def as_they_go(self, alive: Alive) -> List[FloatArray]:
        """Return the shares."""
        del alive
        return norm_shares(self._model, self._problem)


class LevelledByGroups(Importance):
    """Groups are brought to levels, and not what reads them."""

    def level_(self, power: float) -> None:
        """Bring all parts of a group to one level."""
        found = levels(self.arrays(), power)
        for part in self._parts:
            part.factor = torch.tensor(found[part.reading.group], dtype=torch.float64)


class Reviving(Living):
    """Until the landing units that go are zeroed once, and come back where training makes them worth it."""

    def __init__(self, problem: Problem, table: UnitTable) -> None:
        super().__init__(problem, table)
        self._limits, self._zeroes, self._once = problem, table, False
        self._lying: Dict[str, torch.Tensor] = {}

    def let_die(self, alive: Alive) -> None:
        """Zero, or at the landing let die."""
        if self._limits.fits(widths_of(alive)):
            super().let_die(alive)
        else:
            self._lying, self._once = self._zeroes.masks(alive), True

    def mask_(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Zero what lies, once."""
        if self._once:
            mask_weights_(model, optimizer, beside_weights(model, self._lying))
            self._once = False
        super().mask_(model, optimizer)


class DistillingFeatures(ecc.ScaleFreeHooks):
    """While pruning, channels that live are held to the dense network's after every batch norm."""

    def __init__(self, problem: Problem, config: EccConfig, trainer: Trainer) -> None:
        super().__init__(problem, config, trainer)
        self._teacher: nn.Module = trainer._teacher  # type: ignore[attr-defined]
        self._seen: Dict[str, torch.Tensor] = {}
        self._places = {
            piece.parameter.rpartition(".")[0]: (group, piece)
            for group, one in enumerate(problem.spec.prunable)
            for piece in one.slices
            if piece.role == "through"
        }

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Pull features while the context is open."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(super().watching())
            for name in self._places:
                if isinstance(self._model.get_submodule(name), nn.BatchNorm2d):
                    for network, hook in (
                        (self._teacher, self._remember),
                        (self._model, self._pull),
                    ):
                        handle = network.get_submodule(name).register_forward_hook(hook(name))
                        stack.callback(handle.remove)
            yield

    def _remember(self, name: str) -> Any:
        def see(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            self._seen[name] = output

        return see

    def _pull(self, name: str) -> Any:
        group, piece = self._places[name]

        def see(module: nn.Module, args: Any, output: torch.Tensor) -> Any:
            if not module.training:
                return None
            lives = torch.ones(output.shape[1], dtype=torch.bool)
            dead = (~self.living.alive[group]).nonzero()[0]
            lives[torch.from_numpy(piece.indices(dead)).reshape(-1)] = False
            return _Pulled.apply(output, self._seen[name], lives.to(output)[:, None, None])

        return see


class _Pulled(torch.autograd.Function):
    """The identity, whose gradient has that of the features' normalised square error added."""

    @staticmethod
    def forward(
        ctx: Any, own: torch.Tensor, dense: torch.Tensor, lives: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward((own - dense) * lives, dense)
        return own.view_as(own)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        error, dense = ctx.saved_tensors
        pull = 2.0 * FEATURES / dense.square().sum() * error
        return gradients[0] + pull.to(gradients[0]), None, None


def _flow_step(
    ranked: Sequence[FloatArray], limits: Sequence[Limit], *, start: FloatArray, duals: FloatArray,
    least: FloatArray,
) -> Tuple[FloatArray, FloatArray]:  # fmt: skip
    """Stand in for `widthstep.solve`: follow the clamped gradient from where the bounds are."""
    del duals, least  # the ladders hold these
    (limit,) = limits
    most = np.minimum(start, [len(values) for values in ranked])
    s, z = flow(
        most, ranked, energy=limit.cost.predict, slope=limit.cost.gradient, target=limit.bound
    )
    return s, np.array([z])


def _whole_cost(limit: Limit, dense_widths: FloatArray, share: float) -> float:
    """Stand in for `schedule.target`: the whole cost falls geometrically, what is fixed too."""
    dense = limit.cost.predict(dense_widths)
    return limit.bound if dense <= limit.bound else dense * (limit.bound / dense) ** share


#: What a layer makes of a term, kept while the name is patched.
_TERM = Part.term


def _plain_term(self: Part, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Stand in for `Part.term`: the first-order term itself."""
    inverse, self.inverse = self.inverse, None
    try:
        return _TERM(self, weight, gradient)
    finally:
        self.inverse = inverse


def _nothing(*args: object, **kwargs: object) -> None:
    """Stand in for what is left out."""


_ECC, _IMPORTANCE = ecc.__name__, importance.__name__
_GROWS = f"{_IMPORTANCE}.Part.grow_"
#: Name -> ECC with one part another; the first is ECC as it is.
VARIANTS: Dict[str, Variant] = {
    "ECC": Variant(),
    "as published": Variant(("metric=adam",)),
    "importance in units of loss": Variant(("level=0",)),
    "importance as shares of a layer's": Variant(("level=1",)),
    "levels of groups": Variant(parts={f"{_ECC}.Importance": LevelledByGroups}),
    "importance by norms": Variant(("level=0",), parts={f"{_ECC}.Importance": ByNorm}),
    "groups may fall to one unit": Variant(("least=1",)),
    "no stand-ins": Variant(("stand_in=false",)),
    "stand-ins in importance only": Variant(parts={f"{_IMPORTANCE}.stand_in_": _nothing}),
    "stand-ins in weights only": Variant(
        parts={
            f"{_IMPORTANCE}.Part.term": _plain_term,
            f"{_IMPORTANCE}.Importance.as_they_go": lambda self, alive: self.arrays(),
            _GROWS: _nothing,
        }
    ),
    "gradient flow for the exact width step": Variant(parts={f"{_ECC}.solve": _flow_step}),
    "no swaps": Variant(parts={"edgeecc.solvers.ladder._Climb.swap": _nothing}),
    "10 rounds": Variant(("rounds=10",)),
    "1 round": Variant(("rounds=1",)),
    "the whole cost falls geometrically": Variant(
        parts={f"{schedule.__name__}.target": _whole_cost}
    ),
    "ramp of a quarter of the steps": Variant(("ramp=0.25", "pace=0")),
    "ramp of half of the steps": Variant(("ramp=0.5", "pace=0")),
    "ramp of all steps": Variant(("ramp=1",)),
    "rate does not rise": Variant(rise=0.0),
    "revival": Variant(parts={f"{_ECC}.Living": Reviving}),
    "features distilled": Variant(parts={f"{_ECC}.ScaleFreeHooks": DistillingFeatures}),
    "whole tiles of 8": Variant(("tile=8",)),
}
