"""A trainable network from a program of `torch.export`: what it takes, and the trial that it must pass.

What export has written down as a number, such as the channel count in `x.view(n, 2, 4, h, w)`, stays that number:
channels that such a view counts stay whole where they no longer fit, and `edgeecc inspect` says so.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Optional, Sequence, Tuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from edgeecc.errors import ArtifactError, GraphError, brief
from edgeecc.networks.exported.program import Program
from edgeecc.networks.exported.replay import ExportedNetwork, Step

#: Elements that all steps together may make from the example input; ERFNet at 512x1024 makes 0.5e9.
MAX_ELEMENTS = 2**32
#: Largest number that a step may make of sizes.
MAX_SIZE = 2**48
_EXAMPLE = "torch.export.export(model.eval(), (torch.zeros(2, ...),), dynamic_shapes=({0: torch.export.Dim('batch')},))"


def rebuild(program: Program, shapes: Sequence[Tuple[int, ...]]) -> ExportedNetwork:
    """Return the module of a program, in eval mode.

    Args:
        program: see `edgeecc.networks.exported.pt2.read_program`.
        shapes: of an example of every input, batch 1. Every step is tried on it without computing anything, so that
            a program that would take all memory is refused.
    Raises: GraphError naming the node that cannot be rebuilt; ArtifactError when names of tensors clash.
    """
    model = ExportedNetwork(program).eval()
    for shape in shapes:
        _bounded("the input", math.prod(shape))
    _try(model, [(shape, item.dtype) for shape, item in zip(shapes, program.inputs)])
    return model


def input_shape_of(
    program: Program, given: Optional[Tuple[int, ...]], path: Path
) -> Tuple[int, ...]:  # fmt: skip
    """Return the input shape without batch: the program's, or what is given where it leaves sizes free.

    Raises: GraphError when the program takes more than one input, other numbers than float32, or one batch size
        only; ArtifactError when `given` is not what it takes.
    """
    if len(program.inputs) != 1:
        raise GraphError(
            f"{path} takes {len(program.inputs)} inputs; edgeecc prunes networks of one image, fix the others and "
            "export it again"
        )
    (taken,) = program.inputs
    if taken.dtype != torch.float32:
        raise GraphError(
            f"{path} takes {str(taken.dtype)[6:]} inputs; export model.float() with a float32 example"
        )
    if not taken.sizes or taken.sizes[0] is not None:
        fixed = taken.sizes[0] if taken.sizes else "no dimension"
        raise GraphError(
            f"{path} takes batches of {fixed} only; export it with a dynamic batch: {_EXAMPLE}"
        )
    found = tuple(
        asked if size is None else size
        for size, asked in zip(taken.sizes[1:], given or taken.example[1:])
    )
    sizes = tuple(size for size in found if size is not None)
    if len(sizes) != len(taken.sizes) - 1 or (given is not None and given != sizes):
        wants = "x".join("any" if size is None else str(size) for size in taken.sizes[1:])
        raise ArtifactError(
            f"{path} takes inputs of {wants}; give that as --input, or leave it out"
        )
    return sizes


def _try(model: ExportedNetwork, examples: Sequence[Tuple[Tuple[int, ...], torch.dtype]]) -> None:
    """Run the network on tensors without data and count what it makes.

    Raises: GraphError naming the step that fails, or with which it makes more than it may.
    """
    total, at = 0, "its inputs"

    def count(step: Step, value: object) -> None:
        nonlocal total, at
        at = f"{step.name} ({step.module or step.operator})"
        total += sum(
            _elements(item, at) for item in (value if isinstance(value, (list, tuple)) else [value])
        )
        _bounded(at, total)

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode, torch.no_grad():
            model.replay([torch.empty(shape, dtype=dtype) for shape, dtype in examples], count)
    except GraphError:
        raise
    except Exception as error:  # the program may ask anything of its operators
        raise GraphError(
            f"the program fails after {at}: {type(error).__name__}: {brief(error)}; export it again"
        ) from error


def _elements(value: object, at: str) -> int:
    if isinstance(value, int) and abs(value) > MAX_SIZE:
        raise GraphError(f"{at} makes the size {value:.1e}; export the program again")
    return value.numel() if isinstance(value, torch.Tensor) else 0


def _bounded(at: str, elements: int) -> None:
    if elements > MAX_ELEMENTS:
        raise GraphError(
            f"up to {at} the program makes {elements:.1e} numbers of one image, more than {MAX_ELEMENTS:.1e}; "
            "export it for a smaller input"
        )
