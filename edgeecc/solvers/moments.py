"""What the layers of a network read and give on sample images, summed into second moments.

Images go through in chunks, and of each image few positions of a layer are taken when it is called (`recording`),
so that memory is that of one chunk, whatever the sample.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.solvers.local_fit import Moments
from edgeecc.solvers.recording import Seer, recorded
from edgeecc.solvers.reference import Given, Reference
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.unfold import columns, is_known, matrix

#: Inputs of a filter at most: the second moments of more than 16,384 take over 2 GiB.
INPUTS = 2**14
#: Bytes of moments that are summed in one look at the images, where one layer does not need more.
TOGETHER = 2**28


def mean_squares(
    model: nn.Module, layers: Sequence[str], sample: Sample
) -> Dict[str, torch.Tensor]:
    """Return the mean square of what each weight multiplies, (g, 1, d), of layers that are known and run."""
    total: Dict[str, torch.Tensor] = {}
    count: Dict[str, int] = {}

    def add(name: str, read: torch.Tensor) -> None:
        total[name] = total.get(name, 0.0) + read.square().sum(1, keepdim=True)
        count[name] = count.get(name, 0) + read.shape[1]

    _reads(model, layers, sample, add)
    return {name: total[name] / count[name] for name in total}


def grams(model: nn.Module, layers: Sequence[str], sample: Sample) -> Dict[str, torch.Tensor]:
    """Return the second moments X'X of what layers read, (g, d, d), all in one look at the images.

    Returns: none for layers that are not known, do not run, or have more than INPUTS inputs to a filter.
    """
    total: Dict[str, torch.Tensor] = {}

    def add(name: str, read: torch.Tensor) -> None:
        total[name] = total[name].baddbmm_(read.mT, read) if name in total else read.mT @ read

    _reads(model, [name for name in layers if _fits(model.get_submodule(name))], sample, add)
    return total


def _reads(
    model: nn.Module,
    layers: Sequence[str],
    sample: Sample,
    add: Callable[[str, torch.Tensor], None],
) -> None:
    """Show what each layer that is known reads, (g, p, d), call by call."""

    def seer(name: str) -> Seer:
        module, places = model.get_submodule(name), sample.places()

        def see(x: torch.Tensor, y: torch.Tensor) -> None:
            add(name, _columns(module, x, y, places.of(module, y)))

        return see

    known = [name for name in layers if is_known(model.get_submodule(name))]
    with recorded(model, {name: seer(name) for name in known}) as recorder:
        for images in sample.chunks():
            recorder.run(images, {})


def moments(model: nn.Module, reference: Reference, layers: Sequence[str]) -> Dict[str, Moments]:
    """Return the moments of what layers read now with what they gave in the reference, less their biases now.

    All come from one look at the images, which ends with the last of the layers.

    Args:
        layers: each named once, and to the reference as well.
    Returns: none for a layer that is not known, does not run, or has more than INPUTS inputs to a filter.
    """
    total: Dict[str, Moments] = {}
    wanted: Dict[str, Iterator[Given]] = {}

    def seer(name: str) -> Seer:
        module = model.get_submodule(name)

        def see(x: torch.Tensor, y: torch.Tensor) -> None:
            given = next(wanted[name], None)
            if given is None:
                return
            if y.shape != given.shape:
                raise ConfigError(
                    f"{name} gives {tuple(y.shape)}, and {tuple(given.shape)} in the dense network; give its copy"
                )
            rows = given.rows.double()
            bias = getattr(module, "bias", None)
            if bias is not None:
                rows = rows - bias.detach().double().reshape(len(rows), 1, -1)
            total[name] = _added(total.get(name), _columns(module, x, y, given.places), rows)

        return see

    fitting = [name for name in layers if _fits(model.get_submodule(name))]
    for images, calls in reference.chunks(fitting):
        wanted.update({name: iter(found) for name, found in calls.items()})
        with recorded(model, {name: seer(name) for name in fitting}) as recorder:
            recorder.run(images, {name: len(found) for name, found in calls.items()})
    return total


def moments_in_turn(
    model: nn.Module, reference: Reference, layers: Sequence[str]
) -> Iterator[Optional[Moments]]:
    """Yield the moments of layers in turn, of several from one look; the network must stay as it is meanwhile.

    Args:
        layers: may be named several times.
    Yields: None for a layer that has none, see `moments`.
    """
    for several in _together(model, layers):
        found = moments(model, reference, list(dict.fromkeys(several)))
        yield from (found.get(name) for name in several)


def _together(model: nn.Module, layers: Sequence[str]) -> Iterator[List[str]]:
    """Yield runs of layers whose moments take at most TOGETHER bytes, at least one layer in each."""
    several: List[str] = []
    room = TOGETHER
    for name in layers:
        module = model.get_submodule(name)
        size = _bytes(module) if _fits(module) else 0
        if several and size > room:
            yield several
            several, room = [], TOGETHER
        several.append(name)
        room -= size
    if several:
        yield several


def _columns(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Return what positions read, (g, p, d), float64."""
    size = None if isinstance(module, nn.Linear) else tuple(y.shape[2:])
    return columns(module, x, places=places, size=size).double()


def _added(total: Optional[Moments], x: torch.Tensor, y: torch.Tensor) -> Moments:
    if total is None:
        return Moments(x.mT @ x, x.mT @ y, y.square().sum(1))
    total.gram.baddbmm_(x.mT, x)
    total.cross.baddbmm_(x.mT, y)
    total.energy.add_(y.square().sum(1))
    return total


def _fits(module: nn.Module) -> bool:
    """Return whether a layer is known and has few enough inputs."""
    return is_known(module) and _matrix(module).shape[2] <= INPUTS


def _bytes(module: nn.Module) -> int:
    """Return what the moments of a known layer take."""
    groups, outs, inputs = _matrix(module).shape
    return 8 * groups * inputs * (inputs + outs)


def _matrix(module: nn.Module) -> torch.Tensor:
    return matrix(module, module.get_parameter("weight").detach())
