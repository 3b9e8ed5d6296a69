"""Training by several processes that ``torchrun`` started: who one is, and what all share.

With one process every function here is the plain thing, and nothing is sent.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ofa.errors import UserError

__all__ = ["LostProcess", "count", "from_first", "gather", "group", "local", "mean_", "rank"]

T = TypeVar("T")

#: Seconds that the others leave to the process that tells an error: torchrun ends all of them as
#: soon as one has ended.
_TELLING = 1.0


class LostProcess(UserError):
    """Another process of the run has ended, or torchrun ends this one for that reason."""

    def __init__(self, what: str = "a process of the run was lost", where: str = "") -> None:
        super().__init__(what, where, "run the same command with --resume")


@contextmanager
def group() -> Iterator[None]:
    """Join the other processes where ``torchrun`` started this one: gloo on CPUs, NCCL on GPUs.

    An error that all processes meet is told by the first on each machine, a lost process by every
    one that is left.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local())
        backend = "cpu:gloo,cuda:nccl"
    # The others wait while the first alone decodes or teaches; one that is lost is told at once.
    dist.init_process_group(backend, timeout=timedelta(days=1))
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        yield
    except UserError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, before the error is told
        if local() and not isinstance(error, LostProcess):
            time.sleep(_TELLING)
            raise SystemExit(2) from error
        raise
    signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()


def _ended(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise LostProcess


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; number 0 alone writes files and tells how the run goes."""
    return dist.get_rank() if dist.is_initialized() else 0


def local() -> int:
    """Number of this process on its machine, from 0: also that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else 0


@contextmanager
def _noticing() -> Iterator[None]:
    """What fails here fails because another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcess from error


def mean_(values: Tensor) -> Tensor:
    """The mean over the processes, in place: bit for bit the same in each of them."""
    if count() > 1:
        with _noticing():
            dist.all_reduce(values)
        values /= count()
    return values


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` gives in process 0, in all; a UserError there is raised in all."""
    if count() == 1:
        return make()
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except UserError as error:
            made[1] = error
    with _noticing():
        dist.broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    result: T = made[0]
    return result


def gather(value: T) -> list[T]:
    """The values of all processes, in each of them, in order. Waits for the last of them."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _noticing():
        dist.all_gather_object(values, value)
    return values
