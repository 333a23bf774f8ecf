"""scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation

#: Grey levels lie in 0..16; these bring them to -1..1.
NORMALISATION = Normalisation((0.5,), (0.5,))


def load_handwritten(rest: str, request: DataRequest) -> Loaded:
    """Return the 1,797 digits, 8x8 or enlarged to what the network takes, one in five held.

    Raises: DataError when scikit-learn is not installed.
    """
    del rest
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits come with scikit-learn; pip install 'edgeecc[host]'") from error
    found = load_digits()
    normalisation = request.normalisation(NORMALISATION, 1)
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 16.0
    images = (images - normalisation.mean[0]) / normalisation.deviation[0]
    shape = request.input_shape
    if len(shape) == 3 and min(shape[1:]) > images.shape[-1]:
        images = functional.interpolate(images, shape[1:], mode="bilinear")
    labels = torch.from_numpy(found.target).long()
    held = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        held[(labels == digit).nonzero().reshape(-1)[::5]] = True
    return (
        TensorSplit(images[~held], labels[~held]),
        TensorSplit(images[held], labels[held]),
        10,
    )
