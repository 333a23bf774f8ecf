"""AMC: an agent finds how much of each group stays, by the score of the pruned network without training.

Source: AMC (ECCV 2018) for the search; for its use under an energy budget ECC (CVPR 2019, section 4): 400 walks, and
pruning and training alternate four times within the training steps that every method gets. The j-th of J
alternations goes j/J of the way to the limits (`schedule`: of every cost what can be reduced falls geometrically), then
trains for 1/J of the steps, the last time in fine-tuning. AMC gives each of its rounds a search of its own at a target
of its own, so each alternation has a fresh agent. Neither paper says whether the 400 are of one search or of all; they
are taken as of all, so that each has 1/J of the walks and of the warm-up (`episodes=1600 warmup=400` is the other
reading).

Deviations:
- A step is a channel group, not a layer: what is read together shrinks together, also where layers share it.
- The budget is any cost model's, the bound is on integers (`amc_walk`), and several limits hold at once.
- The agent remembers the share that it asked for, whatever the bounds made of it, as the published code does; with
  the share that was carried out, as in the paper, it settled on worse widths or on the same (tried on one network).
- What the best walk of an alternation leaves of its budget is given back to groups, most importance per cost first
  (ours); not where widths shall be multiples.
- The first walk of each search takes the same share of every group (ours).
- Layers of any kernel are fitted (`thinned`), biases and batch norms stay.
- The reward is the deciding score (top-1 or mean IoU) on the images that every method holds out, at most 2,000 by
  default; the published code takes top-5 on 3,000 of ImageNet, and 5,000 of CIFAR-10.
- Widths are whole, where the published code takes multiples of 8 (`divisor`); and where the budget cannot be met with
  the lower bounds of shares, these are halved (`amc_walk`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Mapping, Tuple

import numpy as np
import torch

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import AmcConfig
from edgeecc.solvers.amc_search import Search
from edgeecc.solvers.amc_walk import Course, lower_bounds
from edgeecc.solvers.base import Problem, Solution, Step, Trainer, untouched
from edgeecc.solvers.ddpg import under
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.solvers.remembered import understood
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.schedule import on_the_way
from edgeecc.solvers.thinned import Thinned
from edgeecc.solvers.units import Alive, copied, keep_of
from edgeecc.solvers.widths import filled

#: Name of what the search remembers.
NAME = "amc"


class AmcSolver:
    """Search, prune, train, and again.

    Progress: phase "search" reports each walk by its number over all alternations, with 1 - the held-out score as
    loss and the cost of its widths. Phase "alternation-j" is the training. The history holds the training steps.

    Args:
        config: see `AmcConfig`.
    """

    def __init__(self, config: AmcConfig = AmcConfig()) -> None:  # noqa: B008  # frozen
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Choose the units that stay; the last alternation's training is left to fine-tuning.

        Raises: BudgetInfeasibleError when no widths fit; ConfigError when no images are held out to choose by;
            ArtifactError when what an interrupted search remembers is of another one.
        """
        check_feasible(problem)
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        trainer.held_out()  # refuses where there are no such images, before anything is collected
        run = _Run(problem, trainer, self._config, steps)
        for alternation in range(run.alternation, self._config.alternations):
            run.alternate_(alternation)
        return Solution(
            keep_of(problem.spec, run.alive), "converged", tuple(run.history), run.left()
        )


class _Run:
    """Where a solve stands: the alternation, the units that are left, the steps trained."""

    def __init__(self, problem: Problem, trainer: Trainer, config: AmcConfig, steps: int) -> None:
        self._problem, self._trainer, self._config, self._steps = problem, trainer, config, steps
        self.alternation = 0
        self.alive: Alive = [np.ones(g.width, dtype=bool) for g in problem.spec.prunable]
        self.history: List[Step] = []
        self._search_state: Dict[str, torch.Tensor] = {}
        recalled = trainer.recall(NAME)
        if recalled is not None:
            self._take_up_(recalled)

    def alternate_(self, alternation: int) -> None:
        """Prune to the alternation's load, and train for its share of the steps unless it is the last."""
        self.alternation = alternation
        problem = self.problem(alternation)
        network, search = self._prepared(problem)
        widths = self._searched(network, search)
        if self._config.divisor == 1:
            ranked = [
                np.sort(strength)[::-1] * width / max(float(strength.sum()), 1e-300)
                for strength, width in zip(network.strength, network.available)
            ]
            widths = filled(
                problem,
                widths,
                most=network.available,
                worth=lambda g, width: float(ranked[g][width]),
            )
        network.apply_(widths)
        self.alive = network.alive(widths)
        del network  # its factors take far more room than the weights
        if alternation + 1 < self._config.alternations:
            self._train()

    def problem(self, alternation: int) -> Problem:
        """Return what the alternation prunes to: in the last one the problem itself."""
        return on_the_way(self._problem, (alternation + 1) / self._config.alternations)

    def _prepared(self, problem: Problem) -> Tuple[Thinned, Search]:
        spec, config = problem.spec, self._config
        sample = Sample(self._trainer.sample(config.images), problem.seed)
        network = Thinned(spec, self._trainer.model, self.alive, sample)
        dense = spec.vector(spec.dense_widths())
        least = lower_bounds(problem.fits, dense, network.available, config.lower_bound)
        seed = np.random.SeedSequence([problem.seed, self.alternation])
        search = Search(
            Course(problem, network.available, least, config.divisor), config,
            episodes=self._part(config.episodes), warmup=self._part(config.warmup),
            seed=int(seed.generate_state(1)[0]),
        )  # fmt: skip
        if self._search_state:
            with understood():
                search.load_state(self._search_state)
            self._search_state = {}
        return network, search

    def _searched(self, network: Thinned, search: Search) -> FloatArray:
        """Return the widths of the best walk."""
        fixed = self._fixed_state()
        judged: Dict[Tuple[float, ...], float] = {}
        while search.done < search.episodes:
            sigma, walked = search.sigma, search.propose()
            key = tuple(walked.widths)
            if key not in judged:
                network.apply_(walked.widths)
                alive = network.alive(walked.widths)
                judged[key] = self._trainer.held_out(keep_of(self._problem.spec, alive))
            search.learn(walked, judged[key])
            self._report(search, walked.widths, judged[key], sigma)
            self._trainer.remember(NAME, {**fixed, **_prefixed("search.", search.state())})
        return search.best

    def _report(self, search: Search, widths: FloatArray, score: float, sigma: float) -> None:
        before = self._config.episodes * self.alternation // self._config.alternations
        values = {"score": score, "best": search.best_score, "sigma": sigma}
        cost = self._problem.first_cost(widths)
        step = Step(before + search.done, self._config.episodes, 1.0 - score, cost, values)
        self._trainer.report("search", step)

    def _train(self) -> None:
        first, part = self._before(self._steps), self._part(self._steps)
        if part:
            hooks = FixedPattern(self._problem, keep_of(self._problem.spec, self.alive))
            phase = f"alternation-{self.alternation + 1}"
            done = self._trainer.train(phase, part, hooks, first_batch=first)
            self.history += [
                replace(s, step=first + s.step, steps=self._steps, values={}) for s in done
            ]

    def left(self) -> int:
        """Return the steps of the last alternation."""
        return self._part(self._steps)

    def _before(self, count: int) -> int:
        """Return how much of a count the alternations before this one have."""
        return count * self.alternation // self._config.alternations

    def _part(self, count: int) -> int:
        """Return this alternation's part of a count."""
        return count * (self.alternation + 1) // self._config.alternations - self._before(count)

    def _fixed_state(self) -> Dict[str, torch.Tensor]:
        """Return what does not change during the search of an alternation: how it found the network."""
        model = copied(self._trainer.model)
        rows = [(step.step, step.loss, step.cost) for step in self.history]
        return {
            "alternation": torch.tensor(self.alternation),
            "alive": torch.from_numpy(np.concatenate(self.alive)),
            "history": torch.tensor(rows, dtype=torch.float64).reshape(-1, 3),
            **_prefixed("model.", model),
        }

    def _take_up_(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on where an interrupted run was.

        Raises: ArtifactError when the state is of another network or another version.
        """
        with understood():
            self._trainer.model.load_state_dict(under("model.", state))
            self.alternation = int(state["alternation"])
            ends = np.cumsum([len(living) for living in self.alive])[:-1]
            self.alive = np.split(state["alive"].numpy().astype(bool), ends)
            self.history = [
                Step(int(row[0]), self._steps, float(row[1]), float(row[2]))
                for row in state["history"].tolist()
            ]
        self._search_state = under("search.", state)


def _prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}
