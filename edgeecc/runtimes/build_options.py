"""How an engine is built."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Dict, Literal, Optional, Tuple, get_args

import numpy as np

from edgeecc.errors import ConfigError
from edgeecc.runtimes.base import Array

EnginePrecision = Literal["fp32", "fp16", "int8"]
#: Builder optimisation levels of TensorRT, 3 is its default (IBuilderConfig, builder_optimization_level).
LEVELS = range(6)


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built. What is None is left to TensorRT.

    Args:
        precision: fp32 lets Ampere and later multiply in TF32 unless `tf32` is False; fp16 and int8 allow fp32 where
            the release chooses itself.
        level: builder optimisation level 0 to 5, from release 8.6 on: 1 or 2 for the samples of a calibration.
        workspace_bytes: most memory that one layer may take for its work.
        tf32: whether fp32 products may be TF32.
        sparse: whether kernels may be taken that skip the zeros of a 2:4 pattern, see `pattern`.
        calibration: batches of real inputs, for int8 of a graph without quantisation of its own.
    Raises: ConfigError when a value is out of range.
    """

    precision: EnginePrecision
    level: Optional[int] = None
    workspace_bytes: Optional[int] = None
    tf32: bool = True
    sparse: bool = False
    calibration: Tuple[Array, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.precision not in get_args(EnginePrecision):
            raise ConfigError(
                f"unknown precision {self.precision!r}; known are {', '.join(get_args(EnginePrecision))}"
            )
        if self.level is not None and self.level not in LEVELS:
            raise ConfigError(f"builder optimisation level {self.level} must lie in 0..5")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ConfigError(f"workspace of {self.workspace_bytes} bytes must be at least 1")
        shapes = {(batch.shape, batch.dtype.str) for batch in self.calibration}
        if len(shapes) > 1:
            raise ConfigError(
                f"calibration batches differ in shape or type: {sorted(map(str, shapes))}; give them alike"
            )
        if any(not np.isfinite(batch).all() for batch in self.calibration):
            raise ConfigError("a calibration batch holds NaN or infinity; check how it was made")

    @property
    def title(self) -> str:
        """The precision as it is printed."""
        return self.precision if self.tf32 else f"{self.precision} without TF32"

    def to_json(self) -> Dict[str, object]:
        """Return all that the engine depends on, JSON-ready; the batches as their sha256."""
        digest = hashlib.sha256()
        for batch in self.calibration:
            digest.update(f"{batch.dtype.str}{batch.shape}".encode())
            digest.update(np.ascontiguousarray(batch).tobytes())
        return {
            "precision": self.precision,
            "level": self.level,
            "workspace_bytes": self.workspace_bytes,
            "tf32": self.tf32,
            "sparse": self.sparse,
            "calibration_sha256": digest.hexdigest() if self.calibration else None,
        }
