"""The agent learns, repeats itself, stays in range and survives a kill."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeecc.peer_config import AmcConfig
from edgeecc.solvers.ddpg import Agent, Replay, Transition, truncated_normal

QUICK = AmcConfig(hidden=32, batch=32, actor_lr=1e-2, critic_lr=3e-2)


def transition(state: float, action: float, reward: float, done: float = 1.0) -> Transition:
    values = [torch.tensor([value]) for value in (state, action, reward, 0.0, done)]
    return Transition(*values)


def taught(rounds: int, seed: int = 0) -> Agent:
    """Return an agent after a game of one step: what is earned falls with the distance to 1 - the state."""
    rng = np.random.default_rng(seed)
    agent = Agent(1, 500, QUICK, seed)
    for turn in range(rounds):
        state = float(rng.random())
        far = turn < rounds // 3
        action = agent.explore() if far else agent.act(torch.tensor([state]), 0.2)
        agent.replay.add(transition(state, action, 1.0 - abs(action - (1.0 - state))))
        if not far:
            agent.update()
    return agent


def test_the_actor_learns_what_the_state_asks_for() -> None:
    agent = taught(240)
    states = np.linspace(0.1, 0.9, 9)
    actions = np.array([agent.act(torch.tensor([s]).float(), 0.0) for s in states])
    missed = np.abs(actions - (1.0 - states)).mean()
    by_chance = np.abs(np.random.default_rng(0).random(1000)[:, None] - (1.0 - states)).mean()
    assert missed < 0.4 * by_chance
    assert actions[0] > actions[-1] + 0.3


def test_later_rewards_reach_earlier_steps() -> None:
    """Two steps, and only the second tells what the first was worth: the reward goes to its transition alone."""
    agent, rng = Agent(1, 500, QUICK, 3), np.random.default_rng(3)
    for _ in range(160):
        first, second = rng.random(2)
        start, end = transition(0.0, first, 0.0, 0.0), transition(first, second, first)
        agent.replay.add(start._replace(following=torch.tensor([first]).float()))
        agent.replay.add(end._replace(state=torch.tensor([first]).float()))
        agent.update()
    assert agent.act(torch.zeros(1), 0.0) > 0.7


def test_the_same_seed_gives_the_same_agent_and_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    one, other, third = taught(15), taught(15), taught(15, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    state, again = one.state(), other.state()
    assert all(torch.equal(state[name], again[name]) for name in state if name != "baseline")
    assert one.act(torch.zeros(1), 0.3) == other.act(torch.zeros(1), 0.3)
    assert one.act(torch.zeros(1), 0.3) != third.act(torch.zeros(1), 0.3)


def test_an_agent_goes_on_where_its_state_was_taken() -> None:
    agent = taught(60)
    kept = {name: value.clone() for name, value in agent.state().items()}
    fresh = Agent(1, 500, QUICK, 9)
    fresh.load_state(kept)
    for one in (agent, fresh):
        for _ in range(5):
            one.replay.add(transition(0.5, one.act(torch.tensor([0.5]), 0.2), 1.0))
            one.update()
    state, again = agent.state(), fresh.state()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    with pytest.raises(RuntimeError):
        Agent(2, 500, QUICK, 0).load_state(kept)


def test_an_update_is_the_published_one() -> None:
    """Against autograd written out: targets of the slow copies, rewards less their moving average."""
    config = AmcConfig(hidden=8, batch=4, gamma=0.9, tau=0.25, baseline=0.5)
    agent = Agent(2, 10, config, 5)
    generator = torch.Generator().manual_seed(1)
    for done in (0.0, 0.0, 1.0, 1.0):
        draw = torch.rand(6, generator=generator)
        agent.replay.add(Transition(draw[:2], draw[2:3], draw[3:4], draw[4:], torch.tensor([done])))
    nets, slow = copy.deepcopy(agent._nets), copy.deepcopy(agent._slow)
    batch = agent.replay.sample(4, torch.Generator())  # all four, in some order

    def value(of: torch.nn.ModuleDict, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return of["critic"](torch.cat([state, action], 1))

    agent.update()
    ahead = value(slow, batch.following, slow["actor"](batch.following)) * (1 - batch.done)
    wanted = (batch.reward - batch.reward.mean() + 0.9 * ahead).detach()
    adam = torch.optim.Adam(nets["critic"].parameters(), lr=config.critic_lr)
    (value(nets, batch.state, batch.action) - wanted).square().mean().backward()
    adam.step()
    adam = torch.optim.Adam(nets["actor"].parameters(), lr=config.actor_lr)
    adam.zero_grad()
    (-value(nets, batch.state, nets["actor"](batch.state)).mean()).backward()
    adam.step()
    for got, want, old, moved in zip(
        agent._nets.parameters(), nets.parameters(), slow.parameters(), agent._slow.parameters()
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(moved, old + 0.25 * (want - old), rtol=1e-4, atol=1e-6)


def test_the_replay_holds_the_last_transitions() -> None:
    replay, generator = Replay(5, 1), torch.Generator().manual_seed(0)
    for value in range(3):
        replay.add(transition(value, value / 10, -value))
    few = replay.sample(8, generator)  # more than there are: some come twice
    assert len(replay) == 3
    assert few.state.shape == (8, 1)
    assert set(few.state[:, 0].tolist()) <= {0.0, 1.0, 2.0}
    for value in range(3, 12):
        replay.add(transition(value, value / 10, -value))
    assert len(replay) == 5
    all_of_them = replay.sample(5, generator)
    assert sorted(all_of_them.state[:, 0].tolist()) == [7.0, 8.0, 9.0, 10.0, 11.0]
    torch.testing.assert_close(all_of_them.action, all_of_them.state / 10)
    torch.testing.assert_close(all_of_them.reward, -all_of_them.state)
    assert all_of_them.done.all()
    assert not all_of_them.following.any()


@pytest.mark.parametrize("mean", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("sigma", [0.5, 0.05, 1e-9])
def test_noise_is_normal_and_stays_in_range(mean: float, sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = np.array([truncated_normal(mean, sigma, generator) for _ in range(800)])
    free = np.random.default_rng(0).normal(mean, sigma, 40_000)
    kept = free[(free >= 0.0) & (free <= 1.0)]  # what truncation means
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(kept.mean(), abs=0.15 * sigma)
    assert drawn.std() == pytest.approx(kept.std(), rel=0.15, abs=1e-12)
