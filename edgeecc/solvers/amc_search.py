"""The search of AMC (ECCV 2018): walks towards one target, judged without training, from which an agent learns."""

from __future__ import annotations

from typing import Dict, Mapping

import numpy as np
import torch

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import AmcConfig
from edgeecc.solvers.amc_walk import FEATURES, Course, Walked
from edgeecc.solvers.ddpg import Agent, Transition, under


class Search:
    """So many walks; the best one counts.

    The first walk takes the same share of every group, so that by its own score the search is never worse than a
    common width factor (ours). In the rest of the warm-up every action has even chance, and nothing is learned. After
    it the actor acts with noise that falls from walk to walk. Every step of a walk earns the walk's score, and for
    each the agent learns once.

    Args:
        course: what is walked.
        config: the agent's settings.
        episodes: walks, at least 1.
        warmup: of these, those of even chance.
        seed: of the agent.
    """

    def __init__(
        self, course: Course, config: AmcConfig, *, episodes: int, warmup: int, seed: int
    ) -> None:
        self.episodes, self.done = episodes, 0
        self.best, self.best_score = course.least, -np.inf
        self._course, self._config, self._warmup = course, config, warmup
        self._agent = Agent(FEATURES, config.replay * len(course.available), config, seed)

    @property
    def sigma(self) -> float:
        """Deviation of the noise of the next walk; 0 in the warm-up, in which the actor has no say."""
        after = self.done - self._warmup
        return 0.0 if after < 0 else self._config.sigma * self._config.decay**after

    def propose(self) -> Walked:
        """Walk once."""
        return self._course.walk(self._act) if self.done else self._course.even()

    def _act(self, state: FloatArray) -> float:
        if self.done < self._warmup:
            return self._agent.explore()
        return self._agent.act(torch.from_numpy(state).float(), self.sigma)

    def learn(self, walked: Walked, score: float) -> None:
        """Take the score of a walk; of equal ones that with the most units in all is the better."""
        old, new = (self.best_score, self.best.sum()), (score, walked.widths.sum())
        if new > old:
            self.best_score, self.best = score, walked.widths
        states = torch.from_numpy(walked.states).float()
        actions = torch.from_numpy(walked.actions).float().unsqueeze(1)
        following = torch.cat([states[1:], torch.zeros(1, FEATURES)])
        earned = torch.full_like(actions, score)
        ends = torch.zeros_like(actions)
        ends[-1] = 1.0
        for step in zip(states, actions, earned, following, ends):
            self._agent.replay.add(Transition(*step))
            if self.done >= self._warmup:
                self._agent.update()
        self.done += 1

    def state(self) -> Dict[str, torch.Tensor]:
        """Return everything that must survive a kill."""
        best = np.append(self.best, self.best_score)
        state = {"best": torch.from_numpy(best), "done": torch.tensor(self.done)}
        state.update({f"agent.{name}": value for name, value in self._agent.state().items()})
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self.best, self.best_score = state["best"][:-1].numpy().copy(), float(state["best"][-1])
        self.done = int(state["done"])
        self._agent.load_state(under("agent.", state))
