"""No thread outlives a job: one that lets a tensor go while Python ends takes the whole process with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

JOB = """
import sys
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from edgeecc.training.parallel import job

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

before = threads()
with job(f"file://{sys.argv[1]}?rank=0&world_size=1"):
    DistributedDataParallel(nn.Linear(2, 2))
    during = threads()
print(during > before, threads() - before)
"""


def test_no_thread_outlives_a_job(tmp_path: Path) -> None:
    # In a process of its own: here others may have imported what keeps the group.
    done = subprocess.run(
        [sys.executable, "-c", JOB, tmp_path / "meeting"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True 0\n"
