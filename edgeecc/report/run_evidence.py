"""The calibration that a run's cost model came from, where it still lies beside the run: predicted against measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from edgeecc.calibration_folder import folder_name, network_folder, shipped_roots
from edgeecc.cost.profile import Profile
from edgeecc.errors import EdgeeccError
from edgeecc.report.evidence import Evidence, read_evidence
from edgeecc.report.run_files import RunFiles


@dataclass(frozen=True)
class Near:
    """What was found of a calibration.

    Args:
        evidence: its samples, None where it is not at hand.
        words: where it is, or why it is not shown.
    """

    evidence: Optional[Evidence]
    words: str


def calibration_near(files: RunFiles, profile: Profile, workspace: Path) -> Near:
    """Look for the calibration of a profile in the workspace, beside the run and among the shipped ones.

    It is taken where its profile has the device, the network, the samples and the held-out error of the run's; what
    export --fit-budget corrected since was fitted to the same samples. Damage there is told, it is no fault of the run.
    """
    for folder in _folders(files, profile, workspace):
        if not (folder / "profile.json").is_file():
            continue
        try:
            if not _is_same(Profile.load(folder / "profile.json"), profile):
                continue
            return Near(read_evidence(folder), f"Samples of {folder}.")
        except EdgeeccError as error:
            return Near(None, f"The samples of the calibration are not shown: {error}.")
    return Near(
        None,
        "The calibration that this cost model came from is not at hand, so its samples are not shown; edgeecc report "
        "CALIBRATION draws them where it is.",
    )


def _folders(files: RunFiles, profile: Profile, workspace: Path) -> Iterator[Path]:
    name = folder_name(files.network)
    spare = f"{name}-paper-groups" if files.run.under("source").flag("paper_groups") else name
    names = tuple(dict.fromkeys((spare, name, f"{spare}-{profile.fingerprint}")))
    run = files.folder.path
    roots: List[Path] = [workspace, run, run.parent.parent, *shipped_roots()]
    for root in roots:
        for one in names:
            try:
                yield network_folder(root, profile.device, one)
            except EdgeeccError:  # a device of another version
                return


def _is_same(found: Profile, profile: Profile) -> bool:
    return _origin(found) == _origin(profile)


def _origin(profile: Profile) -> Tuple[object, ...]:
    return (
        profile.fingerprint, profile.device, profile.form, profile.fit, profile.seed, profile.design,
        dict(profile.samples), profile.heldout,
    )  # fmt: skip
