"""Rules of the operators that move values about without computing: provenance goes where the values go."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np

from edgeecc.graph.provenance import FREE, Node, Tag, touched
from edgeecc.graph.spec import IntArray

#: Largest tensor whose reshaping is followed value by value.
MAX_CELLS = 2**24


def concat(node: Node) -> List[Tag]:
    """Follow a concatenation: the joined axis takes all owners in order, the others must agree."""
    tags = [tag for tag in node.tags if tag is not None]
    axis = node.integer("axis", 0) % len(tags[0])
    for other in tags[1:]:
        for place in range(len(other)):
            if place != axis:
                node.same(tags[0][place], other[place], "the other axes")
    joined = np.concatenate([tag[axis] for tag in tags])
    return [_with(tags[0], axis, joined)]


def split(node: Node) -> List[Tag]:
    """Follow a split: each piece takes its part of the owners."""
    tag = node.tag(0)
    axis = node.integer("axis", 0) % len(tag)
    sizes = [node.shape(output)[axis] for output in range(len(node.outputs))]
    ends = np.cumsum(sizes)
    return [_with(tag, axis, tag[axis][end - size : end]) for size, end in zip(sizes, ends)]


def slice_(node: Node) -> List[Tag]:
    """Follow a slice with constant bounds; an axis with channels may be cut, but not stepped over."""
    tag = node.tag(0)
    starts, ends = node.constant(1), node.constant(2)
    if starts is None or ends is None:
        raise node.fault("has computed bounds")
    axes = node.constant(3) if node.has(3) else np.arange(len(starts))
    steps = node.constant(4) if node.has(4) else np.ones(len(starts), dtype=np.int64)
    if axes is None or steps is None:
        raise node.fault("has computed axes or steps")
    made = tag
    for start, end, axis, step in zip(starts, ends, axes, steps):
        place = int(axis) % len(tag)
        if step != 1:
            node.untouched(tag[place], "a slice with steps")
        length = len(tag[place])
        bounds = slice(int(start), int(end) if abs(int(end)) < 2**31 else None, int(step))
        made = _with(made, place, tag[place][np.arange(length)[bounds]])
    return [made]


def reshape(node: Node) -> List[Tag]:
    """Follow a reshape: axes that multiply to the same block are matched, then the owner is moved over.

    1. A free block stays free.
    2. Equal blocks of one axis pass.
    3. Otherwise the provenance of the whole block is laid out row-major in the new axes; it may vary along
       exactly one of them.
    """
    return [_regroup(node, node.tag(0), node.shape())]


def _regroup(node: Node, tag: Tag, shape: Sequence[int]) -> Tag:
    """Return the provenance after a reshape to `shape`."""
    if math.prod(shape) > MAX_CELLS:
        raise node.fault("reshapes more values than are followed")
    made: List[IntArray] = []
    old, new = 0, 0
    sizes = [len(axis) for axis in tag]
    while new < len(shape) or old < len(sizes):
        old_end, new_end = _block(sizes, shape, old, new)
        made.extend(_move(node, tag[old:old_end], shape[new:new_end]))
        old, new = old_end, new_end
    return tuple(made)


def _block(sizes: Sequence[int], shape: Sequence[int], old: int, new: int) -> Tuple[int, int]:
    """Return the ends of the smallest runs of axes with equal products."""
    old_end, new_end = old + (old < len(sizes)), new + (new < len(shape))
    left = int(np.prod(sizes[old:old_end], dtype=np.int64))
    right = int(np.prod(shape[new:new_end], dtype=np.int64))
    while left != right:
        if left < right:
            left *= sizes[old_end]
            old_end += 1
        else:
            right *= shape[new_end]
            new_end += 1
    return old_end, new_end


def _move(node: Node, tag: Tag, shape: Sequence[int]) -> List[IntArray]:
    free = [np.full(size, FREE, dtype=np.int64) for size in shape]
    if not touched(tag):
        return free
    owners = [axis for axis in tag if bool((axis != FREE).any())]
    if len(owners) > 1:
        raise node.fault("merges two prunable axes")
    place = next(index for index, axis in enumerate(tag) if axis is owners[0])
    view = [1] * len(tag)
    view[place] = -1
    full = np.broadcast_to(owners[0].reshape(view), [len(axis) for axis in tag]).reshape(
        tuple(shape)
    )
    for axis in range(len(shape)):
        first = np.moveaxis(full, axis, 0).reshape(shape[axis], -1)
        if bool((first == first[:, :1]).all()):
            free[axis] = first[:, 0].copy()
            return free
    raise node.fault("mixes prunable channels into an axis")


def transpose(node: Node) -> List[Tag]:
    """Follow a change of the order of axes; without one it is reversed."""
    tag = node.tag(0)
    order = node.attribute("perm") or list(range(len(tag)))[::-1]
    return [tuple(tag[axis] for axis in order)]  # type: ignore[attr-defined]  # perm is a list of integers


def gather(node: Node) -> List[Tag]:
    """Follow indices into one axis; that axis must be free, because indices into channels would shift."""
    tag, axis = node.tag(0), node.integer("axis", 0)
    if touched(node.tag(1)):
        raise node.fault("takes indices from prunable channels")
    axis %= len(tag)
    node.untouched(tag[axis], "chosen indices")
    lead = len(node.tag(1))
    return [(*tag[:axis], *node.free()[axis : axis + lead], *tag[axis + 1 :])]


def pad(node: Node) -> List[Tag]:
    """Follow padding: none on an axis with channels, not even as much added as taken away."""
    tag, pads = node.tag(0), node.integers("pads", 1)
    axes = node.integers("axes", 3) if len(node.inputs) > 3 else None
    if pads is None:
        raise node.fault("has computed padding")
    places = range(len(tag)) if axes is None else axes
    for place, before, after in zip(places, pads, pads[len(pads) // 2 :]):
        if before or after:
            node.untouched(tag[place], "padding")
    return _spatial_only(node)


def resize(node: Node) -> List[Tag]:
    """Follow resizing, which leaves an axis of unchanged length as it is unless it crops."""
    if node.attribute("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise node.fault("crops where it resizes")
    return _spatial_only(node)


def tile(node: Node) -> List[Tag]:
    """Follow repetition, which would multiply the channels of an axis that it runs over."""
    repeats = node.integers("repeats", 1)
    if repeats is None:
        raise node.fault("has computed repetitions")
    for axis, count in zip(node.tag(0), repeats):
        if count != 1:
            node.untouched(axis, "repetition")
    return _spatial_only(node)


def _spatial_only(node: Node) -> List[Tag]:
    """Pass axes whose length stays; an axis that changes length must be free."""
    tag = node.tag(0)
    made: List[IntArray] = []
    for axis, size in zip(tag, node.shape()):
        if len(axis) != size:
            node.untouched(axis, "a change of its length")
        made.append(axis if len(axis) == size else np.full(size, FREE, dtype=np.int64))
    return [tuple(made)]


def expand(node: Node) -> List[Tag]:
    """Follow repetition along axes of length one."""
    tag, made = node.tag(0), list(node.free())
    lead = len(made) - len(tag)
    for place, axis in enumerate(tag):
        if len(axis) == len(made[lead + place]):
            made[lead + place] = axis
        else:
            node.untouched(axis, "an expanded axis")
    return [tuple(made)]


def _with(tag: Tag, axis: int, value: IntArray) -> Tag:
    return (*tag[:axis], value, *tag[axis + 1 :])
