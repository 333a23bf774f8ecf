"""Small files of the kernel: what they say, and the one line when they do not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgeecc.errors import MeterError
from edgeecc.meters import sysfs
from tests.sysfs_trees import refuse

pytestmark = pytest.mark.device


@pytest.mark.parametrize(
    ("raw", "text"), [(b"MAXN\n", "MAXN"), (b"quill\0", "quill"), (b" 5 \r\n", "5"), (b"", "")]
)
def test_text_is_told_without_what_surrounds_it(tmp_path: Path, raw: bytes, text: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(raw)
    assert sysfs.read_text(file) == text


@pytest.mark.parametrize(("raw", "number"), [("7\n", 7), ("-80\n", -80), ("+3", 3)])
def test_whole_numbers_are_read(tmp_path: Path, raw: str, number: int) -> None:
    file = tmp_path / "file"
    file.write_text(raw)
    assert sysfs.read_int(file) == number


@pytest.mark.parametrize("raw", ["", "1.5", "12 mW", "1_000", "0x10", "\udcff", "9" * 30, "nan"])
def test_what_is_no_whole_number_is_refused(tmp_path: Path, raw: str) -> None:
    file = tmp_path / "in1_input"
    file.write_bytes(raw.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(MeterError, match="in1_input reads .* where a whole number should be"):
        sysfs.read_int(file)
    assert sysfs.optional_int(file) is None


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "may not be read by this user; ask Ann"),
        (errno.EPERM, "may not be read by this user; ask Ann"),
        (errno.ENOENT, "is gone"),
        (errno.ENODEV, "is gone"),
        (errno.ENODATA, "has no data: its channel is switched off"),
        (errno.EIO, "cannot be read: .*Input/output error"),
        (errno.EAGAIN, "cannot be read"),
    ],
)
def test_refusals_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    file = tmp_path / "energy_uj"
    file.write_text("1")
    refuse(monkeypatch, file, number)
    with pytest.raises(MeterError, match=f"energy_uj {told}") as caught:
        sysfs.read_text(file, "ask Ann")
    assert "\n" not in str(caught.value)
    assert sysfs.optional_text(file) == ""
    assert sysfs.optional_cell(file) is None


def test_without_a_remedy_root_and_mounts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, tmp_path / "file", errno.EACCES)
    with pytest.raises(MeterError, match="run as root; in a container mount /sys"):
        sysfs.read_text(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EREMOTEIO])
def test_a_busy_sensor_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "file"
    file.write_text("5")
    refuse(monkeypatch, file, number, times=sysfs.TRIES - 1)
    assert sysfs.read_int(file) == 5


def test_a_long_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1" * (sysfs.MOST_BYTES + 1))
    with pytest.raises(MeterError, match="is longer than .* bytes"):
        sysfs.read_text(file)


def test_cells_are_big_endian(tmp_path: Path) -> None:
    file = tmp_path / "cell"
    file.write_bytes(b"\0\0\x76\x07")
    assert sysfs.optional_cell(file) == 0x7607
    file.write_bytes(b"\0\0\x76")
    assert sysfs.optional_cell(file) is None


def test_what_this_user_may_not_know_of_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sysfs.exists(tmp_path)
    assert not sysfs.exists(tmp_path / "none")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    assert not sysfs.exists(tmp_path)
