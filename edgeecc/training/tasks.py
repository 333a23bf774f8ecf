"""The tasks by name."""

from __future__ import annotations

from typing import Callable, Dict, Optional

from edgeecc.errors import ConfigError
from edgeecc.training.classification import Classification
from edgeecc.training.segmentation import Segmentation
from edgeecc.training.task import Task

TASKS: Dict[str, Callable[[Optional[int]], Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
}


def make_task(name: str, classes: Optional[int]) -> Task:
    """Return a task by name.

    Args:
        name: as the data set says it.
        classes: of the data set; None takes as many as the network tells.
    Raises: ConfigError for an unknown name.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; known are {', '.join(sorted(TASKS))}")
    return TASKS[name](classes)
