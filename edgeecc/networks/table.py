"""The networks that edgeecc knows by name: builders, input shapes, and recognition by weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Tuple, Union

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.networks.mobilenet import BASE_WIDTHS, multiplier
from edgeecc.plugins import lookup

OptionValue = Union[int, float, str, bool]
Shapes = Mapping[str, Tuple[int, ...]]
#: Shapes of a state dict -> the builder's options, or None where they are another network's.
Reader = Callable[[Shapes], Optional[Dict[str, OptionValue]]]


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of a table network: its builder, input shape without batch, and a word on it."""

    builder: str
    input_shape: Tuple[int, ...]
    about: str


NETWORKS: Dict[str, NetworkInfo] = {
    "alexnet": NetworkInfo("edgeecc.networks.alexnet:AlexNet", (3, 224, 224), "one-tower AlexNet"),
    "digits_mobilenet": NetworkInfo(
        "edgeecc.networks.mobilenet:digits_mobilenet",
        (1, 8, 8),
        "small MobileNet for scikit-learn's digits",
    ),
    "erfnet": NetworkInfo(
        "edgeecc.networks.erfnet:ERFNet", (3, 512, 1024), "ERFNet for Cityscapes"
    ),
    "fashion_mobilenet": NetworkInfo(
        "edgeecc.networks.mobilenet:fashion_mobilenet",
        (1, 28, 28),
        "small MobileNet for Fashion-MNIST",
    ),
    "lenet5": NetworkInfo("edgeecc.networks.lenet:LeNet5", (1, 28, 28), "LeNet-5 with ReLU"),
    "mobilenet_v1": NetworkInfo(
        "edgeecc.networks.mobilenet:mobilenet_v1", (3, 224, 224), "MobileNetV1"
    ),
}

#: Networks whose weights are told apart by names and shapes, in the order in which they are tried.
_INFERRED = ("mobilenet_v1", "fashion_mobilenet", "digits_mobilenet", "alexnet", "lenet5", "erfnet")


def info(name: str) -> NetworkInfo:
    """Return the table row of a network.

    Raises: ConfigError for an unknown name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}; known are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name]


def build(name: str, **options: OptionValue) -> nn.Module:
    """Build a table network with fresh weights.

    Raises: ConfigError for an unknown name or an option that the builder does not take.
    """
    builders = {key: row.builder for key, row in NETWORKS.items()}
    builder = lookup(builders, name, kind="network", extra="host")
    if not callable(builder):
        raise ConfigError(f"network {name!r} has no builder; this table row is wrong")
    unknown = set(options) - set(inspect.signature(builder).parameters)
    if unknown:
        raise ConfigError(f"network {name!r} takes no option {sorted(unknown)[0]!r}; leave it out")
    model: nn.Module = builder(**options)
    return model


def infer(state: Mapping[str, torch.Tensor]) -> Optional[Tuple[str, Dict[str, OptionValue]]]:
    """Return (name, builder options) of the table network that these tensors belong to, or None.

    Width multiplier and number of classes are read off the shapes; a candidate counts only when every name
    and shape agrees.
    """
    shapes = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    for name in _INFERRED:
        options = _READERS[name](shapes)
        if options is not None and _shapes_of(name, options) == shapes:
            return name, options
    return None


def _shapes_of(name: str, options: Mapping[str, OptionValue]) -> Dict[str, Tuple[int, ...]]:
    with torch.device("meta"):
        model = build(name, **options)
    state = model.state_dict()
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def _mobilenet(name: str) -> Reader:
    def read(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
        base, head = BASE_WIDTHS[name], shapes.get("fc.weight")
        convolutions = ["stem", *(f"pw.{pair}" for pair in range(len(base) - 1))]
        found = [shapes.get(f"{place}.conv.weight", ())[:1] for place in convolutions]
        if head is None or len(head) != 2 or 0 in head or not all(found):
            return None
        width = multiplier(base, [size[0] for size in found])
        return None if width is None else {"width": width, "classes": head[0]}

    return read


def _classes(weight: str) -> Reader:
    def read(shapes: Shapes) -> Optional[Dict[str, OptionValue]]:
        shape = shapes.get(weight)
        if shape is None or len(shape) < 2 or 0 in shape:
            return None
        return {"classes": shape[1] if len(shape) == 4 else shape[0]}

    return read


_READERS: Dict[str, Reader] = {
    "mobilenet_v1": _mobilenet("mobilenet_v1"),
    "fashion_mobilenet": _mobilenet("fashion_mobilenet"),
    "digits_mobilenet": _mobilenet("digits_mobilenet"),
    "alexnet": _classes("classifier.6.weight"),
    "lenet5": _classes("fc3.weight"),
    "erfnet": _classes("decoder.output_conv.weight"),
}
