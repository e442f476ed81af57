"""transformers.Trainer for a stage: the loss, the stream of items, small checkpoints, and a log that survives interruptions.

What decides a run is in its checkpoints: the parameters that learn, the optimizer's and scheduler's state, every random state, and the losses
that were not yet logged. Items depend on their number alone, so a run that goes on is the unbroken run (`==` on one CPU; on CUDA as far as
its kernels are deterministic).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from .checkpoints import AtomicTrainer, reading
from .preparing import load_trained, trained_tensors
from .progress import Interruption, leave_interrupts_to_the_main_process

TRAINED, PROGRESS = "trained.safetensors", "progress.json"


class Objective(nn.Module):
    """A model whose forward is its loss: the one module that distributed training wraps, so that no use of a parameter goes past it."""

    accepts_loss_kwargs = True  # the loss is divided by `num_items_in_batch`

    def __init__(self, model, reuse_prefix: bool = False):
        super().__init__()
        self.model, self.reuse_prefix = model, reuse_prefix

    def train(self, mode: bool = True):
        super().train(mode)
        if not any(each.requires_grad for each in self.model.vision.parameters()):
            self.model.vision.eval()  # frozen features are the same every time
        return self

    def forward(self, num_items_in_batch=None, **batch):
        if self.reuse_prefix:
            from .prefix import prefix_loss

            return {"loss": prefix_loss(self.model, batch, num_items_in_batch).loss}
        batch.pop("picture_ids", None)
        loss = self.model(**batch, num_items_in_batch=num_items_in_batch).loss
        return {"loss": loss + self._nothing(batch)}

    def _nothing(self, batch) -> torch.Tensor | float:
        """0, with a zero gradient for what this batch does not use: every process must have a gradient for every parameter."""
        unused = [] if any(map(len, batch.get("boxes") or ())) else [self.model.region_encoder]
        if batch.get("pixel_values") is None and batch.get("features") is None:
            unused.append(self.model.projector)
        learning = [each for module in unused for each in module.parameters() if each.requires_grad]
        return sum(0.0 * each.sum() for each in learning)


class StageTrainer(AtomicTrainer):
    """Trains an `Objective` on items in their order.

    Args:
        interruption: is asked after every step.
        epoch_length: items of an epoch, for the log.
        kwargs: the Trainer's.
    """

    def __init__(self, *args, interruption: Interruption, epoch_length: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.interruption, self.epoch_length = interruption, epoch_length
        self.shortened = 0  # dialogues that lost rounds, so far
        self._losses: list[float] = []  # of the steps since the last log entry
        self._step, self._cut, self._logged_at = 0.0, 0, time.perf_counter()
        self.add_callback(_AfterStep(self))

    def get_train_dataloader(self):
        arguments = self.args
        loader = DataLoader(
            self.train_dataset, self._train_batch_size, collate_fn=self.data_collator, num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory, worker_init_fn=leave_interrupts_to_the_main_process, drop_last=True,
        )  # fmt: skip
        return self.accelerator.prepare(loader)

    def floating_point_ops(self, inputs) -> int:
        return 0  # transformers' estimate knows neither pictures nor frozen parts

    # The loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs = dict(inputs)
        records, self._cut = inputs.pop("record_ids"), self._cut + inputs.pop("shortened")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(
                f"step {self.state.global_step + 1}: the loss is {value}; records of the batch: {', '.join(records)}"
            )
        self._step += value
        return loss

    def after_step(self, control):
        """What all processes have to agree on: the step's loss, and whether to stop."""
        told = torch.tensor([self._step, self._cut, self.interruption.asked], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            told = self.accelerator.reduce(told.to(self.accelerator.device)).cpu()
        loss, cut, asked = told.tolist()
        self._losses.append(loss / self.accelerator.num_processes)
        self.shortened += round(cut)
        self._step, self._cut = 0.0, 0
        last = self.state.global_step >= self.state.max_steps
        control.should_log |= last
        if asked and not last:
            control.should_save = control.should_training_stop = True

    def log(self, logs, start_time=None):
        if "loss" not in logs:  # the Trainer's summary, of this piece of the run alone
            return
        now = time.perf_counter()
        samples = len(self._losses) * self.get_total_train_batch_size(self.args)
        logs = logs | dict(
            loss=math.fsum(self._losses) / len(self._losses),
            epoch=self.state.global_step * self.get_total_train_batch_size(self.args) / self.epoch_length,
            samples_per_second=samples / (now - self._logged_at),
        )
        self._losses, self._logged_at = [], now
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    # Checkpoints: the Trainer adds optimizer, scheduler, random states and its own state

    def save_model(self, output_dir=None, _internal_call=False):
        broken = [
            name for name, each in self.model.named_parameters() if each.requires_grad and not each.isfinite().all()
        ]
        if broken:
            raise ValueError(f"step {self.state.global_step}: {broken[0]} and {len(broken) - 1} more are not finite")
        if not self.args.should_save:
            return
        folder = Path(output_dir)
        folder.mkdir(exist_ok=True)
        (folder / PROGRESS).write_text(json.dumps({"losses": self._losses, "shortened": self.shortened}))
        if not self.is_fsdp_enabled:  # there the Trainer saves the sharded model beside its optimizer
            tensors = trained_tensors(self.model.model)
            save_file({name: each.cpu().contiguous() for name, each in tensors.items()}, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        folder = Path(resume_from_checkpoint)
        with reading(folder / PROGRESS):
            progress = json.loads((folder / PROGRESS).read_text())
            self._losses, self.shortened = [float(each) for each in progress["losses"]], int(progress["shortened"])
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            with reading(folder / TRAINED):
                load_trained(self.model.model, load_file(folder / TRAINED))

    def _load_optimizer_and_scheduler(self, checkpoint):
        with reading(Path(checkpoint)) if checkpoint else contextlib.nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint):
        with reading(Path(checkpoint)) if checkpoint else contextlib.nullcontext():
            super()._load_rng_state(checkpoint)


class _AfterStep(TrainerCallback):
    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        # The checkpoint's state would keep the intervals it was written with.
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps
        self.trainer._logged_at = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.after_step(control)
