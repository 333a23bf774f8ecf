"""Energy-aware pruning (CVPR 2017) of whole channels: the outputs of the layers that read a group decide.

A sweep visits the groups from the one that carries most energy to the one that carries least. Each loses the
channels whose absence harms the outputs of its readers least, beyond what it has to, and gets those back that
lessen the error most. Then the weights of the readers are fitted to the outputs of the dense network, before
activation, by least squares in closed form, on what the readers read now that others are pruned. The network is
trained as a whole afterwards, removed channels staying removed.

Deviations:
- The published method removes single weights. Whole channels are chosen by the exact error of leaving them out
  (`channel_error`), which the second moments that the fit needs give anyway, instead of by magnitude first.
- Energy is that of the problem's cost model, by the limit that is tightest.
- How much each group loses is not published. Widths come from the error that is left after fitting, at every
  width, over what the readers give (`channel_budget`); in a later sweep, of the network as it is by then.
- The budget is given, not found by an accuracy; it falls geometrically from sweep to sweep. One sweep is the default,
  where the paper goes on while the accuracy holds: with it the whole cut is made before the first training step.
- When all groups are pruned, the readers are fitted once more in forward order: those fitted early read what has
  changed since.
- A weight whose product is not known counts by its squared norm, as if its inputs were independent and alike, and
  is not fitted. Biases are not fitted either.
"""

from __future__ import annotations

import copy
from itertools import islice
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import EapChannelsConfig
from edgeecc.solvers.base import Problem, Solution, Trainer, untouched
from edgeecc.solvers.channel_budget import allotted, noise, worths
from edgeecc.solvers.channel_error import (
    Quadratic,
    chosen,
    eliminated,
    kept_shares,
    quadratic,
    total,
)
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.living import Living
from edgeecc.solvers.local_fit import Moments, fit
from edgeecc.solvers.moments import moments_in_turn
from edgeecc.solvers.readers import Reader, readers
from edgeecc.solvers.reference import Reference
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.sparse import zero_
from edgeecc.solvers.unfold import from_matrix
from edgeecc.solvers.units import Alive, UnitTable, keep_of, widths_of


class EapChannelsSolver:
    """Energy-aware pruning of channels; see the module."""

    def __init__(self, config: EapChannelsConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within the bound; the last sweep ends it.

        Raises: BudgetInfeasibleError before the first batch when no widths fit.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        sample = Sample(trainer.sample(self._config.images), problem.seed)
        sweeper = Sweeper(problem, copy.deepcopy(trainer.model), sample, self._config.beyond)
        due = sweep_steps(self._config.sweeps, steps)
        hooks = EapChannelsHooks(sweeper, due)
        needed = due[-1] if due else 0
        history = trainer.train("prune", needed, hooks)
        if not due:
            hooks.sweep_(trainer.model, 1.0)
        status = "converged" if due else "cut_without_training"
        return Solution(keep_of(spec, hooks.living.alive), status, tuple(history), steps - needed)


class Sweeper:
    """Makes sweeps.

    Args:
        problem: its limits.
        dense: the network before pruning, whose outputs are fitted to; not modified.
        sample: images to fit on.
        beyond: share of a group's width that is pruned beyond it and restored.
    """

    def __init__(self, problem: Problem, dense: nn.Module, sample: Sample, beyond: float) -> None:
        self.problem = problem
        self.table = UnitTable(problem.spec)
        self._readers = [readers(problem.spec, group) for group in problem.spec.prunable]
        layers = [reader.layer for several in self._readers for reader in several]
        self._reference, self._beyond = Reference(dense, layers, sample), beyond

    def sweep_(self, model: nn.Module, alive: Alive, target: float) -> Alive:
        """Prune in place, so that the load is at most `target`; return the units that stay.

        Args:
            model: zero where dead units are read.
            alive: units that live before.
            target: at least 1; for 1 the limits hold.
        """
        now = widths_of(alive)
        worth = self._worths(model, alive)
        widths = allotted(self.problem, now, worth, target)
        alive, masks = list(alive), self.table.masks(alive)
        for group in by_load(self.problem):
            if widths[group] < now[group]:
                alive[group] = self._chosen(model, group, alive[group], int(widths[group]))
            masks = self.table.masks(alive)
            zero_(model, masks)
            for reader in self._readers[group]:
                self._fit_(model, reader, masks)
        for reader in self._forward():
            self._fit_(model, reader, masks)
        return alive

    def _worths(self, model: nn.Module, alive: Alive) -> List[FloatArray]:
        """Return per group what each channel is worth, the one that is kept longest first."""
        masks = self.table.masks(alive)
        found = self._moments(model, [one for several in self._readers for one in several])
        return [
            self._worth(model, group, alive[group], masks, list(islice(found, len(several))))
            for group, several in enumerate(self._readers)
        ]

    def _worth(
        self,
        model: nn.Module,
        group: int,
        living: np.typing.NDArray[np.bool_],
        masks: Mapping[str, torch.Tensor],
        found: Sequence[Optional[Moments]],
    ) -> FloatArray:
        """Return what each channel of a group is worth, from the moments of its readers."""
        errors = self._errors(model, group, found)
        order = eliminated(total(errors, len(living)), living, 1)
        ranked = [*np.setdiff1d(np.flatnonzero(living), order), *order[::-1]]
        shares = [
            error.kept(ranked) if moments is None else kept_shares(
                moments, units=reader.units(model), allowed=reader.allowed(model, masks), ranked=ranked
            )
            for reader, error, moments in zip(self._readers[group], errors, found)
        ]  # fmt: skip
        return worths(noise(shares, len(ranked)))

    def _chosen(
        self, model: nn.Module, group: int, living: np.typing.NDArray[np.bool_], width: int
    ) -> np.typing.NDArray[np.bool_]:
        """Return the channels of a group that stay."""
        errors = self._errors(model, group, self._moments(model, self._readers[group]))
        return chosen(total(errors, len(living)), living, width, beyond=self._beyond)

    def _errors(
        self, model: nn.Module, group: int, found: Iterable[Optional[Moments]]
    ) -> List[Quadratic]:
        """Return the errors of the readers of a group, from their moments."""
        count = self.problem.spec.prunable[group].width
        return [
            quadratic(moments, reader.weight(model), reader.units(model), count)
            for reader, moments in zip(self._readers[group], found)
        ]

    def _fit_(self, model: nn.Module, reader: Reader, masks: Mapping[str, torch.Tensor]) -> None:
        """Fit the weights of a reader that are not masked, in place."""
        (moments,) = self._moments(model, [reader])
        if moments is None:
            return
        weight = reader.weight(model)
        support = reader.allowed(model, masks).unsqueeze(1).expand_as(weight)
        fitted = from_matrix(model.get_submodule(reader.layer), fit(moments, weight, support))
        model.get_parameter(reader.parameter).detach().copy_(fitted)

    def _moments(self, model: nn.Module, several: Sequence[Reader]) -> Iterator[Optional[Moments]]:
        """Yield the moments of readers in turn, None where there are none; see `moments_in_turn`."""
        layers = [reader.layer for reader in several]
        for reader, moments in zip(several, moments_in_turn(model, self._reference, layers)):
            yield moments if reader.is_known(model) else None

    def _forward(self) -> List[Reader]:
        """Return every reader once, in forward order."""
        names = [layer.name for layer in self.problem.spec.layers]
        found = {reader.parameter: reader for several in self._readers for reader in several}
        known = [reader for reader in found.values() if reader.layer in names]
        return sorted(known, key=lambda reader: names.index(reader.layer))


def by_load(problem: Problem) -> Sequence[int]:
    """Return the groups from the one that carries most of the dense load to the one that carries least."""
    dense = problem.spec.vector(problem.spec.dense_widths())
    carried = []
    for group in range(len(dense)):
        thin = dense.copy()
        thin[group] = 1.0
        carried.append(problem.load(dense) - problem.load(thin))
    return [int(group) for group in np.argsort(-np.array(carried), kind="stable")]


def sweep_steps(sweeps: int, steps: int) -> List[int]:
    """Return the steps, 1-based, in which a sweep is due: evenly over all of them, no more than there are."""
    count = min(sweeps, steps)
    return [turn * steps // count + 1 for turn in range(count)]


class EapChannelsHooks:
    """Sweeps inside training steps, and removed channels removed between them; `Hooks`.

    The first step moves no weight: training begins on the pruned network. The load that sweep j of J leaves is at
    most dense^(1 - j/J).

    Args:
        sweeper: makes them.
        due: steps in which a sweep is due, the first of them 1.
    """

    def __init__(self, sweeper: Sweeper, due: Sequence[int]) -> None:
        spec = sweeper.problem.spec
        self._sweeper, self._due, self._done = sweeper, list(due), 0
        self._dense = sweeper.problem.load(spec.vector(spec.dense_widths()))
        self.living = Living(sweeper.problem, sweeper.table)

    def after_backward(self, model: nn.Module) -> None:
        """Drop the gradients of the network that is not yet pruned."""
        if not self._done:
            for parameter in model.parameters():
                parameter.grad = None

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Put the zeros back, and sweep when it is time."""
        del steps
        self.living.mask_(model, optimizer)
        if step in self._due:
            self.sweep_(model, (self._done + 1) / len(self._due))
            self.living.mask_(model, optimizer)
        return {"cost": self.living.cost()}

    def sweep_(self, model: nn.Module, share: float) -> None:
        """Sweep in place down to a share of the way from the dense load to the limits."""
        target = 1.0 if share >= 1.0 else self._dense ** (1.0 - share)
        self.living.let_die(self._sweeper.sweep_(model, self.living.alive, target))
        self._done += 1

    def state(self) -> Dict[str, torch.Tensor]:
        """Return which units live, and how many sweeps were made."""
        return {"done": torch.tensor([self._done]), **self.living.state()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._done = int(state["done"])
        self.living.load_state(state)
