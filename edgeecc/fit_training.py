"""What a finished run was trained with, read back from its run.json: data, settings, precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping

from torch import nn

from edgeecc.config import ComputeConfig, TrainConfig
from edgeecc.data.sources import DataBundle
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.fit_config import FitBudgetConfig
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import OnPhaseStep, trained_task
from edgeecc.schedule import Stage
from edgeecc.training.compute import compute_of
from edgeecc.training.loop import Checkpointing, TorchTrainer


@dataclass(frozen=True)
class RunTraining:
    """How a run was trained.

    Args:
        data: name of the data set.
        training: settings.
        held_out, judged: images that were not trained on.
        val_apart: validation images that were scored apart.
        precision: of forward passes.
        first_batch: number of the first batch that the run has not seen.
        finetune_steps: steps that its fine-tuning took.
    """

    data: str
    training: TrainConfig
    held_out: int
    judged: int
    val_apart: int
    precision: Any  # one of `config.Precision`; ComputeConfig checks it
    first_batch: int
    finetune_steps: int

    def steps(self, share: float) -> int:
        """Return the steps of a share of the run's fine-tuning, as long as its stages ask."""
        stages = self.shortened(share).finetune
        if stages:
            return sum(stage.steps for stage in stages)
        return round(share * self.finetune_steps)

    def shortened(self, share: float) -> TrainConfig:
        """Return the settings with stages of this share of their steps, at least one each."""
        stages = tuple(
            replace(stage, steps=max(1, round(share * stage.steps)))
            for stage in self.training.finetune
        )
        return replace(self.training, finetune=stages)

    def trainer(
        self, folder: RunFolder, dense: nn.Module, data: DataBundle, config: FitBudgetConfig, on_step: OnPhaseStep
    ) -> TorchTrainer:  # fmt: skip
        """Return a trainer as the run's was, whose teacher is the dense network."""
        training = self.shortened(config.finetune)
        return TorchTrainer(
            dense,
            data.train,
            data.val,
            config=training,
            task=trained_task(data, training),
            checkpointing=Checkpointing(folder.file("checkpoint.safetensors"), config.checkpoint_s),
            held_out=self.held_out,
            judged=self.judged,
            val_apart=self.val_apart,
            on_step=on_step,
            compute=compute_of(ComputeConfig(precision=self.precision)),
        )


def training_of(run: Mapping[str, object], result: Mapping[str, object], folder: RunFolder) -> RunTraining:  # fmt: skip
    """Return how a run was trained.

    Raises: ArtifactError when run.json or result.json says it wrongly.
    """
    request = run.get("request")
    try:
        if not isinstance(request, dict):
            raise ConfigError("it holds no request")  # noqa: TRY301  # one message for all
        steps, finetuned = _count(result, "steps"), _count(result, "finetune_steps")
        return RunTraining(
            data=str(request["data"]),
            training=_training(request["training"]),
            held_out=_count(request, "held_out"),
            judged=_count(request, "judged"),
            val_apart=_count(request, "val_apart") if "val_apart" in request else 0,
            precision=ComputeConfig(precision=request["precision"]).precision,
            first_batch=steps + finetuned,
            finetune_steps=finetuned or _count(request, "finetune_steps"),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(
            f"{folder.path} does not tell how it was trained ({error}); run edgeecc prune again"
        ) from error


def _training(values: Dict[str, Any]) -> TrainConfig:
    stages = tuple(Stage(**stage) for stage in values["finetune"])
    return TrainConfig(**{**values, "finetune": stages})


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values[name]
    if type(value) is not int or not 0 <= value <= 10**12:
        raise ConfigError(f"{name} is {value!r}, no count")
    return value
