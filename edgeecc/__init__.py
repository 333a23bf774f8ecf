"""edgeecc fits a convolutional network to an energy budget on the device where it runs."""

from __future__ import annotations

__version__ = "0.1.0"
