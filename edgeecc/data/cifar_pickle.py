"""Read the python batches of CIFAR-10: pickles, of which only what these files need is understood.

A batch is a dict as Python 2 wrote it (protocol 2): strings, a list of small integers, one array of bytes.
`pickletools` names the operations; a stack of plain values follows them. No name is imported and nothing is called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple, Type, TypeVar

import numpy as np
import numpy.typing as npt

from edgeecc.errors import DataError, brief
from edgeecc.normalisation import PixelArray

T = TypeVar("T")

#: Largest batch file, bytes; the published ones have 31 MB.
MAX_BYTES = 2**26
RECONSTRUCT, NDARRAY = "numpy.core.multiarray _reconstruct", "numpy ndarray"
DTYPE = "numpy dtype"
#: What makes the dtype of bytes and what an array begins as.
DTYPE_ARGUMENTS = ("u1", 0, 1)
DTYPE_STATE = (3, "|", None, None, None, -1, -1, 0)
ARRAY_BLANK = ((0,), "b")


@dataclass(frozen=True)
class _Name:
    """A global of the file: a name, never looked up."""

    name: str


class _Dtype:
    """The dtype of bytes."""


class _Array:
    """An array of bytes, empty until its state comes."""

    pixels: Optional[PixelArray] = None


class _Mark:
    """Where a sequence of values begins on the stack."""


class _Machine:
    """A stack and a memo; each operation of `OPERATIONS` is a method."""

    def __init__(self) -> None:
        self.stack: List[object] = []
        self.memo: Dict[object, object] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> List[object]:
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise ValueError("a sequence has no beginning")

    def top(self, kind: Type[T]) -> T:
        """Return the last value, which must be of a kind."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
        return value

    def appends(self, _: object) -> None:
        values = self.since_mark()
        self.top(list).extend(values)

    def set_items(self, _: object) -> None:
        values = self.since_mark()
        keys = values[::2]
        if len(values) % 2 or not all(isinstance(key, str) for key in keys):
            raise ValueError("a dict with keys that are no strings")
        self.top(dict).update(zip(keys, values[1::2]))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("a tuple of values that are not there")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(values)

    def put(self, place: object) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: object) -> None:
        self.push(self.memo[place])

    def name(self, name: object) -> None:
        if name not in (RECONSTRUCT, NDARRAY, DTYPE):
            raise ValueError(f"it asks for {str(name)[:60]!r}")
        self.push(_Name(str(name)))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == _Name(DTYPE) and arguments == DTYPE_ARGUMENTS:
            self.push(_Dtype())
        elif function == _Name(RECONSTRUCT) and arguments == (_Name(NDARRAY), *ARRAY_BLANK):
            self.push(_Array())
        else:
            raise ValueError("it calls something that CIFAR-10's files do not call")

    def build(self, _: object) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Array):
            made.pixels = _array(state)
        elif not (isinstance(made, _Dtype) and state == DTYPE_STATE):
            raise ValueError("it holds numbers other than bytes")


def _array(state: object) -> PixelArray:
    """Return the array of a state: version, shape, dtype, column order, bytes as a Latin-1 string."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without shape and bytes")
    version, shape, dtype, by_column, raw = state
    rows = shape[0] if isinstance(shape, tuple) and len(shape) == 2 else None
    if (version, by_column) != (1, False) or not isinstance(dtype, _Dtype):
        raise ValueError("an array of another kind")
    if not isinstance(raw, str) or not isinstance(rows, int) or shape != (rows, 3072):
        raise ValueError("an array that is not images x 3072 bytes")
    if len(raw) != rows * 3072:
        raise ValueError(f"{rows} images in {len(raw)} bytes")
    return np.frombuffer(raw.encode("latin-1"), dtype=np.uint8).reshape(rows, 3, 32, 32)


Operation = Callable[[_Machine, object], None]
OPERATIONS: Dict[str, Operation] = {
    "PROTO": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.push(_Mark()),
    "NONE": lambda machine, _: machine.push(None),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPENDS": _Machine.appends,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING"), _Machine.push
    ),
}


def read_batch(path: Path) -> Tuple[PixelArray, npt.NDArray[np.int64]]:
    """Read a batch file.

    Returns: pixels (N, 3, 32, 32) and labels (N,), as the file has them.
    Raises: DataError when it is absent, too large, damaged, or holds anything else than such a batch.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; copy it again") from error
    if size > MAX_BYTES:
        raise DataError(f"{path} has {size} bytes, a CIFAR-10 batch 31 MB; copy it again")
    try:
        return _batch(_value(raw))
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(f"{path} is no CIFAR-10 batch: {brief(error)}; copy it again") from error


def _value(raw: bytes) -> object:
    machine = _Machine()
    for operation, argument, _ in pickletools.genops(raw):
        if operation.name not in OPERATIONS:
            raise ValueError(f"it uses operation {operation.name}")
        OPERATIONS[operation.name](machine, argument)
    return machine.stack.pop()


def _batch(value: object) -> Tuple[PixelArray, npt.NDArray[np.int64]]:
    found: Dict[str, object] = value if isinstance(value, dict) else {}
    data, labels = found.get("data"), found.get("labels")
    if not isinstance(data, _Array) or data.pixels is None:
        raise ValueError("it holds no images")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("it holds no labels")
    return data.pixels, np.array(labels, dtype=np.int64)
