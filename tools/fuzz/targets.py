"""The readers that are fuzzed: what each does with bytes, what changes them, and where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Sequence

import click

from edgeecc.graph.spec import NetworkSpec
from tools.fuzz import forms, mutate, seeds
from tools.fuzz.inputs import attempt, floats, unpacked, written
from tools.fuzz.judge import Read
from tools.fuzz.mutate import Mutator


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        read: reads bytes, with an empty folder of its own; whatever it then computes of them belongs to it.
        mutator: changes an input.
        seeds: valid inputs.
        imports: what it needs beside the device tier.
    """

    read: Read
    mutator: Mutator
    seeds: Callable[[], List[bytes]]
    imports: Sequence[str] = ()


def _texts(data: bytes, folder: Path) -> None:
    from edgeecc.config import CalibrateConfig
    from edgeecc.cost.forms import Form
    from edgeecc.meters.nvml_names import first_visible
    from edgeecc.normalisation import parse_normalisation
    from edgeecc.pattern import parse as parse_pattern
    from edgeecc.schedule import parse_stage
    from edgeecc.units import parse_budget, parse_budgets, parse_quantity

    text = data.decode("utf-8", "replace")
    attempt(
        lambda: str(parse_quantity(text)), lambda: parse_budget(text), lambda: parse_budgets(text.split("\n")),
        lambda: parse_normalisation(text), lambda: parse_pattern(text), lambda: parse_stage(text),
        lambda: Form.parse(text), lambda: CalibrateConfig(model=text),
        lambda: first_visible({"CUDA_VISIBLE_DEVICES": text}, []),
    )  # fmt: skip


def _devices(data: bytes, folder: Path) -> None:
    from edgeecc.calibration_folder import folder_name, network_folder
    from edgeecc.device_names import gpu_board, parse_device

    text = data.decode("utf-8", "replace")
    parse_device(gpu_board(text) + ":torch:fp16")
    for device in ("virtual:tx2", text):
        place = network_folder(folder, device, folder_name(text))
        assert place.resolve().parent.parent.parent == folder.resolve(), place
        assert parse_device(parse_device(device).text) == parse_device(device)


def _profile(data: bytes, folder: Path) -> None:
    from edgeecc.cost.profile import Profile

    profile = Profile.load(written(folder / "profile.json", data))
    dense = floats(profile.model.dense)
    attempt(lambda: profile.margin(0.9))
    profile.margin()
    for widths in (dense, dense * 0.0 + 1.0):
        profile.model.predict(widths)
        profile.model.gradient(widths)
    profile.board_lines()
    profile.layer_costs()
    assert profile.model.tile >= 1
    profile.save(folder / "again.json")


def _spec(data: bytes, folder: Path) -> None:
    from edgeecc.cost.exact import mac_cost, size_cost
    from edgeecc.graph.drawing import DRAWINGS
    from edgeecc.graph.ties import ties_of
    from edgeecc.run_folder import read_spec_file

    spec = read_spec_file(written(folder / "spec.json", data))
    spec.fingerprint()
    dense = spec.vector(spec.dense_widths())
    attempt(lambda: mac_cost(spec).predict(dense), lambda: size_cost(spec).predict(dense))
    if sum(group.width for group in spec.groups) < 10_000:
        _each_form(spec)
        for draw in DRAWINGS.values():
            draw(spec)
        ties_of(spec)


def _each_form(spec: NetworkSpec) -> None:
    keep = spec.keep_first(spec.least_widths())
    for parameter in spec.parameters:
        spec.parameter_form(parameter)
        for axis, size in enumerate(parameter.shape):
            if size < 10_000:
                spec.kept_indices(parameter.name, axis, size, keep)


def _graph(data: bytes, folder: Path) -> None:
    from edgeecc.graph.onnx_slice import SlicePlan, load_model
    from edgeecc.graph.onnx_work import work
    from edgeecc.run_folder import read_spec_file

    unpacked(data, folder)
    spec = read_spec_file(folder / "spec.json")
    model = load_model(folder / "dense.onnx")
    plan = SlicePlan.build(model, spec)
    for widths in (spec.least_widths(), spec.dense_widths()):
        work(plan, widths)
    plan.cut(spec.keep_first(spec.least_widths()))


def _model(data: bytes, folder: Path) -> None:
    from edgeecc.graph.lower_opset import lowered
    from edgeecc.graph.onnx_slice import load_model
    from edgeecc.graph.onnx_work import work_of
    from edgeecc.graph.settle import settle
    from edgeecc.runtimes.quantise import is_quantised
    from edgeecc.runtimes.tensors import graph_inputs, graph_outputs
    from tools.fuzz.network import spec

    model = load_model(written(folder / "slim.onnx", data))
    attempt(
        lambda: work_of(model), lambda: lowered(model), lambda: graph_inputs(model), lambda: graph_outputs(model),
        lambda: settle(spec(), model), lambda: is_quantised(model),
    )  # fmt: skip


def _tensors(data: bytes, folder: Path) -> None:
    from edgeecc.artifacts import read_tensors
    from edgeecc.compressed import unpack

    arrays, metadata = read_tensors(written(folder / "file.safetensors", data))
    unpack(arrays, metadata)


def _config(data: bytes, folder: Path) -> None:
    from edgeecc.cli.config_file import file_defaults
    from edgeecc.cli.main import cli

    for name, table in file_defaults(written(folder / "edgeecc.toml", data), cli).items():
        try:
            cli.commands[name].make_context(name, [], default_map=table)
        except click.exceptions.Exit:
            continue


def _fleet(data: bytes, folder: Path) -> None:
    from edgeecc.fleet.boards import arguments, read_fleet

    for board in read_fleet(written(folder / "fleet.toml", data)).boards:
        words = arguments(board, ["measure"], "python")
        assert all(words), words


def _hardware(data: bytes, folder: Path) -> None:
    from edgeecc.cost.hardware import hardware

    hardware(str(written(folder / "mine.toml", data)))


def _samples(data: bytes, folder: Path) -> None:
    from edgeecc.cost.rows import as_arrays, check_widths
    from edgeecc.cost.samples import SampleStore

    for read_only in (True, False):
        path = written(folder / f"{read_only}.db", data)
        with SampleStore(path, seeds.IDENTITY, read_only=read_only) as store:
            rows = store.rows()
            as_arrays([row for row in rows if len(row.widths) == 2])
            check_widths(rows, ["a", "b"], lambda number: {"a": 8, "b": 12}, source=path)
            store.repeats()
            store.numbers()
            store.failures()
            json.dumps(store.about())


def _npz(data: bytes, folder: Path) -> None:
    from edgeecc.data.npz import read_npz

    wanted = {"jpeg": "uint8", "offsets": "int64", "labels": "uint8"}
    read_npz(written(folder / "a.npz", data), wanted, 2**20)


def _idx(data: bytes, folder: Path) -> None:
    from edgeecc.data.fashion_mnist import read_idx

    read_idx(written(folder / "a.gz", data))


def _image(data: bytes, folder: Path) -> None:
    from edgeecc.data.crops import central
    from edgeecc.data.images import as_rgb, opened, rgb_crop

    with opened("it", data) as image:
        pixels = rgb_crop(image, central(image.width, image.height, 1.0), (8, 8))
        assert pixels.shape == (8, 8, 3)
    with opened("it", data) as image:
        as_rgb(image)


def _scene(data: bytes, folder: Path) -> None:
    from edgeecc.data.camvid import TABLE
    from edgeecc.data.request import DataRequest
    from edgeecc.data.segmentation import Pair, SegmentationSplit

    mask = written(folder / "mask.png", data)
    image = written(folder / "image.png", seeds.images()[1])
    for place, other in ((mask, mask), (image, mask)):
        split = SegmentationSplit(
            [Pair(place, other)], TABLE, DataRequest((3, 8, 8)), augment=False
        )
        attempt(lambda split=split: split.take([0]))  # type: ignore[misc]


def _shard(data: bytes, folder: Path) -> None:
    from edgeecc.data.shards import ShardImages

    images = ShardImages([written(folder / "a.tar", data)])
    for index in range(len(images.labels)):
        images.image(index)


def _cifar(data: bytes, folder: Path) -> None:
    from edgeecc.data.cifar_pickle import read_batch

    read_batch(written(folder / "data_batch_1", data))


def _trace(data: bytes, folder: Path) -> None:
    from edgeecc.meters.replay import read_trace

    for name in ("a.csv", "a.jsonl"):
        path = written(folder / name, data)
        attempt(lambda path=path: read_trace(path).joules_at(0.0))  # type: ignore[misc]


def _wire(data: bytes, folder: Path) -> None:
    from edgeecc.fleet.wire import check_greeting, read_answer, read_task
    from tools.fuzz.network import spec

    net = spec()
    text = data.decode("utf-8", "replace")
    attempt(
        lambda: read_task(text, net),
        lambda: read_answer(data, 3, (8, 12)),
        lambda: check_greeting(data, "virtual:tx2", net.fingerprint()),
    )


def _program(data: bytes, folder: Path) -> None:
    import numpy as np

    from edgeecc.runtimes.child import last_words
    from edgeecc.runtimes.engine_summary import summarise
    from edgeecc.runtimes.tensors import TensorSpec
    from edgeecc.runtimes.trtexec_output import options_in, parse_timing, read_outputs

    text = data.decode("utf-8", "replace")
    last_words(text), options_in(text)  # they refuse nothing
    json.dumps(summarise(text, 3).to_json())
    path, specs = written(folder / "out.json", data), [TensorSpec("y", (1, 2), np.float32)]
    attempt(lambda: parse_timing(text), lambda: read_outputs(path, specs))


def _sysfs(data: bytes, folder: Path) -> None:
    from edgeecc.meters.ina3221 import find_rails
    from edgeecc.meters.jetson import JetsonSensors, identify, power_mode
    from edgeecc.meters.rapl import find_domains

    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return
    for name, text in tree.items() if isinstance(tree, dict) else ():
        path = folder / name.strip("/").replace("\0", "")
        if ".." in path.parts or not isinstance(text, str):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
        except (OSError, UnicodeError, ValueError):
            continue
    attempt(
        lambda: identify(folder), lambda: power_mode(folder), lambda: JetsonSensors(folder).conditions(),
        lambda: [rail.read_w() for rail in find_rails(folder)],
        lambda: [domain.read_uj() for domain in find_domains(folder)],
    )  # fmt: skip


def _run(data: bytes, folder: Path) -> None:
    from edgeecc.explain import explain
    from edgeecc.run_folder import RESULT_SCHEMA, RunFolder
    from edgeecc.verdict import bounds_of
    from edgeecc.verify import array_of, measuring_of, pattern_of

    unpacked(data, folder)
    run = RunFolder(folder)
    from edgeecc.artifacts import read_json

    source = folder / "result.json"
    result = read_json(source, RESULT_SCHEMA)
    attempt(
        lambda: bounds_of(result, source), lambda: measuring_of(result, source), lambda: pattern_of(result, source),
        lambda: array_of(result, source), run.kind,
    )  # fmt: skip
    json.dumps(explain(run), allow_nan=False)


def _state(data: bytes, folder: Path) -> None:
    from edgeecc.networks.table import infer
    from edgeecc.networks.weights import load_state

    for name in ("a.pth", "a.safetensors"):
        path = written(folder / name, data)
        attempt(lambda path=path: infer(load_state(path)))  # type: ignore[misc]


def _exported(data: bytes, folder: Path) -> None:
    from edgeecc.networks.exported.pt2 import read_program
    from edgeecc.networks.exported.rebuild import input_shape_of, rebuild

    path = written(folder / "net.pt2", data)
    program = read_program(path)
    rebuild(program, [(1, *input_shape_of(program, None, path))])


def _source(data: bytes, folder: Path) -> None:
    """Read where a run's network comes from; nothing that it names may be imported."""
    from edgeecc.run_folder import RunFolder
    from edgeecc.sources import NetworkSource

    unpacked(data, folder)
    made = NetworkSource.from_json(RunFolder(folder).read_run().get("source"), folder)
    assert made.program in (None, folder / "program.pt2")
    assert all("/" not in name and name not in (".", "..") for name in made.folders)


TARGETS: Dict[str, Target] = {
    "texts": Target(_texts, mutate.changed_text, seeds.texts),
    "devices": Target(_devices, mutate.changed_text, seeds.texts),
    "profile": Target(_profile, mutate.changed_json, seeds.profiles),
    "spec": Target(_spec, mutate.changed_json, seeds.specs),
    "graph": Target(_graph, forms.changed_zip, seeds.graphs),
    "model": Target(_model, forms.changed_onnx, seeds.models),
    "tensors": Target(_tensors, forms.changed_safetensors, seeds.tensors),
    "config": Target(_config, mutate.changed_text, seeds.configs),
    "fleet": Target(_fleet, mutate.changed_text, seeds.fleets),
    "hardware": Target(_hardware, mutate.changed_text, seeds.hardwares),
    "samples": Target(_samples, forms.changed_database, seeds.stores),
    "npz": Target(_npz, forms.changed_zip, seeds.archives),
    "idx": Target(_idx, forms.changed_gzip, seeds.idx_files, ("torch",)),
    "image": Target(_image, forms.changed_image, seeds.images, ("PIL",)),
    "scene": Target(_scene, forms.changed_image, seeds.images, ("PIL", "torch")),
    "shard": Target(_shard, forms.changed_tar, seeds.shards),
    "cifar": Target(_cifar, forms.changed_pickle, seeds.pickles),
    "trace": Target(_trace, mutate.changed_text, seeds.traces),
    "wire": Target(_wire, mutate.changed_json, seeds.lines),
    "program": Target(_program, mutate.changed_json, seeds.programs),
    "sysfs": Target(_sysfs, mutate.changed_json, seeds.sysfs),
    "run": Target(_run, forms.changed_zip, seeds.runs),
    "source": Target(_source, forms.changed_zip, seeds.runs, ("torch",)),
    "state": Target(_state, forms.changed_zip, seeds.states, ("torch",)),
    "exported": Target(_exported, forms.changed_zip, seeds.exported, ("torch",)),
}
