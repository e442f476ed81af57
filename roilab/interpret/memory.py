"""Batches that fit a stated memory: one sequence is run and what it needs is measured."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
ROOM = 0.9  # of the limit: what is made once, beside the sequences, is not in the measurement


class Peak(TorchDispatchMode):
    """While it lasts, `peak` is the largest number of bytes of tensors alive that were made in it, on any device."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                key, size = storage.data_ptr(), storage.nbytes()
                if key and key not in self.alive:
                    self.alive[key] = 0
                    self.now += size
                    self.peak = max(self.peak, self.now)
                if key:
                    self.alive[key] += 1
                    weakref.finalize(each, self._release, key, size)
        return result

    def _release(self, key, size):
        self.alive[key] -= 1
        if not self.alive[key]:
            del self.alive[key]
            self.now -= size


def fitting(batch: int | str, run_one: Callable[[], object]) -> int:
    """How many sequences go into one pass.

    Args:
        batch: their number, or the memory that a pass may take above the model, e.g. "2 GB".
        run_one: runs a pass of one sequence, with all that a pass keeps; called only if memory is given.
    Raises:
        ValueError: not a number from 1 nor an amount of memory; one sequence alone needs more.
    """
    if isinstance(batch, int) and not isinstance(batch, bool) and batch >= 1:
        return batch
    amount = re.fullmatch(r"\s*([\d.]+)\s*([kmg]i?b)\s*", str(batch).lower())
    if isinstance(batch, int | bool) or amount is None:
        raise ValueError(f"batch {batch!r}, expected a number from 1 or an amount of memory such as '2 GB'")
    limit = float(amount[1]) * UNITS[amount[2]]
    needed = _measured(run_one)
    if needed > limit:
        raise ValueError(f"one sequence alone needs {needed / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB")
    return max(1, int(ROOM * limit / max(needed, 1)))


def _measured(run_one: Callable[[], object]) -> int:
    """Peak bytes of a pass."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run_one()
        on_device = torch.cuda.max_memory_allocated() - before
        if on_device:
            return on_device
    with Peak() as watched:
        run_one()
    return watched.peak
