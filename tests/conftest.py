"""Shared fixtures, hypothesis profiles, and one thread for torch: the networks of the tests are tiny."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "dev", max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

try:
    import torch
except ImportError:
    # The device tier's tests run without torch.
    collect_ignore_glob = ["unit/graph/test_trace.py", "properties/*torch*", "e2e/*"]
else:
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Return an empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
