"""What a report rests on: a profile with its network and those samples that it was fitted and judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List

import numpy as np

from edgeecc.config import CalibrateConfig
from edgeecc.cost.design import place
from edgeecc.cost.offsets import Offset, corrected
from edgeecc.cost.profile import Profile
from edgeecc.cost.rows import as_arrays, identity_of, parted
from edgeecc.cost.samples import Row, SampleStore
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.run_folder import read_spec_file

#: Share by which ratios worked out again may differ from those of a profile: rounding, no more.
_SAME = 1e-9


@dataclass(frozen=True)
class Evidence:
    """A profile and its samples, offsets of boards divided out.

    Args:
        profile, spec: the cost model and its network.
        known, told: widths (N, G) and values (N,), metric unit, of the samples that were fitted, by number.
        held, truth: widths (M, G) and values (M,) of those that were held out.
    """

    profile: Profile
    spec: NetworkSpec
    known: FloatArray
    told: FloatArray
    held: FloatArray
    truth: FloatArray


def read_evidence(folder: Path) -> Evidence:
    """Read the folder of a calibration, whose files may come from anywhere; nothing in it is changed.

    Raises: ArtifactError when a file is missing or damaged, or they do not belong together; GraphError for a damaged
        spec.
    """
    _check_there(folder)
    profile = Profile.load(folder / "profile.json")
    spec = read_spec_file(folder / "spec.json")
    profile.cost_for(spec)
    source = folder / "samples.db"
    identity = identity_of(
        fingerprint=profile.fingerprint, device=profile.device, protocol=profile.protocol, seed=profile.seed,
        design=profile.design,
    )  # fmt: skip
    with SampleStore(source, identity, read_only=True) as store:
        rows = store.rows()
    asked = sum(profile.samples.values())
    # By number, for one that could not be built is not among them.
    samples = [row for row in rows if row.number >= 0][:asked]
    _check_widths(samples, spec, source)
    factors = {
        name: Offset(told["offset"], told["standard_error"])
        for name, told in profile.boards.items()
    }
    share = CalibrateConfig().heldout
    fitted, held = parted(corrected(samples, factors), lambda number: place(number, share)[0])
    for name, rows in (("train", fitted), ("heldout", held)):
        if not rows or len(rows) != profile.samples.get(name):
            raise ArtifactError(
                f"{source} holds {len(rows)} {name} samples of {profile.samples.get(name)} that the profile tells; "
                "run edgeecc calibrate again"
            )
    found = Evidence(profile, spec, *as_arrays(fitted), *as_arrays(held))
    _check_same(found, source)
    return found


def _check_there(folder: Path) -> None:
    for name in ("profile.json", "samples.db", "spec.json"):
        if not (folder / name).is_file():
            more = "; copy that of its --graph there" if name == "spec.json" else ""
            raise ArtifactError(
                f"{folder} holds no {name}; name the folder of a calibration, calibration/DEVICE/NETWORK{more}"
            )


def _check_widths(rows: List[Row], spec: NetworkSpec, source: Path) -> None:
    dense = [group.width for group in spec.prunable]
    for row in rows:
        fine = len(row.widths) == len(dense) and all(
            1 <= width <= most for width, most in zip(row.widths, dense)
        )
        if not fine or not (np.isfinite(row.value) and row.value > 0.0):
            raise ArtifactError(
                f"{source} is damaged: sample {row.number} is no measured variant of {spec.network}; move it away and "
                "calibrate again"
            )


def _check_same(found: Evidence, source: Path) -> None:
    """Check that the held-out samples are those that the profile was judged by, where it keeps their ratios."""
    kept = found.profile.ratios
    ratios = np.sort(found.truth / found.profile.model.predict_many(found.held))
    if kept and not (len(kept) == len(ratios) and np.allclose(ratios, kept, rtol=_SAME, atol=0.0)):
        raise ArtifactError(
            f"{source} holds other held-out samples than profile.json beside it; run edgeecc calibrate again"
        )
