"""Builder options read off the names and shapes of a state dict: classes, width multiplier, depth."""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional, Tuple, Union

from edgeecc.networks import mobilenet_v2
from edgeecc.networks.mobilenet import BASE_WIDTHS, WIDEST, multiplier

OptionValue = Union[int, float, str, bool]
Shapes = Mapping[str, Tuple[int, ...]]
#: Shapes of a state dict -> the builder's options, or None where they are another network's.
Reader = Callable[[Shapes], Optional[Dict[str, OptionValue]]]


def classes(weight: str, axis: int = 0) -> Reader:
    """Return a reader of the number of classes, the size of `weight` along `axis`."""

    def read(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
        shape = shapes.get(weight, ())
        if len(shape) < 2 or 0 in shape:
            return None
        return {"classes": shape[axis]}

    return read


def mobilenet(
    name: str,
    stem: str = "stem.conv.weight",
    pointwise: str = "pw.{}.conv.weight",
    first: int = 0,
) -> Reader:
    """Return a reader of width and classes of a MobileNet.

    Args:
        name: of the family, a key of `BASE_WIDTHS`.
        stem: weight of the first convolution.
        pointwise: weight of a pointwise convolution, `{}` standing for its number.
        first: number of the first pair.
    """

    def read(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
        base = BASE_WIDTHS[name]
        weights = [stem, *(pointwise.format(first + pair) for pair in range(len(base) - 1))]
        found = [shapes.get(weight, ())[:1] for weight in weights]
        options = classes("fc.weight")(shapes)
        if options is None or not all(found):
            return None
        width = multiplier(base, [size[0] for size in found])
        return None if width is None else {"width": width, **options}

    return read


def inverted_residuals(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
    """Read width and classes of a MobileNetV2: the multiplier with fewest decimals, of two at most."""
    stem, head = (shapes.get(f"features.{place}.0.weight", ())[:1] for place in (0, 18))
    projected = [shapes.get("features.1.conv.1.weight", ())[:1]]
    projected += [shapes.get(f"features.{place}.conv.2.weight", ())[:1] for place in range(2, 18)]
    options = classes("classifier.1.weight")(shapes)
    found = stem + sum(projected, ()) + head
    if options is None or len(found) != len(projected) + 2:
        return None
    for decimals in (1, 2):
        steps = 10**decimals
        for step in range(1, int(WIDEST) * steps + 1):
            if mobilenet_v2.widths(step / steps) == found:
                return {"width": step / steps, **options}
    return None


def espnet(only: Optional[int] = None) -> Reader:
    """Return a reader of an ESPNet: classes, blocks of its second and third level, what its decoder reads.

    Args:
        only: number of classes, where weights with another one are another row's.
    """

    def read(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
        options = classes("encoder.classifier.conv.weight")(shapes)
        p, q = (_blocks(shapes, f"encoder.level{level}.") for level in (2, 3))
        mixed = shapes.get("conv.conv.weight", ())[:2]
        if options is None or not p or not q or only not in (None, options["classes"]):
            return None
        with_image = len(mixed) == 2 and mixed[1] - mixed[0] == 19
        return {**options, "p": p, "q": q, "with_image": with_image}

    return read


def _blocks(shapes: Shapes, prefix: str) -> int:
    """Return how many entries of a module list the names show."""
    names = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return len(names)
