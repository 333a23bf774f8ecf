"""The errors edgeecc raises on purpose.

Every message says what was seen (value, unit, name) and what to do next, in one line. The command line
turns any `EdgeeccError` into that line and exit status 1; anything else that escapes is a bug.
"""

from __future__ import annotations

#: Longest message, characters; of a longer one the middle is left out, for what to do stands at its end.
MOST_CHARACTERS = 1500
_HEAD, _TAIL = 1000, 450


class EdgeeccError(Exception):
    """Parent of every error that edgeecc raises on purpose.

    As text it is one printable line whatever it quotes: names in files may hold line feeds and control characters.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class UnitError(EdgeeccError):
    """A quantity could not be read: unknown unit, bare number, or a value out of range."""


class ConfigError(EdgeeccError):
    """An option or argument is outside its legal range, or two of them contradict each other."""


class ArtifactError(EdgeeccError):
    """A file is missing, damaged, of another schema, or belongs to another network or run."""


class DataError(EdgeeccError):
    """A data set is absent, damaged, or does not fit the network."""


class GraphError(EdgeeccError):
    """A network cannot be followed; the message names the module or node."""


class MeterError(EdgeeccError):
    """A meter gave no usable reading."""


class FleetError(EdgeeccError):
    """The boards of a fleet cannot finish a calibration; what they measured is kept."""


class BudgetInfeasibleError(EdgeeccError):
    """A budget lies below what the thinnest network costs; carries that lowest value.

    Attributes:
        lowest: cost of the all-ones widths, in the SI unit of the budget's metric.
    """

    def __init__(self, message: str, *, lowest: float) -> None:
        super().__init__(message)
        self.lowest = lowest


class RuntimeUnavailableError(EdgeeccError):
    """A runtime, device or optional package is not here; the message says how to get it."""


class ParallelError(EdgeeccError):
    """The processes of a job cannot work together: one failed alone, is gone, or does not do what the others do."""


class LostProcessError(ParallelError):
    """Another process of the job is gone or does not answer."""


class FailedElsewhereError(ParallelError):
    """Another process of the job failed and says why; this one has nothing to add."""


def one_line(text: str) -> str:
    """Return `text` as one printable line of at most `MOST_CHARACTERS`; what cannot be printed is escaped."""
    line = " ".join(text.split())
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:_HEAD]} ... {line[-_TAIL:]}"
    return line if line.isprintable() else "".join(map(_printable, line))[:MOST_CHARACTERS]


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def brief(error: BaseException, most: int = 160) -> str:
    """Return what an error of other code says in one line of at most `most` characters, to be told in ours."""
    return " ".join(str(error).split())[:most]


def cause_of(error: EdgeeccError) -> str:
    """Return what an error of ours saw, without what it says to do: for one that knows better what that is."""
    return str(error).partition("; ")[0]
