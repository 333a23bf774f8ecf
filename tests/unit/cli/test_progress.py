"""What progress says: words that fit, sparse lines where there is no terminal, and every state in a pseudo-terminal."""

from __future__ import annotations

import io
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cli import progress as module
from edgeecc.cli.progress import ProgressDisplay, StderrHandler, is_animated
from edgeecc.cli.progress_words import (
    View,
    bar,
    figures,
    head,
    joined,
    kind_of,
    lines,
    plain_interval_s,
    plain_line,
    printable,
)
from edgeecc.progress import Load, Progress, Score, silent
from edgeecc.units import Metric, format_against
from tests.terminal import in_terminal, plain_environment

pytestmark = pytest.mark.device
ROOT = Path(__file__).resolve().parents[3]
ENERGY = Load(Metric.ENERGY, 4.13e-3, 3.304e-3, "model of virtual:tx2 (simulated)")
MACS = Load(Metric.MACS, 1.9e6, 2.0e6, "exact count")
PRUNING = Progress(
    "pruning", 12, 300, "steps", loads=(MACS, ENERGY), loss=0.1234, score=Score("top-1", 0.97531, "dense"),
)  # fmt: skip
VIEW = View(PRUNING, 14.2, 8.333, 34.4)
FIGURES = st.builds(
    Progress,
    phase=st.sampled_from(["pruning", "fine-tuning", "fitting resampled samples"]),
    done=st.integers(0, 10**7),
    total=st.integers(0, 10**7),
    unit=st.sampled_from(["", "steps", "samples"]),
    at_most=st.booleans(),
    loads=st.sampled_from([(), (ENERGY,), (MACS, ENERGY)]),
    loss=st.none() | st.floats(allow_nan=True),
    score=st.none() | st.just(PRUNING.score),
    note=st.text(max_size=60),
)


def test_a_line_says_what_a_user_wants() -> None:
    assert plain_line(VIEW) == (
        "pruning 12/300 steps  0:14 elapsed  8.3 steps/s  0:34 left  energy 4.13 of 3.304 mJ simulated  "
        "top-1 0.9753 (dense)  loss 0.123  macs 1.9 of 2 MMAC counted  by model of virtual:tx2 (simulated)  "
        "by exact count"
    )
    at_most = replace(PRUNING, at_most=True, loads=(), loss=None, score=None, note="18 windows")
    assert plain_line(View(at_most, 1.0, 0.4, 720.0)) == (
        "pruning 12/300 steps  0:01 elapsed  24.0 steps/min  at most 12:00 left  18 windows"
    )
    done = replace(at_most, done=300, at_most=False)
    assert plain_line(View(done, 1.0, 0.4, 0.0)).endswith("24.0 steps/min  18 windows")
    assert plain_line(View(Progress("drawing"), 3.0, None, None)) == "drawing  0:03 elapsed"


@pytest.mark.parametrize(
    ("width", "first", "second"),
    [
        (79, "12/300 steps  0:14 elapsed  8.3 steps/s  0:34 left", "simulated  top-1 0.9753 (dense)  loss 0.123"),
        (60, "12/300 steps  8.3 steps/s  0:34 left", "simulated  top-1 0.9753 (dense)"),
        (40, "12/300 steps  0:34 left", "energy 4.13 of 3.304 mJ simulated"),
        (34, "12/300  0:34 left", "energy 4.13 of 3.304 mJ simulated"),
        (24, "12/300", "energy 4.13 of 3.304 mJ"),
    ],
)  # fmt: skip
def test_what_matters_least_goes_first(width: int, first: str, second: str) -> None:
    one, other = lines(VIEW, width)
    assert one.endswith(first)
    assert re.search("pruning  \u2501*\u2500+  ", one)
    assert second in other


@given(progress=FIGURES, width=st.integers(1, 200), ascii_only=st.booleans())
def test_lines_fit_and_control_nothing(progress: Progress, width: int, ascii_only: bool) -> None:
    view = View(progress, 7.0, 3.0, 100.0)
    for line in lines(view, width, ascii_only=ascii_only):
        assert len(line) <= width
        assert line.isprintable()
    assert plain_line(view).isprintable()


@given(share=st.floats(-1.0, 2.0), width=st.integers(1, 80))
def test_a_bar_is_as_wide_as_it_is_told(share: float, width: int) -> None:
    drawn = bar(share, width, ascii_only=True)
    assert len(drawn) == width
    assert abs(drawn.count("#") - width * min(1.0, max(0.0, share))) <= 0.5
    assert len(bar(share, width)) == width


def test_the_tightest_budget_comes_first() -> None:
    loose = replace(ENERGY, now=1e-3)
    assert figures(replace(PRUNING, loads=(loose, MACS)))[0].startswith("macs 1.9 of 2 MMAC")
    assert head(View(Progress("drawing"), 3.0, None, None), 40) == "drawing  0:03 elapsed"
    assert joined([], 10) == ""
    assert printable("a\x1b[2Jb\nc") == "a [2Jb c"


@pytest.mark.parametrize(
    ("meter", "kind"),
    [
        ("virtual:tx2 (simulated)", "simulated"),
        ("model of virtual:tx2 (simulated)", "simulated"),
        ("model of onnxruntime:cpu (1 thread)", "modelled"),
        ("model of eyeriss", "modelled"),
        ("exact count", "counted"),
        ("onnxruntime:cpu (1 thread)", "measured"),
        ("ina3221 GPU, tensorrt", "measured"),
    ],
)
def test_no_figure_is_called_measured_that_is_not(meter: str, kind: str) -> None:
    assert kind_of(meter) == kind


def test_two_values_have_one_unit() -> None:
    assert format_against(0.0009, 0.0012, Metric.ENERGY) == "0.9 of 1.2 mJ"
    assert format_against(1.2, 0.5, Metric.LATENCY) == "1200 of 500 ms"
    assert format_against(2e8, 7.7e8, Metric.ACCESSES) == "200 of 770 MRF"
    assert format_against(1.0, float("inf"), Metric.ENERGY) == "1 of inf J"


def test_lines_grow_sparse() -> None:
    now, count = 0.0, 0
    while now < 36_000.0:
        now += plain_interval_s(now)
        count += 1
    assert count < 200
    assert plain_interval_s(0.0) == 10.0
    assert plain_interval_s(1e9) == 300.0


def shown(
    monkeypatch: pytest.MonkeyPatch, told: List[Progress], each_s: float, quiet: bool
) -> List[str]:
    """Return what is written where stderr is no terminal, each word of progress coming after so many seconds."""
    clock = iter(range(10**6))
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock) * each_s)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ProgressDisplay(quiet=quiet) as show:
        for one in told:
            show(one)
    return sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]


def test_plain_lines_are_sparse_but_tell_phases_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [Progress("pruning", step, 400, "steps") for step in range(101, 401)]
    told += [
        Progress("scoring"),
        *(Progress("fine-tuning", step, 3, "steps") for step in (1, 2, 3, 3)),
    ]
    found = shown(monkeypatch, told, 0.05, quiet=False)
    counts = [re.match(r"\S+ (\d+)?", line).group(1) for line in found]  # type: ignore[union-attr]
    assert counts[0] == "101"
    assert "0:00 elapsed" in found[0]
    assert counts.count("400") == 1
    assert counts[-2:] == ["1", "3"]
    assert 6 <= len(found) <= 9
    assert "10.0 steps/s" in found[1]
    assert "\x1b" not in "".join(found)


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, [PRUNING], 60.0, quiet=True) == []
    silent(PRUNING)


@pytest.mark.parametrize(
    ("terminal", "ci", "animated"),
    [("xterm", "", True), ("dumb", "", False), ("", "", False), ("xterm", "true", False)],
)
def test_where_lines_stay_in_place(
    monkeypatch: pytest.MonkeyPatch, terminal: str, ci: str, animated: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("CI", ci)
    assert is_animated() is animated
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_animated()


def test_logs_go_where_stderr_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = StderrHandler()
    record = logging.LogRecord("a", logging.WARNING, "", 0, "%s of it", ("much",), None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler.emit(record)
    assert sys.stderr.getvalue() == "much of it\n"  # type: ignore[attr-defined]
    monkeypatch.setattr(logging, "raiseExceptions", False)
    sys.stderr.close()
    handler.emit(record)  # a closed stderr is no reason to fail


#: A command that works for a moment, warns, prints to stdout and warns in the way of Python, and then ends as is asked.
WORK = """
import logging, sys, time, warnings
from edgeecc.cli.progress import ProgressDisplay, StderrHandler
from edgeecc.progress import Load, Progress
from edgeecc.units import Metric
logging.basicConfig(level=logging.INFO, handlers=[StderrHandler()], format="%(levelname)s %(message)s")
load = (Load(Metric.ENERGY, 4e-3, 3e-3, "virtual:tx2 (simulated)"),)
try:
    with ProgressDisplay(quiet=sys.argv[1] == "quiet") as show:
        show(Progress("tracing the network", note="net"))
        time.sleep(0.2)
        for step in range(1, 31):
            show(Progress("pruning", step, 30, "steps", loads=load, loss=0.5))
            if step == 10:
                logging.warning("careful " + 40 * "long ")
                print("from a network of the user's own")
            time.sleep(0.02)
        if sys.argv[1] == "wait":
            time.sleep(30)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
print("result")
"""
WARNING = "WARNING careful " + " ".join(8 * ["long"])
COLOUR = re.compile(r"\x1b\[(?:3[0-7]|38|9[0-7])[0-9;]*m")


def work(kind: str, width: int, stop=lambda text: None, **environment: str):
    words = [sys.executable, "-c", WORK, kind]
    return in_terminal(
        words, width=width, environment=plain_environment(str(ROOT), **environment), stop=stop
    )


@pytest.mark.parametrize(("width", "more"), [(80, {}), (40, {}), (20, {"NO_COLOR": "1"})])
def test_in_a_terminal_nothing_is_left(width: int, more: dict) -> None:
    session = work("go", width, **more)
    assert session.code == 0
    screen = session.screen(width)
    whole = "".join(line.ljust(width) for line in screen.lines)
    assert WARNING in whole
    assert screen.lines[-1] == "result"
    assert len([line for line in screen.lines if "pruning" in line or "energy" in line]) == 0
    assert screen.cursor_visible
    assert bool(COLOUR.search(session.text)) is not bool(more)
    assert session.text.count("\x1b[?25h") >= session.text.count("\x1b[?25l")


def test_while_it_works_there_is_one_bar() -> None:
    session = work("go", 60)
    seen = session.text[: session.text.rindex("\u2501")]
    screen = session.screen(60)
    during = type(screen)(60)
    during.write(seen)
    bars = [line for line in during.lines if "\u2501" in line or "\u2500" in line]
    assert len(bars) == 1
    assert bars[0].startswith("pruning  ")
    assert "steps/s" in session.text
    assert "energy 4 of 3 mJ simulated" in session.text


def test_ctrl_c_leaves_a_clean_terminal() -> None:
    typed = []

    def stop(text: str) -> str:
        if "30/30" in text and not typed:
            typed.append("\x03")
            return typed[0]
        return ""

    session = work("wait", 70, stop)
    assert session.code == 130
    screen = session.screen(70)
    assert screen.lines[-1] == "interrupted"
    assert screen.cursor_visible
    assert not [line for line in screen.lines if "pruning" in line]


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"CI": "true"}])
def test_a_terminal_in_which_nothing_stays_gets_lines(more: dict) -> None:
    session = work("go", 100, **more)
    assert "\x1b" not in session.text
    assert "\r" not in session.text.replace("\r\n", "\n")
    told = [line for line in session.text.splitlines() if line.startswith("pruning")]
    assert [line.split()[1] for line in told] == ["1/30", "30/30"]


def test_quiet_in_a_terminal() -> None:
    session = work("quiet", 80)
    assert "\x1b" not in session.text
    assert "pruning" not in session.text
    assert session.text.splitlines()[-1] == "result"


def test_letters_that_the_terminal_has_not() -> None:
    session = work("go", 80, PYTHONIOENCODING="ascii")
    assert "#" in session.text
    assert "\u2501" not in session.text
