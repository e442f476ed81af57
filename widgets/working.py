"""Work for a model in a thread of its own: the newest job counts, older ones are dropped or ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import torch

from roilab.interpret import listening

from .parts import in_words

SMALL = 20_000_000  # parameters


class Cancelled(Exception):
    """The job was ended: something newer waits, or somebody said so."""


@contextlib.contextmanager
def one_thread(model):
    """While it lasts, this thread computes a small model on one core: others, who wait by spinning, would take the browser's and the kernel's.

    Of the tiny model on two cores, `WhatIf` gave 1.2 answers a second without it and 8.1 with it (`roilab bench whatif`).
    """
    before = torch.get_num_threads()
    small = model.device.type == "cpu" and sum(each.numel() for each in model.parameters()) < SMALL
    try:
        if small:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


class Newest:
    """Runs jobs one at a time; of those that wait only the newest is kept.

    Args:
        lock: held while `done` and `failed` are told.
        progress: `progress(sequences)` is called now and then with how many sequences the job has read.
        failed: `failed(text)` shows an error.
        idle: `idle()` is called when nothing is left to do.
    """

    def __init__(self, lock, progress: Callable, failed: Callable, idle: Callable = lambda: None):
        self.lock, self._progress, self._failed, self._idle = lock, progress, failed, idle
        self._next: tuple[Callable, Callable] | None = None
        self._worker: threading.Thread | None = None
        self._guard = threading.Lock()  # of the two above; never held while anything else runs
        self._ended = threading.Event()
        self.count = 0  # jobs that were done

    def submit(self, job: Callable, done: Callable, end_running: bool = True):
        """Do this next: `job()` in the thread, then `done(result)`. A job that waits is forgotten, one that runs is ended if asked for."""
        with self._guard:
            self._next = (job, done)
            if end_running:
                self._ended.set()
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="roilab-explorer", daemon=True)
                self._worker.start()

    def cancel(self):
        """End what runs and forget what waits."""
        with self._guard:
            self._next = None
            self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until nothing is left to do; False if that took longer than `timeout` seconds."""
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout)
        return self._worker is None

    def _work(self):
        while True:
            with self._guard:
                if self._next is None:
                    self._worker = None
                    break
                (job, done), self._next = self._next, None
                self._ended.clear()
            try:
                self._read = 0
                with listening(self._listen):
                    result = job()
                with self.lock:
                    if not self._ended.is_set():
                        self.count += 1
                        done(result)
            except Cancelled:
                pass
            except Exception as error:  # noqa: BLE001 - nobody reads the kernel's log
                if not self._ended.is_set():
                    self._failed(in_words(error))
        self._idle()

    def _listen(self, sequences: int):
        if self._ended.is_set():
            raise Cancelled
        self._read += sequences
        self._progress(self._read)
