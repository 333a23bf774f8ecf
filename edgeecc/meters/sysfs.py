"""Small files that the kernel writes (sysfs, procfs, the device tree): read within bounds, refused in one line."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path
from typing import Optional

from edgeecc.errors import MeterError, brief

#: No file that is read here is longer; sysfs attributes are at most a page, /etc/nvpmodel.conf about 30 kB.
MOST_BYTES = 256 * 1024
#: Tries of a file whose sensor is busy: on a shared I2C bus a conversion may be late or a transfer refused.
TRIES = 3

_BUSY = {errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EREMOTEIO}
_GONE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR}
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}\Z")
_SHOWN = 40


def read_text(path: Path, remedy: str = "") -> str:
    """Return what a small file says, without the white space and the zero bytes around it.

    Args:
        path: file.
        remedy: what to do when this user may not read it; the default speaks of root and of mounts.
    Raises: MeterError when it is gone, may not be read, does not answer, or is too long.
    """
    return _read(path, remedy).decode("utf-8", errors="replace").strip(" \t\r\n\0")


def read_int(path: Path, remedy: str = "") -> int:
    """Return the whole number in a small file.

    Raises: MeterError as `read_text`, and when it is no whole number.
    """
    text = read_text(path, remedy)
    if not _NUMBER.match(text):
        raise MeterError(
            f"{path} reads {text[:_SHOWN]!r} where a whole number should be; check the driver of the sensor"
        )
    return int(text)


def exists(path: Path) -> bool:
    """Return whether there is such a file, as far as this user may know."""
    try:
        return path.exists()
    except OSError:
        return False


def optional_text(path: Path) -> str:
    """Return what a small file says; nothing when there is no such file or it does not answer."""
    try:
        return read_text(path)
    except MeterError:
        return ""


def optional_int(path: Path) -> Optional[int]:
    """Return the whole number in a small file; None when there is none or it does not answer."""
    try:
        return read_int(path)
    except MeterError:
        return None


def optional_cell(path: Path) -> Optional[int]:
    """Return the number in a property of the device tree, 32 bits and big-endian; None when there is none."""
    try:
        raw = _read(path, "")
    except MeterError:
        return None
    return int(struct.unpack(">I", raw)[0]) if len(raw) == 4 else None


def _read(path: Path, remedy: str) -> bytes:
    for _ in range(TRIES - 1):
        try:
            return _read_once(path)
        except OSError as error:
            if error.errno not in _BUSY:
                raise _told(path, error, remedy) from error
    try:
        return _read_once(path)
    except OSError as error:
        raise _told(path, error, remedy) from error


def _read_once(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise MeterError(
            f"{path} is longer than {MOST_BYTES} bytes; that is no file of a sensor, check what is mounted there"
        )
    return raw


def _told(path: Path, error: OSError, remedy: str) -> MeterError:
    if isinstance(error, PermissionError):
        how = remedy or "let root make it readable, or run as root; in a container mount /sys"
        return MeterError(f"{path} may not be read by this user; {how}")
    if error.errno in _GONE:
        return MeterError(
            f"{path} is gone; its driver was unloaded or it is no longer mounted, run edgeecc doctor"
        )
    if error.errno == errno.ENODATA:
        return MeterError(f"{path} has no data: its channel is switched off; switch it on")
    return MeterError(f"{path} cannot be read: {brief(error)}; run edgeecc doctor")
