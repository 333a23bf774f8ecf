"""What layers of a network read and give while it looks at images.

The network runs in evaluation mode without gradients, and no further than it must; modes and hooks are as before
afterwards, also when it fails. A call is seen when it is made: what comes after may write over its tensors.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, Mapping, Tuple

import torch
from torch import nn

#: Sees what a layer read and what it gave.
Seer = Callable[[torch.Tensor, torch.Tensor], None]


class _Enough(BaseException):  # no error, and nothing that a network's own handlers may catch
    """Every call that was asked for is made."""


class Recorder:
    """Runs a network while the context of `recorded` is open."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._left: Dict[str, int] = {}

    def run(self, images: torch.Tensor, counts: Mapping[str, int]) -> None:
        """Look at images until each layer was called so many times at least.

        Args:
            images: (n, C, H, W), on any device.
            counts: calls of layers that are enough; without any the whole network runs.
        """
        self._left = {name: count for name, count in counts.items() if count > 0}
        if counts and not self._left:
            return
        with torch.no_grad(), contextlib.suppress(_Enough):
            self._model(images.to(next(self._model.parameters()).device))

    def hook(self, name: str, see: Seer) -> Any:  # a hook, whose type torch spells with Any
        """Return what makes a layer's calls seen."""

        def write(
            _: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any], y: torch.Tensor
        ) -> None:
            see(args[0] if args else kwargs["input"], y)
            if name in self._left:
                self._left[name] -= 1
                if not self._left[name]:
                    del self._left[name]
                    if not self._left:
                        raise _Enough

        return write


@contextlib.contextmanager
def recorded(model: nn.Module, seers: Mapping[str, Seer]) -> Iterator[Recorder]:
    """Show what layers, by name, read and give while the context is open."""
    modes = {module: module.training for module in model.modules()}
    recorder = Recorder(model)
    with contextlib.ExitStack() as stack:
        for name, see in seers.items():
            layer = model.get_submodule(name)
            handle = layer.register_forward_hook(recorder.hook(name, see), with_kwargs=True)
            stack.callback(handle.remove)
        try:
            model.eval()
            yield recorder
        finally:
            for module, mode in modes.items():
                module.training = mode
