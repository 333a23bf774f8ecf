"""The check of wheels: its rules, how it reads an index, and the snapshot that stands for one."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import sys_tags

from tools import check_wheels, wheel_index
from tools.check_wheels import (
    BUILT_FROM_SOURCE,
    TARGETS,
    Target,
    all_pins,
    ask,
    complaint,
    complaints,
    load_snapshot,
    main,
    of_release,
    read_pins,
    save_snapshot,
)
from tools.wheel_index import Index, IndexFaultError, IndexFile, configured, parse

pytestmark = pytest.mark.device

TX2 = Target("the board", "pins.txt", "3.8.0", "aarch64", 27)
JSON = "application/vnd.pypi.simple.v1+json"


def said(*names: str, requires: str = "", yanked: bool = False) -> str:
    """Return the complaint about package a 1.0 on the TX2 when the index has these files."""
    return complaint(TX2, ("a", "1.0"), [IndexFile(name, requires, yanked) for name in names])


# ---- the pins themselves


def test_snapshot_and_pins_are_of_one_mind() -> None:
    assert sorted(load_snapshot()) == all_pins()


def test_every_pin_has_its_wheels() -> None:
    assert complaints(TARGETS, load_snapshot()) == []


def test_what_is_built_from_source_has_indeed_no_wheel() -> None:
    releases = load_snapshot()
    built = {release for release in releases if release[0] in BUILT_FROM_SOURCE}
    assert {name for name, _ in built} == set(BUILT_FROM_SOURCE)
    assert not any(
        file.filename.endswith(".whl") for release in built for file in releases[release]
    )


def test_offline_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_wheels, "configured", lambda seconds: pytest.fail("asked the index"))
    assert main(["--offline"]) == 0
    assert "0 without a wheel in the snapshot" in capsys.readouterr().out


# ---- the rules


@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-py3-none-any.whl",
        "a-1.0-py2.py3-none-any.whl",
        "a-1.0-cp38-cp38-manylinux2014_aarch64.whl",
        "a-1.0-cp38-cp38-manylinux_2_17_aarch64.whl",
        "a-1.0-cp38-cp38-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "a-1.0-cp37-abi3-manylinux_2_17_aarch64.whl",
        "a-1.0-py3-none-manylinux_2_17_aarch64.whl",
    ],
)
def test_wheels_that_the_board_takes(name: str) -> None:
    assert said(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-cp38-cp38-manylinux_2_28_aarch64.whl",  # a newer glibc
        "a-1.0-cp38-cp38-manylinux_2_17_x86_64.whl",
        "a-1.0-cp39-cp39-manylinux_2_17_aarch64.whl",
        "a-1.0-cp39-abi3-manylinux_2_17_aarch64.whl",
        "a-1.0-pp38-pypy38_pp73-manylinux_2_17_aarch64.whl",
        "a-1.0-cp38-cp38-win_arm64.whl",
    ],
)
def test_wheels_that_it_does_not(name: str) -> None:
    text = said(name)
    assert text.startswith("pins.txt: a==1.0 has no wheel for the board")
    assert name in text
    assert "\n" not in text


def test_requires_python_is_held_against_the_full_version() -> None:
    assert said("a-1.0-py3-none-any.whl", requires=">=3.8") == ""
    assert "nothing usable" in said("a-1.0-py3-none-any.whl", requires=">=3.8.1")
    assert said("a-1.0-py3-none-any.whl", requires="about three") == ""


def test_a_release_taken_back_does_not_count() -> None:
    assert "nothing usable" in said("a-1.0-py3-none-any.whl", yanked=True)


def test_a_source_archive_counts_only_when_it_is_on_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "a source archive alone" in said("a-1.0.tar.gz")
    monkeypatch.setitem(BUILT_FROM_SOURCE, "a", "in a test")
    assert said("a-1.0.tar.gz") == ""
    assert said("a-1.0.tar.gz", yanked=True)
    assert said()


@pytest.mark.skipif(sys.platform != "linux", reason="compares with this Linux's own tags")
def test_tags_are_those_of_an_interpreter_on_such_a_machine() -> None:
    import platform

    version = ".".join(str(part) for part in sys.version_info[:3])
    glibc = platform.libc_ver()[1]
    if platform.libc_ver()[0] != "glibc" or sys.implementation.name != "cpython":
        pytest.skip("no CPython on glibc")
    target = Target("here", "", version, platform.machine(), int(glibc.partition(".")[2]))
    platforms = {tag.platform for tag in target.tags()}
    here = {tag for tag in sys_tags() if tag.platform in platforms}
    assert {str(tag) for tag in target.tags()} == {str(tag) for tag in here}


@given(older=st.integers(17, 40), newer=st.integers(17, 40), wheel=st.integers(17, 45))
def test_a_newer_glibc_takes_all_that_an_older_one_takes(
    older: int, newer: int, wheel: int
) -> None:
    low, high = sorted((older, newer))
    files = [IndexFile(f"a-1.0-cp38-cp38-manylinux_2_{wheel}_aarch64.whl")]
    answers = [
        complaint(Target("", "", "3.8.0", "aarch64", glibc), ("a", "1.0"), files)
        for glibc in (low, high)
    ]
    assert [answer == "" for answer in answers] == [wheel <= low, wheel <= high]


def test_of_a_release_the_files_for_linux_are_kept() -> None:
    names = [
        "A-1.0-py3-none-any.whl",
        "a-1.0-cp38-cp38-macosx_11_0_arm64.whl",
        "a-1.0-cp38-cp38-manylinux2014_aarch64.whl",
        "a-1.0-cp38-cp38-musllinux_1_1_aarch64.whl",
        "a-1.0.1.tar.gz",
        "a-1.0.tar.gz",
        "a-1.0.win32.exe",
        "b-1.0.tar.gz",
        "garbage.whl",
    ]
    kept = [file.filename for file in of_release(map(IndexFile, names), ("a", "1.0"))]
    assert kept == [names[0], names[2], names[5]]


@pytest.mark.parametrize(
    "line", ["numpy", "numpy>=1.24", "numpy==1.24.*", "numpy==1,<2", "-r other.txt", "a b==1"]
)
def test_a_line_that_is_no_pin_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "pins.txt"
    file.write_text(f"# why\nclick==8.1.8\n{line}\n")
    with pytest.raises(IndexFaultError, match=r"pins\.txt: '.*' (is not of the form|names no)"):
        read_pins(file)


def test_pins_are_read_by_canonical_name(tmp_path: Path) -> None:
    file = tmp_path / "pins.txt"
    file.write_text("Typing_Extensions==4.13.2  # here\n\n")
    assert read_pins(file) == [("typing-extensions", "4.13.2")]


# ---- the snapshot


def test_snapshot_survives_saving(tmp_path: Path) -> None:
    releases = {
        ("a", "1.0"): [
            IndexFile("a-1.0.tar.gz", ">=3.8", yanked=True),
            IndexFile("a-1.0-py3-none-any.whl"),
        ],
        ("b", "2"): [IndexFile("b-2.tar.gz")],
    }
    save_snapshot(releases, tmp_path / "s.json")
    assert load_snapshot(tmp_path / "s.json") == releases


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"schema": 2, "releases": {}}', '{"schema": 1}', '{"schema": 1, "releases": {"a": []}}',
     '{"schema": 1, "releases": {"a==1": [{"name": "x"}]}}'],
)  # fmt: skip
def test_a_snapshot_that_is_none_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(IndexFaultError, match="use --refresh"):
        load_snapshot(tmp_path / "s.json")


def test_a_pin_without_an_entry_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("a==1.0\n")
    target = Target("x", str(tmp_path / "pins.txt"), "3.8.0", "aarch64", 27)
    with pytest.raises(IndexFaultError, match=r"no entry for a==1\.0: run .* --refresh"):
        complaints([target], {})


class FakeIndex:
    """Answers from what it was given."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def files(self, name: str) -> list[IndexFile]:
        return [IndexFile(file) for file in self.names]


def with_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *names: str) -> Path:
    """Let the check have one pin, one target and an index with these files; return the snapshot it would write."""
    (tmp_path / "pins.txt").write_text("a==1.0\n")
    target = Target("x", str(tmp_path / "pins.txt"), "3.8.0", "aarch64", 27)
    monkeypatch.setattr(check_wheels, "TARGETS", (target,))
    monkeypatch.setattr(check_wheels, "all_pins", lambda: [("a", "1.0")])
    monkeypatch.setattr(check_wheels, "configured", lambda seconds: FakeIndex(*names))
    kept = tmp_path / "kept.json"
    monkeypatch.setattr(
        check_wheels, "save_snapshot", lambda releases: save_snapshot(releases, kept)
    )
    return kept


def test_refresh_keeps_what_the_index_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = with_index(monkeypatch, tmp_path, "a-1.0-py3-none-any.whl", "a-2.0.tar.gz")
    assert main(["--refresh"]) == 0
    assert load_snapshot(kept) == {("a", "1.0"): [IndexFile("a-1.0-py3-none-any.whl")]}


def test_a_pin_without_wheels_is_said_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = with_index(monkeypatch, tmp_path, "a-1.0.tar.gz")
    assert main(["--refresh"]) == 1
    assert "error: " in capsys.readouterr().err
    assert not kept.exists()


def test_a_fault_of_the_index_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(seconds: float) -> Index:
        raise IndexFaultError("gone")

    monkeypatch.setattr(check_wheels, "configured", fault)
    assert main([]) == 1
    assert capsys.readouterr().err == "error: gone\n"


def test_ask_takes_the_pinned_release() -> None:
    assert ask(FakeIndex("a-1.0.tar.gz", "a-2.0.tar.gz"), [("a", "2.0")]) == {  # type: ignore[arg-type]
        ("a", "2.0"): [IndexFile("a-2.0.tar.gz")]
    }


# ---- reading an index


def as_json(files: list[IndexFile]) -> bytes:
    entries = [
        {"filename": f.filename, "requires-python": f.requires_python, "yanked": f.yanked}
        for f in files
    ]
    return json.dumps({"files": entries}).encode()


def as_page(files: list[IndexFile]) -> bytes:
    def link(file: IndexFile) -> str:
        requires = file.requires_python.replace(">", "&gt;").replace("<", "&lt;")
        yanked = ' data-yanked=""' if file.yanked else ""
        href = f"https://files.example/x/{file.filename}#sha256=00".replace("+", "%2B")
        return f'<a href="{href}" data-requires-python="{requires}"{yanked}>{file.filename}</a><br>'

    return (
        "<!DOCTYPE html><html><body>" + "\n".join(map(link, files)) + "<a>no link</a></body></html>"
    ).encode()


def test_json_and_page_say_the_same() -> None:
    files = [
        IndexFile("a-1.0+cpu-py3-none-any.whl", ">=3.8,<4", yanked=True),
        IndexFile("a-2.tar.gz"),
    ]
    assert parse(as_json(files), JSON) == parse(as_page(files), "text/html") == files


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"files": 3}', b'{"files": [3]}', b'{"files": [{}]}']
)
def test_json_without_files_is_a_fault(body: bytes) -> None:
    with pytest.raises(IndexFaultError, match="no list of files"):
        parse(body, JSON)


class Answer(io.BytesIO):
    """What urlopen gives: a body and its headers."""

    def __init__(self, body: bytes, content_type: str = JSON) -> None:
        super().__init__(body)
        self.headers = Message()
        self.headers["Content-Type"] = content_type


def index(*urls: str, seconds: float = 60.0) -> Index:
    return Index(urls or ("https://index.example/simple/",), None, time.perf_counter() + seconds)


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[urllib.request.Request]:
    """Let every request get an answer, or raise it; return the list that the requests are put in."""
    asked: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, timeout: float, context: object) -> object:
        asked.append(request)
        assert 0 < timeout <= 60
        if isinstance(answer, BaseException):
            raise answer
        return Answer(answer) if isinstance(answer, bytes) else answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_the_page_of_the_canonical_name_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, as_json([IndexFile("a_b-1.tar.gz")]))
    assert index().files("A.b") == [IndexFile("a_b-1.tar.gz")]
    assert asked[0].full_url == "https://index.example/simple/a-b/"
    assert "application/vnd.pypi.simple.v1+json" in str(asked[0].get_header("Accept"))


def test_every_https_index_is_asked_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, as_json([IndexFile("a-1.tar.gz")]))
    index(
        "https://one.example", "file:///wheels", "http://plain.example", "https://two.example"
    ).files("a")
    assert [request.host for request in asked] == ["one.example", "two.example"]


def test_a_password_goes_into_the_header_and_into_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = answering(monkeypatch, OSError("no route"))
    with pytest.raises(IndexFaultError) as fault:
        index("https://user:p%40ss@one.example/simple").files("a")
    assert asked[0].full_url == "https://one.example/simple/a/"
    assert asked[0].get_header("Authorization") == "Basic dXNlcjpwQHNz"
    assert "p%40ss" not in str(fault.value)
    assert "p@ss" not in str(fault.value)


def http_error(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError(
        "https://index.example/simple/a/", code, "", Message(), io.BytesIO()
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http_error(404), "no configured index has the package a"),
        (http_error(503), r"index\.example answered 503 for a"),
        (urllib.error.URLError("no route"), "cannot be read .* use --offline"),
        (TimeoutError(), "cannot be read .* use --offline"),
        (http.client.IncompleteRead(b""), "cannot be read .* use --offline"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, answer: BaseException, message: str
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(IndexFaultError, match=message):
        index().files("a")


def test_an_endless_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_index, "_MOST_BYTES", 10)
    answering(monkeypatch, b"x" * 11)
    with pytest.raises(IndexFaultError, match="more than 10 bytes"):
        index().files("a")


def test_when_the_time_is_up_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, b"")
    with pytest.raises(IndexFaultError, match="time for the index is up"):
        index(seconds=-1.0).files("a")
    assert asked == []


def settings(monkeypatch: pytest.MonkeyPatch, text: str) -> Index:
    done = subprocess.CompletedProcess([], 0, stdout=text, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    return configured(60.0)


def test_pips_settings_are_taken_the_later_over_the_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settings(
        monkeypatch,
        ":env:.index-url='https://env.example/simple'\n"
        "global.cert='/certs.pem'\n"
        "global.extra-index-url='https://b.example\\nfile:///c'\n"
        "global.index-url='https://a.example'\n"
        "install.index-url=unquoted\n",
    )
    assert found.urls == ("https://env.example/simple", "https://b.example", "file:///c")
    assert found.cafile == "/certs.pem"


def test_without_settings_it_is_pips_own_default(monkeypatch: pytest.MonkeyPatch) -> None:
    default = pytest.importorskip("pip._internal.models.index").PyPI.simple_url
    found = settings(monkeypatch, "")
    assert found.urls == (default,)
    assert found.cafile is None


def test_a_pip_that_does_not_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(IndexFaultError, match="does not say its configuration"):
        configured(60.0)


def test_a_pip_without_a_default_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip._internal.models.index", None)
    with pytest.raises(IndexFaultError, match="pip config set"):
        settings(monkeypatch, "")
