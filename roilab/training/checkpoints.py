"""Checkpoints that are written whole or not at all.

A checkpoint is written under a temporary name beside its place, flushed to the disk and renamed; older ones go after that. So a save
that was killed or found the disk full leaves the checkpoint before it as it was, and whatever is named `checkpoint-N` is complete.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path

import torch
from transformers import Trainer, TrainerState

from ..files import atomic_folder

STATE = "trainer_state.json"  # the Trainer writes it last


class AtomicTrainer(Trainer):
    """transformers.Trainer with atomic checkpoints, of which the newest `keep` stay."""

    keep = 1
    _writing: Path | None = None

    def _get_output_dir(self, trial) -> str:
        return super()._get_output_dir(trial) if self._writing is None else str(self._writing)

    def _save_checkpoint(self, model, trial):
        target = Path(self.args.output_dir).absolute() / f"checkpoint-{self.state.global_step}"
        try:
            with self._one_folder(target) as folder:
                self._writing = folder
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()  # every process writes its random state
                if self.args.should_save:
                    for path in (folder / target.name).iterdir():  # where the Trainer wrote, one folder too deep
                        path.rename(folder / path.name)
                    (folder / target.name).rmdir()
        finally:
            self._writing = None
        if self.args.should_save:
            for old in complete_checkpoints(target.parent)[: -self.keep]:
                discard(old)

    @contextlib.contextmanager
    def _one_folder(self, target: Path):
        """A temporary folder that all processes write to; the first one renames it."""
        from accelerate.utils import broadcast_object_list

        with atomic_folder(target) if self.args.should_save else contextlib.nullcontext() as folder:
            yield Path(broadcast_object_list([str(folder)])[0])


def complete_checkpoints(out: Path) -> list[Path]:
    """The checkpoints in `out` that have their state, by number of steps."""
    complete = [each.parent for each in Path(out).glob(f"checkpoint-*/{STATE}")]
    complete = [each for each in complete if re.fullmatch(r"checkpoint-[0-9]{1,18}", each.name)]
    return sorted(complete, key=lambda each: int(each.name.split("-")[1]))


def newest_checkpoint(out: Path) -> str | None:
    """The complete checkpoint of the most steps in `out`, or None.

    Raises:
        ValueError: its state cannot be read.
    """
    complete = complete_checkpoints(out)
    if not complete:
        return None
    with reading(complete[-1] / STATE):
        state = TrainerState.load_from_json(str(complete[-1] / STATE))
        if not isinstance(state.global_step, int):
            raise TypeError(f"global_step is {state.global_step!r}")
    return str(complete[-1])


@contextlib.contextmanager
def reading(path: Path):
    """What a damaged file of a checkpoint makes its reader raise becomes a ValueError that names it. Pickles are read as tensors alone."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {told}): remove {path if path.is_dir() else path.parent} to go on from the "
            "checkpoint before it, or begin anew"
        ) from error


def discard(checkpoint: Path):
    """Remove a checkpoint; if that is cut short, what is left does not look like one."""
    aside = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    os.rename(checkpoint, aside)
    shutil.rmtree(aside, ignore_errors=True)


def clear_unfinished_checkpoints(out: Path):
    """Remove what interrupted saves of checkpoints left in `out`."""
    for path in Path(out).glob(".checkpoint-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def save_state(state: dict, path: Path):
    """`torch.save`, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
