"""Forms of a cost model: which terms it sums, written as `bilinear+linear+tiles:8+spans`.

`bilinear` is the paper's. `linear` adds what passes over a group's channels cost; `tiles:N` adds every layer's product
with output channels, or both counts, rounded up to N (`terms.tile_terms`); `spans` gives the parts of a width between
SPANS their own linear cost. All are ours but the first, and all keep the model rising in every width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

from edgeecc.config import COST_MODEL, COST_MODEL_GRAMMAR
from edgeecc.cost.terms import Term, layer_terms, linear_terms, span_terms, tile_terms
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import NetworkSpec

#: Shares of a dense width at which its linear cost may change its slope.
SPANS = (0.125, 0.25, 0.5, 0.75)
#: Tiles that a device may work in, channels: of vector units, of tensor cores, of blocks of a GEMM.
TILES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Form:
    """Which terms a cost model sums beside the bilinear ones.

    Args:
        linear: one of each group's width.
        tile: channels of whole tiles; 1 is without.
        spans: parts of each group's width.
    """

    linear: bool = False
    tile: int = 1
    spans: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.tile <= 4096:
            raise ConfigError(f"tiles of {self.tile} channels must be of 1 to 4096")

    @property
    def text(self) -> str:
        """The form as it is written."""
        parts = ["bilinear"]
        parts += ["linear"] if self.linear else []
        parts += [f"tiles:{self.tile}"] if self.tile > 1 else []
        return "+".join(parts + (["spans"] if self.spans else []))

    @staticmethod
    def parse(text: str) -> Form:
        """Read what `text` writes.

        Raises: ConfigError for anything else.
        """
        found = COST_MODEL.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"unknown cost model {text!r}; known are auto and {COST_MODEL_GRAMMAR}"
            )
        linear, tile, spans = found.groups()
        return Form(linear is not None, int(tile or 1), spans is not None)

    def terms(self, spec: NetworkSpec) -> List[Term]:
        """Return the terms for a network."""
        terms = layer_terms(spec)
        terms += linear_terms(spec) if self.linear else []
        terms += tile_terms(spec, self.tile) if self.tile > 1 else []
        return terms + (span_terms(spec, SPANS) if self.spans else [])


def tiles_within(spec: NetworkSpec) -> Sequence[int]:
    """Return the tiles that can be told from one channel on this network: some group is wider."""
    widest = max((group.width for group in spec.prunable), default=1)
    return [tile for tile in TILES if tile < widest]
