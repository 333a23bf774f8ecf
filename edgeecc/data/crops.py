"""Where to crop: boxes of images for training and validation."""

from __future__ import annotations

import math

import numpy as np

from edgeecc.data.images import Box

#: Of a crop for training: its share of the image's area, and how far its aspect is from the network's
#: (Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6).
AREA = (0.08, 1.0)
ASPECT = (3.0 / 4.0, 4.0 / 3.0)
#: Draws until a crop fits into the image; then the largest in its middle is taken.
TRIES = 10
#: Share of the short side that a validation image keeps: 224 of 256.
KEPT = 0.875


def central(width: int, height: int, aspect: float, share: float = KEPT) -> Box:
    """Return the middle box of an aspect (width / height) that is `share` of the largest one."""
    across = min(width, height * aspect) * share
    down = across / aspect
    left, top = (width - across) / 2.0, (height - down) / 2.0
    return left, top, left + across, top + down


def random_resized(width: int, height: int, aspect: float, chance: np.random.Generator) -> Box:
    """Return a random box: area uniform in `AREA`, logarithm of the aspect uniform around the network's.

    Args:
        width, height: of the image, pixels.
        aspect: width / height of the network's input.
        chance: drawn from.
    """
    for _ in range(TRIES):
        share, log_ratio, x, y = chance.random(4)
        area = (AREA[0] + (AREA[1] - AREA[0]) * share) * width * height
        low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
        ratio = aspect * math.exp(low + (high - low) * log_ratio)
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = (width - across) * x, (height - down) * y
            return left, top, left + across, top + down
    return central(width, height, aspect, 1.0)


def random_part(width: int, height: int, least: float, chance: np.random.Generator) -> Box:
    """Return a random box whose sides are one share of the image's, uniform in least..1."""
    share = least + (1.0 - least) * chance.random()
    across, down = width * share, height * share
    left, top = (width - across) * chance.random(), (height - down) * chance.random()
    return left, top, left + across, top + down
