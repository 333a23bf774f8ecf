"""An agent that learns one action in [0, 1] a step: deep deterministic policy gradient.

Source: Lillicrap et al. 2016, as AMC (ECCV 2018) and its published code use it: the actor has two hidden layers
and a sigmoid, the critic adds what it makes of the state and of the action in its first layer, and a moving
average of the rewards is taken off them. Everything random comes from one generator of the agent's own.
"""

from __future__ import annotations

import copy
import math
from typing import Dict, Mapping, NamedTuple

import torch
from torch import nn
from torch.nn.functional import mse_loss

from edgeecc.peer_config import AmcConfig


class Transition(NamedTuple):
    """One step, or a batch of them: each field has a leading axis then.

    Args:
        state, following: features before and after the action, (F,).
        action, reward, done: (1,); `done` is 1 in the last step of an episode, else 0.
    """

    state: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    following: torch.Tensor
    done: torch.Tensor


class Replay:
    """The last transitions, at most `capacity` of them.

    Args:
        capacity: at least 1; the oldest give way.
        features: F.
    """

    def __init__(self, capacity: int, features: int) -> None:
        self._features = features
        self._rows = torch.zeros(capacity, 2 * features + 3)
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, len(self._rows))

    def add(self, transition: Transition) -> None:
        """Keep a transition."""
        self._rows[self._seen % len(self._rows)] = torch.cat(transition)
        self._seen += 1

    def sample(self, count: int, generator: torch.Generator) -> Transition:
        """Return so many transitions, drawn without repetition where there are as many."""
        held = len(self)
        if held >= count:
            chosen = torch.randperm(held, generator=generator)[:count]
        else:
            chosen = torch.randint(held, (count,), generator=generator)
        rows, features = self._rows[chosen], self._features
        last = features + 2
        return Transition(
            rows[:, :features], rows[:, features : features + 1], rows[:, features + 1 : last],
            rows[:, last:-1], rows[:, -1:],
        )  # fmt: skip

    def state(self) -> Dict[str, torch.Tensor]:
        """Return everything that must survive a kill."""
        return {"rows": self._rows, "seen": torch.tensor(self._seen)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._rows.copy_(state["rows"])
        self._seen = int(state["seen"])


class Agent:
    """Actor, critic, their slow copies, and what they learn from.

    Args:
        features: of a state.
        capacity: of the replay.
        config: the settings from `hidden` on.
        seed: of the weights, the samples and the noise.
    """

    def __init__(self, features: int, capacity: int, config: AmcConfig, seed: int) -> None:
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        actor = _perceptron(features, config.hidden, self._generator)
        critic = _perceptron(features + 1, config.hidden, self._generator)
        with torch.no_grad():  # a layer of its own reads the action, which is one number
            next(critic.parameters())[:, -1].uniform_(-1.0, 1.0, generator=self._generator)
        self._nets = nn.ModuleDict({"actor": actor.append(nn.Sigmoid()), "critic": critic})
        self._slow = copy.deepcopy(self._nets).requires_grad_(False)
        self._learned = {"actor": list(actor.parameters()), "critic": list(critic.parameters())}
        self._optimizers = {
            "actor": torch.optim.Adam(self._learned["actor"], lr=config.actor_lr),
            "critic": torch.optim.Adam(self._learned["critic"], lr=config.critic_lr),
        }
        self.replay = Replay(capacity, features)
        self._baseline = math.nan

    def explore(self) -> float:
        """Return an action drawn evenly."""
        return float(torch.rand((), generator=self._generator))

    def act(self, state: torch.Tensor, sigma: float) -> float:
        """Return the actor's action with noise.

        Args:
            state: (F,).
            sigma: deviation of the noise, at least 0.
        """
        with torch.no_grad():
            mean = float(self._nets["actor"](state))
        return truncated_normal(mean, sigma, self._generator) if sigma > 0.0 else mean

    def update(self) -> None:
        """Learn from one batch of the replay."""
        config = self._config
        batch = self.replay.sample(config.batch, self._generator)
        mean = float(batch.reward.mean())
        old = mean if math.isnan(self._baseline) else self._baseline
        self._baseline = old + config.baseline * (mean - old)
        with torch.no_grad():
            ahead = _value(self._slow, batch.following, self._slow["actor"](batch.following))
            wanted = batch.reward - self._baseline + config.gamma * (1.0 - batch.done) * ahead
        self._descend("critic", mse_loss(_value(self._nets, batch.state, batch.action), wanted))
        self._descend(
            "actor", -_value(self._nets, batch.state, self._nets["actor"](batch.state)).mean()
        )
        with torch.no_grad():
            for slow, fast in zip(self._slow.parameters(), self._nets.parameters()):
                slow.lerp_(fast, config.tau)

    def _descend(self, name: str, loss: torch.Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=self._learned[name])  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizers[name].step()

    def state(self) -> Dict[str, torch.Tensor]:
        """Return everything that must survive a kill."""
        state = {f"fast.{name}": value for name, value in self._nets.state_dict().items()}
        state.update({f"slow.{name}": value for name, value in self._slow.state_dict().items()})
        for name, parameter in self._nets.named_parameters():
            moments = self._optimizers[name.partition(".")[0]].state.get(parameter, {})
            state.update({f"adam.{key}.{name}": value for key, value in moments.items()})
        state.update({f"replay.{name}": value for name, value in self.replay.state().items()})
        state["baseline"] = torch.tensor(self._baseline, dtype=torch.float64)
        state["generator"] = self._generator.get_state()
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned.

        Raises: KeyError or RuntimeError for the state of another agent.
        """
        self._nets.load_state_dict(under("fast.", state))
        self._slow.load_state_dict(under("slow.", state))
        for name, parameter in self._nets.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"adam.step.{name}" in state:
                moments = {key: state[f"adam.{key}.{name}"].clone() for key in keys}
                self._optimizers[name.partition(".")[0]].state[parameter] = moments
        self.replay.load_state(under("replay.", state))
        self._baseline = float(state["baseline"])
        self._generator.set_state(state["generator"])


def truncated_normal(mean: float, sigma: float, generator: torch.Generator) -> float:
    """Return a draw from the normal distribution cut to [0, 1], by the inverse of its distribution function.

    Args:
        mean: in [0, 1].
        sigma: deviation before the cut, above 0.
        generator: of the draw.
    """
    ends = torch.special.ndtr((torch.tensor([0.0, 1.0], dtype=torch.float64) - mean) / sigma)
    share = torch.rand((), generator=generator, dtype=torch.float64)
    drawn = mean + sigma * torch.special.ndtri(ends[0] + share * (ends[1] - ends[0]))
    return float(drawn.clamp(0.0, 1.0))


def under(prefix: str, state: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Return the entries whose names start with the prefix, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _perceptron(inputs: int, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Return two hidden layers and one output, drawn as torch draws linear layers."""
    sizes = ((inputs, hidden), (hidden, hidden), (hidden, 1))
    layers = [nn.Linear(*size, device="meta").to_empty(device="cpu") for size in sizes]
    with torch.no_grad():
        for layer in layers:
            reach = 1.0 / math.sqrt(layer.in_features)
            layer.weight.uniform_(-reach, reach, generator=generator)
            layer.bias.uniform_(-reach, reach, generator=generator)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _value(nets: nn.ModuleDict, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = nets["critic"](torch.cat([state, action], 1))
    return value
