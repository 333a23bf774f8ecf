"""Constants of systolic-array accelerators: presets by name, or the user's own from a TOML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, Mapping

from edgeecc.artifacts import read_toml
from edgeecc.errors import ConfigError


@dataclass(frozen=True)
class Hardware:
    """A systolic array with one cache for inputs, one for weights, and a register file at each unit.

    Energies are relative: 1 is one access of a register file.

    Args:
        name: preset, or the file's stem.
        rows: output positions computed at once (m).
        columns: output channels computed at once (n).
        input_words, weight_words: capacity of the caches, words (S_X, S_W).
        mac: a multiply-accumulate with its register accesses.
        memory, cache, register: an access of a word at each level.
    """

    name: str
    rows: int
    columns: int
    input_words: int
    weight_words: int
    mac: float
    memory: float
    cache: float
    register: float

    @property
    def device(self) -> str:
        """Return the array as --device names it."""
        return f"systolic:{self.name}"

    @property
    def meter(self) -> str:
        """Return what stands beside every figure of this model."""
        return f"{self.device} (analytic)"

    def __post_init__(self) -> None:
        counts = (self.rows, self.columns, self.input_words, self.weight_words)
        energies = (self.mac, self.memory, self.cache, self.register)
        if not all(isinstance(n, int) and 0 < n < 2**40 for n in counts):
            raise ConfigError(
                f"hardware {self.name}: rows, columns and words must be positive integers, found {counts}"
            )
        if not all(0.0 < value < math.inf for value in energies):
            raise ConfigError(f"hardware {self.name}: energies must be positive, found {energies}")
        if not self.memory >= self.cache >= self.register:
            raise ConfigError(
                f"hardware {self.name}: memory, cache and register energies {energies[1:]} must fall"
            )


#: ICLR 2019 (weighted sparse projection and layer input masking): 16-bit words, 100 kB and 8 kB of cache.
EYERISS = Hardware("eyeriss", 12, 14, 51_200, 4_096, 3.0, 200.0, 6.0, 1.0)
PRESETS: Dict[str, Hardware] = {hardware.name: hardware for hardware in (EYERISS,)}


def hardware(reference: str) -> Hardware:
    """Return a preset, or read a TOML file with the fields of `Hardware` (all but the name).

    Raises: ConfigError for an unknown name, a missing, unknown or wrong field; ArtifactError for a file that
        cannot be read.
    """
    if reference in PRESETS:
        return PRESETS[reference]
    path = Path(reference)
    if path.suffix != ".toml":
        known = ", ".join(sorted(PRESETS))
        raise ConfigError(
            f"unknown hardware {reference!r}; known are {known}, or give a .toml file"
        )
    return from_values(path.stem, read_toml(path), str(path))


def from_values(name: str, values: Mapping[str, object], source: str) -> Hardware:
    """Return an array from the fields of `Hardware` but the name, as read from a file.

    Raises: ConfigError naming the source and a missing, unknown or wrong field.
    """
    wanted = {field.name: field.type for field in fields(Hardware) if field.name != "name"}
    for field_name in sorted(set(values) ^ set(wanted)):
        what = "lacks" if field_name in wanted else "has an unknown"
        raise ConfigError(f"{source} {what} {field_name!r}; it must give {', '.join(wanted)}")
    numbers: Dict[str, Any] = {}
    for field_name, kind in wanted.items():
        value = values[field_name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (kind == "float" and isinstance(value, float))):
            raise ConfigError(f"{source}: {field_name} is {value!r}; it must be a number")
        numbers[field_name] = value
    return Hardware(name=name, **numbers)
