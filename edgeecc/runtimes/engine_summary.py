"""What an engine consists of, from the inspector's JSON, whose form differs between releases.

Up to 10 a tensor has one field "Format/Datatype" in words; from 11 on "Format" and a data type are apart. Without
detailed verbosity a layer is only its name.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

#: Layers that are named in a summary.
_NAMED_LAYERS = 5
#: A longer text is no inspector's; it is not parsed.
_MAX_CHARACTERS = 64 * 2**20
#: Words for a precision, the narrow ones first: "Half" is fp16, "Int8" int8.
_WORDS = (
    ("int4", r"int4"),
    ("int8", r"int8|uint8"),
    ("fp4", r"fp4"),
    ("fp8", r"fp8|e4m3"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|half|float16"),
    ("fp32", r"fp32|float32|float"),
    ("int64", r"int64"),
    ("int32", r"int32"),
    ("bool", r"bool"),
)


@dataclass(frozen=True)
class LayerSize:
    """One layer of an engine: its name, kind, weights, and elements that it writes."""

    name: str
    kind: str
    weights: int
    written: int


@dataclass(frozen=True)
class EngineSummary:
    """What an engine consists of.

    Args:
        layers: number of layers after fusion.
        precisions: precision -> layers that compute in it: of their weights, otherwise of what they write.
        largest: layers with the most weights, then the most output.
    """

    layers: int
    precisions: Mapping[str, int]
    largest: Tuple[LayerSize, ...]

    def to_json(self) -> Dict[str, object]:
        """Return it JSON-ready."""
        return {
            "layers": self.layers,
            "precisions": dict(self.precisions),
            "largest": [vars(item) for item in self.largest],
        }


def summarise(text: str, layers: int) -> EngineSummary:
    """Return the summary of an engine.

    Args:
        text: the inspector's JSON; what cannot be read of it is left out.
        layers: number of layers as the engine itself says, which counts when the text has none.
    """
    found = _layers(text)
    detailed = [item for item in found if isinstance(item, dict)]
    precisions = Counter(filter(None, map(_precision, detailed)))
    sizes = sorted(map(_size, detailed), key=lambda item: (-item.weights, -item.written))
    return EngineSummary(
        layers=len(found) or layers,
        precisions=dict(sorted(precisions.items())),
        largest=tuple(sizes[:_NAMED_LAYERS]),
    )


def _layers(text: str) -> List[object]:
    if len(text) > _MAX_CHARACTERS:
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    layers = document.get("Layers") if isinstance(document, dict) else None
    return layers if isinstance(layers, list) else []


def _precision(layer: Mapping[str, object]) -> Optional[str]:
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (found := _named(weights.get("Type"))):
        return found
    for tensor in (*_tensors(layer, "Outputs"), *_tensors(layer, "Inputs")):
        for key, value in tensor.items():
            if "type" in key.lower() and (found := _named(value)):
                return found
        if found := _named(tensor.get("Format")):
            return found
    return None


def _named(words: object) -> Optional[str]:
    text = str(words).lower()
    return next((name for name, pattern in _WORDS if re.search(pattern, text)), None)


def _size(layer: Mapping[str, object]) -> LayerSize:
    weights = layer.get("Weights")
    count = weights.get("Count") if isinstance(weights, dict) else 0
    return LayerSize(
        name=str(layer.get("Name", "?"))[:200],
        kind=str(layer.get("ParameterType") or layer.get("LayerType") or "?")[:80],
        weights=count if isinstance(count, int) else 0,
        written=sum(map(_elements, _tensors(layer, "Outputs"))),
    )


def _elements(tensor: Mapping[str, object]) -> int:
    sizes = tensor.get("Dimensions")
    if not isinstance(sizes, list) or not all(isinstance(size, int) for size in sizes):
        return 0
    return math.prod(sizes)


def _tensors(layer: Mapping[str, object], key: str) -> List[Mapping[str, object]]:
    items = layer.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
