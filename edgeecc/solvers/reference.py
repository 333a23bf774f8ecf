"""What the layers of a network that stays as it is give on sample images, looked at once.

Fits of many layers want the outputs of one dense network again and again. It runs once, and the sampled positions
of what its layers gave are kept, up to KEPT bytes; of layers beyond it runs again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

import torch
from torch import nn

from edgeecc.solvers.recording import Seer, recorded
from edgeecc.solvers.sample import Places, Sample
from edgeecc.solvers.unfold import is_known, outputs

#: Bytes of outputs that are kept at most.
KEPT = 2**29


@dataclass(frozen=True)
class Given:
    """What a layer gave in one call.

    Args:
        shape: of all that it gave.
        places: (n, p) int64, positions that are sampled.
        rows: what it gave there, (g, n * p, o).
    """

    shape: torch.Size
    places: torch.Tensor
    rows: torch.Tensor


#: Layer -> what it gave in each of its calls.
Calls = Mapping[str, Sequence[Given]]


class Reference:
    """A network whose outputs are wanted.

    Args:
        model: not modified, by its owner either.
        layers: that will be asked for; those that are not known gave nothing.
        sample: images to look at.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], sample: Sample) -> None:
        self._model, self.sample = model, sample
        names = dict.fromkeys(layers)
        self._layers = [name for name in names if is_known(model.get_submodule(name))]

    def chunks(self, layers: Sequence[str]) -> Iterator[Tuple[torch.Tensor, Calls]]:
        """Yield images, chunk by chunk, and what some of its layers gave on them."""
        kept, counts = self._seen
        again = {name: self.sample.places() for name in layers if name not in kept}
        for at, images in enumerate(self.sample.chunks()):
            calls = {name: kept[name][at] for name in layers if name in kept}
            if again:
                due = {name: counts[at].get(name, 0) for name in again}
                calls.update(self._look(images, again, due))
            yield images, calls

    @cached_property
    def _seen(self) -> Tuple[Dict[str, List[Sequence[Given]]], List[Dict[str, int]]]:
        """What the layers that are kept gave in each chunk, and how often each was called."""
        places = {name: self.sample.places() for name in self._layers}
        kept: Dict[str, List[Sequence[Given]]] = {name: [] for name in self._layers}
        sizes: Counter[str] = Counter()
        counts = []
        for images in self.sample.chunks():
            calls = self._look(images, places, {})
            counts.append({name: len(given) for name, given in calls.items()})
            for name in list(kept):
                kept[name].append(calls[name])
                sizes[name] += sum(given.rows.nbytes for given in calls[name])
                if sum(sizes.values()) > KEPT:
                    del kept[name], sizes[name]
        return kept, counts

    def _look(
        self, images: torch.Tensor, places: Mapping[str, Places], counts: Mapping[str, int]
    ) -> Calls:
        """Return what layers give on images; `counts` as of `Recorder.run`."""
        calls: Dict[str, List[Given]] = {name: [] for name in places}

        def seer(name: str) -> Seer:
            module = self._model.get_submodule(name)

            def see(_: torch.Tensor, y: torch.Tensor) -> None:
                at = places[name].of(module, y)
                calls[name].append(Given(y.shape, at, outputs(module, y, places=at)))

            return see

        with recorded(self._model, {name: seer(name) for name in places}) as recorder:
            recorder.run(images, counts)
        return calls
