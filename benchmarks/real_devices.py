"""Cost models on real measurements: error on networks composed from published tables, held out of the fit.

Every table holds what single layers took on a device, by channels. Networks are chains of these layers, their costs the
sums of the measured ones; widths are drawn from the tables' grids. A fit sees `--samples` networks, the error is taken
on 500 others. Seeds draw both.

    python benchmarks/real_devices.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from mlp import mlp_predictions
from unbounded import unbounded_predictions

from edgeecc.cost.choose import Predict, Recipe, choose
from edgeecc.cost.fit import fit
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.graph.spec import ChannelGroup, FloatArray, LayerSpec, NetworkSpec, WidthForm
from edgeecc.units import Metric

#: (input channels, output channels) -> cost.
Table = Mapping[Tuple[int, int], float]
HELD_OUT = 500
FORMS = (
    "bilinear",
    "bilinear+linear",
    "bilinear+linear+tiles:8",
    "bilinear+linear+tiles:32",
    "bilinear+linear+tiles:64",
)
#: A layer that costs so much less with more channels breaks what solvers rely on, noise aside.
FALL = 0.02
#: Hidden layers of the perceptrons.
DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Layer:
    """A layer of a composed network.

    Args:
        reads, makes: groups that it reads and makes; None for an end of `fixed` channels.
        table: its costs.
        kernel, in_side, out_side: sides of its kernel and of its maps, pixels; a wide map has twice the columns.
        wide: columns of a map for each row.
        convolutions: of one block, all but the first from outputs to outputs.
    """

    reads: Optional[int]
    makes: Optional[int]
    fixed: int
    table: Table
    kernel: int = 1
    in_side: int = 1
    out_side: int = 1
    wide: int = 1
    convolutions: int = 1

    def cost(self, widths: Sequence[int]) -> Optional[float]:
        """Return what it costs, where that was measured."""
        key = tuple(
            self.fixed if group is None else widths[group] for group in (self.reads, self.makes)
        )
        return self.table.get(key)  # type: ignore[arg-type]  # a pair


@dataclass(frozen=True)
class Composed:
    """A network composed of measured layers: the widths that each group may have, and its layers in order."""

    name: str
    grids: Tuple[Tuple[int, ...], ...]
    layers: Tuple[Layer, ...]

    def spec(self) -> NetworkSpec:
        """Return it as a spec, as far as cost models look."""
        groups = tuple(ChannelGroup(f"g{at}", grid[-1], ()) for at, grid in enumerate(self.grids))

        def form(group: Optional[int], fixed: int) -> WidthForm:
            return WidthForm(fixed) if group is None else WidthForm(0, ((f"g{group}", 1),))

        layers = tuple(
            LayerSpec(
                f"layer{at}", "depthwise" if layer.reads == layer.makes else "conv", form(layer.reads, layer.fixed),
                form(layer.makes, layer.fixed), kernel=(layer.kernel, layer.kernel), stride=(1, 1), dilation=(1, 1),
                padding=(0, 0), groups=1, in_size=(layer.in_side, layer.wide * layer.in_side),
                out_size=(layer.out_side, layer.wide * layer.out_side), calls=1, dense_macs=self._macs(layer),
                bias=False,
            )
            for at, layer in enumerate(self.layers)
        )  # fmt: skip
        return NetworkSpec(self.name, ((1, 3, 1, 1),), groups, layers, ())

    def _macs(self, layer: Layer) -> int:
        reads, makes = (
            layer.fixed if group is None else self.grids[group][-1]
            for group in (layer.reads, layer.makes)
        )
        pairs = makes if layer.reads == layer.makes else reads * makes
        pairs += (layer.convolutions - 1) * makes * makes
        return layer.kernel**2 * pairs * layer.wide * layer.out_side**2

    def draw(self, count: int, generator: np.random.Generator) -> Tuple[FloatArray, FloatArray]:
        """Return widths (N, G), uniform on the grids where all layers were measured, and costs (N,)."""
        widths: List[List[int]] = []
        costs: List[float] = []
        while len(widths) < count:
            drawn = [int(grid[generator.integers(len(grid))]) for grid in self.grids]
            parts = [layer.cost(drawn) for layer in self.layers]
            if None not in parts:
                widths.append(drawn)
                costs.append(sum(part for part in parts if part is not None))
        return np.array(widths, dtype=np.float64), np.array(costs)

    def falls(self) -> float:
        """Return the share of steps to the next more output channels that make a layer cheaper by over FALL."""
        steps = [
            more < (1.0 - FALL) * less
            for layer in self.layers
            for read in sorted({read for read, _ in layer.table})
            for less, more in _neighbours([layer.table[key] for key in sorted(layer.table) if key[0] == read])
        ]  # fmt: skip
        return sum(steps) / len(steps)

    def costs(self, widths: FloatArray) -> FloatArray:
        """Return the costs, (N,), of widths (N, G) that were drawn."""
        rows = [[int(width) for width in row] for row in widths]
        return np.array([sum(layer.cost(row) or 0.0 for layer in self.layers) for row in rows])


def _neighbours(values: Sequence[float]) -> Iterator[Tuple[float, float]]:
    return zip(values, values[1:])


def _rows(path: Path) -> List[Dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def tx2(data: Path, processor: str, column: str) -> Composed:
    """Return six 3x3 convolutions of the grid that was measured on a Jetson TX2, on maps of 100 to 20."""
    tables: Dict[int, Dict[Tuple[int, int], float]] = defaultdict(dict)
    rows = [
        row
        for row in _rows(data / f"tx2_{processor}_conv_grid_sysidentif.csv")
        if row["kernel"] == "3"
    ]
    # Widths of inputs and of outputs differ by a channel or two: the k-th of both is one width of the chain.
    inputs, outputs = (
        sorted({int(row[f"{way}_channels"]) for row in rows}) for way in ("in", "out")
    )
    same = dict(zip(inputs, outputs))
    for row in rows:
        read = int(row["in_channels"])
        tables[int(row["input_hw"])][same[read], int(row["out_channels"])] = float(row[column])
    image = same[3]
    sizes = (100, 80, 60, 40, 30, 20)
    layers = [
        Layer(at - 1 if at else None, at, image, tables[size], 3, size, size - 2)
        for at, size in enumerate(sizes)
    ]
    return Composed(
        f"TX2 {processor.upper()}, {column}", (tuple(outputs),) * len(sizes), tuple(layers)
    )


def mobilenet(data: Path) -> Composed:
    """Return MobileNetV1 on a CUDA GPU, by NetAdapt's tables."""
    tables = _by_layer(data / "netadapt_lut_mobilenetv1_jyc.csv")
    first = tables["model.0.0"]
    grids = [tuple(sorted({out for _, out in first}))]
    layers = [Layer(None, 0, 3, first, 3, 224, 112)]
    side = 112
    for block in range(1, 14):
        before, inner = len(grids) - 1, side // 2 if block in (2, 4, 6, 12) else side
        depthwise = {(out, out): cost for (_, out), cost in tables[f"model.{block}.0"].items()}
        pointwise = tables[f"model.{block}.3"]
        grids.append(tuple(sorted({out for _, out in pointwise})))
        layers += [
            Layer(before, before, 0, depthwise, 3, side, inner),
            Layer(before, len(grids) - 1, 0, pointwise, 1, inner, inner),
        ]
        side = inner
    classes = max(out for _, out in tables["fc"])
    layers.append(Layer(len(grids) - 1, None, classes, tables["fc"]))
    return Composed("MobileNetV1, CUDA GPU, latency", tuple(grids), tuple(layers))


def alexnet(data: Path, who: str) -> Composed:
    """Return AlexNet by NetAdapt's tables; the first linear layer reads 36 values of every channel."""
    tables = _by_layer(data / f"netadapt_lut_alexnet_{who}.csv")
    hidden = [
        "features.0",
        "features.3",
        "features.6",
        "features.8",
        "features.10",
        "classifier.1",
        "classifier.4",
    ]
    grids = [tuple(sorted({out for _, out in tables[name]})) for name in hidden]
    flat = {
        (read // 36, out): cost
        for (read, out), cost in tables["classifier.1"].items()
        if read % 36 == 0
    }
    tables["classifier.1"] = flat
    # Kernel, map read, map made.
    sizes = ((11, 224, 55), (5, 27, 27), *[(3, 13, 13)] * 3, (6, 6, 1), (1, 1, 1))
    layers = [
        Layer(at - 1 if at else None, at, 3, tables[name], *size)
        for at, (name, size) in enumerate(zip(hidden, sizes))
    ]
    layers.append(Layer(6, None, 10, tables["classifier.6"]))
    return Composed(f"AlexNet ({who}), latency", tuple(grids), tuple(layers))


def fasterseg(data: Path) -> Composed:
    """Return eight residual blocks on maps of 128x256 to 32x64, on a GTX 1080 Ti with TensorRT."""
    tables: Dict[Tuple[str, ...], Dict[Tuple[int, int], float]] = defaultdict(dict)
    for row in _rows(data / "fasterseg_1080ti_tensorrt_ops.csv"):
        pair = int(row["in_channels"]), int(row["out_channels"])
        tables[row["op"], row["input_h"], row["stride"]][pair] = float(row["latency_ms"])
    chain = [
        (f"BasicResidual{times}x", height, stride)
        for height in ("128", "64", "32")
        for times, stride in (("2", "1"), ("1", "1"), ("2", "2"))
    ][:-1]
    grids = [tuple(sorted({read for read, _ in tables[chain[0]]}))]
    grids += [tuple(sorted({out for _, out in tables[key]})) for key in chain]
    layers = [
        Layer(
            at,
            at + 1,
            0,
            tables[key],
            3,
            int(key[1]),
            int(key[1]) // int(key[2]),
            2,
            int(key[0][13]),
        )
        for at, key in enumerate(chain)
    ]
    return Composed("FasterSeg blocks, GTX 1080 Ti, TensorRT, latency", tuple(grids), tuple(layers))


def _by_layer(path: Path) -> Dict[str, Dict[Tuple[int, int], float]]:
    tables: Dict[str, Dict[Tuple[int, int], float]] = defaultdict(dict)
    for row in _rows(path):
        tables[row["layer"]][int(row["in_channels"]), int(row["out_channels"])] = float(
            row["latency_ms"]
        )
    return tables


NETWORKS: Tuple[Callable[[Path], Composed], ...] = (
    lambda data: tx2(data, "gpu", "energy_j"),
    lambda data: tx2(data, "gpu", "latency_ms"),
    lambda data: tx2(data, "cpu", "energy_j"),
    lambda data: tx2(data, "cpu", "latency_ms"),
    mobilenet,
    lambda data: alexnet(data, "coderos"),
    lambda data: alexnet(data, "goktug"),
    fasterseg,
)


def predictor(spec: NetworkSpec, like: Optional[ProductModel] = None) -> Predict:
    """Return what makes a cost model of samples, towards another one where it is asked to, and predicts others."""

    def predict(
        recipe: Recipe, widths: FloatArray, values: FloatArray, wanted: FloatArray
    ) -> FloatArray:
        model = fit(
            spec, widths, values, form=recipe.form, method=recipe.fit, meter="table", metric=Metric.LATENCY,
            like=like,
        )  # fmt: skip
        return model.predict_many(wanted)

    return predict


def errors(network: Composed, samples: int, seed: int) -> Tuple[List[float], str]:
    """Return mean relative errors, in the order of the table's columns, and the form that cross-validation takes."""
    spec, generator = network.spec(), np.random.default_rng(seed)
    widths, values = network.draw(samples + HELD_OUT, generator)
    known, told, wanted = widths[:samples], values[:samples], widths[samples:]
    predict = predictor(spec)
    taken = choose(spec, known, told, predict=predict, seed=seed)[0].recipe
    recipes = [*(Recipe(Form.parse(text), "nnls") for text in FORMS), taken]
    predicted = [predict(recipe, known, told, wanted) for recipe in recipes]
    predicted += [
        mlp_predictions(spec, known, told, wanted, depth=depth, seed=seed) for depth in DEPTHS
    ]
    predicted.append(unbounded_predictions(spec, known, told, wanted, seed=seed))
    errors = [float(np.mean(np.abs(one / values[samples:] - 1.0))) for one in predicted]
    return errors, taken.form.text


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2%} ± {stdev(values) if len(values) > 1 else 0.0:.2%}"


def main() -> None:
    """Print the table: mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    columns = [
        *FORMS,
        "auto",
        *(f"MLP, {depth} hidden" for depth in DEPTHS),
        "unbounded",
        "falls",
        "taken",
    ]
    print(f"| network, device | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for make in NETWORKS:
        network = make(args.data / "device_measurements")
        found = [errors(network, args.samples, seed) for seed in args.seeds]
        cells = [_spread(column) for column in zip(*(values for values, _ in found))]
        taken = ", ".join(sorted({text for _, text in found}))
        print(
            f"| {network.name} | {' | '.join(cells)} | {network.falls():.1%} | {taken} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
