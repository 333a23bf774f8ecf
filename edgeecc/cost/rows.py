"""What calibrations do with rows of samples: held against their widths, parted, and as arrays."""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from edgeecc.cost.samples import Row
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import FloatArray


def check_widths(
    rows: Sequence[Row], groups: Sequence[str], widths: Callable[[int], Mapping[str, int]], *, source: object
) -> None:  # fmt: skip
    """Check that every row is of the variant that its number stands for.

    Args:
        rows: as they were stored.
        groups: names, in the order of the width vector.
        widths: of a sample, by its number.
        source: of the rows, for the message.
    Raises: ArtifactError naming the first sample that is not.
    """
    for row in rows:
        wanted = widths(row.number)
        if list(row.widths) != [wanted[group] for group in groups]:
            raise ArtifactError(
                f"{source} is damaged: sample {row.number} has other widths than its number and the seed give; "
                "move it away and calibrate again"
            )


def parted(rows: Sequence[Row], is_held_out: Callable[[int], bool]) -> Tuple[List[Row], List[Row]]:
    """Return the samples to fit and those that are held out, by their numbers; anchors are neither."""
    samples = [row for row in rows if row.number >= 0]
    held = [row for row in samples if is_held_out(row.number)]
    return [row for row in samples if not is_held_out(row.number)], held


def identity_of(
    *, fingerprint: str, device: str, protocol: Mapping[str, object], seed: int, design: str
) -> Dict[str, object]:
    """Return what the samples of a store are of, as the store keeps it.

    Args:
        fingerprint: of the network.
        device: its name.
        protocol: how a sample was measured.
        seed, design: which variants; stores of versions that knew the uniform design alone name none.
    """
    identity: Dict[str, object] = {
        "fingerprint": fingerprint,
        "device": device,
        "protocol": dict(protocol),
        "seed": seed,
    }
    return identity if design in ("", "uniform") else {**identity, "design": design}


def as_arrays(rows: Sequence[Row]) -> tuple[FloatArray, FloatArray]:
    """Return widths (N, G) and values (N,) of rows."""
    return np.array([row.widths for row in rows], dtype=np.float64), np.array(
        [row.value for row in rows]
    )
