"""Changes of bytes, text and JSON trees. Everything is drawn from the `Random` that is given, so it can be repeated."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Callable, List, Tuple

#: What a mutator does: bytes and a source of chance to other bytes.
Mutator = Callable[[bytes, Random], bytes]

INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    127,
    255,
    256,
    4096,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64,
    -(2**63),
)
FLOATS = (0.0, -0.0, 0.5, 1e-308, 5e-324, 1e308, -1e308, 1e-9, 1.5)
TEXTS = (
    "", " ", "a", ".", "..", "../../up", "/etc/hostname", "a/b", "a\\b", "a\nb", "a\rb", "\x1b[2J", "\x00", "\ud800",
    "\u202e", "é", "[/]", "[red]", "%s", "{}", "a:b", "os:abort", "builtins:exit", "virtual:tx2", "fc", "x" * 5000,
    "nan", "inf", "1e999", "-1", "energy", "latency", "macs", "٣",
)  # fmt: skip
_LINES = b"\n\r\t\0\"'[]{}=:,.-+%0123456789eEaJms/\\\xff\x80"


def changed_bytes(data: bytes, random: Random) -> bytes:
    """Return bytes with a few of them changed, dropped, doubled or put in."""
    made = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        made = random.choice(_BYTE_CHANGES)(made, random)
    return bytes(made)


def changed_text(data: bytes, random: Random) -> bytes:
    """Return text with a part replaced by an odd one, or bytes of it changed."""
    if random.random() < 0.4:
        return changed_bytes(data, random)
    text = data.decode("utf-8", "replace")
    start = random.randint(0, len(text))
    end = min(len(text), start + random.choice((0, 0, 1, 2, 5, 20)))
    new = random.choice((*TEXTS, str(number(random)), "\n", " ", '"', text[:40]))
    return (text[:start] + str(new) + text[end:]).encode("utf-8", "surrogatepass")


def changed_json(data: bytes, random: Random) -> bytes:
    """Return JSON with nodes of its tree changed; what is no JSON is changed as text."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return changed_text(data, random)
    if random.random() < 0.1:
        return changed_text(data, random)
    try:
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            tree = changed_tree(tree, random)
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):
        return data


def changed_tree(tree: Any, random: Random) -> Any:
    """Return a JSON tree with one node replaced, dropped, doubled or exchanged with another."""
    places = list(_places(tree))
    if not places:
        return odd_value(random)
    parent, key = random.choice(places)
    action = random.random()
    if action < 0.55:
        parent[key] = odd_value(random, parent[key])
    elif action < 0.7:
        del parent[key]
    elif action < 0.85:
        other, there = random.choice(places)
        with_other = other[there] if _has(other, there) else None
        parent[key] = json.loads(json.dumps(with_other))
    elif isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        parent[random.choice(TEXTS)] = parent.pop(key)
    return tree


def odd_value(random: Random, now: Any = None) -> Any:
    """Return a value that a reader may not expect; for a number often one near it."""
    if isinstance(now, (int, float)) and not isinstance(now, bool) and random.random() < 0.4:
        return (
            now + random.choice((-1, 1, 8))
            if random.random() < 0.5
            else now * random.choice((-1, 2, 0))
        )
    kind = random.randrange(8)
    if kind < 3:
        return number(random)
    if kind < 5:
        return random.choice(TEXTS)
    return random.choice(
        (None, True, False, [], {}, [[]], {"": {}}, [1, 2], ["a", 1], float("nan"), float("inf"),
         10**400, nested(random.choice((10, 100, 5000))))
    )  # fmt: skip


def number(random: Random) -> Any:
    """Return a number at an edge, or a small one."""
    return random.choice((random.choice(INTEGERS), random.choice(FLOATS), random.randint(-3, 100)))


def nested(depth: int) -> Any:
    """Return lists within lists."""
    tree: Any = []
    for _ in range(min(depth, 900)):  # json.dumps has to write them
        tree = [tree]
    return tree


def _places(tree: Any) -> List[Tuple[Any, Any]]:
    """Return (parent, key) of every node but the root, as far as there are not too many."""
    found: List[Tuple[Any, Any]] = []
    left = [tree]
    while left and len(found) < 3000:
        node = left.pop()
        keys = (
            list(node)
            if isinstance(node, dict)
            else range(len(node))
            if isinstance(node, list)
            else []
        )
        for key in keys:
            found.append((node, key))
            left.append(node[key])
    return found


def _has(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _flip(data: bytearray, random: Random) -> bytearray:
    if data:
        data[random.randrange(len(data))] = random.choice(
            (random.randrange(256), random.choice(_LINES))
        )
    return data


def _drop(data: bytearray, random: Random) -> bytearray:
    start = random.randint(0, len(data))
    return data[:start] + data[start + random.choice((1, 2, 8, 100)) :]


def _cut(data: bytearray, random: Random) -> bytearray:
    return data[: random.randint(0, len(data))]


def _insert(data: bytearray, random: Random) -> bytearray:
    place = random.randint(0, len(data))
    new = bytes(random.choice(_LINES) for _ in range(random.choice((1, 2, 4, 8))))
    return data[:place] + new + data[place:]


def _double(data: bytearray, random: Random) -> bytearray:
    start = random.randint(0, len(data))
    part = data[start : start + random.choice((1, 4, 16, 200))]
    return data[:start] + part + data[start:]


def _number_bytes(data: bytearray, random: Random) -> bytearray:
    size = random.choice((1, 2, 4, 8))
    raw = (random.choice(INTEGERS) % 256**size).to_bytes(size, random.choice(("little", "big")))
    place = random.randint(0, max(0, len(data) - size))
    data[place : place + size] = raw
    return data


_BYTE_CHANGES = (_flip, _flip, _flip, _drop, _cut, _insert, _double, _number_bytes, _number_bytes)
