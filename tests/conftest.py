"""Shared fixtures, hypothesis profiles, and one thread for torch: the networks of the tests are tiny."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import Iterator, Optional

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "dev", max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# What edgeecc keeps in an account's state folder stays out of the account that runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="edgeecc-state-")

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch

    torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path) -> Optional[bool]:
    """Leave out, where there is no torch, files without a test of the device tier and those that import torch."""
    if HAS_TORCH or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text()
    needs = re.search(
        r"^(import torch|from (torch|tests.zoo|tests import zoo))", text, flags=re.MULTILINE
    )
    return True if needs or "mark.device" not in text else None


@pytest.fixture(scope="session", autouse=True)
def exporter_operators() -> None:
    """Let torch's exporter list onnxscript's operators once: it parses all of them again for every export."""
    with contextlib.suppress(ImportError):
        from torch.onnx._internal.exporter import _registration

        apis = _registration.onnxscript_apis
        apis.get_torchlib_ops = functools.lru_cache(maxsize=None)(apis.get_torchlib_ops)


@pytest.fixture(scope="session", autouse=True)
def thrift() -> Iterator[None]:
    """Spare time that no test needs, see `tests.thrift`."""
    if HAS_TORCH:
        from tests.thrift import spared

        with spared():
            yield
    else:
        yield


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Return an empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
