"""Fields of JSON files that may come from anywhere, each checked where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.artifacts import number, read_json
from edgeecc.errors import ArtifactError

#: Longest list that is read.
MAX_ENTRIES = 100_000
#: Size beyond which a number is none of ours; the ranges of charts overflow far above it.
LARGEST = 1e100


@dataclass(frozen=True)
class Fields:
    """The fields of an object in a file.

    Args:
        data: the object.
        source: the file, for messages.
    """

    data: Mapping[str, object]
    source: Path

    @staticmethod
    def read(path: Path, schema: str) -> Fields:
        """Read a JSON artefact.

        Raises: ArtifactError as `read_json`.
        """
        return Fields(read_json(path, schema), path)

    def has(self, key: str) -> bool:
        """Return whether there is something under this name."""
        return self.data.get(key) is not None

    def number(self, key: str) -> float:
        """Return a finite number that charts can hold.

        Raises: ArtifactError when there is none.
        """
        return self._checked(self.data.get(key), key)

    def positive(self, key: str) -> float:
        """Return a finite number above 0.

        Raises: ArtifactError when there is none.
        """
        found = self.number(key)
        if found <= 0.0:
            raise self._wrong(key, "above 0")
        return found

    def maybe(self, key: str) -> Optional[float]:
        """Return a finite number, None where nothing is told.

        Raises: ArtifactError when it is something else.
        """
        return self.number(key) if self.has(key) else None

    def text(self, key: str, missing: Optional[str] = None) -> str:
        """Return a text, `missing` where nothing is told.

        Raises: ArtifactError when it is something else.
        """
        value = self.data.get(key)
        if value is None and missing is not None:
            return missing
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def flag(self, key: str) -> Optional[bool]:
        """Return true or false, None where nothing is told.

        Raises: ArtifactError when it is something else.
        """
        value = self.data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def under(self, key: str) -> Fields:
        """Return the object under a name, an empty one where nothing is told.

        Raises: ArtifactError when it is something else.
        """
        value = self.data.get(key)
        if not isinstance(value, dict) and value is not None:
            raise self._wrong(key, "an object")
        return Fields(value or {}, self.source)

    def objects(self, key: str) -> List[Fields]:
        """Return the objects of a list, none where nothing is told.

        Raises: ArtifactError when it is something else or too long.
        """
        listed = self._list(key)
        if not all(isinstance(each, dict) for each in listed):
            raise self._wrong(key, "a list of objects")
        return [Fields(each, self.source) for each in listed if isinstance(each, dict)]

    def numbers(self, key: str) -> List[float]:
        """Return a list of finite numbers, empty where nothing is told.

        Raises: ArtifactError when it is something else or too long.
        """
        return [self._checked(each, f"an entry of {key}") for each in self._list(key)]

    def texts(self, key: str) -> List[str]:
        """Return a list of texts, empty where nothing is told.

        Raises: ArtifactError when it is something else or too long.
        """
        listed = self._list(key)
        if not all(isinstance(each, str) for each in listed):
            raise self._wrong(key, "a list of texts")
        return [str(each) for each in listed]

    def all_numbers(self) -> Dict[str, float]:
        """Return the fields as finite numbers by name.

        Raises: ArtifactError when one is something else.
        """
        return {key: self.number(key) for key in self.data}

    def table(self, key: str, columns: int) -> Tuple[List[float], ...]:
        """Return the columns of a list of rows of so many finite numbers.

        Raises: ArtifactError when it is something else or too long.
        """
        listed = self._list(key)
        if not all(isinstance(row, list) and len(row) == columns for row in listed):
            raise self._wrong(key, f"rows of {columns} numbers")
        rows = [
            [self._checked(each, key) for each in row] for row in listed if isinstance(row, list)
        ]
        return tuple([row[at] for row in rows] for at in range(columns))

    def _checked(self, value: object, what: str) -> float:
        found = number(value, what, self.source)
        if abs(found) > LARGEST:
            raise ArtifactError(f"{what} in {self.source} is {found:g}; the file is damaged")
        return found

    def _list(self, key: str) -> List[object]:
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > MAX_ENTRIES:
            raise self._wrong(key, f"a list of at most {MAX_ENTRIES} entries")
        return value

    def _wrong(self, key: str, wanted: str) -> ArtifactError:
        found = repr(self.data.get(key))
        return ArtifactError(
            f"{key} in {self.source} must be {wanted}, found {found[:60]}; the file is damaged"
        )
