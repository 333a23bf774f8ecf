"""What a request leaves open is filled in by the task and the size of the images."""

from __future__ import annotations

import pytest

from edgeecc.config import PruneConfig, TrainConfig
from edgeecc.errors import ConfigError
from edgeecc.run_request import settled, step_counts

LARGE, SMALL = (3, 360, 480), (1, 28, 28)


def test_the_batch_goes_by_task_and_the_rate_by_size() -> None:
    for task, batch in (("classification", 128), ("segmentation", 4)):
        for shape, rate in ((LARGE, 1e-4), (SMALL, 1e-3), ((7,), 1e-4)):
            found = settled(TrainConfig(), shape, task)
            assert (found.batch_size, found.images_per_batch, found.lr) == (batch, batch, rate)


def test_what_was_asked_for_stays() -> None:
    asked = TrainConfig(batch_size=7, lr=0.5, seed=3)
    assert settled(asked, LARGE, "segmentation") == asked
    assert TrainConfig().images_per_batch == 128
    with pytest.raises(ConfigError, match="batch size and learning rate must be positive"):
        TrainConfig(batch_size=0)


@pytest.mark.parametrize(
    ("images", "batch", "steps"),
    [(367, 4, 300), (2975, 4, 1487), (60_000, 128, 937), (1_281_167, 4, 30_000), (10, 128, 300)],
)
def test_steps_are_two_passes_within_bounds(images: int, batch: int, steps: int) -> None:
    training = TrainConfig(batch_size=batch)
    assert step_counts(PruneConfig(), training, images) == (steps, steps)
    assert step_counts(PruneConfig(steps=5), training, images) == (5, steps)
    assert step_counts(PruneConfig(finetune_steps=0), training, images) == (steps, 0)
