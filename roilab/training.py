"""Training stages over transformers.Trainer: what is trainable, on what, with which hyper-parameters.

The two stages of GPT4RoI (arXiv 2307.03601, section 3.3): the region encoder alone, then everything but the vision tower. Every run
keeps its log and its checkpoints in its folder and continues from the newest one.
"""

import json
import os
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

STAGES = {
    "stage1": ("region_encoder",),
    "stage2": ("region_encoder", "projector", "language_model"),
}
"""Trainable submodules of each stage; the rest is frozen by `requires_grad=False`."""


def set_trainable(model, stage: str) -> int:
    """Freeze all but the stage's submodules; returns the number of trainable parameters."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    model.requires_grad_(False)
    for name in STAGES[stage]:
        getattr(model, name).requires_grad_(True)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class JsonLog(TrainerCallback):
    """Appends every log entry of the Trainer to a JSON-lines file."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def run(
    model,
    dataset,
    collate,
    out,
    *,
    steps,
    batch,
    lr,
    weight_decay=0.0,
    warmup=0.05,
    save_every=100,
    workers=0,
    seed=0,
    bf16=False,
    log_every=50,
):
    """Train `model` (its forward returns a loss) and leave it trained; continues from the newest checkpoint in `out`.

    Args:
        model: module or PreTrainedModel; parameters with `requires_grad` are trained with AdamW (beta2 0.98) and a cosine schedule.
        dataset, collate: map-style dataset and batch function; batches are the model's keyword arguments.
        out: folder for checkpoints and `log.jsonl`.
        steps, batch: optimizer steps and records per step.
        lr, weight_decay, warmup: peak learning rate, AdamW decay, share of the steps spent warming up.
        workers: loader processes.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=batch, learning_rate=lr, weight_decay=weight_decay,
        warmup_steps=int(warmup * steps), lr_scheduler_type="cosine", logging_steps=log_every, save_steps=save_every, save_total_limit=1,
        adam_beta2=0.98, report_to=[], seed=seed, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0, remove_unused_columns=False,
        bf16=bf16, use_cpu=not torch.cuda.is_available(), dataloader_drop_last=True, disable_tqdm=True, max_grad_norm=1.0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[JsonLog(out / "log.jsonl")],
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(out))
    return model


def newest_checkpoint(out: Path) -> str | None:
    """The newest complete checkpoint of the Trainer in `out` (one that a kill cut short lacks its state, which is written last), or None."""
    complete = [each.parent for each in out.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda each: int(each.name.split("-")[1]))) if complete else None


def save_state(state: dict, path: Path):
    """`torch.save`, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
