"""The data sets that `--data` knows by name; loaders are imported when one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict


@dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        loader: `module:function` of (rest, DataRequest) -> Loaded.
        rest: what follows the name: nothing, `:WHAT`, or `[:WHAT]` where it may be left out.
        pixels: whether every pixel has a label.
    """

    loader: str
    rest: str = ""
    pixels: bool = False

    def takes(self, rest: str) -> bool:
        """Return whether the name may be followed by this."""
        return bool(rest) or not self.rest.startswith(":") if self.rest else not rest


SOURCES: Dict[str, Source] = {
    "camvid": Source("edgeecc.data.camvid:load_camvid", ":FOLDER", pixels=True),
    "camvid-test": Source("edgeecc.data.camvid:load_camvid_test", ":FOLDER", pixels=True),
    "cifar10": Source("edgeecc.data.cifar10:load_cifar10", ":FOLDER"),
    "cityscapes": Source("edgeecc.data.cityscapes:load_cityscapes", ":FOLDER", pixels=True),
    "digits": Source("edgeecc.data.digits:load_handwritten"),
    "fashion-mnist": Source("edgeecc.data.fashion_mnist:load_fashion_mnist", "[:FOLDER]"),
    "imagefolder": Source("edgeecc.data.imagefolder:load_imagefolder", ":FOLDER"),
    "webdataset": Source("edgeecc.data.webdataset:load_webdataset", ":FOLDER|TRAIN,VAL"),
}
#: As help and messages list them.
KNOWN = ", ".join(
    [*(name + source.rest for name, source in SOURCES.items()), "package.module:function"]
)
