"""Nothing in the package runs what a file says: no pickle, no evaluated text, no shell, no import by a file's word."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Set

import numpy as np
import pytest

from edgeecc.check_set import CheckSet, write_check
from edgeecc.run_folder import RunFolder
from edgeecc.runtimes.onnxrt import OnnxRuntime
from tools.fuzz.forms import unzipped
from tools.fuzz.network import graph
from tools.fuzz.seeds import graphs, runs

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "edgeecc"
#: Modules that make objects out of bytes by calling what the bytes name.
FORBIDDEN = {
    "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "pickle", "shelve", "yaml",
}  # fmt: skip
#: Functions that run text or make objects of any kind.
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.save",
    "torch.export.load",
}
#: Who imports by a name that is no constant of its own, and where the name comes from.
IMPORTERS = {
    "data/images.py": "a table of Pillow's decoders",
    "loaders.py": "a constant",
    "plugins.py": "tables of edgeecc, and what the user names (`own_code` sees to it)",
    "runtimes/cuda_memory.py": "a table of CUDA packages",
    "runtimes/trt_api.py": "a table of TensorRT packages",
}


def sources() -> List[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(node: ast.expr) -> str:
    """Return the dotted name of an expression, empty where it has none."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.Module) -> Set[str]:
    """Return the packages that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def keyword(call: ast.Call, name: str) -> object:
    """Return a constant keyword argument, None where there is none."""
    for word in call.keywords:
        if word.arg == name:
            return word.value.value if isinstance(word.value, ast.Constant) else "computed"
    return None


@functools.lru_cache(maxsize=None)
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def callers(function: str) -> Set[str]:
    """Return the modules that call a function of this name."""
    return {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(
            isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == function
            for node in ast.walk(parsed(path))
        )
    }


def faults(tree: ast.Module) -> List[str]:
    """Return what a module must not do, a line each."""
    found = [f"imports {name}" for name in sorted(imported(tree) & FORBIDDEN)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = dotted(call.func)
        last = name.rpartition(".")[2]
        if name in CALLS:
            found.append(f"calls {name}")
        if name == "torch.load" and keyword(call, "weights_only") is not True:
            found.append("calls torch.load without weights_only=True")
        if last == "load" and name.startswith(("np.", "numpy.")):
            found.append(f"calls {name}, which may unpickle; use data.npz")
        if keyword(call, "allow_pickle") not in (None, False):
            found.append(f"allows pickle in {name}")
        if keyword(call, "shell") not in (None, False):
            found.append(f"gives {name} a shell")
        if last in ("extractall", "extract", "unpack_archive"):
            found.append(f"unpacks an archive with {name}")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_runs_what_a_file_says(path: Path) -> None:
    assert faults(parsed(path)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads", "imports pickle"),
        ("def f():\n    import joblib.externals", "imports joblib"),
        ("import yaml", "imports yaml"),
        ("import shelve, marshal", "imports marshal"),
        ("torch.load(p)", "without weights_only"),
        ("torch.load(p, weights_only=False)", "without weights_only"),
        ("torch.load(p, weights_only=safe)", "without weights_only"),
        ("torch.export.load(p)", "calls torch.export.load"),
        ("np.load(p)", "may unpickle"),
        ("numpy.lib.format.read_array(f, allow_pickle=True)", "allows pickle"),
        ("eval(text)", "calls eval"),
        ("exec(text)", "calls exec"),
        ("subprocess.run(line, shell=True)", "a shell"),
        ("os.system(line)", "calls os.system"),
        ("archive.extractall(folder)", "unpacks an archive"),
    ],
)
def test_each_of_them_would_be_seen(text: str, found: str) -> None:
    assert any(found in fault for fault in faults(ast.parse(text)))


def test_safe_calls_are_no_faults() -> None:
    text = "torch.load(p, weights_only=True)\nsubprocess.run([a], shell=False)\njson.load(f)"
    assert faults(ast.parse(text)) == []


def test_modules_are_imported_by_tables_and_by_the_users_word_alone() -> None:
    assert callers("import_module") == set(IMPORTERS)


def test_code_of_the_users_own_is_called_from_two_places() -> None:
    assert callers("call_own") == {"data/sources.py", "sources.py"}


#: Run in a child: whoever unpickles from here on is told on, but for what torch's processes do among themselves.
GUARD = """
import pickle, _pickle, sys
def refuse(*args, **kwargs):
    raise AssertionError("something unpickles")
class Unpickler:
    def __init__(self, *args, **kwargs):
        refuse()
for module in (pickle, _pickle):
    module.load = module.loads = refuse
    module.Unpickler = Unpickler
pickle._Unpickler, pickle._load, pickle._loads = Unpickler, refuse, refuse
try:
    pickle.loads(b"N.")
except AssertionError:
    pass
else:
    sys.exit("the guard does not guard")
from click.testing import CliRunner
from edgeecc.cli.main import cli
for line in sys.argv[1:]:
    done = CliRunner().invoke(cli, line.split())
    if done.exit_code not in (0, 3):  # 3: a budget is missed, which is not the point here
        raise done.exception or SystemExit(done.output)
    print(line.split()[0])
"""


def guarded(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run commands in a child in which nothing can be unpickled."""
    environment: Dict[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", GUARD, *lines], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_commands_of_the_device_tier_unpickle_nothing(
    tmp_path: Path, finished_run: Callable[[Path], Path]
) -> None:
    pytest.importorskip("onnxruntime")
    calibration, run = tmp_path / "small", finished_run(tmp_path / "run")
    calibration.mkdir()
    for name, content in unzipped(graphs()[0]).items():
        (calibration / name).write_bytes(content)
    done = guarded(
        tmp_path,
        f"calibrate --graph {calibration} --samples 20 --target-error 0 --model bilinear --fit nnls",
        f"explain {run}",
        f"verify {run}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["calibrate", "explain", "verify"]
    assert (run / "verify.json").is_file()


def test_commands_with_torch_unpickle_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = guarded(tmp_path, "inspect --network lenet5 --device systolic:eyeriss")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def finished_run() -> Callable[[Path], Path]:
    """Return what writes a finished run of a small network into a folder."""

    def write(path: Path) -> Path:
        path.mkdir()
        for name, content in unzipped(runs()[0]).items():
            (path / name).write_bytes(content)
        result = json.loads((path / "result.json").read_text())
        (path / "result.json").write_text(
            json.dumps({**result, "fit_budget": None, "pattern": None})
        )
        (path / "slim.onnx").write_bytes(graph().SerializeToString())
        images = np.zeros((2, 3, 8, 8), np.float32)
        with OnnxRuntime(graph()) as runtime:
            outputs = np.concatenate([runtime.infer([image[None]])[0] for image in images])
        check = CheckSet(images, np.array([1, 2]), outputs, "classification", 10)
        write_check(RunFolder(path), check)
        return path

    return write
