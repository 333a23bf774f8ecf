"""Training in several processes that torchrun starts: one network, one batch, shared out.

Nothing else in edgeecc knows `torch.distributed`. Every process holds the whole state and takes its slice of each
batch; gradients and counts are summed over all, so all decide alike, and only the first one writes and speaks.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from time import perf_counter, sleep
from typing import Any, Dict, Iterator, Literal, Optional

import torch
import torch.distributed as dist

# Its functions have the default group of the moment of import as a default: imported while there is none, they do not
# keep a group that was left, whose threads would outlive Python and abort the process.
import torch.distributed.nn.functional
from torch import nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from edgeecc.errors import (
    EdgeeccError,
    FailedElsewhereError,
    LostProcessError,
    ParallelError,
    brief,
)
from edgeecc.launch import processes

#: A process that has not answered for so long is given up: longer than checkpoints, tables and scores take.
TIMEOUT = timedelta(minutes=10)
#: Seconds that a process that failed waits for the first one to say the same.
ECHO_S = 5.0
#: CPU tensors travel by gloo, those of GPUs by nccl.
BACKENDS = "cpu:gloo,cuda:nccl"
#: Running statistics are the same everywhere already; what says so was called otherwise before torch 2.13.
_NO_SYNC: Dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}
#: Words of gloo and nccl about a process that is gone.
_LOST = re.compile(r"gloo|nccl|connection|timed out|broken pipe|socket", re.IGNORECASE)


@dataclass(frozen=True)
class World:
    """The processes of a job.

    Args:
        rank: of this process, 0..size-1.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process writes and speaks for all."""
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor, kind: Literal["sum", "max"] = "sum") -> torch.Tensor:
        """Return the sum or the largest over all processes, elementwise, the same bits in each.

        Raises: LostProcessError when one is gone.
        """
        if self.size == 1:
            return tensor
        found = tensor.detach().clone().contiguous()
        with noticing_loss():
            dist.all_reduce(found, op=dist.ReduceOp.SUM if kind == "sum" else dist.ReduceOp.MAX)
        return found

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the first process's tensor, of the shape and type that all have.

        Raises: LostProcessError when one is gone.
        """
        if self.size == 1:
            return tensor
        found = tensor.detach().clone().contiguous()
        with noticing_loss():
            dist.broadcast(found, src=0)
        return found

    def barrier(self) -> None:
        """Wait for all processes.

        Raises: LostProcessError when one is gone.
        """
        self.all_reduce(torch.zeros(1))

    def slice_of(self, count: int) -> slice:
        """Return which of so many things in a row are this process's; shares differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sharing(self, model: nn.Module, *, unused: bool) -> nn.Module:
        """Return the network so that its gradients are means over processes; parameters become the first's.

        Args:
            model: shared, not copied.
            unused: whether a parameter may be left out of the result.
        Raises: LostProcessError when one is gone.
        """
        if self.size == 1:
            return model
        with noticing_loss():
            return DistributedDataParallel(model, find_unused_parameters=unused, **_NO_SYNC)

    def check_alike(self, digest: int, what: str) -> None:
        """Check that all processes have the same digest.

        Args:
            digest: 0..2^63-1.
            what: what it is of, in the plural.
        Raises: ParallelError where they differ, in every process.
        """
        ends = self.all_reduce(torch.tensor([digest, -digest]), "max").tolist()
        if ends[0] != -ends[1]:
            raise ParallelError(
                f"the processes of the job have different {what}; use machines of one kind, or one process, and give "
                "the same command to go on from the last checkpoint"
            )


#: A process on its own.
ALONE = World()


@contextlib.contextmanager
def noticing_loss() -> Iterator[None]:
    """Tell what gloo and nccl say about a process that is gone from other errors.

    Raises: LostProcessError.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise LostProcessError(
            f"a process of this job is gone or does not answer ({brief(error, 80)}); give the same command to go on "
            "from the last checkpoint"
        ) from error


@contextlib.contextmanager
def reducing() -> Iterator[None]:
    """Surround a backward pass of what `World.sharing` returned.

    Raises: LostProcessError.
    """
    with noticing_loss(), warnings.catch_warnings():
        # gradients of depthwise kernels are laid out otherwise, which costs a copy of few numbers
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield


@contextlib.contextmanager
def job(url: Optional[str] = None) -> Iterator[World]:
    """Join the job that torchrun started, and leave it in the end; alone without torchrun.

    Where a process fails, one of them says why: the first where it fails too, else that which failed.

    Args:
        url: where processes meet, as torch takes it; None: where torchrun says.
    Raises: ParallelError for what failed in this process alone; FailedElsewhereError where another process tells.
    """
    if url is None and processes() == 1:
        yield ALONE
        return
    store, rank, size = next(rendezvous(url or "env://", timeout=TIMEOUT))
    with noticing_loss():
        dist.init_process_group(
            BACKENDS if torch.cuda.is_available() else "gloo",
            store=PrefixStore("collectives", store), rank=rank, world_size=size, timeout=TIMEOUT,
        )  # fmt: skip
    notes = _Notes(PrefixStore("notes", store), rank, size)
    try:
        yield World(rank, size)
    except LostProcessError as error:
        if notes.is_told():
            raise FailedElsewhereError(str(error)) from error
        raise
    except BaseException as error:
        notes.tell()
        if rank and isinstance(error, (EdgeeccError, OSError)):
            _defer(error, rank, notes)
        raise
    finally:
        dist.destroy_process_group()


def _defer(error: BaseException, rank: int, notes: _Notes) -> None:
    """Raise what a process other than the first does about its error."""
    if notes.main_tells():
        raise FailedElsewhereError(str(error)) from error
    raise ParallelError(f"process {rank}: {error}") from error


class _Notes:
    """Who failed and tells why, and who was the first to miss another."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size

    def tell(self) -> None:
        """Write down that this process failed by itself."""
        with contextlib.suppress(RuntimeError):
            self._store.set(_key(self._rank), "1")

    def main_tells(self) -> bool:
        """Return whether the first process failed by itself too; waits a little for it."""
        until = perf_counter() + ECHO_S
        with contextlib.suppress(RuntimeError):
            while perf_counter() < until:
                if self._store.check([_key(0)]):
                    return True
                sleep(0.1)
        return False

    def is_told(self) -> bool:
        """Return whether somebody else tells what happened: who failed, or who missed another first."""
        try:
            failed = any(self._store.check([_key(rank)]) for rank in range(self._size))
            return failed or self._store.add("missed", 1) > 1
        except RuntimeError:  # whoever kept the notes is gone too
            return self._rank > 0


def _key(rank: int) -> str:
    return f"failed/{rank}"
