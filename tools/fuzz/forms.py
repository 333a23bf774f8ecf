"""Changes within formats: ONNX fields, safetensors headers, databases, archives, images, pickles."""

from __future__ import annotations

import gzip
import io
import json
import pickletools
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any, Dict, List, Tuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from safetensors.numpy import load

from edgeecc.artifacts import write_tensors
from tools.fuzz.mutate import (
    INTEGERS,
    TEXTS,
    Mutator,
    changed_bytes,
    changed_json,
    changed_text,
    odd_value,
)

#: Fields that make the most of a change: sizes, types, attributes, names.
_OPERATORS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Reshape", "Flatten", "Split", "Slice", "Concat", "Transpose", "Gather",
    "Resize", "Pad", "Tile", "Expand", "ReduceMean", "Squeeze", "Unsqueeze", "Add", "Relu", "Softmax", "MaxPool",
    "Constant", "ConstantOfShape", "Range", "Shape", "If", "Loop", "Scan", "BatchNormalization", "Einsum", "TopK",
)  # fmt: skip
#: JPEG and PNG hold lengths before what they are of; these are bytes of a WebP and a BMP header too.
_PNG = b"\x89PNG\r\n\x1a\n"


def changed_onnx(data: bytes, random: Random) -> bytes:
    """Return a graph with nodes, sizes, attributes or tensors changed; rarely bytes of its file."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # protobuf's own kind
        return changed_bytes(data, random)
    if random.random() < 0.08:
        return changed_bytes(data, random)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        try:
            random.choice(_GRAPH_CHANGES)(model, random)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    try:
        return bytes(model.SerializeToString())
    except Exception:  # a text that is no UTF-8
        return data


def _any_field(model: onnx.ModelProto, random: Random) -> None:
    """Change a field of some message of the graph."""
    messages = _messages(model)
    message = random.choice(messages)
    field = random.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        return
    values = getattr(message, field.name)
    if _is_repeated(field):
        if len(values) and random.random() < 0.4:
            del values[random.randrange(len(values))]
        elif len(values) and random.random() < 0.7:
            values[random.randrange(len(values))] = _of_kind(field, random)
        else:
            values.append(_of_kind(field, random))
    else:
        setattr(message, field.name, _of_kind(field, random))


def _node_change(model: onnx.ModelProto, random: Random) -> None:
    nodes = model.graph.node
    place = random.randrange(len(nodes))
    action = random.randrange(5)
    if action == 0:
        del nodes[place]
    elif action == 1:
        nodes[place].op_type = random.choice(_OPERATORS)
    elif action == 2:
        nodes.add().CopyFrom(nodes[place])
    elif nodes[place].input:
        names = [name for node in nodes for name in (*node.input, *node.output)]
        nodes[place].input[random.randrange(len(nodes[place].input))] = random.choice(names)
    else:
        nodes[place].output.append("more")


def _attribute_change(model: onnx.ModelProto, random: Random) -> None:
    attributes = [one for node in model.graph.node for one in node.attribute]
    chosen = random.choice(attributes)
    if chosen.ints and random.random() < 0.6:
        chosen.ints[random.randrange(len(chosen.ints))] = random.choice(INTEGERS[:-2])
    else:
        chosen.i = random.choice((random.randint(-4, 40), random.choice(INTEGERS[:14])))


def _tensor_change(model: onnx.ModelProto, random: Random) -> None:
    chosen = random.choice(model.graph.initializer)
    action = random.randrange(5)
    if action == 0:
        chosen.dims[random.randrange(len(chosen.dims))] = random.choice(
            (0, -1, 1, 2, 2**20, 2**24, 2**40)
        )
    elif action == 1:
        chosen.data_type = random.randint(0, 26)
    elif action == 2:
        chosen.raw_data = changed_bytes(chosen.raw_data, random)
    elif action == 3:
        chosen.data_location = onnx.TensorProto.EXTERNAL
        entry = chosen.external_data.add()
        entry.key, entry.value = "location", random.choice(TEXTS)
    else:
        chosen.raw_data = struct.pack("<q", random.choice(INTEGERS[:16])) * random.randint(1, 8)


def _size_change(model: onnx.ModelProto, random: Random) -> None:
    values = [*model.graph.input, *model.graph.output]
    sizes = random.choice(values).type.tensor_type.shape.dim
    random.choice(sizes).dim_value = random.choice((0, -1, 1, 3, 2**16, 2**23, 2**24, 2**31, 2**62))


def _within(model: onnx.ModelProto, random: Random) -> None:
    """Put the graph into an attribute of one of its nodes, as If and Loop have it."""
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    attribute = random.choice(model.graph.node).attribute.add()
    attribute.name, attribute.type = "then_branch", onnx.AttributeProto.GRAPH
    attribute.g.CopyFrom(inner)


_GRAPH_CHANGES = (
    _any_field, _any_field, _node_change, _node_change, _attribute_change, _tensor_change, _tensor_change, _size_change,
    _within,
)  # fmt: skip


def _messages(root: Any) -> List[Any]:
    found, left = [], [root]
    while left and len(found) < 2000:
        message = left.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += list(value) if _is_repeated(field) else [value]
    return found


def _is_repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 0) == 3)


def _of_kind(field: Any, random: Random) -> Any:
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        text = random.choice(TEXTS[:18]).encode("utf-8", "replace")
        return text if field.type == FieldDescriptor.TYPE_BYTES else text.decode()
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return random.choice((0.0, -1.0, float("nan"), 1e30))
    return random.choice((0, 1, -1, 2, 5, 7, 13, 18, 2**20, 2**31 - 1))


def changed_safetensors(data: bytes, random: Random) -> bytes:
    """Return safetensors with its header's tree changed, or bytes of it."""
    if len(data) < 8 or random.random() < 0.15:
        return changed_bytes(data, random)
    size = int.from_bytes(data[:8], "little")
    header = changed_json(data[8 : 8 + size], random)
    body = data[8 + size :] if random.random() < 0.8 else changed_bytes(data[8 + size :], random)
    changed = len(header).to_bytes(8, "little") + header + body
    return changed if random.random() < 0.3 else _with_its_checksum(changed)


def _with_its_checksum(data: bytes) -> bytes:
    """Return safetensors with the checksum of what they hold now, as one who means harm would; others as they are."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = {**header.get("__metadata__", {})}
        metadata.pop("sha256", None)
        with tempfile.TemporaryDirectory() as folder:
            write_tensors(Path(folder) / "file", load(data), metadata)
            return (Path(folder) / "file").read_bytes()
    except Exception:  # whatever a damaged one gives
        return data


def changed_zip(data: bytes, random: Random) -> bytes:
    """Return a zip with an entry changed by what it is, renamed, doubled or packed; or bytes of it changed."""
    if random.random() < 0.2:
        return changed_bytes(data, random)
    entries = unzipped(data)
    if not entries:
        return changed_bytes(data, random)
    name = random.choice(sorted(entries))
    action = random.random()
    if action < 0.8:
        entries[name] = _by_name(name)(entries[name], random)
    elif action < 0.9:
        del entries[name]
    else:
        entries[random.choice((name + "x", "../" + name, "/tmp.json", "a"))] = entries.pop(name)  # noqa: S108  # a name
    return zipped(entries, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def unzipped(data: bytes) -> Dict[str, bytes]:
    """Return the entries of a zip, up to a megabyte each; none where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {one.filename: archive.open(one).read(2**20) for one in archive.infolist()}
    except Exception:  # whatever a damaged one gives
        return {}


def zipped(entries: Dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _by_name(name: str) -> Mutator:
    for end, mutator in (
        (".json", changed_json), (".onnx", changed_onnx), (".db", changed_database), (".pkl", changed_pickle),
        (".safetensors", changed_safetensors), (".toml", changed_text),
    ):  # fmt: skip
        if name.endswith(end):
            return mutator
    return changed_bytes


def changed_gzip(data: bytes, random: Random) -> bytes:
    """Return gzip with its content changed, or bytes of it."""
    if random.random() < 0.2:
        return changed_bytes(data, random)
    try:
        content = gzip.decompress(data)
    except Exception:  # whatever a damaged one gives
        return changed_bytes(data, random)
    return gzip.compress(changed_bytes(content[: 2**20], random), 1)


def changed_tar(data: bytes, random: Random) -> bytes:
    """Return a tar with a field of a header changed and its checksum mended, or bytes of it changed."""
    if len(data) < 1024 or random.random() < 0.2:
        return changed_bytes(data, random)
    made = bytearray(data)
    block = 512 * random.randrange(len(made) // 512)
    start, length = random.choice(
        ((0, 100), (124, 12), (124, 12), (156, 1), (157, 100), (345, 155))
    )
    made[block + start : block + start + length] = _tar_field(start, random).ljust(length, b"\0")[
        :length
    ]
    header = bytes(made[block : block + 148]) + b" " * 8 + bytes(made[block + 156 : block + 512])
    made[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    return bytes(made)


def _tar_field(start: int, random: Random) -> bytes:
    if start == 124:
        number = random.choice(INTEGERS)
        large = b"\x80" + (number % 2**88).to_bytes(11, "big")
        return large if random.random() < 0.4 else b"%011o" % (abs(number) % 8**11)
    if start == 156:
        return random.choice((b"0", b"1", b"2", b"5", b"L", b"K", b"x", b"g", b"S", b"V", b"\xff"))
    return random.choice(TEXTS[:20]).encode("utf-8", "replace")


def changed_image(data: bytes, random: Random) -> bytes:
    """Return an image with a chunk of a PNG changed and its checksum mended, or bytes of it changed."""
    if not data.startswith(_PNG) or random.random() < 0.2:
        return changed_bytes(data, random)
    chunks = _chunks(data)
    place = random.randrange(len(chunks))
    kind, body = chunks[place]
    if kind == b"IHDR" and random.random() < 0.7:
        sizes = [random.choice((0, 1, 9, 2**12, 2**14, 2**15, 2**31 - 1)) for _ in range(2)]
        body = struct.pack(">II", *sizes) + changed_bytes(body[8:], random)[:5].ljust(5, b"\0")
    elif random.random() < 0.3:
        kind = random.choice(
            (b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"fdAT", b"IEND", b"eXIf")
        )
    else:
        body = changed_bytes(body, random)
    chunks[place] = (kind, body)
    if random.random() < 0.2:
        chunks.insert(place, random.choice(chunks))
    return _PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _chunks(data: bytes) -> List[Tuple[bytes, bytes]]:
    found, place = [], len(_PNG)
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return found or [(b"IHDR", b"")]


def changed_pickle(data: bytes, random: Random) -> bytes:
    """Return a pickle with operations dropped, doubled or exchanged, or bytes of it changed."""
    if random.random() < 0.4:
        return changed_bytes(data, random)
    try:
        starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:  # whatever a damaged one gives
        return changed_bytes(data, random)
    pieces = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)])]
    place = random.randrange(len(pieces))
    action = random.randrange(3)
    if action == 0:
        del pieces[place]
    elif action == 1:
        pieces.insert(place, random.choice(pieces))
    else:
        other = random.randrange(len(pieces))
        pieces[place], pieces[other] = pieces[other], pieces[place]
    return b"".join(pieces)


#: What changes a database in its own words; `?` stands for an odd value.
_STATEMENTS = (
    "UPDATE samples SET {column} = ?", "UPDATE repeats SET {column} = ?", "UPDATE identity SET value = ?",
    "UPDATE samples SET {column} = ? WHERE number = 0", "INSERT INTO about VALUES (?)", "UPDATE failures SET why = ?",
    "DELETE FROM samples", "DROP TABLE repeats", "DROP TABLE samples", "ALTER TABLE samples DROP COLUMN windows",
    "CREATE VIEW more AS SELECT 1", "ALTER TABLE identity RENAME TO other",
    "CREATE VIEW identity AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n",
    "CREATE VIEW samples AS SELECT hex(zeroblob(20000000)) AS widths, 0 AS number",
    "CREATE TRIGGER t AFTER INSERT ON samples BEGIN DELETE FROM samples; END",
    "CREATE TABLE more (a, b GENERATED ALWAYS AS (hex(zeroblob(20000000))))",
    "ALTER TABLE samples ADD COLUMN more AS (hex(zeroblob(20000000)))", "PRAGMA user_version = 7",
)  # fmt: skip
_COLUMNS = (
    "widths",
    "value",
    "standard_error",
    "spread",
    "latency_s",
    "windows",
    "runs",
    "converged",
    "board",
)


def changed_database(data: bytes, random: Random) -> bytes:
    """Return a database after statements that edgeecc would not make, or with bytes of it changed."""
    if (
        not hasattr(sqlite3.Connection, "deserialize") or random.random() < 0.3
    ):  # from Python 3.11 on
        return changed_bytes(data, random)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.deserialize(data)
        for _ in range(random.choice((1, 1, 2))):
            statement = random.choice(_STATEMENTS).format(column=random.choice(_COLUMNS))
            connection.execute(statement, (_cell(random),) if "?" in statement else ())
        return bytes(connection.serialize())
    except (sqlite3.Error, UnicodeError, OverflowError, MemoryError):
        return changed_bytes(data, random)
    finally:
        connection.close()


def _cell(random: Random) -> Any:
    value = odd_value(random)
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return random.choice((value, b"\xff\xfe", "[1, 2]", "[1e999]", "[" * 5000, '{"a": 1}'))


def tarred(members: Dict[str, bytes]) -> bytes:
    """Return a tar of files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
