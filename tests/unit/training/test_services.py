"""What the trainer offers to methods that search: held-out scores, a sample, short phases, a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Tuple

import pytest
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.data.splits import TensorSplit, held_apart
from edgeecc.errors import ArtifactError, ConfigError, DataError
from edgeecc.solvers.base import Step
from edgeecc.training.loop import Checkpointing, TorchTrainer


def split(count: int = 40) -> TensorSplit:
    images = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return TensorSplit(images / count, torch.arange(count) % 2)


def network() -> nn.Module:
    torch_state = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch_state)
    return model


class Free:
    """Hooks that do nothing."""

    def after_backward(self, model: nn.Module) -> None:
        """Nothing."""

    def after_step(self, *_: object) -> Mapping[str, float]:
        return {"cost": 1.0}

    def state(self) -> Dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing."""


def trainer(model: nn.Module, **more: object) -> TorchTrainer:
    return TorchTrainer(
        model, split(), split(), config=TrainConfig(batch_size=4, distill=0.0), **more
    )


def test_held_out_images_are_never_sampled_or_trained_on() -> None:
    rest, kept = held_apart(split(), 10, seed=3)
    values = [
        set((40 * part.take(range(len(part)))[0][:, 0, 0, 0]).tolist()) for part in (rest, kept)
    ]
    assert len(values[0]) == 30
    assert len(values[1]) == 10
    assert not values[0] & values[1]
    loop = TorchTrainer(
        network(), split(), split(), config=TrainConfig(batch_size=4, seed=3), held_out=10
    )
    assert set((40 * loop.sample(1000)[:, 0, 0, 0]).tolist()) == values[0]
    assert 0.0 <= loop.held_out() <= 1.0


def test_images_that_judge_are_neither_trained_on_nor_chosen_by() -> None:
    seen: List[torch.Tensor] = []

    class Watched(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return super().forward(x)

    loop = TorchTrainer(
        Watched(*network()),
        split(),
        split(),
        config=TrainConfig(batch_size=4),
        held_out=8,
        judged=12,
    )

    def shown(act: object) -> set:
        seen.clear()
        act()  # type: ignore[operator]
        return set((40 * torch.cat(seen)[:, 0, 0, 0]).round().int().tolist())

    judged, chosen = shown(loop.judged), shown(loop.held_out)
    trained = shown(lambda: loop.train("a", 20, Free()))
    assert [len(one) for one in (judged, chosen, trained)] == [12, 8, 20]
    assert len(judged | chosen | trained) == 40
    assert trainer(network()).judged() is None


def test_validation_images_that_judge_score_nothing_else_whatever_the_seed() -> None:
    def on(seed: int, apart: int) -> TorchTrainer:
        config = TrainConfig(batch_size=4, seed=seed)
        return TorchTrainer(network(), split(), split(), config=config, held_out=8, val_apart=apart)

    def correct(loop: TorchTrainer, apart: int) -> Tuple[float, float]:
        return loop.evaluate() * (40 - apart), (loop.judged() or 0.0) * apart

    whole = on(0, 0)
    assert whole.judged() is None
    first, second = on(0, 15), on(1, 15)
    assert first.dense_scores() == first.scores()
    assert (first.evaluate(), first.judged()) == (second.evaluate(), second.judged())
    assert sum(correct(first, 15)) == pytest.approx(40 * whole.evaluate())
    assert len(first.sample(1000)) == len(whole.sample(1000)) == 32
    with pytest.raises(DataError, match="21 of 40 validation images cannot be held out"):
        on(0, 21)
    with pytest.raises(ConfigError, match="9 training and 3 validation images cannot both judge"):
        TorchTrainer(network(), split(), split(), config=TrainConfig(), judged=9, val_apart=3)


def test_the_rate_rises_at_the_start_of_every_phase() -> None:
    class Rates(Free):
        def __init__(self) -> None:
            self.seen: List[float] = []

        def after_step(
            self, model: nn.Module, optimizer: torch.optim.Optimizer, *_: object
        ) -> Mapping[str, float]:
            self.seen.append(optimizer.param_groups[0]["lr"])
            return {"cost": 1.0}

    def rates(phase: str, rise: float) -> List[float]:
        hooks, config = Rates(), TrainConfig(batch_size=4, lr=0.1, rise=rise)
        TorchTrainer(network(), split(), split(), config=config).train(phase, 8, hooks)
        return hooks.seen

    assert rates("prune", 0.5) == pytest.approx([0.025, 0.05, 0.075, *[0.1] * 5])
    still, rising = rates("finetune", 0.0), rates("finetune", 0.5)
    assert still == sorted(still, reverse=True)
    assert rising == pytest.approx([rate * min(1.0, n / 4) for n, rate in enumerate(still, 1)])
    with pytest.raises(ConfigError, match="rise 1.5 must lie in"):
        TrainConfig(rise=1.5)


@pytest.mark.parametrize("count", [21, -1])
def test_too_many_held_out_images_are_refused(count: int) -> None:
    with pytest.raises(DataError, match="hold out 1 to 20"):
        held_apart(split(), count, seed=0)


def test_without_held_out_images_nothing_can_be_chosen() -> None:
    with pytest.raises(ConfigError, match="hold some out"):
        trainer(network()).held_out()


def test_phases_start_with_the_batch_they_are_told() -> None:
    images: List[torch.Tensor] = []

    class Watched(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                images.append(x)
            return super().forward(x)

    loop = trainer(Watched(*network()))
    loop.train("a", 4, Free())
    loop.train("b", 2, Free(), first_batch=2)
    assert torch.equal(torch.cat(images[2:4]), torch.cat(images[4:]))
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_phases_that_carry_moments_are_one_phase(optimizer: str) -> None:
    config = TrainConfig(batch_size=4, distill=0.0, lr=0.1, rise=0.0, optimizer=optimizer)  # type: ignore[arg-type]
    whole, parted, afresh = network(), network(), network()
    TorchTrainer(whole, split(), split(), config=config).train("whole", 6, Free())
    moments: Dict[str, torch.Tensor] = {}
    kept: List[Dict[str, torch.Tensor]] = []
    for first in (0, 2, 4):
        loop = TorchTrainer(parted, split(), split(), config=config)
        loop.train(f"part-{first}", 2, Free(), first_batch=first, moments=moments)
        kept.append({name: value.clone() for name, value in moments.items()})
        loop = TorchTrainer(afresh, split(), split(), config=config)
        loop.train(f"afresh-{first}", 2, Free(), first_batch=first)
    assert torch.equal(parted[1].weight, whole[1].weight)
    assert not torch.equal(afresh[1].weight, whole[1].weight)
    # What was carried before is the caller's: later phases change nothing of it.
    assert any(not torch.equal(kept[0][name], kept[2][name]) for name in kept[0])
    again = {name: value.clone() for name, value in kept[0].items()}
    TorchTrainer(network(), split(), split(), config=config).train(
        "other", 2, Free(), moments=dict(kept[0])
    )
    assert all(torch.equal(kept[0][name], again[name]) for name in again)


def test_the_rate_of_a_phase_scales_the_learning_rate() -> None:
    models = [network(), network(), network()]
    for model, rate in zip(models[1:], (0.01, 1.0)):
        trainer(model).train("a", 1, Free(), rate=rate)
    start, little, much = (model[1].weight.detach() for model in models)
    assert torch.allclose(100 * (little - start), much - start, atol=1e-5)


def test_short_phases_can_keep_quiet_and_searches_report() -> None:
    told: List[Step] = []
    loop = trainer(network(), on_step=lambda phase, step: told.append(step))
    loop.train("a", 3, Free(), reported=False)
    assert not told
    loop.report("search", Step(1, 9, 0.5, 2.0))
    assert told == [Step(1, 9, 0.5, 2.0)]


def test_what_is_remembered_is_recalled_by_name(tmp_path: Path) -> None:
    kept = Checkpointing(tmp_path / "phase", 1e-9, tmp_path / "search")
    loop = trainer(network(), checkpointing=kept)
    assert loop.recall("netadapt") is None
    state = {"scores": torch.tensor([0.5, 0.25]), "turn": torch.tensor(3)}
    loop.remember("netadapt", state)
    found = trainer(network(), checkpointing=kept).recall("netadapt")
    assert found is not None
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert loop.recall("amc") is None
    (tmp_path / "search").write_bytes(b"x" * 64)
    with pytest.raises(ArtifactError):
        loop.recall("netadapt")


def test_the_journal_is_written_now_and_then(tmp_path: Path) -> None:
    kept = Checkpointing(tmp_path / "phase", 3600.0, tmp_path / "search")
    loop = trainer(network(), checkpointing=kept)
    loop.remember("netadapt", {"turn": torch.tensor(1)})
    assert loop.recall("netadapt") is None


def test_without_checkpoints_nothing_is_remembered() -> None:
    loop = trainer(network())
    loop.remember("netadapt", {"turn": torch.tensor(1)})
    assert loop.recall("netadapt") is None
