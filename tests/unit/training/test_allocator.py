"""Freed memory stays with the process while it trains on a CPU, and only then."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from typing import Type

import pytest
import torch

from edgeecc.training import allocator
from edgeecc.training.allocator import freed_memory_kept

CPU = torch.device("cpu")
#: Above the largest block that glibc ever serves from its heap by itself, and its pages of 4 KiB.
BLOCK = 48 * 2**20
PAGES = BLOCK // 4096

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GLIBC_TUNABLES",
        "MALLOC_MMAP_MAX_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_ARENA_MAX_",
    ):
        monkeypatch.delenv(name, raising=False)


#: Run in a fresh process: what other tests freed inside the heap would serve a block without any fault.
FAULTS = """
import contextlib, json, resource, sys
import torch
from edgeecc.training.allocator import freed_memory_kept

def faults_of_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(int(sys.argv[1]) // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(1)
before = [faults_of_a_block() for _ in range(3)]
within = []
with contextlib.suppress(KeyError), freed_memory_kept(torch.device("cpu")) as kept:
    within = [faults_of_a_block() for _ in range(60)]
    if sys.argv[2] == "fails":
        raise KeyError
print(json.dumps({"kept": kept, "before": before, "within": within, "after": faults_of_a_block()}))
"""


@glibc
@pytest.mark.parametrize("end", ["ends", "fails"])
def test_blocks_are_given_out_again_while_the_context_is_open_and_returned_at_its_end(
    end: str,
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FAULTS, str(BLOCK), end],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    faults = json.loads(child.stdout)
    many = PAGES // 600  # with pages of 2 MiB a fault brings 512
    assert faults["kept"]
    assert min(faults["before"]) > many
    assert sum(faults["within"][30:]) <= PAGES  # the first find no place that is large enough
    assert faults["after"] > many


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_MMAP_MAX_", "7"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=7")],
)
def test_what_the_environment_sets_stays(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(allocator, "_mallopt", lambda: pytest.fail("the allocator was asked for"))
    monkeypatch.setenv(name, value)
    with freed_memory_kept(CPU) as kept:
        assert not kept


def test_other_tunables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda parameter, value: 1)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: _Library())
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.rtld.nns=2")
    with freed_memory_kept(CPU) as kept:
        assert kept


class _Library:
    """A C library that trims nothing."""

    @staticmethod
    def malloc_trim(pad: int) -> int:
        return pad


def test_nothing_is_set_where_a_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_mallopt", lambda: pytest.fail("the allocator was asked for"))
    with freed_memory_kept(torch.device("cuda")) as kept:
        assert not kept


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_nothing_is_set_without_glibc(
    monkeypatch: pytest.MonkeyPatch, error: Type[Exception]
) -> None:
    def missing(name: object) -> object:
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    with freed_memory_kept(CPU) as kept:
        assert not kept


def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda parameter, value: 0)
    with freed_memory_kept(CPU) as kept:
        assert not kept
