"""The tree's rules, read from the imports: base < domain < use cases < command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "edgeecc"

BASE = {
    "errors", "units", "config", "artifacts", "compressed", "ecc_forms", "fit_config", "fleet_config", "interrupts",
    "launch", "normalisation", "pattern", "peer_config", "plugins", "progress", "schedule", "timing", "workload",
}  # fmt: skip
DOMAIN = {"graph", "networks", "data", "cost", "meters", "runtimes", "solvers", "training"}
USE_CASES = {
    "array_pricing", "bench", "budgets", "calibrate", "calibration_fit", "calibration_folder", "calibration_job",
    "catalogue", "check_set", "compare", "comparison", "crew", "demo", "device_names", "doctor", "explain",
    "export", "export_engine", "export_parts", "export_weights", "fit_budget", "fit_rounds", "fit_training",
    "fleet", "inspection", "loaders", "machine", "measure_variants", "pricing", "prune", "report", "rounds",
    "own_code", "run_engines", "run_folder", "run_profiles", "run_request", "sources", "sparsify", "targets",
    "telling", "verdict", "verify", "weight_methods",
}  # fmt: skip
#: What a domain package may import of the other domain packages: the modules that only describe.
SHARED = {
    "graph.spec",
    "cost.base",
    "solvers.base",
    "solvers.table",
    "data.splits",
    "training.task",
}
#: Device tier: importable without torch.
DEVICE = [
    "errors", "units", "config", "artifacts", "pattern", "plugins", "progress", "workload", "graph.spec",
    "graph.drawing",
    "graph.ties", "graph.onnx_slice", "graph.onnx_work", "graph.settle", "cost.product", "cost.exact",
    "cost.hardware", "cost.systolic", "cost.correction", "cost.fit", "cost.profile", "cost.receipt", "cost.design",
    "cost.stopping", "meters.base", "meters.conditions", "meters.ina3221", "meters.jetson", "meters.jtop",
    "meters.measure", "meters.nvml", "meters.nvml_check", "meters.nvml_driver", "meters.nvml_names", "meters.rails",
    "meters.rapl", "meters.record", "meters.replay", "meters.sampled", "meters.sysfs", "meters.virtual",
    "networks.names", "runtimes.base", "runtimes.onnxrt", "bench", "calibrate", "doctor", "explain", "fleet.boards",
    "fleet.board_process", "fleet.wire", "measure_variants", "report.job", "report.run_job", "run_profiles",
    "solvers.table", "training.scores", "verdict", "verify", "cli.main", "device_names", "targets", "loaders",
    "machine", "export_engine", "run_engines",
]  # fmt: skip
#: Third-party packages that only one place may import.
OWNED = {
    "click": {"cli"},
    "rich": {"cli"},
    "tensorrt": {"runtimes"},
    "pycuda": {"runtimes"},
    "onnxruntime": {"runtimes"},
    "pynvml": {"meters"},
    "jtop": {"meters"},
    "torch_pruning": {"graph"},
    "sklearn": {"data"},
    "PIL": {"data"},
    "matplotlib": {"comparison", "report"},
    "distributed": {"fleet"},
    "dask": {"fleet"},
}
pytestmark = pytest.mark.device


def modules() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if name]


def tree(module: str) -> ast.Module:
    path = PACKAGE / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())


def imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module.startswith("edgeecc")
            }
    return found


def own(module: str) -> set[str]:
    """Return imports of edgeecc modules, without the package's name and without imported attributes."""
    known = set(modules())
    names = {name.partition(".")[2] for name in imports(module) if name.startswith("edgeecc.")}
    return {name for name in names if name in known}


def test_every_module_has_a_layer() -> None:
    tops = {module.partition(".")[0] for module in modules()}
    assert tops == (BASE | DOMAIN | USE_CASES | {"cli", "__main__"}) & tops, (
        f"new modules need a layer: {tops}"
    )


@pytest.mark.parametrize("module", modules())
def test_imports_point_downwards(module: str) -> None:
    top = module.partition(".")[0]
    for name in own(module):
        target = name.partition(".")[0]
        if top in BASE:
            assert target in BASE, f"base module {module} imports {name}"
        elif top in DOMAIN:
            fine = target in BASE or target == top or name in SHARED or name in DOMAIN
            assert fine, f"domain module {module} imports {name}"
        elif top in USE_CASES:
            assert target != "cli", f"use case {module} imports {name}"


@pytest.mark.parametrize("module", modules())
def test_third_party_packages_stay_in_their_place(module: str) -> None:
    top = module.partition(".")[0]
    for name in imports(module):
        owners = OWNED.get(name.partition(".")[0])
        assert owners is None or top in owners, f"{module} imports {name}; only {owners} may"


def test_one_module_knows_of_processes() -> None:
    users = {
        module
        for module in modules()
        if any(
            n.startswith("torch.distributed")
            or "_distributed_c10d" in n
            or n == "torch.nn.parallel"
            for n in imports(module)
        )
    }
    assert users == {"training.parallel"}


def test_device_tier_loads_without_torch() -> None:
    names = ", ".join(f"edgeecc.{name}" for name in DEVICE)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_module_is_over_four_hundred_lines() -> None:
    long = [
        str(p.relative_to(ROOT))
        for p in PACKAGE.rglob("*.py")
        if len(p.read_text().splitlines()) > 400
    ]
    assert not long
