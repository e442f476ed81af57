"""Training any module that returns a loss, with a checkpoint to go on from: the loop of the tiny model's own stages."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from .checkpoints import AtomicTrainer, newest_checkpoint
from .muon import MuonAdamW
from .progress import JsonLog


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
    muon=False,
    adam_lr=None,
    shares=None,
    accumulate=1,
    callbacks=(),
):
    """Train `model` (its forward returns a loss) and leave it trained; continues from the newest checkpoint in `out`.

    Args:
        model: module or PreTrainedModel; parameters with `requires_grad` are trained with AdamW (beta2 0.98) and a cosine schedule.
        dataset, collate: map-style dataset and batch function; batches are the model's keyword arguments.
        out: folder for checkpoints and `log.jsonl`.
        steps, batch: optimizer steps and records per step.
        lr, weight_decay, warmup: peak learning rate, AdamW decay, share of the steps spent warming up.
        workers: loader processes.
        accumulate: batches whose gradients make one step; `batch` is the size of each.
        muon: Muon instead of AdamW for the matrices of layers and of a region encoder; it and `adam_lr`, `shares` as in `muon.MuonAdamW`.
        callbacks: more callbacks of the Trainer.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, learning_rate=lr, weight_decay=weight_decay,
        warmup_steps=int(warmup * steps), lr_scheduler_type="cosine", logging_steps=log_every, save_steps=save_every,
        adam_beta2=0.98, report_to=[], seed=seed, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0, remove_unused_columns=False,
        bf16=bf16, use_cpu=not torch.cuda.is_available(), dataloader_drop_last=True, disable_tqdm=True, max_grad_norm=1.0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    trainer = AtomicTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[JsonLog(out / "log.jsonl"), *callbacks],
        optimizers=(MuonAdamW(model, lr, weight_decay, adam_lr=adam_lr, shares=shares) if muon else None, None),
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(out))
    return model
