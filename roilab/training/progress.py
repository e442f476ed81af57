"""What a run shows and how it is stopped: its log, its bar, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from pathlib import Path

from transformers import TrainerCallback

from ..files import write_whole

ONE_PRESS = 2.0  # seconds in which several processes may each get, and be passed on, the same Ctrl-C


class JsonLog(TrainerCallback):
    """Appends every log entry of the Trainer to a JSON-lines file."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with self.path.open("a") as file:
                file.write(self.line({"step": state.global_step, **logs}))

    @staticmethod
    def line(entry: dict) -> str:
        """An entry as it stands in the file."""
        return json.dumps(entry) + "\n"


class ResumedLog(JsonLog):
    """A `JsonLog` that goes on where the checkpoint stood: what was logged after it is taken away, so that every step stands once."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            write_whole(self.path, "".join(map(self.line, state.log_history)))

    @staticmethod
    def line(entry: dict) -> str:
        first = {name: entry[name] for name in ("step", "loss")}
        return json.dumps(first | dict(sorted(entry.items()))) + "\n"


class Bar(TrainerCallback):
    """One bar for the whole run, in a terminal or a notebook: steps, time left, loss, learning rate and samples per second."""

    def __init__(self, shown: bool = True):
        self.shown, self.bar = shown, None

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm.auto import tqdm

        if self.shown and state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix_str(
                f"loss {logs['loss']:.4f}, lr {logs['learning_rate']:.1e}, {logs['samples_per_second']:.1f} samples/s"
            )

    def close(self):
        """Also after an error, where the Trainer does not call back."""
        if self.bar is not None:
            self.bar.close()


class Interruption:
    """The first Ctrl-C (a kernel's stop button) asks to stop after the step; the second one raises KeyboardInterrupt at once.

    Signals reach the main thread only; elsewhere nothing is changed.
    """

    def __init__(self, processes: int = 1):
        self.asked, self._processes, self._when = False, processes, 0.0

    def _handle(self, number, frame):
        if self.asked and (self._processes == 1 or time.monotonic() - self._when > ONE_PRESS):
            raise KeyboardInterrupt
        self.asked, self._when = True, time.monotonic()

    @contextlib.contextmanager
    def listening(self):
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def leave_interrupts_to_the_main_process(worker: int):
    """For loader processes: Ctrl-C in a terminal reaches them too, and would end them in the middle of the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
