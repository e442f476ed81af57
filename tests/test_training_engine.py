"""`train`: the loss and its gradients against a plain loop, what is saved, and how runs end and go on."""

import copy
import json
import os
import re
import shutil
import signal
import threading

import pytest
import stages
import torch
import torch.nn.functional as F
from conftest import small_model
from safetensors.torch import load_file
from transformers import TrainerState, TrainingArguments

import roilab
from roilab import training
from roilab.training import preparing, trainer


@pytest.fixture(scope="session")
def fresh():
    """() -> a new copy of one small model with dropout, so that the random state matters."""
    made = small_model(attention_dropout=0.2)
    return lambda: copy.deepcopy(made)


@pytest.fixture(scope="session")
def calm():
    """The same without dropout."""
    made = small_model()
    return lambda: copy.deepcopy(made)


def run(model, out, count=12, present=None, **changes):
    given = {"shapes": stages.records(count)}
    return training.train(model, stages.recipe(**changes), given, out, progress=False, present=present)


def curve(result):
    return [(entry["step"], entry["loss"]) for entry in result.losses]


def tensors(model):
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def loop(model, steps, lr, names, batch_size=4, count=12):
    """The same training, written out: one batch at a time, the mean over its labelled tokens, AdamW, cosine."""
    data = training.TrainingData({"shapes": stages.records(count)}, {"shapes": 1}, length=steps * batch_size)
    model.requires_grad_(False)
    learning = [p for name in names for p in getattr(model, name).requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(learning, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
    )
    losses = []
    for step in range(steps):
        items = [data[i] for i in range(step * batch_size, (step + 1) * batch_size)]
        total, labelled = 0.0, 0
        for item in items:  # one by one: no padding, no batch
            batch = model.processor.collate([item])
            batch.pop("regions")
            labels = batch.pop("labels")[0, 1:]
            logits = model(**batch).logits[0, :-1]
            total = total + F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            labelled += int((labels != -100).sum())
        loss = total / labelled
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "accumulation", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_losses_and_weights_are_those_of_a_plain_loop(calm, tmp_path, accumulation):
    """Also in pieces with unequal numbers of labelled tokens: the loss counts tokens of the whole step."""
    plain, model = calm(), calm()
    names = ("region_encoder", "projector")
    expected = loop(plain, 3, 1e-3, names)
    result = run(model, tmp_path, steps=3, trainable=names, accumulation=accumulation)
    assert [loss for _, loss in curve(result)] == pytest.approx(expected, abs=1e-5)
    before, after = tensors(plain), tensors(model)
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-5)
    assert not torch.equal(after["projector.weight"], calm().projector.weight)


def test_what_a_run_leaves(fresh, tmp_path):
    model, before = fresh(), tensors(fresh())
    result = run(model, tmp_path / "run", steps=4, save_every=2)
    assert (result.steps, result.interrupted) == (4, False) and result.seconds > 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint-4",
        "log.jsonl",
        "model",
        "recipe.json",
    ]

    # Only what learns is in the checkpoint, in the optimizer and changed.
    learning = {name for name in before if name.startswith("region_encoder.")}
    saved = load_file(tmp_path / "run" / "checkpoint-4" / "trained.safetensors")
    assert set(saved) == learning
    state = torch.load(tmp_path / "run" / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert len(state["state"]) == len(learning)
    assert sum(each["exp_avg"].numel() for each in state["state"].values()) == sum(
        before[name].numel() for name in learning
    )
    assert {name for name, each in model.named_parameters() if not torch.equal(each, before[name])} == learning

    # As before: gradients wanted, mode. And the folder is the model.
    assert not model.training
    asked = {name: each.requires_grad for name, each in fresh().named_parameters()}
    assert {name: each.requires_grad for name, each in model.named_parameters()} == asked
    assert all(each.grad is None for each in model.parameters())
    loaded = roilab.load(tmp_path / "run" / "model")
    for name, each in loaded.named_parameters():
        torch.testing.assert_close(each, model.get_parameter(name), rtol=0, atol=0)

    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [(line["step"], line["loss"]) for line in lines] == curve(result)
    assert {"learning_rate", "grad_norm", "epoch", "samples_per_second"} <= set(lines[0])
    assert [line["epoch"] for line in lines] == [4 / 12, 8 / 12, 1, 16 / 12]
    told = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert told["recipe"]["lr"] == 1e-3 and told["records"] == {"shapes": 12} and "torch" in told["versions"]


# Going on


class Killed(Exception):
    pass


def dying(model, at):
    """Makes the model's processor fail when it is asked for its `at`-th batch."""
    collate, calls = type(model.processor).collate, []

    def failing(self, items, *args, **kwargs):
        calls.append(items)
        if len(calls) == at:
            raise Killed
        return collate(self, items, *args, **kwargs)

    model.processor.__class__ = type("Dying", (type(model.processor),), {"collate": failing})


EXACT = dict(steps=7, save_every=3, log_every=2, trainable=stages.ALL, lr=3e-3)  # saved between log entries


def test_a_run_goes_on_exactly(fresh, tmp_path):
    whole = fresh()
    expected = run(whole, tmp_path / "whole", **EXACT)
    for at in (6, 4):  # read ahead: after step 4, and, going on from step 3, after step 5
        model = fresh()
        dying(model, at)
        with pytest.raises(Killed):
            run(model, tmp_path / "cut", **EXACT)
    model = fresh()
    result = run(model, tmp_path / "cut", **EXACT)
    assert curve(result) == curve(expected) and [step for step, _ in curve(result)] == [2, 4, 6, 7]
    for name, each in whole.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), each, rtol=0, atol=0)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("cut", "whole")
    ]
    assert [(entry["step"], entry["loss"]) for entry in logs[0]] == [
        (entry["step"], entry["loss"]) for entry in logs[1]
    ]


def test_a_finished_run_is_not_trained_again(fresh, tmp_path):
    model = fresh()
    first = run(model, tmp_path, steps=3)
    again = fresh()
    second = run(again, tmp_path, steps=3)
    assert curve(second) == curve(first) and second.steps == 3 and not second.interrupted
    torch.testing.assert_close(again.region_encoder.output.weight, model.region_encoder.output.weight, rtol=0, atol=0)


def full_disk_at(count, call):
    """`call`, of which the `count`-th use finds the disk full."""
    uses = []

    def counting(*args, **kwargs):
        uses.append(args)
        if len(uses) == count:
            raise OSError(28, "No space left on device")
        return call(*args, **kwargs)

    return counting


SAVED = dict(steps=5, save_every=2, trainable=("projector",))


@pytest.fixture(scope="module")
def unbroken(fresh, tmp_path_factory):
    return curve(run(fresh(), tmp_path_factory.mktemp("unbroken"), **SAVED))


@pytest.mark.parametrize(
    "module, name, count",
    [  # in the second checkpoint; a checkpoint is six files in one folder
        pytest.param(trainer, "save_file", 2, id="trained", marks=pytest.mark.slow),
        pytest.param(torch, "save", 4, id="optimizer"),
        pytest.param(torch, "save", 6, id="random", marks=pytest.mark.slow),
        pytest.param(TrainerState, "save_to_json", 2, id="state", marks=pytest.mark.slow),
        pytest.param(os, "fsync", 8 + 4, id="flush", marks=pytest.mark.slow),
        pytest.param(os, "rename", 7 + 7, id="the rename that counts"),
    ],
)
def test_a_failed_save_leaves_the_checkpoint_before_it(fresh, unbroken, tmp_path, monkeypatch, module, name, count):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full_disk_at(count, getattr(module, name)))
        with pytest.raises(OSError, match="No space left"):
            run(fresh(), tmp_path, **SAVED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "log.jsonl", "recipe.json"]
    assert curve(run(fresh(), tmp_path, **SAVED)) == unbroken


def test_what_a_kill_left_is_cleared_and_ignored(fresh, unbroken, tmp_path):
    model = fresh()
    dying(model, 5)
    with pytest.raises(Killed):
        run(model, tmp_path, **SAVED)
    halves = (".checkpoint-4.x1y2.tmp", ".checkpoint-2.old.tmp", ".model.x1y2.tmp")
    for name in (*halves, "checkpoint-4"):  # the last one without its state
        (tmp_path / name).mkdir()
        (tmp_path / name / "optimizer.pt").write_bytes(b"half")
    for name in (".recipe.json.77.part", ".log.jsonl.77.part"):
        (tmp_path / name).write_bytes(b"half")
    result = run(fresh(), tmp_path, **SAVED)
    assert curve(result) == unbroken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5", "log.jsonl", "model", "recipe.json"]


def test_the_newest_checkpoints_stay(fresh, tmp_path):
    run(fresh(), tmp_path, steps=11, save_every=5, keep=2)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-11"}


def test_a_run_of_another_recipe_is_not_continued(fresh, tmp_path):
    run(fresh(), tmp_path, steps=2)
    run(fresh(), tmp_path, steps=2, keep=3, save_every=7, log_every=2, workers=0)  # what decides nothing may change
    with pytest.raises(ValueError, match="holds a run of another recipe .*lr 0.001 -> 0.01; weight_decay 0.0 -> 0.1"):
        run(fresh(), tmp_path, steps=2, lr=1e-2, weight_decay=0.1)
    with pytest.raises(ValueError, match="records {'shapes': 12} -> {'shapes': 11}"):
        run(fresh(), tmp_path, steps=2, count=11)
    other = fresh()
    with torch.no_grad():
        other.projector.weight[0, 0] += 1
    with pytest.raises(ValueError, match="the weights that do not learn"):
        run(other, tmp_path, steps=2)
    begun = fresh()
    with torch.no_grad():  # where it learns, the checkpoint decides
        begun.region_encoder.output.weight[0, 0] += 1
    run(begun, tmp_path, steps=2)
    told = json.loads((tmp_path / "recipe.json").read_text())
    assert told["recipe"].pop("augment") is False
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    run(fresh(), tmp_path, steps=2)  # of a version that did not know the field
    for path in (tmp_path / "checkpoint-2", tmp_path / "model"):  # a run that left nothing holds nothing up
        shutil.rmtree(path)
    run(fresh(), tmp_path, steps=2, lr=1e-2)


def test_a_stage_starts_from_another_ones_result(fresh, tmp_path):
    run(fresh(), tmp_path / "one", steps=2, save_every=1)
    loaded = roilab.load(tmp_path / "one" / "model")
    result = run(loaded, tmp_path / "two", steps=3, trainable=stages.ALL)
    rates = [entry["learning_rate"] for entry in result.losses]
    assert [entry["step"] for entry in result.losses] == [1, 2, 3] and rates[0] == pytest.approx(1e-3)
    state = torch.load(tmp_path / "two" / "checkpoint-3" / "optimizer.pt", weights_only=True)["state"]
    assert {int(each["step"]) for each in state.values()} == {3}  # a new optimizer


# Being stopped


def stopping(records, at, presses=1):
    """The records, of which the `at`-th picture that is asked for presses Ctrl-C."""

    class Stopping(stages.Records):
        asked = 0

        def picture(self, i):
            Stopping.asked += 1
            if Stopping.asked == at:
                for _ in range(presses):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().picture(i)

    return Stopping(records)


def test_ctrl_c_saves_and_returns_and_the_run_goes_on(fresh, tmp_path):
    settings = dict(steps=6, trainable=stages.ALL, log_every=4)
    before = signal.getsignal(signal.SIGINT)
    expected = run(fresh(), tmp_path / "whole", **settings)
    model, recipe = fresh(), stages.recipe(**settings)
    # One batch is read ahead: the tenth picture is of the third batch, which is read before the second step.
    result = training.train(
        model, recipe, {"shapes": stopping(stages.records(12), 10)}, tmp_path / "run", progress=False
    )
    assert result.interrupted and result.steps == 2 and result.losses == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-2", "log.jsonl", "recipe.json"]
    assert signal.getsignal(signal.SIGINT) is before and not model.training
    # The same model goes on, as in a notebook; how often to save may be another.
    result = run(model, tmp_path / "run", **settings, save_every=1, keep=9)
    assert not result.interrupted and curve(result) == curve(expected)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {f"checkpoint-{n}" for n in range(2, 7)}


def test_a_second_ctrl_c_stops_at_once(fresh, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    model = fresh()
    with pytest.raises(KeyboardInterrupt):
        training.train(
            model, stages.recipe(), {"shapes": stopping(stages.records(12), 10, 2)}, tmp_path, progress=False
        )
    assert signal.getsignal(signal.SIGINT) is before and not model.training
    assert not list(tmp_path.glob("checkpoint-*"))


def test_in_another_thread_signals_are_left_alone(fresh, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(fresh(), tmp_path, steps=1)))
    thread.start()
    thread.join()
    assert results[0].steps == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(fresh, tmp_path, monkeypatch, value):
    batches, forward = [], trainer.Objective.forward

    def poisoned(self, **batch):
        batches.append(batch)
        loss = forward(self, **batch)["loss"]
        return {"loss": loss * value if len(batches) == 6 else loss}

    monkeypatch.setattr(trainer.Objective, "forward", poisoned)
    order = training.TrainingData({"shapes": stages.records(12)}, {"shapes": 1}, length=12)
    second_half = [order[i]["id"] for i in (10, 11)]  # the second piece of the third step
    with pytest.raises(
        ValueError, match=f"step 3: the loss is {value}; records of the batch: {', '.join(second_half)}"
    ):
        run(fresh(), tmp_path, steps=6, save_every=2, accumulation=2)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"] and not (
        tmp_path / "model"
    ).exists()


def test_weights_that_are_not_finite_are_not_saved(fresh, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def breaking(self, *args, **kwargs):
        step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    with pytest.raises(ValueError, match="step 1: model.region_encoder.* not finite"):
        run(fresh(), tmp_path, steps=3, save_every=1)
    assert not list(tmp_path.glob("*checkpoint*"))


# Ways to hold a model


def test_centred_filters_are_saved_as_they_are_left(calm, tmp_path):
    model = calm()
    run(model, tmp_path, steps=2, centred_cells=True, lr=1e-2)
    saved = roilab.load(tmp_path / "model").region_encoder.cells.convs
    for one, two, before in zip(saved, model.region_encoder.cells.convs, calm().region_encoder.cells.convs):
        torch.testing.assert_close(one.weight, two.weight, rtol=0, atol=1e-7)
        torch.testing.assert_close(one.weight.mean((1, 2, 3)), torch.zeros(len(one.weight)), rtol=0, atol=1e-6)
        assert (one.weight - before.weight).abs().max() > 1e-3


def test_lora_trains_small_updates_and_becomes_part_of_the_weights(calm, tmp_path):
    model, before = calm(), tensors(calm())
    run(model, tmp_path, steps=3, trainable=stages.ALL, lora_rank=2, lr=1e-2)
    saved = load_file(tmp_path / "checkpoint-3" / "trained.safetensors")
    kinds = {name.split(".")[0] for name in saved if "lora_" not in name}
    assert kinds == {"region_encoder", "projector"} and any("lora_A" in name for name in saved)
    assert tensors(model).keys() == before.keys()
    changed = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    inside = {name for name in changed if name.startswith("language_model.")}
    assert inside == {name for name in before if name.startswith("language_model.") and "_proj" in name}
    for name in inside:
        ranks = torch.linalg.matrix_rank(model.get_parameter(name).detach() - before[name], rtol=1e-3)
        assert 1 <= ranks <= 2
    loaded = roilab.load(tmp_path / "model")
    assert tensors(loaded).keys() == before.keys()
    for name, each in tensors(loaded).items():
        torch.testing.assert_close(each, model.get_parameter(name).detach(), rtol=0, atol=0)


@pytest.mark.slow
def test_an_interrupted_lora_run_goes_on_with_the_same_model(calm, tmp_path):
    settings = dict(steps=4, trainable=stages.ALL, lora_rank=2, lr=1e-2)
    expected = run(calm(), tmp_path / "whole", **settings)
    model, before = calm(), tensors(calm())
    records = {"shapes": stopping(stages.records(12), 10)}
    assert training.train(model, stages.recipe(**settings), records, tmp_path / "run", progress=False).interrupted
    now = tensors(model)
    assert all(torch.equal(now[name], before[name]) for name in before if name.startswith("language_model."))
    assert curve(run(model, tmp_path / "run", **settings)) == curve(expected)


def test_half_precision_learns_in_float32(calm, tmp_path):
    model = calm().bfloat16()
    run(model, tmp_path, steps=2, precision="bf16", trainable=("region_encoder", "projector"))
    saved = load_file(tmp_path / "checkpoint-2" / "trained.safetensors")
    assert {each.dtype for each in saved.values()} == {torch.float32}
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}  # as it was given
    whole = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: each.dtype for name, each in whole.items()}
    assert kept["projector.weight"] == torch.float32 and kept["language_model.model.norm.weight"] == torch.bfloat16
    torch.testing.assert_close(whole["projector.weight"], saved["projector.weight"], rtol=0, atol=0)


def test_quantized_language_models_are_asked_for_where_there_are_some(calm, tmp_path, monkeypatch):
    recipe = stages.recipe(load_in="4bit", precision="bf16")
    with pytest.raises(ValueError, match="load_in 4bit needs CUDA, but the device is cpu"):
        training.load_model("tiny", recipe, device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"load_in 4bit needs bitsandbytes: pip install 'roilab\[gpu\]'"):
        training.load_model("tiny", recipe, device="cuda")
    monkeypatch.undo()
    calm().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="load_in is 4bit, but the language model is not quantized"):
        training.train(roilab.load(tmp_path / "model"), recipe, {"shapes": stages.records(4)}, tmp_path, progress=False)
    with pytest.raises(ValueError, match="where the model was loaded from is not known"):
        training.train(calm(), recipe, {"shapes": stages.records(4)}, tmp_path, progress=False)


@pytest.mark.slow
def test_beside_a_quantized_language_model_the_original_is_saved(calm, tmp_path, monkeypatch):
    """Tried with a stand-in: a language model whose weights were changed as by quantizing."""
    calm().save_pretrained(tmp_path / "source")
    original, model = roilab.load(tmp_path / "source"), roilab.load(tmp_path / "source")
    with torch.no_grad():
        for each in model.language_model.parameters():
            each.copy_((each * 8).round() / 8)
    held = model.language_model
    monkeypatch.setattr(preparing, "is_quantized", lambda module: module is held)
    run(model, tmp_path / "run", steps=2, load_in="8bit", precision="bf16", trainable=stages.ALL, lora_rank=2, lr=1e-2)
    saved = roilab.load(tmp_path / "run" / "model")
    assert tensors(saved).keys() == tensors(original).keys()
    torch.testing.assert_close(saved.projector.weight, model.projector.weight, rtol=0, atol=0)
    name = "language_model.model.embed_tokens.weight"  # no adapter there: exactly the original
    torch.testing.assert_close(saved.get_parameter(name), original.get_parameter(name), rtol=0, atol=0)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    change = saved.get_parameter(name).detach() - original.get_parameter(name).detach()
    assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


def test_what_a_batch_does_not_use_gets_a_zero_gradient(calm):
    objective = trainer.Objective(calm())
    objective.model.requires_grad_(True)
    data = training.TrainingData({"shapes": stages.records(2, regions=lambda i: False)}, {"shapes": 1})
    batch = training.Collator(objective.model.processor)(list(data.once()))
    loss = objective(**{key: batch[key] for key in batch if key not in ("record_ids", "shortened")})["loss"]
    loss.backward()
    assert all((each.grad == 0).all() for each in objective.model.region_encoder.parameters())
    assert objective.model.projector.weight.grad.abs().sum() > 0


def test_a_frozen_vision_tower_stays_in_eval_mode(calm):
    objective = trainer.Objective(calm())
    objective.train()
    assert objective.model.language_model.training and not objective.model.vision.training


def test_the_recipe_decides_how_records_are_shown(calm, tmp_path):
    seen = []

    def present(record, picture):
        seen.append((record.turns[0]["content"], picture))
        return record, picture

    run(calm(), tmp_path / "text", steps=1, present=present, **{"log_every": 1})
    assert "<region1>" in seen[0][0] and seen[0][1] is not None
    with pytest.raises(ValueError, match="present is 'nowhere', expected regions, "):
        training.train(
            calm(), stages.recipe(present="nowhere"), {"shapes": stages.records(4)}, tmp_path, progress=False
        )
    given = stages.records(4)
    result = training.train(
        calm(), stages.recipe(present="text_only", steps=1, trainable=stages.ALL), {"shapes": given}, tmp_path / "b", progress=False
    )  # fmt: skip
    assert result.steps == 1
    for each in given:
        each.choices = dict(
            question="Where?", answers=list("wxyz"), answer_label=2, rationales=list("klmn"), rationale_label=0
        )
    seen.clear()
    training.train(
        calm(), stages.recipe(four_choices=True, steps=1), {"shapes": given}, tmp_path / "c", present=present, progress=False
    )  # fmt: skip
    assert seen[0][0] == "Where? (A) w (B) x (C) y (D) z"


def test_shortened_dialogues_are_said_once(calm, tmp_path, caplog):
    model = calm()
    lengths = [len(model.processor.encode_dialogue(each.turns, 3).input_ids) for each in stages.records(12)]
    limit = sorted(lengths)[8]
    run(model, tmp_path, steps=3, max_length=limit)  # every record once
    said = [each.message for each in caplog.records if "lost their last rounds" in each.message]
    assert said == [
        f"{sum(each > limit for each in lengths)} dialogues of more than {limit} tokens lost their last rounds"
    ]


def test_the_bar_tells_loss_rate_and_speed(calm, tmp_path, capsys):
    training.train(calm(), stages.recipe(steps=2), {"shapes": stages.records(12)}, tmp_path)
    shown = capsys.readouterr().err
    assert "2/2" in shown and re.search(r"loss \d+\.\d{4}, lr \d\.\de-\d+, \d+\.\d samples/s", shown)


def test_a_model_without_a_processor_is_refused(calm, tmp_path):
    model = calm()
    model.processor = None
    with pytest.raises(ValueError, match="the model has no processor"):
        run(model, tmp_path)


def test_processes_share_a_batch_evenly(calm, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: 3))
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared by 3 processes with 1 pieces each"):
        run(calm(), tmp_path)


def test_fsdp_is_refused_where_it_would_be_left_out(calm, tmp_path):
    with pytest.raises(ValueError, match="fsdp needs CUDA"):
        run(calm(), tmp_path, fsdp=True)
