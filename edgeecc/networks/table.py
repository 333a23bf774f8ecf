"""The networks that edgeecc knows by name: builders, input shapes, and recognition by weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Dict, Literal, Mapping, Optional, Tuple

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.networks.public_names import in_our_names
from edgeecc.networks.readers import (
    OptionValue,
    Reader,
    classes,
    espnet,
    inverted_residuals,
    mobilenet,
)
from edgeecc.normalisation import IMAGENET, Normalisation
from edgeecc.plugins import lookup

#: Images as they are (Eromera/erfnet_pytorch).
_PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)
#: (x / 255 - 0.5) / 0.5 (TensorFlow's MobileNets).
_HALF = Normalisation((0.5,) * 3, (0.5,) * 3)
#: (x - 127) / 128 (EfficientNet-lite).
_LITE = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
#: Means and deviations of the images of Cityscapes, divided by 255 once more (sacmehta/ESPNet).
_CITYSCAPES = Normalisation(
    (73.15840149 / 255, 82.90893555 / 255, 72.3923111 / 255),
    (44.91483307, 46.15289307, 45.3192215),
)
#: The same of the 367 training images of CamVid, counted as sacmehta/ESPNet counts them.
_CAMVID = Normalisation((104.964 / 255, 108.358 / 255, 110.216 / 255), (69.837, 72.623, 72.056))


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of a table network.

    Args:
        builder: `package.module:attribute`, called with the options.
        input_shape: without batch.
        about: a word on it.
        reader: of the builder's options, off the shapes of its weights.
        groups: channel groups that a trace finds, prunable and all; they do not depend on widths or input.
        task: what it tells, a class an image or a class a pixel.
        normalisation: of the images that the public weights were trained with; None where there are none.
    """

    builder: str
    input_shape: Tuple[int, ...]
    about: str
    reader: Reader
    groups: Tuple[int, int]
    task: Literal["classification", "segmentation"] = "classification"
    normalisation: Optional[Normalisation] = IMAGENET


_IMAGE, _STREET, _SMALL = (3, 224, 224), (3, 512, 1024), (3, 32, 32)

NETWORKS: Dict[str, NetworkInfo] = {
    "alexnet": NetworkInfo(
        "edgeecc.networks.alexnet:AlexNet",
        _IMAGE,
        "one-tower AlexNet",
        classes("classifier.6.weight"),
        (7, 8),
    ),
    "digits_mobilenet": NetworkInfo(
        "edgeecc.networks.mobilenet:digits_mobilenet",
        (1, 8, 8),
        "small MobileNet for scikit-learn's digits",
        mobilenet("digits_mobilenet"),
        (10, 11),
        normalisation=None,
    ),
    "efficientnet_lite0": NetworkInfo(
        "edgeecc.networks.efficientnet_lite:efficientnet_lite0",
        _IMAGE,
        "EfficientNet-lite0",
        classes("_fc.weight"),
        (24, 25),
        normalisation=_LITE,
    ),
    "erfnet": NetworkInfo(
        "edgeecc.networks.erfnet:ERFNet",
        _STREET,
        "ERFNet for Cityscapes",
        classes("decoder.output_conv.weight", axis=1),
        (55, 57),
        "segmentation",
        _PLAIN,
    ),
    "espnet_camvid": NetworkInfo(
        "edgeecc.networks.espnet:espnet_camvid",
        (3, 360, 480),
        "ESPNet for CamVid",
        espnet(only=12),
        (23, 26),
        "segmentation",
        _CAMVID,
    ),
    "espnet": NetworkInfo(
        "edgeecc.networks.espnet:ESPNet",
        _STREET,
        "ESPNet for Cityscapes",
        espnet(),
        (23, 26),
        "segmentation",
        _CITYSCAPES,
    ),
    "fashion_mobilenet": NetworkInfo(
        "edgeecc.networks.mobilenet:fashion_mobilenet",
        (1, 28, 28),
        "small MobileNet for Fashion-MNIST",
        mobilenet("fashion_mobilenet"),
        (7, 8),
        normalisation=None,
    ),
    "lenet5": NetworkInfo(
        "edgeecc.networks.lenet:LeNet5",
        (1, 28, 28),
        "LeNet-5 with ReLU",
        classes("fc3.weight"),
        (4, 5),
        normalisation=None,
    ),
    "mobilenet_v1": NetworkInfo(
        "edgeecc.networks.mobilenet:mobilenet_v1",
        _IMAGE,
        "MobileNetV1",
        mobilenet("mobilenet_v1"),
        (14, 15),
    ),
    "mobilenet_v1_tf": NetworkInfo(
        "edgeecc.networks.mobilenet_tf:MobileNetTf",
        _IMAGE,
        "MobileNetV1 of TensorFlow Lite, batch norms folded",
        mobilenet("mobilenet_v1", "conv0.weight", "pw{}.weight", first=1),
        (14, 15),
        normalisation=_HALF,
    ),
    "mobilenet_v2": NetworkInfo(
        "edgeecc.networks.mobilenet_v2:MobileNetV2",
        _IMAGE,
        "MobileNetV2",
        inverted_residuals,
        (25, 26),
    ),
    **{
        f"resnet{depth}": NetworkInfo(
            f"edgeecc.networks.resnet:resnet{depth}",
            _IMAGE,
            f"ResNet-{depth}",
            classes("fc.weight"),
            groups,
        )
        for depth, groups in ((18, (12, 13)), (34, (20, 21)), (50, (37, 38)))
    },
    **{
        f"resnet{depth}": NetworkInfo(
            f"edgeecc.networks.resnet_cifar:resnet{depth}",
            _SMALL,
            f"ResNet-{depth} for CIFAR",
            classes("linear.weight"),
            (depth // 2 - 1, depth // 2 + 1),
        )
        for depth in (20, 32, 44, 56, 110)
    },
    **{
        f"squeezenet1_{minor}": NetworkInfo(
            f"edgeecc.networks.squeezenet:squeezenet1_{minor}",
            _IMAGE,
            f"SqueezeNet 1.{minor}",
            classes("classifier.1.weight"),
            (25, 26),
        )
        for minor in (0, 1)
    },
}


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


def infer(
    state: Mapping[str, torch.Tensor], network: Optional[str] = None
) -> Optional[Tuple[str, Dict[str, OptionValue]]]:
    """Return (name, builder options) of the table network that these tensors belong to, or None.

    Width multiplier, number of classes and the like are read off the shapes; a candidate counts only when
    every name and shape agrees, be the names ours or a public implementation's.

    Args:
        state: tensors by name.
        network: the only candidate, None for the whole table.
    """
    shapes = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    for name in NETWORKS if network is None else (network,):
        own, needed = in_our_names(name, shapes)
        options = NETWORKS[name].reader(own)
        if options is not None and _shapes_of(name, options) == own:
            return name, {**options, **needed}
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
