"""The audit of dependencies: its rules, the snapshot, how it asks OSV, and how it reads records."""

from __future__ import annotations

import json
import threading
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from tools import audit
from tools.advisory_records import AdvisoryFaultError, read_records, touching
from tools.audit import Answers, Excuse, all_pins, ask, excuses, files, judged, load, main, save
from tools.audit import search as search_records
from tools.wheel_index import IndexFaultError

pytestmark = pytest.mark.device

PINS = [("a", "1.0"), ("b", "2.1")]
REASON = "it is about a part that is not used here"


def answers(day: str = "2026-01-01", **touched: List[str]) -> Answers:
    releases = {
        "a==1.0": [],
        "b==2.1": [],
        **{f"{k}=={dict(PINS)[k]}": v for k, v in touched.items()},
    }
    return Answers("a test", day, releases, {})


# ---- the repository itself


def test_every_pin_was_asked_about_and_every_dependency_is_explained() -> None:
    assert set(load().releases) == {f"{name}=={version}" for name, version in all_pins(files())}
    assert judged(all_pins(files()), load(), excuses())[0] == []
    assert audit.unexplained() == []


def test_offline_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_posted", lambda url, body: pytest.fail("asked the network"))
    assert main(["--offline"]) == 0
    assert "0 errors" in capsys.readouterr().out


# ---- the rules


def test_an_advisory_without_an_excuse_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "today", lambda: date(2026, 2, 1))
    assert judged(PINS, answers(), []) == ([], [])
    (error,), warnings = judged(PINS, answers(a=["X-1"]), [])
    assert "X-1 touches a==1.0: take another version" in error
    excused = [Excuse("X-1", "a==1.0", REASON, "2026-06-01")]
    assert judged(PINS, answers(a=["X-1"]), excused) == ([], [])
    assert "X-1 touches b==2.1" in judged(PINS, answers(a=["X-1"], b=["X-1"]), excused)[0][0]
    assert warnings == []


def test_an_excuse_without_its_advisory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "today", lambda: date(2026, 2, 1))
    (error,), _ = judged(PINS, answers(), [Excuse("X-1", "a==1.0", REASON, "2026-06-01")])
    assert "excuses X-1 for a==1.0, which it does not touch" in error


def test_days_are_warned_of_and_fail_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    excused = [Excuse("X-1", "a==1.0", REASON, "2026-06-30")]
    for days, count in ((0, 0), (audit.OLD_DAYS, 0), (audit.OLD_DAYS + 1, 2)):
        now = date(2026, 1, 1) + timedelta(days=days)
        monkeypatch.setattr(audit, "today", lambda now=now: now)
        errors, warnings = judged(PINS, answers(a=["X-1"]), excused)
        assert errors == []
        assert len(warnings) == count, warnings


def test_a_pin_that_nobody_asked_about_is_an_error() -> None:
    with pytest.raises(AdvisoryFaultError, match=r"nothing was asked about c==3: run .* --refresh"):
        judged([("c", "3")], answers(), [])


def test_what_is_no_exact_pin_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("a>=1\n")
    with pytest.raises(IndexFaultError, match="not of the form name==version"):
        all_pins([tmp_path / "constraints.txt"])


def test_a_dependency_without_a_word_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "dependencies.md").write_text(
        "| numpy | arrays |\n| torch-pruning | groups |\n"
    )
    needed = "[options]\ninstall_requires =\n    # why\n    numpy>=1\n"
    extra = '[options.extras_require]\nhost =\n    torch>=2; python_version < "4"\n'
    (tmp_path / "setup.cfg").write_text(needed + extra)
    (line,) = audit.unexplained(tmp_path)
    assert "torch, which" in line


# ---- the snapshot and the excuses


def test_a_snapshot_survives_saving_and_keeps_what_was_read_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    first = Answers("one", "2026-01-01", {"a==1.0": ["X-1"], "b==2.1": []}, {})
    save(first, path)
    assert load(path) == first
    by_hand = {**json.loads(path.read_text()), "by_hand": {"a==1.0": ["Y-1"], "b==2.1": ["Y-2"]}}
    path.write_text(json.dumps(by_hand))
    assert load(path).of("a==1.0") == ["X-1", "Y-1"]
    save(Answers("two", "2026-02-01", {"a==1.0": []}, {}), path)
    assert (load(path).of("a==1.0"), dict(load(path).by_hand)) == (["Y-1"], {"a==1.0": ["Y-1"]})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2}', '{"schema": 1, "source": "x"}',
             '{"schema": 1, "source": "x", "day": "then", "releases": {}, "by_hand": {}}'],
)  # fmt: skip
def test_a_snapshot_that_is_none_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(AdvisoryFaultError, match="use --refresh"):
        load(tmp_path / "s.json")


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"id": "X"}]', '[{"id": "X", "pin": "a==1", "reason": "no", "until": "2026-01-01"}]',
             '[{"id": "X", "pin": "a==1", "reason": "it is not used anywhere here", "until": "soon"}]'],
)  # fmt: skip
def test_excuses_are_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    if text == "{}":
        assert excuses(tmp_path / "e.json") == []
        return
    with pytest.raises(AdvisoryFaultError):
        excuses(tmp_path / "e.json")


# ---- OSV, on this machine


class Osv(BaseHTTPRequestHandler):
    """Answers as OSV does: `known` tells the advisories of a pin, in pages of one."""

    known: ClassVar[Dict[str, List[str]]] = {}
    asked: ClassVar[List[Any]] = []
    answer: Any = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        found = [self.page(query) for query in body["queries"]]
        data = json.dumps({"results": found} if self.answer is None else self.answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def page(self, query: Dict[str, Any]) -> Dict[str, Any]:
        assert query["package"]["ecosystem"] == "PyPI"
        ids = self.known.get(f"{query['package']['name']}=={query['version']}", [])
        place = int(query.get("page_token", "0"))
        page: Dict[str, Any] = {"vulns": [{"id": ids[place], "modified": "x"}]} if ids else {}
        return {**page, "next_page_token": str(place + 1)} if place + 1 < len(ids) else page

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Osv, "known", {"b==2.1": ["X-1", "X-2", "X-3"]})
    monkeypatch.setattr(Osv, "asked", [])
    monkeypatch.setattr(Osv, "answer", None)
    server = HTTPServer(("127.0.0.1", 0), Osv)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_osv_is_asked_for_every_pin_and_every_page(osv: str) -> None:
    found = ask(PINS, osv)
    assert found.of("a==1.0") == []
    assert found.of("b==2.1") == ["X-1", "X-2", "X-3"]
    assert [path for path, _ in Osv.asked] == ["/v1/querybatch"] * 3
    assert [len(body["queries"]) for _, body in Osv.asked] == [2, 1, 1]


@pytest.mark.parametrize("answer", [{}, [], {"results": []}, {"results": "x"}])
def test_an_answer_of_another_kind_is_told(
    osv: str, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(Osv, "answer", answer)
    with pytest.raises(AdvisoryFaultError, match="answered"):
        ask(PINS, osv)


def test_no_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--service", "http://127.0.0.1:9"]) == 1
    assert (
        capsys.readouterr().err == "error: 127.0.0.1:9 cannot be read (URLError): use --offline\n"
    )
    assert main(["--service", "ftp://elsewhere"]) == 1
    assert "no https address" in capsys.readouterr().err


def test_the_command_fails_for_what_osv_knows_and_refreshes(
    osv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, version = all_pins(files())[0]
    monkeypatch.setattr(Osv, "known", {f"{name}=={version}": ["X-9"]})
    kept = tmp_path / "kept.json"
    kept.write_text(audit.SNAPSHOT.read_text())
    monkeypatch.setattr(audit, "load", lambda path=kept: load(path))
    monkeypatch.setattr(audit, "save", lambda found: save(found, kept))
    assert main(["--service", osv, "--refresh"]) == 1
    told = capsys.readouterr()
    assert f"error: X-9 touches {name}=={version}" in told.err
    assert load(kept).source == "OSV"
    assert load(kept).by_hand == load(audit.SNAPSHOT).by_hand


# ---- records


def record(events: List[Dict[str, str]], **more: Any) -> Dict[str, Any]:
    affected = {
        "package": {"name": "A", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {"id": "X-1", "modified": "2026-03-04T00:00:00Z", "affected": [affected], **more}


@pytest.mark.parametrize(
    ("events", "touched"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "1.0"}], False),
        ([{"introduced": "0"}, {"fixed": "1.0.1"}], True),
        ([{"introduced": "1.0"}, {"last_affected": "1.0"}], True),
        ([{"introduced": "0"}, {"last_affected": "0.9"}], False),
        ([{"introduced": "1.1"}], False),
        ([{"fixed": "0.5"}, {"introduced": "0"}, {"introduced": "0.9"}, {"fixed": "2"}], True),
        ([{"introduced": "nonsense"}], True),
    ],
)
def test_ranges_are_read_in_the_order_of_versions(events: list, touched: bool) -> None:
    assert touching([record(events)], "a", "1.0") == (["X-1"] if touched else [])


def test_other_packages_and_withdrawn_records_touch_nothing() -> None:
    everything = [{"introduced": "0"}]
    assert touching([record(everything)], "b", "1.0") == []
    assert touching([record(everything, withdrawn="2026-01-01")], "a", "1.0") == []
    elsewhere = record(everything)
    elsewhere["affected"][0]["package"]["ecosystem"] = "npm"
    assert touching([elsewhere], "a", "1.0") == []
    listed = {
        **record([]),
        "affected": [{"package": {"name": "a", "ecosystem": "PyPI"}, "versions": ["1.0"]}],
    }
    assert touching([listed], "a", "1.0") == ["X-1"]


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3, unique=True))
def test_a_range_holds_what_lies_in_it(numbers: List[int]) -> None:
    low, here, high = (f"{number}.0" for number in numbers)
    inside = Version(low) <= Version(here) < Version(high)
    found = touching([record([{"introduced": low}, {"fixed": high}])], "a", here)
    assert (found == ["X-1"]) == inside or Version(low) > Version(high)


def test_records_are_found_in_folders(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "deep" / "a").mkdir(parents=True)
    (tmp_path / "deep" / "a" / "one.json").write_text(json.dumps(record([{"introduced": "0"}])))
    (tmp_path / "deep" / "two.yaml").write_text(
        "id: X-2\nmodified: 2026-05-06T00:00:00Z\naffected:\n"
        "- package: {name: b, ecosystem: PyPI}\n  versions: ['2.1']\n"
    )
    found = search_records(PINS, tmp_path)
    assert (found.of("a==1.0"), found.of("b==2.1"), found.day) == (["X-1"], ["X-2"], "2026-05-06")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("one.json", '{"modified": "2026-01-01", "a"', "one.json cannot be read"),
        ("one.json", '["a", {"modified": "2026-01-01"}]', "one.json cannot be read"),
        ("note.txt", "a", "holds no OSV records"),
    ],
)
def test_a_folder_of_something_else_is_told(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AdvisoryFaultError, match=said):
        read_records(tmp_path, {"a"})
