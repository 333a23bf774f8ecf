"""Valid inputs to begin with, written by edgeecc's own writers from a small network."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import struct
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Dict, List

import numpy as np
import onnx

from edgeecc import __version__
from edgeecc.artifacts import write_json, write_tensors
from edgeecc.compressed import pack
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.fit import HeldoutError
from edgeecc.cost.profile import Profile
from edgeecc.cost.samples import Failure, Row, SampleStore
from edgeecc.fleet.wire import row_object, task_line
from edgeecc.graph.spec import NetworkSpec
from edgeecc.run_folder import REPORT_SCHEMA, RESULT_SCHEMA, RUN_SCHEMA, VERIFY_SCHEMA, RunFolder
from tools.fuzz.forms import tarred, unzipped, zipped
from tools.fuzz.network import graph, moves, moves_spec, spec

#: What a sample store says that it is of; the target asks for the same.
IDENTITY = {"fingerprint": "small", "seed": 0}


def folder_zip(write: Callable[[Path], object]) -> bytes:
    """Return the files that `write` puts into a folder, as a zip."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        files = {
            path.name: path.read_bytes() for path in sorted(Path(name).iterdir()) if path.is_file()
        }
    return zipped(files)


def file_bytes(write: Callable[[Path], object], name: str = "file") -> bytes:
    """Return the file that `write` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def texts() -> List[bytes]:
    """Return what people write on the command line."""
    lines = (
        "25mJ", "0.025 J", "60%", "60% of macs", "12ms", "5MB", "1e-3GMAC", "0.5,0.5/0.2,0.2", "2:4", "3x224x224",
        "100000,constant", "300,lr=3e-5,distill=0", "bilinear+linear+tiles:8+spans", "virtual:tx2",
        "onnxruntime:cpu", "jetson-orin-nx:tensorrt:fp16", "cpu-package:onnxruntime:fp32:package-0",
        "nvidia-h200:torch:fp16", "NVIDIA GeForce RTX 4090", "own.nets:factory", "train-{00..09}.tar,val-{0..1}.tar",
        "edgeecc/profile/1", "tegrastats", "uuid:GPU-1", "systolic:eyeriss",
    )  # fmt: skip
    return [line.encode() for line in lines]


def profiles() -> List[bytes]:
    """Return profiles: exact counts, and a model with tiles, spans, boards and ratios."""
    return [file_bytes(profile.save) for profile in (_profile(), _profile(rich=True))]


def _profile(*, rich: bool = False) -> Profile:
    net = spec()
    plain = Profile("small", "virtual:tx2", net.fingerprint(), mac_cost(net), "bilinear", "nnls",
                    "exact count", None, {"train": 8, "heldout": 2})  # fmt: skip
    if not rich:
        return plain
    from dataclasses import replace

    from edgeecc.cost.forms import Form
    from edgeecc.cost.product import ProductModel
    from edgeecc.cost.terms import spec_groups
    from edgeecc.units import Metric

    terms = Form(linear=True, tile=4, spans=True).terms(net)
    model = ProductModel(
        Metric.ENERGY, "model of virtual:tx2", groups=spec_groups(net), terms=terms,
        coefficients=np.linspace(0.0, 1e-3, len(terms)), constant=1e-3,
    )  # fmt: skip
    return replace(
        plain, model=model, heldout=HeldoutError(0.01, 0.02, 0.03), ratios=(0.98, 1.0, 1.01),
        protocol={"window_s": 1.0}, anchors={"dense": 0.1}, target_error=0.03, design="i-optimal",
        boards={"one": {"samples": 8.0, "offset": 1.0, "standard_error": 0.01}},
    )  # fmt: skip


def specs() -> List[bytes]:
    """Return a spec.json."""
    return [file_bytes(lambda path: RunFolder(path.parent).write_spec(spec()), "spec.json")]


def graphs() -> List[bytes]:
    """Return folders with spec.json and dense.onnx, as a calibration leaves them."""

    def calibration(net: NetworkSpec, model: onnx.ModelProto) -> bytes:
        def write(folder: Path) -> None:
            RunFolder(folder).write_spec(net)
            (folder / "dense.onnx").write_bytes(model.SerializeToString())

        return folder_zip(write)

    return [calibration(spec(), graph()), calibration(moves_spec(), moves())]


def models() -> List[bytes]:
    """Return ONNX files alone."""
    return [graph().SerializeToString(), moves().SerializeToString()]


def tensors() -> List[bytes]:
    """Return safetensors: plain, and with compressed tensors."""
    random = np.random.default_rng(0)
    arrays = {
        "a.weight": random.random((4, 3)).astype(np.float32),
        "b": np.arange(5),
        "c": np.zeros(()),
    }
    sparse, shapes = pack({"w": np.where(random.random((8, 8)) < 0.1, 1.0, 0.0)})
    return [
        file_bytes(lambda path: write_tensors(path, arrays, {"network": "small"})),
        file_bytes(lambda path: write_tensors(path, sparse, shapes)),
    ]


def configs() -> List[bytes]:
    """Return edgeecc.toml as people write it, and a published experiment."""
    return [
        b'[calibrate]\nnetwork = "lenet5"\nsamples = 500\ntolerance = 0.1\n[prune]\nbudget = ["60%", "12ms"]\n'
        b'data = "digits"\nmethod = "ecc"\nbatch-size = 64\nfinetune = ["100,constant"]\n',
        b'[measure]\ngraph = "lenet5"\nwidths = "6,16,120"\n[export]\ntrt = true\nconfidence = 0.9\n',
        b"[inspect]\nnetwork = 'lenet5'\ninput = '1x28x28'\njson = true\n[compare]\nbudget=['50%']\nmethods='ecc'\n",
    ]


def fleets() -> List[bytes]:
    """Return a fleet file."""
    return [
        b'[fleet]\nscheduler = "tcp://127.0.0.1:8786"\n[[board]]\nname = "one"\nkind = "virtual:tx2"\n'
        b'[[board]]\nname = "two"\nkind = "jetson-tx2:tensorrt:fp16"\nssh = "user@host"\ngraph = "/data/net"\n'
        b'command = ["python3", "-m", "edgeecc"]\nenv = {A = "1"}\n'
    ]


def hardwares() -> List[bytes]:
    """Return the constants of an array."""
    return [
        b"rows = 12\ncolumns = 14\ninput_words = 51200\nweight_words = 4096\nmac = 3.0\nmemory = 200.0\n"
        b"cache = 6.0\nregister = 1.0\n"
    ]


def stores() -> List[bytes]:
    """Return a database of samples, in one file."""

    def write(path: Path) -> None:
        rows = [Row(number, (8, 12), 0.1, 0.001, None, 0.01, 5, 50, converged=True, board="one")
                for number in (-2, -1, 0, 1)]  # fmt: skip
        with SampleStore(path, IDENTITY) as store:
            store.add(
                [*rows, Row(0, (8, 12), 0.1, None, 0.1, None, 5, 50, converged=False, repeat=True)]
            )
            store.fail(Failure(7, "too large"))
            store.tell({"board": "jetson-tx2"})
        with sqlite3.connect(path, isolation_level=None) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()

    return [file_bytes(write, "samples.db")]


def archives() -> List[bytes]:
    """Return an .npz as numpy packs it, and one not packed."""
    arrays = {
        "jpeg": np.arange(40, dtype=np.uint8), "offsets": np.array([0, 20, 40]), "labels": np.array([1, 2], np.uint8),
    }  # fmt: skip
    made = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **arrays)
        made.append(stream.getvalue())
    return made


def idx_files() -> List[bytes]:
    """Return gzipped IDX files: images and labels."""
    images = b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(24)
    return [gzip.compress(images), gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes(4))]


def images() -> List[bytes]:
    """Return small images of every format that is read."""
    from PIL import Image

    picture = Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
    forms = [("JPEG", picture), ("PNG", picture), ("WEBP", picture), ("BMP", picture)]
    forms += [("PNG", picture.convert(mode)) for mode in ("P", "L", "RGBA", "I;16", "1")]
    made = []
    for form, image in forms:
        stream = io.BytesIO()
        image.save(stream, form)
        made.append(stream.getvalue())
    return made


def shards() -> List[bytes]:
    """Return tar shards: labels as text, and as JSON with long names."""
    return [
        tarred({"a.jpg": b"\xff\xd8\xff", "a.cls": b"3", "b.png": b"\x89PNG", "b.cls": b" 7 "}),
        tarred({"x/" * 60 + "a.jpg": b"12", "x/" * 60 + "a.json": b'{"label": 2}', "x/n.txt": b""}),
    ]


def pickles() -> List[bytes]:
    """Return a batch of CIFAR-10 as Python 2's pickle wrote it, of one image."""

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    pixels = bytes(3072)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85"
        + short("b")
        + b"\x87R"
    )
    array += (
        b"(K\x01K\x01M\0\x0c\x86cnumpy\ndtype\n" + short("u1") + b"K\0K\x01\x87R(K\x03" + short("|")
    )
    array += (
        b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\0tb\x89T" + struct.pack("<i", 3072) + pixels + b"tb"
    )
    body = short("labels") + b"]q\x03(K\x07e" + short("data") + array
    return [b"\x80\x02}q\0(" + body + b"u."]


def traces() -> List[bytes]:
    """Return recorded power: CSV and JSONL."""
    return [b"seconds,watts\n0,1.5\n0.1,2\n0.2,1\n", b"seconds,joules\n0,0\n1,2\n",
            b'{"seconds": 0, "watts": 1}\n{"seconds": 0.5, "watts": 3}\n']  # fmt: skip


def lines() -> List[bytes]:
    """Return what goes over the wire: tasks, answers, a greeting."""
    row = Row(
        3, (8, 12), 0.1, 0.001, 0.01, 0.02, 5, 50, converged=True, conditions={"mode": "MAXN"}
    )
    greeting = {
        "edgeecc": __version__,
        "device": "virtual:tx2",
        "fingerprint": spec().fingerprint(),
    }
    return [
        task_line(3, (8, 12)),
        json.dumps(row_object(row, "ina3221")).encode(),
        json.dumps(greeting).encode(),
    ]


def programs() -> List[bytes]:
    """Return what trtexec prints and writes, and what an engine's inspector says."""
    summary = (
        b"[I] === Performance summary ===\n[I] Throughput: 512.3 qps\n"
        b"[I] GPU Compute Time: min = 1.1 ms, max = 2 ms, mean = 1.5 ms, median = 1.4 ms\n"
        b"[I] Total Host Walltime: 3.0 s\n[I] Total GPU Compute Time: 2.9 s\n"
    )
    layers = {"Layers": [{"Name": "conv", "LayerType": "CaskConvolution", "Weights": {"Type": "Half", "Count": 9},
                          "Outputs": [{"Name": "y", "Dimensions": [1, 8], "Format/Datatype": "Half"}]}]}  # fmt: skip
    outputs = [{"name": "y", "dimensions": "1x2", "values": [0.5, 1.0]}]
    return [summary, json.dumps(layers).encode(), json.dumps(outputs).encode()]


def sysfs() -> List[bytes]:
    """Return files of a Jetson and of powercap: path -> what it says."""
    tree = {
        "sys/firmware/devicetree/base/model": "NVIDIA Jetson TX2\0",
        "sys/firmware/devicetree/base/compatible": "nvidia,p2771-0000\0nvidia,tegra186\0",
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1",
        "var/lib/nvpmodel/status": "pmode:0002",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=2 NAME=MAXP >\n< PM_CONFIG DEFAULT=2 >",
        "sys/class/thermal/thermal_zone0/type": "GPU-therm",
        "sys/class/thermal/thermal_zone0/temp": "41000",
        "sys/class/hwmon/hwmon3/name": "ina3221",
        "sys/class/hwmon/hwmon3/in1_label": "VDD_IN",
        "sys/class/hwmon/hwmon3/in1_input": "5000",
        "sys/class/hwmon/hwmon3/curr1_input": "900",
        "sys/class/hwmon/hwmon3/shunt1_resistor": "5000",
        "sys/class/hwmon/hwmon3/update_interval": "100",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/name": "ina3221",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_label": "VDD_IN",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_input": "5000",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input": "900",
        "sys/bus/i2c/drivers/ina3221x/0-0040/iio:device0/rail_name_0": "VDD_GPU",
        "sys/bus/i2c/drivers/ina3221x/0-0040/iio:device0/in_power0_input": "2000",
        "sys/class/devfreq/17000000.gp10b/cur_freq": "1300500000",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "2035200",
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:0/energy_uj": "123456789",
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    }
    return [json.dumps(tree).encode()]


def runs() -> List[bytes]:
    """Return finished runs of channels: what `explain` and `verify` read."""
    return [folder_zip(_write_run)]


def _write_run(path: Path) -> None:
    folder, net = RunFolder(path), spec()
    folder.write_spec(net)
    keep = net.keep_first({"stem": 4, "point": 6})
    folder.write_keep(keep)
    widths = net.vector({name: len(units) for name, units in keep.items()})
    told = [
        {"metric": cost.metric.value, "unit": cost.metric.unit, "text": "60%", "value": 1e4, "dense": 1e5,
         "cost": cost.predict(widths), "meter": cost.meter, "device": "", "margin": 0.0, "confidence": None}
        for cost in (mac_cost(net), size_cost(net))
    ]  # fmt: skip
    body: Dict[str, object] = {
        "method": "ecc", "budget": told[0], "budgets": told, "cost": told[0]["cost"], "device": "",
        "fit_budget": {"max_windows": 30, "tolerance": 0.02}, "pattern": {"text": "2:4"},
        "hardware": {"name": "mine", "rows": 12, "columns": 14, "input_words": 51200, "weight_words": 4096, "mac": 3.0,
                     "memory": 200.0, "cache": 6.0, "register": 1.0},
    }  # fmt: skip
    write_json(path / "result.json", RESULT_SCHEMA, body)
    source = {"network": "small", "input_shape": [3, 8, 8], "options": {}, "paper_groups": False,
              "normalisation": {"mean": [0.5], "deviation": [0.2]}}  # fmt: skip
    request = {
        "kind": "channels",
        "data": "digits",
        "training": asdict(HeldoutError(0.0, 0.0, 0.0)),
    }
    write_json(path / "run.json", RUN_SCHEMA, {"source": source, "request": request})
    write_json(
        path / "verify.json",
        VERIFY_SCHEMA,
        {"latency_s": 0.1, "latency_meter": "clock", "energy_j": None},
    )
    rows = [
        {"network": name, "energy_j": 0.1, "meter": "virtual:tx2"} for name in ("dense", "slim")
    ]
    write_json(path / "report.json", REPORT_SCHEMA, {"networks": rows})


def states() -> List[bytes]:
    """Return weights as torch saves them: today's zip, and the form before 1.6; needs torch."""
    import torch

    state = {"a.weight": torch.rand(4, 3), "a.bias": torch.zeros(4), "n": torch.tensor(1)}
    made = []
    for content, zip_form in ((state, True), ({"state_dict": state}, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zip_form)
        made.append(stream.getvalue())
    return [*made, tensors()[0]]


def exported() -> List[bytes]:
    """Return a program as torch.export saves it; needs torch."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=batch)

    def write(path: Path) -> None:
        torch.export.save(program, path)

    return [zipped(unzipped(file_bytes(write, "net.pt2")))]
