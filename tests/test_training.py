"""`roilab.training`: what a stage trains, and that an interrupted run goes on as if nothing had happened."""

import json

import pytest
import torch
from torch import nn

from roilab import training


def test_stages_freeze_what_they_do_not_train(model):
    frozen_before = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        for stage, parts in training.STAGES.items():
            count = training.set_trainable(model, stage)
            trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
            assert trained == set(parts)
            assert count == sum(p.numel() for name in parts for p in getattr(model, name).parameters())
            assert not any(p.requires_grad for p in model.vision.parameters())
        with pytest.raises(ValueError, match="unknown stage 'stage9'; known: stage1, stage2"):
            training.set_trainable(model, "stage9")
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(frozen_before[name])


class Line(nn.Module):
    """y = a x + b with a squared error, noisy through dropout so that the random state matters."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.drop = nn.Dropout(0.3)

    def forward(self, x, y):
        return {"loss": ((self.line(self.drop(x)).squeeze(1) - y) ** 2).mean()}


def collate(rows):
    x = torch.tensor([[r / 10, (r % 3) / 3, 1.0] for r in rows])
    return {"x": x, "y": x.sum(1)}


def start(out, steps):
    torch.manual_seed(0)
    model = Line()
    return training.run(model, list(range(40)), collate, out, steps=steps, batch=4, lr=0.05, save_every=3, log_every=1)


def losses(out):
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {e["step"]: e["loss"] for e in entries if "loss" in e}


def test_an_interrupted_run_goes_on_exactly(tmp_path, monkeypatch):
    whole = start(tmp_path / "whole", 9)

    class Killed(Exception):
        pass

    calls = []

    def dying(rows):
        calls.append(rows)
        if len(calls) == 8:
            raise Killed
        return collate(rows)

    torch.manual_seed(0)
    with pytest.raises(Killed):
        training.run(
            Line(), list(range(40)), dying, tmp_path / "cut", steps=9, batch=4, lr=0.05, save_every=3, log_every=1
        )
    resumed = start(tmp_path / "cut", 9)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for one, two in zip(whole.parameters(), resumed.parameters()):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_failed_save_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) == 6:  # four files for each checkpoint, and in the second one the disk is full
            raise OSError(28, "No space left on device")
        return save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        start(tmp_path / "cut", 9)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["checkpoint-3", "log.jsonl"]
    monkeypatch.undo()
    start(tmp_path / "cut", 9)
    start(tmp_path / "whole", 9)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-9"]


def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path):
    for step, whole in ((3, True), (12, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert training.newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    assert training.newest_checkpoint(tmp_path / "none") is None


def test_a_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "done.pt"
    training.save_state({"a": torch.ones(2)}, path)

    def cut_short(state, part):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        training.save_state({"a": torch.zeros(2)}, path)
    assert torch.load(path, weights_only=True)["a"].tolist() == [1, 1]
