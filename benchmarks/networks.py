"""Dense MACs and parameters of every network that edgeecc knows, beside what others published of it.

python benchmarks/networks.py
"""

from __future__ import annotations

from typing import Dict, NamedTuple

from edgeecc.catalogue import dense_counts
from edgeecc.networks.table import NETWORKS


class Published(NamedTuple):
    """Figures as printed at their source, and MACs that the source counts and we do not."""

    params: str = ""
    macs: str = ""
    besides: int = 0
    source: str = ""


def torchvision(builder: str, params: str, macs: str) -> Published:
    """Return what torchvision's documentation says of its weights."""
    page = f"https://pytorch.org/vision/stable/models/generated/torchvision.models.{builder}.html"
    return Published(params, macs, 0, f"[torchvision]({page})")


def cifar(params: str, macs: str) -> Published:
    """Return the parameters of the implementation with our shortcuts, the MACs of one with projections."""
    source = "[parameters](https://github.com/akamaster/pytorch_resnet_cifar10), "
    source += "[MACs](https://github.com/chenyaofo/pytorch-cifar-models) with projection shortcuts"
    return Published(params, macs, PROJECTIONS, source)


#: MACs of the two 1x1 convolutions that stand for shortcuts of option A elsewhere.
PROJECTIONS = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8
#: MACs of ERFNet's transposed convolutions if each is counted at its outputs, less those at its inputs.
TRANSPOSED = 3 * (128 * 64 * 9 * 64 * 128 + 64 * 16 * 9 * 128 * 256 + 16 * 20 * 4 * 256 * 512)
SLIM = (
    "[TensorFlow](https://github.com/tensorflow/models/blob/master/research/slim/nets/mobilenet_v1.md), "
    "parameters [Howard et al. 2017](https://arxiv.org/abs/1704.04861)"
)
REALTIME = "[realtime-semantic-segmentation](https://github.com/zh320/realtime-semantic-segmentation-pytorch)"
AUTO_DRIVE = "https://github.com/voldemortX/pytorch-auto-drive/tree/master/configs/semantic_segmentation/erfnet"
LITE = "https://github.com/d-li14/efficientnet-lite.pytorch"
LENET = "https://mnchapel.github.io/deep_learning_models/cnn/1998-11-01-lenet.html"

PUBLISHED: Dict[str, Published] = {
    "alexnet": torchvision("alexnet", "61,100,840", "0.71 G"),
    "efficientnet_lite0": Published("4.652 M", "0.385 G", 0, f"[d-li14]({LITE})"),
    "erfnet": Published(
        "2.06 M",
        "~30.06 G",
        TRANSPOSED,
        f"parameters {REALTIME}, half the FLOPs of [pytorch-auto-drive]({AUTO_DRIVE})",
    ),
    "espnet": Published("~0.364 M", source="[Mehta et al. 2018](https://arxiv.org/abs/1803.06815)"),
    "lenet5": Published("61,706", source=f"[Chapel]({LENET})"),
    "mobilenet_v1": Published("4.2 M", "569 M", 0, SLIM),
    "mobilenet_v1_tf": Published("4.2 M", "569 M", 0, SLIM),
    "mobilenet_v2": torchvision("mobilenet_v2", "3,504,872", "0.30 G"),
    "resnet18": torchvision("resnet18", "11,689,512", "1.81 G"),
    "resnet34": torchvision("resnet34", "21,797,672", "3.66 G"),
    "resnet50": torchvision("resnet50", "25,557,032", "4.09 G"),
    "resnet20": cifar("0.27 M", "40.81 M"),
    "resnet32": cifar("0.46 M", "69.12 M"),
    "resnet44": cifar("0.66 M", "97.44 M"),
    "resnet56": cifar("0.85 M", "125.75 M"),
    "resnet110": Published(
        "1.7 M",
        "252.89 M",
        0,
        "[parameters](https://github.com/akamaster/pytorch_resnet_cifar10), MACs [HRank](https://arxiv.org/abs/2002.10179)",
    ),
    "squeezenet1_0": torchvision("squeezenet1_0", "1,248,424", "0.82 G"),
    "squeezenet1_1": torchvision("squeezenet1_1", "1,235,496", "0.35 G"),
}


def main() -> None:
    """Print the table."""
    print("| network | parameters | published | MACs | counted besides | published | source |")
    print("|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        counts, known = dense_counts(name), PUBLISHED.get(name, Published())
        besides = f"{known.besides:,}" if known.besides else ""
        params, macs = f"{counts.params:,} | {known.params}", f"{counts.macs:,} | {besides}"
        print(f"| {name} | {params} | {macs} | {known.macs} | {known.source} |")


if __name__ == "__main__":
    main()
