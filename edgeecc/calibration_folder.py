"""Where calibrations live: calibration/<device>/<network>/ in the workspace, and the ones shipped with edgeecc."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Optional

import edgeecc
from edgeecc.device_names import parse_device
from edgeecc.units import Metric


def device_metric(device: str) -> Metric:
    """Return what a device's profiles predict.

    Raises: ConfigError for an unknown device.
    """
    return parse_device(device).metric


def folder_name(reference: str) -> str:
    """Return a name that is safe as a folder, of a network's name or `package.module:factory`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", reference.rpartition(":")[2]).strip(".") or "network"


def network_folder(workspace: Path, device: str, network: str) -> Path:
    """Return the folder of a calibration.

    Raises: ConfigError for an unknown device.
    """
    return workspace / "calibration" / parse_device(device).text.replace(":", "-") / network


def find_profile(device: str, network: str, workspace: Path) -> Optional[Path]:
    """Return the profile of a network on a device: the workspace's own, else the shipped one, else None.

    Raises: ConfigError for an unknown device.
    """
    device_metric(device)
    for root in (workspace, *shipped_roots()):
        path = network_folder(root, device, network) / "profile.json"
        if path.is_file():
            return path
    return None


def shipped_roots() -> tuple[Path, ...]:
    """Return where shipped files may be: beside the package in a checkout, under the prefix when installed.

    PREFIX/lib/pythonX.Y/site-packages/edgeecc names the prefix of a user's or a distribution's install too, where
    `sys.prefix` is another.
    """
    above = Path(edgeecc.__file__).resolve().parents
    prefixes = [Path(sys.prefix), *([above[4]] if len(above) > 4 else [])]
    return (above[1], *(prefix / "share" / "edgeecc" for prefix in prefixes))
