"""The names of the networks, for who must know them without torch; a test holds them against the table."""

from __future__ import annotations

NAMES = (
    "alexnet",
    "digits_mobilenet",
    "efficientnet_lite0",
    "erfnet",
    "espnet",
    "espnet_camvid",
    "fashion_mobilenet",
    "lenet5",
    "mobilenet_v1",
    "mobilenet_v1_tf",
    "mobilenet_v2",
    *(f"resnet{depth}" for depth in (18, 20, 32, 34, 44, 50, 56, 110)),
    "squeezenet1_0",
    "squeezenet1_1",
)
