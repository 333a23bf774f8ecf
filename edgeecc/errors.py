"""The errors edgeecc raises on purpose.

Every message says what was seen (value, unit, name) and what to do next, in one line. The command line
turns any `EdgeeccError` into that line and exit status 1; anything else that escapes is a bug.
"""

from __future__ import annotations


class EdgeeccError(Exception):
    """Parent of every error that edgeecc raises on purpose."""


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


def brief(error: BaseException, most: int = 160) -> str:
    """Return what an error of other code says in one line of at most `most` characters, to be told in ours."""
    return " ".join(str(error).split())[:most]
