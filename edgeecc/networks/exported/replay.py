"""An exported program as a module: layers at their original names, everything else replayed step by step.

Layers get their module back (`edgeecc.networks.exported.layers`), dropout follows training mode again, and the
remaining operators run as the program lists them. No code is generated from a file that may come from anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import ArtifactError, GraphError
from edgeecc.networks.exported.aten import Operator, is_check, kind_of, operator_of
from edgeecc.networks.exported.layers import layer_modules
from edgeecc.networks.exported.program import Operation, Program, Value

_DROPOUTS = ("dropout", "dropout_", "feature_dropout")

OnValue = Callable[["Step", object], None]


@dataclass(frozen=True)
class Step:
    """One step of the replay.

    Args:
        name: of the program's node.
        module: name of the module that is called, empty for an operator.
        operator: what is called where there is no module.
        args, kwargs: constants, `Value`, or lists of them; a module has one argument.
        results: names of what it returns, as `Operation.results`.
        follows_training: whether its third argument is the training mode.
        last: values that no later step reads.
    """

    name: str
    module: str
    operator: Optional[Operator]
    args: Tuple[object, ...]
    kwargs: Mapping[str, object]
    results: Tuple[object, ...]
    follows_training: bool
    last: Tuple[str, ...]


class ExportedNetwork(nn.Module):
    """A rebuilt network: modules by their original names, and the steps that call them.

    Forward takes the program's inputs in order and returns its output, or a tuple of them in the order in which
    torch flattens what the original returned.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        modules, places = layer_modules(program)
        self._inputs = tuple(item.name for item in program.inputs)
        self._outputs = program.outputs
        self._state = dict(program.state)
        self._steps = _steps(program, places)
        _attach_(self, modules, program)  # last: a tensor may not take the name of any of these

    def forward(self, *inputs: torch.Tensor) -> object:
        """Run the program; any batch size."""
        return self.replay(inputs, lambda step, value: None)

    def replay(self, inputs: Sequence[torch.Tensor], on_value: OnValue) -> object:
        """Run the program and show each step's result.

        Raises: GraphError when the number of inputs is wrong.
        """
        if len(inputs) != len(self._inputs):
            raise GraphError(
                f"the program takes {len(self._inputs)} inputs, got {len(inputs)}; give one each"
            )
        values: Dict[str, object] = {name: self._stored(path) for name, path in self._state.items()}
        values.update(zip(self._inputs, inputs))
        for step in self._steps:
            result = self._run(step, values)
            on_value(step, result)
            _keep_(values, step, result)
        outputs = tuple(values[name] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, step: Step, values: Mapping[str, object]) -> object:
        args = [_filled(argument, values) for argument in step.args]
        kwargs = {name: _filled(argument, values) for name, argument in step.kwargs.items()}
        if step.module:
            return self.get_submodule(step.module)(*args)
        if step.follows_training:
            args[2:] = [self.training]
        assert step.operator is not None  # noqa: S101  # a step has a module or an operator
        return step.operator(*args, **kwargs)

    def _stored(self, path: str) -> object:
        owner, _, leaf = path.rpartition(".")
        return getattr(self.get_submodule(owner), leaf)


def _attach_(model: nn.Module, modules: Mapping[str, nn.Module], program: Program) -> None:
    """Put modules and stored tensors at their names.

    Raises: ArtifactError when a name is taken.
    """
    try:
        for name in sorted(modules):
            owner, _, leaf = name.rpartition(".")
            _container(model, owner).add_module(leaf, modules[name])
        for name, tensor in program.tensors.items():
            owner, _, leaf = name.rpartition(".")
            _store_(_container(model, owner), leaf, tensor, persistent=name in program.persistent)
        for module in modules.values():
            counter = getattr(module, "num_batches_tracked", None)
            if isinstance(counter, torch.Tensor) and counter.is_meta:
                module.register_buffer(
                    "num_batches_tracked", torch.zeros_like(counter, device="cpu")
                )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"the program's tensor names clash: {error}; rename that module and export it again"
        ) from error


def _container(model: nn.Module, name: str) -> nn.Module:
    """Return the module of this name; empty ones are made on the way."""
    for part in name.split(".") if name else ():
        if part not in model._modules:
            model.add_module(part, nn.Module())
        model = model.get_submodule(part)
    return model


def _store_(owner: nn.Module, leaf: str, tensor: torch.Tensor, *, persistent: bool) -> None:
    owner._parameters.pop(leaf, None)  # a layer's own, without data
    owner._buffers.pop(leaf, None)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor, persistent=persistent)


def _steps(program: Program, places: Mapping[str, str]) -> Tuple[Step, ...]:
    """Return what is to be replayed; each step names the values that nothing after it reads."""
    operations = [item for item in program.operations if not is_check(item.target)]
    needed = set(program.outputs)
    steps: List[Step] = []
    for operation in reversed(operations):
        module = places.get(operation.name, "")
        arguments = _arguments(operation, module)
        read = {name for argument in arguments.values() for name in _names(argument)}
        made = {name for result in operation.results for name in _names(result)}
        last = tuple(sorted((read | made) - needed))
        needed |= read
        positional = 1 if module else operation.positional
        items = list(arguments.items())
        steps.append(
            Step(
                name=operation.name,
                module=module,
                operator=None if module else operator_of(operation),
                args=tuple(argument for _, argument in items[:positional]),
                kwargs=dict(items[positional:]),
                results=operation.results,
                follows_training=kind_of(operation.target) in _DROPOUTS,
                last=last,
            )
        )
    return tuple(reversed(steps))


def _arguments(operation: Operation, module: str) -> Mapping[str, object]:
    if not module:
        return operation.arguments
    return {
        name: operation.arguments[name] for name in ("input", "self") if name in operation.arguments
    }


def _names(argument: object) -> List[str]:
    """Return the values that an argument or a result names, in lists too."""
    if isinstance(argument, (list, tuple)):
        return [name for item in argument for name in _names(item)]
    if isinstance(argument, Value):
        return [argument.name]
    return [argument] if isinstance(argument, str) else []


def _filled(argument: object, values: Mapping[str, object]) -> object:
    """Return an argument with the values of the graph filled in."""
    if isinstance(argument, Value):
        return values[argument.name]
    if isinstance(argument, list):
        return [_filled(item, values) for item in argument]
    return argument


def _keep_(values: Dict[str, object], step: Step, result: object) -> None:
    """Keep what a step returned under its names, and forget what nobody reads any more."""
    found = [result] if len(step.results) == 1 else list(result)  # type: ignore[call-overload]  # a tuple
    for name, value in zip(step.results, found):
        if isinstance(name, list):
            values.update(zip(name, value))
        elif isinstance(name, str):
            values[name] = value
    for name in step.last:
        values.pop(name, None)
