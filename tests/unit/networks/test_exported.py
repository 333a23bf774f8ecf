"""Programs of torch.export: rebuilt they are the original network, and nothing in the file is trusted."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeecc.errors import ArtifactError, ConfigError, EdgeeccError, GraphError
from edgeecc.graph.outputs import tensors
from edgeecc.graph.trace import trace
from edgeecc.networks.exported import aten, pt2, rebuild
from edgeecc.networks.table import build
from edgeecc.pricing import PriceQuery, price
from edgeecc.sources import NetworkSource, open_network, trace_source
from edgeecc.units import Metric
from tests import zoo

#: With each kind of layer, and with what an export writes down as numbers.
NAMES = (
    "residual",
    "unet",
    "shuffle",
    "adaptive",
    "plain_norms",
    "prelu",
    "multiplier",
    "two_outputs",
    "convnext",
)


def export(model: nn.Module, *shapes: tuple, path: Path, batch: bool = True) -> Path:
    """Export with batch 2, free or not."""
    inputs = tuple(torch.zeros(2, *shape[1:]) for shape in shapes)
    dims = tuple({0: torch.export.Dim("batch")} for _ in shapes) if batch else None
    nested = (dims,) if batch and isinstance(model, zoo.Fn) else dims
    torch.export.save(torch.export.export(model, inputs, dynamic_shapes=nested), path)
    return path


def altered(
    source: Path,
    target: Path,
    edit: Callable[[Dict[str, Any]], None],
    name: str = "models/model.json",
) -> Path:
    """Copy an archive with one JSON entry changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.partition("/")[2] == name:
                document = json.loads(data)
                edit(document)
                data = json.dumps(document).encode()
            new.writestr(entry.filename, data)
    return target


def graph(document: Dict[str, Any]) -> Dict[str, Any]:
    return document["graph_module"]["graph"]


def rebuilt(path: Path) -> nn.Module:
    return rebuild.rebuild(pt2.read_program(path), [zoo.IMAGE])


class Tied(nn.Module):
    """One tensor under two names, dropout, a constant, a buffer outside the state dict, work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.b = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.e, self.f = nn.Linear(8, 8), nn.Linear(8, 8)
        self.f.weight = self.e.weight
        self.register_buffer("k", torch.full((8,), 3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        x = nn.functional.relu(self.b(self.c(x)), inplace=True)
        x = x.reshape(n * 2, 4, 8, 8).reshape(n, 8, 8, 8).mean((2, 3))
        return self.drop(self.f(self.e(x)) * self.k + torch.tensor(2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def tied(folder: Path) -> Path:
    return export(Tied().eval(), zoo.IMAGE, path=folder / "tied.pt2")


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuilt_program_is_the_original(name: str, folder: Path) -> None:
    model, inputs = zoo.build(name)
    shapes = [tuple(x.shape) for x in inputs]
    program = pt2.read_program(export(model, *shapes, path=folder / f"{name}.pt2"))
    again = rebuild.rebuild(program, shapes)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    batch = tuple(torch.cat([x, x + 1, x - 1]) for x in inputs)
    with torch.no_grad():
        for one, other in zip(tensors(model(*batch)), tensors(again(*batch))):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    expected, found = trace(model, inputs), trace(again, inputs)
    assert [replace(group, reason="") for group in found.groups] == [
        replace(group, reason="") for group in expected.groups
    ]
    assert found.layers == expected.layers


def test_a_table_network_keeps_its_layers(folder: Path) -> None:
    model = build("digits_mobilenet", width=0.125).eval()
    path = export(model, (1, 1, 8, 8), path=folder / "net.pt2")
    again, source = open_network(None, None, path)
    assert isinstance(again, nn.Module)
    assert source.input_shape == (1, 8, 8)
    assert source.folder == "net"
    kinds = {name: type(module) for name, module in model.named_modules() if module._parameters}
    assert {name: type(again.get_submodule(name)) for name in kinds} == kinds
    torch.testing.assert_close(again(*source.example()), model(*source.example()))


def test_training_mode_reaches_batch_norm_and_dropout(tied: Path) -> None:
    model = rebuilt(tied).train()
    x = torch.randn(8, *zoo.IMAGE[1:], generator=torch.Generator().manual_seed(1))
    before = model.b.running_mean.clone()
    out = model(x)
    assert not torch.equal(model.b.running_mean, before)
    assert 0.2 < float((out == 0).float().mean()) < 0.8
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not bool((model.eval()(x) == 0).any())


def test_a_shared_tensor_stays_shared(tied: Path) -> None:
    model = copy.deepcopy(rebuilt(tied))
    assert model.e.weight is model.f.weight
    assert "k" not in model.state_dict()
    assert not any(
        group.prunable
        for group in trace(model, (torch.zeros(zoo.IMAGE),)).groups
        if group.name == "e"
    )


def test_every_listed_operator_exists() -> None:
    assert all(hasattr(torch.ops.aten, name) for name in aten._ATEN)


@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours_or_harmless(
    tied: Path, folder: Path, data: st.DataObject
) -> None:
    def damage(document: Any) -> None:
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.integers(0, 9)):
                place = place[key]
                continue
            place[key] = data.draw(
                st.sampled_from(
                    [None, -1, 2**62, 1e300, "x", "a.b", [], {}, {"as_int": 2**40}, True]
                )
            )
            return

    name = data.draw(
        st.sampled_from(["models/model.json", "data/weights/model_weights_config.json"])
    )
    path = altered(tied, folder / "damaged.pt2", damage, name)
    complaint = ""
    try:
        whole = not rebuilt(path).training
    except EdgeeccError as error:
        complaint = str(error)
        whole = bool(complaint) and "\n" not in complaint
    assert whole, complaint


def rename(target: str) -> Callable[[Dict[str, Any]], None]:
    def edit(document: Dict[str, Any]) -> None:
        next(n for n in graph(document)["nodes"] if "relu" in n["target"])["target"] = target

    return edit


def repeat_forever(document: Dict[str, Any]) -> None:
    node = next(n for n in graph(document)["nodes"] if "relu" in n["target"])
    node["target"] = "torch.ops.aten.repeat.default"
    node["inputs"].append({"name": "repeats", "arg": {"as_ints": [2**20, 8, 8, 8]}, "kind": 1})


def grow_forever(document: Dict[str, Any]) -> None:
    nodes = graph(document)["nodes"]
    size = next(n for n in nodes if "sym_size" in n["target"])
    name = size["outputs"][0]["as_sym_int"]["as_name"]
    for place in range(70):
        made = f"big_{place}"
        factor = {"as_int": 7} if not place else {"as_sym_int": {"as_name": name}}
        nodes.insert(
            1 + place,
            {
                "name": made, "target": "_operator.mul", "metadata": {}, "outputs": [{"as_sym_int": {"as_name": made}}],
                "inputs": [
                    {"name": "a", "arg": {"as_sym_int": {"as_name": name}}, "kind": 1},
                    {"name": "b", "arg": factor, "kind": 1},
                ],
            },
        )  # fmt: skip
        name = made


def clash(name: str) -> Callable[[Dict[str, Any]], None]:
    def edit(document: Dict[str, Any]) -> None:
        document["config"][name] = document["config"]["c.weight"]

    return edit


def first_weight(**fields: object) -> Callable[[Dict[str, Any]], None]:
    return lambda document: document["config"]["c.weight"].update(fields)


@pytest.mark.parametrize(
    ("edit", "entry", "message"),
    [
        (rename("torch.ops.aten.from_file.default"), "model", r"runs torch.ops.aten.from_file.default, which"),
        (rename("os.system"), "model", "runs os.system"),
        (rename("torch.ops.aten.relu.out"), "model", "relu.out"),
        (rename("torch.ops.aten.addmm.default"), "model", "before run_decompositions"),
        (rename("torch.ops.aten.relu.nothing"), "model", "relu.nothing"),
        (repeat_forever, "model", "export it for a smaller input"),
        (grow_forever, "model", "makes the size"),
        (lambda d: d["schema_version"].update(major=9), "model", "its schema is 9"),
        (lambda d: d.clear(), "model", "damaged"),
        (first_weight(use_pickle=True), "weights", "pickles c.weight"),
        (first_weight(path_name="../weight_0"), "weights", "no tensor's name"),
        (first_weight(path_name="weight_99"), "weights", "has no data/weights/weight_99"),
        (lambda d: d["config"].pop("c.weight"), "weights", "holds no c.weight"),
        (lambda d: d["config"]["c.weight"]["tensor_meta"].update(storage_offset={"as_int": 1}), "weights", "outside"),
        (lambda d: d["config"]["c.weight"]["tensor_meta"].update(strides=[{"as_int": 2**40}] * 4), "weights", "lies"),
        (clash("forward.weight"), "weights", "clash"),
        (clash("_steps.weight"), "weights", "clash"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_ask(
    edit: Any, entry: str, message: str, tied: Path, tmp_path: Path
) -> None:
    name = "models/model.json" if entry == "model" else "data/weights/model_weights_config.json"
    with pytest.raises((ArtifactError, GraphError), match=message):
        rebuilt(altered(tied, tmp_path / "evil.pt2", edit, name))


def test_pickled_examples_are_never_read(tied: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tied) as old, zipfile.ZipFile(tmp_path / "p.pt2", "w") as new:
        for entry in old.infolist():
            harmful = b"cos\nsystem\n(S'exit 1'\ntR."
            new.writestr(
                entry.filename, harmful if "sample_inputs" in entry.filename else old.read(entry)
            )
    image = torch.randn(zoo.IMAGE)
    assert torch.equal(rebuilt(tmp_path / "p.pt2")(image), rebuilt(tied)(image))


def test_what_is_no_program(tied: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pt2"
    for content, message in (
        (b"nothing", "no .pt2 file"),
        (tied.read_bytes()[:-400], "wrong.pt2"),
    ):
        wrong.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            pt2.read_program(wrong)
    with pytest.raises(ArtifactError, match="check the path"):
        pt2.read_program(tmp_path / "nowhere.pt2")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/models/model.json", b" " * 10**6)
    wrong.write_bytes(buffer.getvalue())
    with pytest.raises(ArtifactError, match="larger than the file"):
        pt2.read_program(wrong)
    with zipfile.ZipFile(wrong, "w") as old:
        old.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(ArtifactError, match="older versions"):
        pt2.read_program(wrong)


def test_programs_that_cannot_be_pruned_say_why(folder: Path, tied: Path) -> None:
    cases: List[tuple] = [
        (
            export(Tied().eval(), zoo.IMAGE, path=folder / "f.pt2", batch=False),
            r"batches of 2 only; .*Dim\('batch'\)",
        ),
        (export(Tied().train(), zoo.IMAGE, path=folder / "t.pt2"), "exported in training mode"),
        (
            export(zoo.build("two_inputs")[0], zoo.IMAGE, (1, 1, 8, 8), path=folder / "2.pt2"),
            "takes 2 inputs",
        ),
    ]
    for path, message in cases:
        with pytest.raises(GraphError, match=message):
            open_network(None, None, path)
    double = altered(
        tied, folder / "d.pt2", lambda d: graph(d)["tensor_values"]["x"].update(dtype=8)
    )
    with pytest.raises(GraphError, match="takes float64 inputs"):
        open_network(None, None, double)
    with pytest.raises(ArtifactError, match="takes inputs of 3x8x8"):
        open_network(None, (3, 9, 9), tied)
    with pytest.raises(ConfigError, match="leave out --network"):
        open_network("lenet5", None, tied)


def test_a_program_is_kept_with_the_run_and_checked(tied: Path, tmp_path: Path) -> None:
    model, source = open_network(str(tied), None, None)
    source.keep_in(tmp_path)
    again = NetworkSource.from_json(source.to_json(), tmp_path)
    torch.testing.assert_close(again.build()(*source.example()), model(*source.example()))
    altered(tied, tmp_path / "program.pt2", lambda d: None)
    with pytest.raises(ArtifactError, match="not the program that was pruned"):
        again.build()


def test_a_missing_profile_names_the_program(tied: Path, tmp_path: Path) -> None:
    model, source = open_network(None, None, tied)
    query = PriceQuery(Metric.LATENCY, "onnxruntime:cpu", None, tmp_path)
    with pytest.raises(ArtifactError, match=rf"edgeecc calibrate --network {tied} --device"):
        price(trace_source(model, source), source, query)


def test_not_a_number_is_refused(tied: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tied) as old, zipfile.ZipFile(tmp_path / "n.pt2", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(
                entry.filename, b"\xff" * len(data) if entry.filename.endswith("weight_0") else data
            )
    with pytest.raises(ArtifactError, match="NaN"):
        open_network(None, None, tmp_path / "n.pt2")
