"""A network at random in which every channel matters: the ground on which groups are proved.

Zero weights, dead channels or a blank example input would let a wrong cut pass unseen, and so would depth:
where each layer damps what came before, nothing of an early channel reaches the output. So parameters are
random, noise is added to the inputs, and every layer is scaled to an output of size one as the signal passes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Dict, Iterator, List, Tuple

import torch
from torch import nn

from edgeecc.errors import GraphError, brief
from edgeecc.graph.coupling import LAYERS
from edgeecc.graph.outputs import tensors

#: Precision -> largest difference, relative to the largest output, that is put down to rounding.
#: Some forwards cast to float32 themselves, so float64 cannot always be had.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5}


@dataclass(frozen=True)
class Trial:
    """A lively network, inputs that it accepts, and its rounding, relative to the largest output."""

    model: nn.Module
    inputs: Tuple[torch.Tensor, ...]
    tolerance: float

    def run(self, model: nn.Module) -> List[torch.Tensor]:
        """Return the outputs of a variant; inputs are cloned, as a forward may work in place."""
        with torch.no_grad():
            return tensors(model(*(x.clone() for x in self.inputs)))


def lively_trial(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...], seed: int) -> Trial:
    """Return a trial: in float64 and on noisy inputs where the network takes them.

    Args:
        model: not modified.
        example_inputs: the forward arguments.
        seed: of all that is random.
    Raises: GraphError when the network gives no finite output in any precision.
    """
    fault = ""
    for dtype, inputs in _attempts(example_inputs, seed):
        try:
            trial = Trial(_lively(model, inputs, dtype, seed), inputs, TOLERANCES[dtype])
            if not any(bool(x.isnan().any()) for x in trial.run(trial.model)):
                return trial
            fault = "it gives values that are not numbers"
        except GraphError:
            raise
        except Exception as error:  # a forward may raise anything; the next attempt asks less of it
            fault = f"{type(error).__name__}: {brief(error)}"
    raise GraphError(
        f"no group can be proved: with random float32 parameters on the CPU, {fault}; make forward take them"
    )


def _attempts(
    example_inputs: Tuple[torch.Tensor, ...], seed: int
) -> Iterator[Tuple[torch.dtype, Tuple[torch.Tensor, ...]]]:  # fmt: skip
    """Yield precision and inputs, the most telling first. The noise is positive: some inputs must be."""
    for dtype in TOLERANCES:
        plain = tuple(x.to(dtype) if x.is_floating_point() else x for x in example_inputs)
        generator = torch.Generator().manual_seed(seed)
        yield (
            dtype,
            tuple(
                x + torch.rand(x.shape, generator=generator, dtype=dtype)
                if x.is_floating_point()
                else x
                for x in plain
            ),
        )
        yield dtype, plain


def _lively(
    model: nn.Module, inputs: Tuple[torch.Tensor, ...], dtype: torch.dtype, seed: int
) -> nn.Module:
    lively = copy.deepcopy(model).to(dtype).eval()
    _randomise_(lively, seed)
    pending: Dict[nn.Module, torch.utils.hooks.RemovableHandle] = {}

    def scale(
        module: nn.Module, args: Tuple[object, ...], kwargs: Dict[str, object], out: object
    ) -> object:
        pending.pop(module).remove()  # a shared layer is scaled by its first call
        weight = module._parameters.get("weight")  # a parametrised weight is none of our business
        size = float(out.square().mean().sqrt()) if isinstance(out, torch.Tensor) else 0.0
        if weight is None or not 0.0 < size < float("inf"):
            return out
        weight.div_(size)
        return module.forward(*args, **kwargs)

    for module in lively.modules():
        if isinstance(module, LAYERS):
            pending[module] = module.register_forward_hook(scale, with_kwargs=True)
    with torch.no_grad():
        lively(*(x.clone() for x in inputs))
    for handle in pending.values():
        handle.remove()
    return lively


def _randomise_(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.ndim >= 2:
                value.normal_(0.0, 1.0 / max(1, value[0].numel()) ** 0.5, generator=generator)
            else:
                value.normal_(0.0, 0.1, generator=generator)
