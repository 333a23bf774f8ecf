"""Calibration on a small graph: samples, resume after kill -9, and what it refuses."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeecc.artifacts import exclusive, load_json
from edgeecc.bench import open_bench
from edgeecc.calibrate import Job, calibrate
from edgeecc.calibration_folder import device_metric, find_profile, network_folder
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.cost.rows import as_arrays
from edgeecc.cost.samples import Row, SampleStore
from edgeecc.cost.stopping import round_ends
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.onnx_slice import SlicePlan, load_model
from edgeecc.graph.spec import ChannelGroup, LayerSpec, NetworkSpec, ParameterSpec, Slice, WidthForm
from edgeecc.graph.spec_io import read_spec
from edgeecc.meters.virtual import LAWS, TX2
from edgeecc.run_folder import SPEC_SCHEMA, read_spec_file

pytestmark = pytest.mark.device
ROOT = Path(__file__).resolve().parents[2]
QUICK = MeasureProtocol(window_s=0.002, min_windows=3, max_windows=5, tolerance=0.5)


def small_network(widths=(24, 40)) -> tuple:
    """Return (spec, graph) of conv-relu-conv-relu-pool-gemm, written by hand: no torch on the device tier."""
    sizes = (3, *widths)
    generator = np.random.default_rng(0)
    tensors, nodes, groups, layers, last = [], [], [], [], "input"

    def add(name: str, shape: tuple) -> ParameterSpec:
        tensors.append(
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32) * 0.1, name)
        )
        return ParameterSpec(name, shape, trained=True)

    parameters = []
    for index in (1, 2):
        name = f"c{index}"
        parameters += [
            add(f"{name}.weight", (sizes[index], sizes[index - 1], 3, 3)),
            add(f"{name}.bias", (sizes[index],)),
        ]
        nodes.append(
            helper.make_node(
                "Conv", [last, f"{name}.weight", f"{name}.bias"], [name], name=name, pads=[1] * 4
            )
        )
        nodes.append(helper.make_node("Relu", [name], [f"r{index}"], name=f"r{index}"))
        last = f"r{index}"
        reader = "c2.weight" if index == 1 else "fc.weight"
        units = {"start": 0, "step": 1, "first": 0, "count": sizes[index]}
        groups.append(
            ChannelGroup(
                name,
                sizes[index],
                (
                    Slice(f"{name}.weight", 0, "out", **units),
                    Slice(f"{name}.bias", 0, "out", **units),
                    Slice(reader, 1, "in", **units),
                ),
            )
        )
        source = WidthForm(3) if index == 1 else WidthForm(0, (("c1", 1),))
        made = WidthForm(0, ((name, 1),))
        macs = 256 * 9 * sizes[index] * sizes[index - 1]
        square = {
            "stride": (1, 1),
            "dilation": (1, 1),
            "padding": (1, 1),
            "in_size": (16, 16),
            "out_size": (16, 16),
        }
        layers.append(
            LayerSpec(
                name,
                "conv",
                source,
                made,
                (3, 3),
                groups=1,
                calls=1,
                dense_macs=macs,
                bias=True,
                **square,
            )
        )
    parameters += [add("fc.weight", (10, sizes[2])), add("fc.bias", (10,))]
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["output"], name="fc", transB=1),
    ]
    point = {
        "kernel": (1, 1),
        "stride": (1, 1),
        "dilation": (1, 1),
        "padding": (0, 0),
        "in_size": (1, 1),
        "out_size": (1, 1),
    }
    reads = WidthForm(0, (("c2", 1),))
    layers.append(
        LayerSpec(
            "fc",
            "linear",
            reads,
            WidthForm(10),
            groups=1,
            calls=1,
            dense_macs=10 * sizes[2],
            bias=True,
            **point,
        )
    )
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    spec = NetworkSpec("small", ((1, 3, 16, 16),), tuple(groups), tuple(layers), tuple(parameters))
    return read_spec(spec.to_json()), model


@pytest.fixture(scope="module")
def network() -> tuple:
    return small_network()


def run(network: tuple, folder: Path, device: str = "virtual:tx2", **config: object) -> dict:
    spec, model = network
    protocol = MeasureProtocol() if device.startswith("virtual") else QUICK
    return calibrate(
        Job(spec, model, device, folder),
        CalibrateConfig(**{"samples": 60, "target_error": 0.0, **config}),
        protocol,
    )


def rows(folder: Path) -> list:
    with sqlite3.connect(folder / "samples.db") as db:
        return db.execute(
            "SELECT number, widths, value, standard_error FROM samples ORDER BY number"
        ).fetchall()


def test_a_calibration_writes_a_profile_that_predicts(network: tuple, tmp_path: Path) -> None:
    result = run(network, tmp_path, samples=300)
    profile = Profile.load(tmp_path / "profile.json")
    assert result["heldout_error"]["mean"] < 0.03
    assert profile.samples == {"train": 228, "heldout": 72}
    assert "simulated" in result["meter"]
    assert profile.model.meter == f"model of {result['meter']}"
    spec, _ = network
    cost = profile.cost_for(spec)
    assert cost.predict(spec.vector(spec.dense_widths())) == pytest.approx(
        profile.anchors["dense"], rel=0.06
    )
    assert "Meter: virtual:tx2 (simulated)" in (tmp_path / "PROTOCOL.md").read_text()


@pytest.mark.parametrize("form", ["bilinear", "bilinear+linear"])
@pytest.mark.parametrize("fit", ["nnls", "adam"])
def test_every_form_and_fit_ends_in_a_usable_model(
    network: tuple, tmp_path: Path, form: str, fit: str
) -> None:
    result = run(network, tmp_path, samples=200, model=form, fit=fit)
    assert result["model"] == form
    assert result["heldout_error"]["mean"] < 0.06


def test_cpu_latency_is_measured_with_its_spread(network: tuple, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = run(network, tmp_path, device="onnxruntime:cpu", samples=12)
    assert result["meter"] == "onnxruntime:cpu (1 thread)"
    profile = Profile.load(tmp_path / "profile.json")
    assert profile.metric.value == "latency"
    with sqlite3.connect(tmp_path / "samples.db") as db:
        found = db.execute("SELECT value, spread, windows, runs FROM samples").fetchall()
    assert len(found) == 14
    assert all(
        value > 0 and spread >= 0 and windows >= 3 and count >= 1
        for value, spread, windows, count in found
    )


def test_a_calibration_stops_as_soon_as_the_error_is_low_enough(
    network: tuple, tmp_path: Path
) -> None:
    result = run(network, tmp_path, samples=3000, target_error=0.03)
    assert result["upper_error"] < 0.03
    assert Profile.load(tmp_path / "profile.json").target_error == 0.03
    assert result["samples"] in round_ends(3000)[:4]
    assert len(rows(tmp_path)) == result["samples"] + 2
    assert result["margin"]["confidence"] == 0.95
    again = run(network, tmp_path, samples=3000, target_error=0.03)
    assert (again["samples"], again["resumed_from"]) == (result["samples"], result["samples"])
    assert again["heldout_error"] == result["heldout_error"]


def test_a_target_out_of_reach_spends_all_samples(network: tuple, tmp_path: Path) -> None:
    result = run(network, tmp_path, samples=70, target_error=0.001)
    assert result["samples"] == 70
    assert result["upper_error"] > 0.001


def test_more_samples_go_on_from_the_round_that_was_reached(network: tuple, tmp_path: Path) -> None:
    run(network, tmp_path, samples=75)
    more = run(network, tmp_path, samples=3000, target_error=0.03)
    assert more["resumed_from"] == 75
    assert more["samples"] == 90


def test_stores_that_knew_no_design_are_uniform_ones(network: tuple, tmp_path: Path) -> None:
    run(network, tmp_path, design="uniform")
    with sqlite3.connect(tmp_path / "samples.db") as db:
        assert db.execute("SELECT count(*) FROM identity WHERE key = 'design'").fetchone() == (0,)
    with pytest.raises(ArtifactError, match="holds samples with design None"):
        run(network, tmp_path)
    assert "uniform on 1..c for every group" in (tmp_path / "PROTOCOL.md").read_text()


def test_a_profile_of_another_device_warms_up(
    network: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, model = network
    run(network, tmp_path / "old", samples=400)
    like = Profile.load(tmp_path / "old" / "profile.json")
    monkeypatch.setitem(LAWS, TX2.name, replace(TX2, mac_j=1.2 * TX2.mac_j))
    config = CalibrateConfig(samples=12, target_error=0.0)
    job = Job(spec, model, TX2.name, tmp_path / "new")
    warm = calibrate(job, config, MeasureProtocol(), like=like)
    assert "like" in {one["fit"] for one in warm["tried"]}
    job = Job(*small_network((8, 9)), TX2.name, tmp_path / "other")
    with pytest.raises(ArtifactError, match="profile is of another network"):
        calibrate(job, config, MeasureProtocol(), like=like)


def test_a_second_call_measures_nothing_again(network: tuple, tmp_path: Path) -> None:
    run(network, tmp_path)
    before = rows(tmp_path)
    again = run(network, tmp_path)
    assert again["resumed_from"] == 60
    more = run(network, tmp_path, samples=90)
    assert more["resumed_from"] == 60
    assert [row for row in rows(tmp_path) if row[0] < 60] == before


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.test_calibrate import small_network
from edgeecc.calibrate import Job, calibrate
from edgeecc.config import CalibrateConfig, MeasureProtocol
import edgeecc.crew as module
module.COMMIT_S = 0.01
spec, model = small_network()
job = Job(spec, model, "virtual:tx2", Path({folder!r}))
config = CalibrateConfig(samples=3000, target_error=0.0)
calibrate(job, config, MeasureProtocol(), lambda told: print(told.done, flush=True))
"""


def test_kill_nine_and_resume_gives_the_same_samples(network: tuple, tmp_path: Path) -> None:
    code = KILLED.format(root=str(ROOT), folder=str(tmp_path / "killed"))
    kept = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(6):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kept.append(len(rows(tmp_path / "killed")))
    assert kept == sorted(kept)
    assert kept[-1] < 3002, "the kill came too late to prove anything"
    spec, model = network
    resumed = calibrate(
        Job(spec, model, "virtual:tx2", tmp_path / "killed"),
        CalibrateConfig(samples=3000, target_error=0.0),
        MeasureProtocol(),
    )
    straight = calibrate(
        Job(spec, model, "virtual:tx2", tmp_path / "straight"),
        CalibrateConfig(samples=3000, target_error=0.0),
        MeasureProtocol(),
    )
    assert resumed["resumed_from"] >= kept[-1] - 2 > 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")
    one, other = (load_json(tmp_path / name / "profile.json") for name in ("killed", "straight"))
    assert one["model"] == other["model"]
    assert resumed["heldout_error"] == straight["heldout_error"]


def test_another_calibration_in_the_folder_is_refused(network: tuple, tmp_path: Path) -> None:
    run(network, tmp_path)
    with pytest.raises(ArtifactError, match="holds samples with seed 0, not 1"):
        run(network, tmp_path, seed=1)
    with pytest.raises(ArtifactError, match="holds samples with fingerprint"):
        run(small_network((8, 9)), tmp_path)


def test_a_damaged_store_is_one_line(network: tuple, tmp_path: Path) -> None:
    (tmp_path / "samples.db").write_bytes(
        b"this is no database, but it is long enough to be one" * 40
    )
    with pytest.raises(ArtifactError, match="damaged.*move it away"):
        run(network, tmp_path)


def test_a_folder_in_use_is_refused(network: tuple, tmp_path: Path) -> None:
    with exclusive(tmp_path, "x"), pytest.raises(ArtifactError, match="in use by another process"):
        run(network, tmp_path)


def test_rows_are_all_or_nothing(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.db", {"seed": 0}) as store:
        good = Row(1, (1, 2), 0.5, None, None, None, 3, 1, converged=True)
        store.add([good])
        with pytest.raises(ArtifactError, match="damaged"):
            store.add([Row(2, (1, 2), 0.5, None, None, None, 3, 1, converged=True), good])
        assert store.numbers() == {1}
        widths, values = as_arrays(store.rows())
    assert widths.tolist() == [[1.0, 2.0]]
    assert values.tolist() == [0.5]


def test_a_full_disk_is_one_line(network: tuple, tmp_path: Path) -> None:
    """SQLite's own page limit stands in for a full file system: the same error comes back."""
    with SampleStore(tmp_path / "s.db", {"seed": 0}) as store:
        store._db.execute("PRAGMA max_page_count=5")
        many = [
            Row(n, tuple(range(200)), 0.5, None, None, None, 3, 1, converged=True)
            for n in range(200)
        ]
        with pytest.raises(ArtifactError, match="full; free space"):
            store.add(many)
        assert store.numbers() == set()


def test_a_profile_of_another_network_is_refused(network: tuple, tmp_path: Path) -> None:
    run(network, tmp_path)
    profile = Profile.load(tmp_path / "profile.json")
    other, _ = small_network((8, 9))
    with pytest.raises(
        ArtifactError, match="profile is of another network .*run edgeecc calibrate"
    ):
        profile.cost_for(other)


def test_devices_and_profiles_are_found_by_name(network: tuple, tmp_path: Path) -> None:
    assert device_metric("virtual:tx2").value == "energy"
    with pytest.raises(
        ConfigError, match="unknown device 'toaster'.* known are virtual:tx2, onnxruntime:cpu"
    ):
        device_metric("toaster")
    assert find_profile("virtual:tx2", "small", tmp_path) is None
    folder = network_folder(tmp_path, "virtual:tx2", "small")
    run(network, folder)
    assert find_profile("virtual:tx2", "small", tmp_path) == folder / "profile.json"
    assert folder == tmp_path / "calibration" / "virtual-tx2" / "small"
    spec, model = network
    with pytest.raises(ConfigError, match="does not say what runs networks on it"), open_bench(
        SlicePlan.build(model, spec), "jetson-tx2", 0
    ):
        pass


def test_a_network_that_cannot_be_pruned_is_refused(network: tuple, tmp_path: Path) -> None:
    spec, model = network
    bare = NetworkSpec("bare", spec.input_shapes, (), (), spec.parameters)
    with pytest.raises(ConfigError, match="no prunable group"):
        calibrate(Job(bare, model, "virtual:tx2", tmp_path), CalibrateConfig(), MeasureProtocol())


@pytest.mark.parametrize("wrong", [
    {"samples": 3}, {"heldout": 0.0}, {"model": "x"}, {"fit": "x"}, {"fit": "like"}, {"design": "x"},
    {"target_error": -0.1}, {"target_error": 3.0}, {"target_error": float("nan")},
])  # fmt: skip
def test_configs_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        CalibrateConfig(**wrong)


def test_damaged_graphs_are_one_line(network: tuple, tmp_path: Path) -> None:
    path = tmp_path / "dense.onnx"
    with pytest.raises(ArtifactError, match="No such file"):
        load_model(path)
    path.write_bytes(network[1].SerializeToString()[:500])
    with pytest.raises(ArtifactError, match="damaged") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(network[1].SerializeToString())
    with pytest.raises(ArtifactError, match="larger than 100 bytes"):
        load_model(path, max_bytes=100)
    assert load_model(path) == network[1]


def test_graphs_that_point_at_other_files_are_refused(network: tuple, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network[1])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    (tmp_path / "dense.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError):
        load_model(tmp_path / "dense.onnx")


def test_specs_are_read_from_their_file(network: tuple, tmp_path: Path) -> None:
    from edgeecc.artifacts import write_json

    spec, _ = network
    write_json(tmp_path / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    assert read_spec_file(tmp_path / "spec.json") == spec
    write_json(tmp_path / "spec.json", SPEC_SCHEMA, {"spec": 3})
    with pytest.raises(ArtifactError, match="holds no spec"):
        read_spec_file(tmp_path / "spec.json")
