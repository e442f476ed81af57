"""`train`: a model, a recipe and records in, a trained model and its folder out; what was interrupted goes on.

out/recipe.json       the recipe as it was resolved, what it was run on, versions
out/log.jsonl         loss, learning rate, ... of every `log_every` steps
out/checkpoint-N/     what learns and all that is needed to go on after step N
out/model/            in the end, the whole model for `roilab.load`
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments

from .. import presenting
from ..files import clear_unfinished, write_whole
from .checkpoints import clear_unfinished_checkpoints, complete_checkpoints, newest_checkpoint
from .data import Collator, TrainingData
from .preparing import frozen_fingerprint, prepared, save_whole
from .progress import Bar, Interruption, ResumedLog
from .recipes import StageRecipe
from .trainer import Objective, StageTrainer

RECIPE, LOG, MODEL = "recipe.json", "log.jsonl", "model"
FREE = (
    "save_every",
    "keep",
    "log_every",
    "workers",
)  # may change when a run goes on: they decide nothing that is learned

logger = logging.getLogger(__name__)


@dataclass
class Result:
    """What a run came to.

    Attributes:
        steps: optimizer steps made, over all pieces of the run.
        losses: the log's entries: `step`, `loss`, `learning_rate`, `grad_norm`, `epoch`, `samples_per_second`.
        interrupted: whether it was stopped before its end; call `train` with the same arguments to go on.
        seconds: of this piece of the run.
    """

    steps: int
    losses: list[dict]
    interrupted: bool
    seconds: float


def train(
    model, recipe: StageRecipe, records: Mapping, out, *, augment: Callable | None = None, present: Callable | None = None,
    progress: bool = True,
) -> Result:  # fmt: skip
    """Train `model` in place by the recipe; goes on from the newest checkpoint in `out`, if there is one.

    Args:
        model: from `roilab.load`, `roilab.build` or `load_model`, with its processor.
        recipe: decides what learns, on what, and how.
        records: name -> records, as `TrainingData` takes them; the names are those of the recipe's mixture.
        out: folder of the run, see above.
        augment: what the recipe's `augment` means; by default `roilab.data`'s mirroring and shifting.
        present: after what the recipe says, (record, picture) -> (record, picture or None).
        progress: show a bar.
    Returns:
        `Result`; the model is in eval mode. After Ctrl-C (once) a checkpoint is saved and `interrupted` is true.
    Raises:
        ValueError: the run in `out` is another one; a batch's loss is not finite; the recipe does not fit the model or the processes.
    """
    start, out = time.perf_counter(), Path(out)
    if model.processor is None:
        raise ValueError("the model has no processor: load it with roilab.load, or set model.processor")
    if recipe.load_in and not model.name_or_path:
        raise ValueError(f"load_in {recipe.load_in}, but where the model was loaded from is not known: use load_model")
    data = TrainingData(
        records, recipe.mixture, recipe.seed, None, _augment(recipe, augment),
        _Presentation(recipe.present, recipe.four_choices, present), recipe.group_by_picture,
    )  # fmt: skip
    steps = recipe.optimizer_steps(data.epoch_length)
    data.length = steps * recipe.batch_size
    arguments = _arguments(model, recipe, steps, out)
    described = _describe(model, recipe, records, arguments.world_size)
    checkpoint = newest_checkpoint(out)
    _check_same_run(described, out)
    if arguments.should_save:
        out.mkdir(parents=True, exist_ok=True)
        clear_unfinished_checkpoints(out)
        for name in (RECIPE, LOG, MODEL):
            clear_unfinished(out / name)
        write_whole(out / RECIPE, json.dumps(described, indent=2) + "\n")

    with prepared(model, recipe) as adapters:
        collate = Collator(model.processor, recipe.max_length)
        if recipe.cache_features:
            from .features import FeatureCache

            cache = FeatureCache(out / "features", model)
            if recipe.workers:  # they read features, but compute none
                cache.fill(data.once(arguments.process_index, arguments.world_size))
            collate = cache.wrap(collate)
        bar, interruption = Bar(progress), Interruption(arguments.world_size)
        trainer = StageTrainer(
            model=Objective(model, recipe.reuse_prefix), args=arguments, train_dataset=data, data_collator=collate,
            callbacks=[ResumedLog(out / LOG), bar], interruption=interruption, epoch_length=data.epoch_length,
        )  # fmt: skip
        trainer.keep = recipe.keep
        trainer.remove_callback(PrinterCallback)
        try:
            with interruption.listening():
                trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            bar.close()
        finished = trainer.state.global_step >= steps
        if trainer.shortened and arguments.should_save:
            logger.warning(
                "%d dialogues of more than %d tokens lost their last rounds", trainer.shortened, recipe.max_length
            )
        if finished:
            _save_whole(trainer, model, recipe, adapters, out / MODEL)
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Result(trainer.state.global_step, losses, not finished, time.perf_counter() - start)


def _arguments(model, recipe: StageRecipe, steps: int, out: Path) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    shards = {}
    if recipe.fsdp:
        if not cuda:  # accelerate would leave it out without a word
            raise ValueError("fsdp needs CUDA, and several processes: torchrun --nproc_per_node=N -m roilab train …")
        layers = [*(model.language_model._no_split_modules or ())]
        shards = dict(fsdp=True, fsdp_config={"transformer_layer_cls_to_wrap": sorted(layers), "version": 2})
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, gradient_accumulation_steps=recipe.accumulation, learning_rate=recipe.lr,
        weight_decay=recipe.weight_decay, adam_beta1=recipe.betas[0], adam_beta2=recipe.betas[1], max_grad_norm=recipe.max_grad_norm,
        warmup_steps=recipe.warmup_steps or round(recipe.warmup_ratio * steps), lr_scheduler_type="cosine", seed=recipe.seed,
        logging_steps=recipe.log_every, save_steps=recipe.save_every, bf16=recipe.precision == "bf16", fp16=recipe.precision == "fp16",
        use_cpu=not cuda, dataloader_num_workers=recipe.workers, dataloader_pin_memory=cuda, remove_unused_columns=False, report_to=[],
        disable_tqdm=True, logging_nan_inf_filter=False, average_tokens_across_devices=True, ddp_find_unused_parameters=False, **shards,
    )  # fmt: skip
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs are for torchrun: nn.DataParallel cannot cut a batch of regions
    processes, pieces = arguments.world_size, arguments.world_size * recipe.accumulation
    if recipe.batch_size % pieces:
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes with {recipe.accumulation} pieces each"
        )
    arguments.per_device_train_batch_size = recipe.batch_size // pieces
    return arguments


def _augment(recipe: StageRecipe, given: Callable | None) -> Callable | None:
    if not recipe.augment:
        return None
    if given is None:
        from ..data.augment import flip_and_shift as given
    return given


@dataclass
class _Presentation:
    """What the recipe says of how records are shown, then what the caller says (a class, since loader processes may be sent it)."""

    arm: str
    four_choices: bool
    given: Callable | None

    def __post_init__(self):
        if self.arm not in presenting.ARMS:
            raise ValueError(f"present is {self.arm!r}, expected {', '.join(presenting.ARMS)}")

    def __call__(self, record, picture):
        if self.four_choices:
            record = presenting.four_choices(record, "both")
        record, picture = presenting.ARMS[self.arm](record, picture)
        return (record, picture) if self.given is None else self.given(record, picture)


def _describe(model, recipe: StageRecipe, records: Mapping, processes: int) -> dict:
    """What decides a run, as JSON gives it back; `versions` are for the reader."""
    import accelerate
    import transformers

    from .. import __version__

    described = {
        "recipe": dataclasses.asdict(recipe),
        "records": {name: len(records[name]) for name in recipe.mixture},
        "frozen": frozen_fingerprint(model, recipe),
        "processes": processes,
        "versions": {
            "roilab": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
            "accelerate": accelerate.__version__, "python": platform.python_version(),
        },
    }  # fmt: skip
    return json.loads(json.dumps(described))


def _check_same_run(wanted: dict, out: Path):
    """Raises ValueError if `out` holds something of a run that this one cannot go on with."""
    if not (out / RECIPE).exists() or not (complete_checkpoints(out) or (out / MODEL).exists()):
        return
    usual = json.loads(json.dumps(dataclasses.asdict(StageRecipe(mixture={"": 1.0}, steps=1))))
    try:
        begun = json.loads((out / RECIPE).read_text(encoding="utf-8"))
        old, new = usual | begun["recipe"], wanted["recipe"]  # a field that is younger than the run had its default
        begun = {name: begun[name] for name in ("records", "frozen", "processes")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{out / RECIPE} is no recipe of a run ({type(error).__name__}: {error})") from error
    changed = [
        f"{name} {old[name]} -> {value}" for name, value in new.items() if old[name] != value and name not in FREE
    ]
    for name, words in (
        ("records", "records"),
        ("frozen", "the weights that do not learn"),
        ("processes", "processes"),
    ):
        if begun[name] != wanted[name]:
            changed.append(f"{words} {begun[name]} -> {wanted[name]}")
    if changed:
        raise ValueError(
            f"{out} holds a run of another recipe ({'; '.join(changed)}): go on with that one, or choose another out"
        )


def _save_whole(trainer: StageTrainer, model, recipe: StageRecipe, adapters, folder: Path):
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(
            trainer.model_wrapped
        )  # gathered by all processes, kept by the first
        if trainer.args.should_save:
            # The model at hand holds shards: a shell of the same shape takes what was gathered.
            with torch.device("meta"):
                whole = type(model)(model.config)
            whole.load_state_dict({name.removeprefix("model."): each for name, each in state.items()}, assign=True)
            whole.tie_weights()
            whole.processor, whole.generation_config = model.processor, model.generation_config
            whole.save_pretrained(folder)
    elif trainer.args.should_save:
        save_whole(model, recipe, adapters, folder)
    trainer.accelerator.wait_for_everyone()
