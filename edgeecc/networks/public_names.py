"""Public implementations that name a table network's tensors otherwise than we do, or hold more of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Tuple, TypeVar

from edgeecc.networks.mobilenet import FAMILIES
from edgeecc.networks.readers import OptionValue

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """How a public implementation names its tensors.

    Args:
        prefixes: of its names, all present in its weights -> what stands for them here.
        unused: prefixes of tensors that the forward pass does not read and our network lacks.
        options: of our builder, where it must compute as this implementation does.
    """

    prefixes: Mapping[str, str] = field(default_factory=dict)
    unused: Tuple[str, ...] = ()
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    def fits(self, tensors: Mapping[str, object]) -> bool:
        """Tell whether every name that this layout speaks of is there."""
        spoken = (*self.prefixes, *self.unused)
        return all(any(name.startswith(prefix) for name in tensors) for prefix in spoken)

    def rename(self, tensors: Mapping[str, T]) -> Dict[str, T]:
        """Return the used tensors under our names; a name that no prefix covers stays."""
        return {
            self._ours(name): value
            for name, value in tensors.items()
            if not name.startswith(self.unused or ("\0",))
        }

    def _ours(self, name: str) -> str:
        for public, own in self.prefixes.items():
            if name.startswith(public):
                return own + name[len(public) :]
        return name


def in_our_names(
    network: str, tensors: Mapping[str, T]
) -> Tuple[Dict[str, T], Mapping[str, OptionValue]]:  # fmt: skip
    """Return tensors of a public checkpoint under our names, and the options of our builder that it needs.

    Args:
        network: a name in the table, or a reference of the user's own, whose names are left alone.
        tensors: by name; tensors of no known layout come back as they are.
    """
    layout = _layout(network, tensors)
    return (dict(tensors), {}) if layout is None else (layout.rename(tensors), layout.options)


def _layout(network: str, tensors: Mapping[str, object]) -> Optional[Layout]:
    return next((known for known in LAYOUTS.get(network, ()) if known.fits(tensors)), None)


def _stacked(first: int) -> Dict[str, str]:
    """Return the prefixes of a MobileNetV1 that is one sequence of blocks, their weights from place `first` on."""
    parts = ((first, "conv"), (first + 1, "bn"))
    names = {f"model.0.{place}.": f"stem.{part}." for place, part in parts}
    for pair in range(len(FAMILIES["mobilenet_v1"].pairs)):
        for place, part in parts:
            names[f"model.{pair + 1}.{place}."] = f"dw.{pair}.{part}."
            names[f"model.{pair + 1}.{place + 3}."] = f"pw.{pair}.{part}."
    return names


LAYOUTS: Mapping[str, Tuple[Layout, ...]] = {
    "mobilenet_v1": (
        # marvis/pytorch-mobilenet, and the many that build on it
        Layout(_stacked(0), options={"style": "relu"}),
        # hyang1990/energy_constrained_compression: ECC's, a padding module before each convolution
        Layout(_stacked(1), options={"style": "tensorflow"}),
    ),
    # Eromera/erfnet_pytorch trains the encoder with a head of its own first, and keeps that head in the file
    "erfnet": (Layout(unused=("encoder.output_conv.",)),),
}
