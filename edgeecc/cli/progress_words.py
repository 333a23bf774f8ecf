"""What progress says at one moment, in as many cells as there are; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, List, Optional, Sequence

from edgeecc.cli.pace import duration_words, rate_words
from edgeecc.progress import Load, Progress
from edgeecc.units import format_against

#: Plain lines are at least so many seconds apart, and more in a long job, up to the second one.
PLAIN_S, MOST_PLAIN_S = 10.0, 300.0
#: Share of the time so far that lies between two plain lines.
PLAIN_SHARE = 0.1
#: Cells of a bar.
_LEAST_BAR, _MOST_BAR = 6, 40
_GAP = "  "


@dataclass(frozen=True)
class View:
    """What is shown at one moment.

    Args:
        progress: what was told last.
        elapsed_s: since the command began.
        rate_hz, left_s: where they can be told.
    """

    progress: Progress
    elapsed_s: float
    rate_hz: Optional[float]
    left_s: Optional[float]


def plain_interval_s(elapsed_s: float) -> float:
    """Return the seconds between two plain lines after so many seconds of work."""
    return min(MOST_PLAIN_S, max(PLAIN_S, PLAIN_SHARE * elapsed_s))


def plain_line(view: View) -> str:
    """Return one line without control characters."""
    parts = [" ".join(part for part in (view.progress.phase, _count(view.progress)) if part)]
    return printable(_GAP.join([*parts, *_times(view), *figures(view.progress)]))


def lines(view: View, width: int, *, ascii_only: bool = False) -> Iterator[str]:
    """Yield the lines of a display, each of at most `width` cells."""
    yield printable(head(view, width, ascii_only=ascii_only))
    told = joined(figures(view.progress), width)
    if told:
        yield printable(told)


def head(view: View, width: int, *, ascii_only: bool = False) -> str:
    """Return phase, bar, count and times; what matters least goes first where there is little room."""
    progress = view.progress
    for parts in _sides(view):
        text = _GAP.join(parts)
        room = width - len(progress.phase) - len(text) - len(_GAP) * (1 + bool(text))
        if progress.total and room >= _LEAST_BAR:
            drawn = bar(progress.done / progress.total, min(room, _MOST_BAR), ascii_only=ascii_only)
            return _GAP.join(part for part in (progress.phase, drawn, text) if part)
    return joined([progress.phase, *parts], width)


def _sides(view: View) -> List[List[str]]:
    """Return what may stand beside a bar, from all of it to the least."""
    times = _times(view)
    if not view.progress.total:
        return [times]
    whole, bare = _count(view.progress), _count(replace(view.progress, unit=""))
    every = [[whole, *times[place:]] for place in range(len(times))]
    return [*every, [bare, *times[-1:]], [bare]]


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Return a bar of `width` cells that is full to a share."""
    full, empty = ("#", "-") if ascii_only else ("\u2501", "\u2500")
    cells = round(min(1.0, max(0.0, share)) * width)
    return full * cells + empty * (width - cells)


def figures(progress: Progress) -> List[str]:
    """Return what is at hand and the live numbers in words, what matters most first."""
    tightest = sorted(progress.loads, key=lambda load: -load.now / load.bound)
    told = [progress.note] if progress.note else []
    told += [_load(load) for load in tightest[:1]]
    if progress.score is not None:
        score = progress.score
        told.append(f"{score.name} {score.value:.4f} ({score.of})")
    if progress.loss is not None:
        told.append(f"loss {progress.loss:.3f}")
    told += [_load(load) for load in tightest[1:]]
    meters = list(dict.fromkeys(load.meter for load in tightest))
    return [*told, *(f"by {name}" for name in meters)]


def joined(parts: Sequence[str], width: int) -> str:
    """Return as many parts as fit in a line, the first one cut where even it does not."""
    told = parts[0][:width] if parts else ""
    for part in parts[1:]:
        if len(told) + len(_GAP) + len(part) <= width:
            told += _GAP + part
    return told


def printable(text: str) -> str:
    """Return text without anything that moves a cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _load(load: Load) -> str:
    told = format_against(load.now, load.bound, load.metric)
    return f"{load.metric.value} {told} {kind_of(load.meter)}"


def kind_of(meter: str) -> str:
    """Return in a word what a meter's figures are: a simulated device is that, also where a model tells of it."""
    for sign, kind in (
        ("(simulated)", "simulated"),
        ("model of", "modelled"),
        ("exact", "counted"),
    ):
        if sign in meter:
            return kind
    return "measured"


def _count(progress: Progress) -> str:
    if not progress.total:
        return ""
    return f"{progress.done}/{progress.total} {progress.unit}".rstrip()


def _times(view: View) -> List[str]:
    """Return elapsed time, rate and time left, what matters least first."""
    told = [f"{duration_words(view.elapsed_s)} elapsed"]
    if view.rate_hz:
        told.append(rate_words(view.rate_hz, view.progress.unit))
    is_open = view.progress.done < view.progress.total
    if view.left_s is not None and is_open:
        most = "at most " if view.progress.at_most else ""
        told.append(f"{most}{duration_words(view.left_s)} left")
    return told
