"""What the layers of a network read and give on sample images, summed into second moments.

Networks run in evaluation mode without gradients; modes and hooks are as before afterwards, also when a network
fails. Images go through in chunks, and of each image few positions of a layer are taken, so that memory is that
of one chunk, whatever the sample.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from edgeecc.data.splits import images_together
from edgeecc.errors import ConfigError
from edgeecc.solvers.local_fit import Moments
from edgeecc.solvers.unfold import columns, is_known, matrix, outputs, pick, positions

#: Images that run together at most.
IMAGES = 64
#: Output positions of an image that are sampled.
POSITIONS = 10
#: Inputs of a filter at most: the second moments of more than 16,384 take over 2 GiB.
INPUTS = 2**14

#: What a layer read and what it gave.
Call = Tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """Images to look at networks with.

    Args:
        images: (N, C, H, W), normalised as for training; N >= 1.
        seed: of the positions.
    Raises: ConfigError without images.
    """

    images: torch.Tensor
    seed: int

    def __post_init__(self) -> None:
        if not len(self.images):
            raise ConfigError("a local fit needs images; give at least one")

    def chunks(self) -> Iterator[torch.Tensor]:
        """Return the images, so many together."""
        together = images_together(self.images.shape, IMAGES)
        return (self.images[at : at + together] for at in range(0, len(self.images), together))


def mean_squares(
    model: nn.Module, layers: Sequence[str], sample: Sample
) -> Dict[str, torch.Tensor]:
    """Return the mean square of what each weight multiplies, (g, 1, d), of layers that are known and run."""
    total: Dict[str, torch.Tensor] = {}
    count: Dict[str, int] = {}
    for name, read in _reads(model, layers, sample):
        total[name] = total.get(name, 0.0) + read.square().sum(1, keepdim=True)
        count[name] = count.get(name, 0) + read.shape[1]
    return {name: total[name] / count[name] for name in total}


def grams(model: nn.Module, layers: Sequence[str], sample: Sample) -> Dict[str, torch.Tensor]:
    """Return the second moments X'X of what layers read, (g, d, d), all in one pass over the images.

    Returns: none for layers that are not known, do not run, or have more than INPUTS inputs to a filter.
    """
    total: Dict[str, torch.Tensor] = {}
    fitting = [name for name in layers if is_known(model.get_submodule(name))]
    fitting = [name for name in fitting if _inputs(model.get_submodule(name)) <= INPUTS]
    for name, read in _reads(model, fitting, sample):
        total[name] = total[name].baddbmm_(read.mT, read) if name in total else read.mT @ read
    return total


def _reads(
    model: nn.Module, layers: Sequence[str], sample: Sample
) -> Iterator[Tuple[str, torch.Tensor]]:
    """Yield what each layer that is known reads, (g, p, d), call by call."""
    known = [name for name in layers if is_known(model.get_submodule(name))]
    generator = torch.Generator().manual_seed(sample.seed)
    with recorded(model, known) as calls:
        for images in sample.chunks():
            _run(model, images)
            for name in known:
                for x, y in calls[name]:
                    yield name, _rows(model.get_submodule(name), x, y, generator)[0]
                calls[name].clear()


def moments(model: nn.Module, reference: nn.Module, name: str, sample: Sample) -> Optional[Moments]:
    """Return the moments of what a layer reads now with what it gave in the reference, less its bias now.

    Returns: None for a layer that is not known, does not run, or has more than INPUTS inputs to a filter.
    """
    module = model.get_submodule(name)
    if not is_known(module) or _inputs(module) > INPUTS:
        return None
    total: Optional[Moments] = None
    generator = torch.Generator().manual_seed(sample.seed)
    with recorded(model, [name]) as now, recorded(reference, [name]) as then:
        for images in sample.chunks():
            _run(model, images)
            _run(reference, images)
            for (x, y), (_, wanted) in zip(now[name], then[name]):
                if y.shape != wanted.shape:
                    raise ConfigError(
                        f"{name} gives {tuple(y.shape)}, and {tuple(wanted.shape)} in the dense network; give its copy"
                    )
                read, given = _rows(module, x, wanted, generator)
                total = _added(total, read, given)
            now[name].clear()
            then[name].clear()
    return total


@contextlib.contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[Mapping[str, List[Call]]]:
    """Write down what layers read and give while the context is open, in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    calls: Dict[str, List[Call]] = {name: [] for name in layers}
    with contextlib.ExitStack() as stack:
        for name in layers:
            handle = model.get_submodule(name).register_forward_hook(
                _writer(calls[name]), with_kwargs=True
            )
            stack.callback(handle.remove)
        try:
            model.eval()
            yield calls
        finally:
            for module, mode in modes.items():
                module.training = mode


def _writer(calls: List[Call]) -> Any:  # a hook, whose type torch spells with Any
    def write(_: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any], y: torch.Tensor) -> None:
        calls.append((args[0] if args else kwargs["input"], y))

    return write


def _run(model: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        model(images.to(next(model.parameters()).device))


def _rows(module: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> Call:
    """Return what the same positions read, (g, p, d), and gave, (g, p, o) less the bias, float64."""
    linear = isinstance(module, nn.Linear)
    images = 1 if y.ndim == 1 else len(y)
    places = pick(images, positions(module, y), POSITIONS, generator=generator).to(x.device)
    size = None if linear else tuple(y.shape[2:])
    read = columns(module, x, places=places, size=size).double()
    given = outputs(module, y, places=places).double()
    bias = getattr(module, "bias", None)
    if bias is not None:
        given = given - bias.detach().double().reshape(len(given), 1, -1)
    return read, given


def _added(total: Optional[Moments], x: torch.Tensor, y: torch.Tensor) -> Moments:
    if total is None:
        return Moments(x.mT @ x, x.mT @ y, y.square().sum(1))
    total.gram.baddbmm_(x.mT, x)
    total.cross.baddbmm_(x.mT, y)
    total.energy.add_(y.square().sum(1))
    return total


def _inputs(module: nn.Module) -> int:
    """Return how many inputs a filter of a known layer has."""
    return matrix(module, module.get_parameter("weight").detach()).shape[2]
