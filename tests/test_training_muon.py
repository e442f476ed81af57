"""`roilab.training.muon`: which parameters it takes, that it trains, is scheduled, saved and continued like any optimizer."""

import copy

import pytest
import torch
from torch import nn

from roilab import training
from roilab.training.muon import MuonAdamW

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, ids, wanted):
        found = self.embedding(ids)
        for layer in self.layers:
            found = found + layer(found).tanh()
        return {"loss": (self.frozen(found) - wanted).square().mean()}


def test_matrices_of_layers_go_to_muon_and_the_rest_to_adamw():
    model = Small()
    muon, adamw = (
        {id(each) for group in part.param_groups for each in group["params"]} for part in MuonAdamW(model, 0.1).parts
    )
    assert len(muon) == 2
    for layer, each in zip(model.layers, MuonAdamW(model, 0.1).parts[0].param_groups[0]["params"], strict=True):
        assert each.data_ptr() == layer.weight.data_ptr()
    assert adamw == {id(model.embedding.weight), *(id(layer.bias) for layer in model.layers)}
    with pytest.raises(ValueError, match="none of 2 trained parameters is a matrix of a layer"):
        MuonAdamW(nn.Linear(3, 3), 0.1)


def test_a_schedule_reaches_both_parts():
    model = Small()
    optimizer = MuonAdamW(model, 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    batch = torch.arange(4), torch.ones(4, 8)
    for expected in (True, False):  # at a learning rate of zero nothing moves
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        model(*batch)["loss"].backward()
        optimizer.step()
        schedule.step()
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert bool(moved) is expected
        if expected:
            assert {"embedding.weight", "layers.0.weight", "layers.1.weight"} <= moved
            assert not any(name.startswith("frozen") for name in moved)


def test_adamw_can_have_a_learning_rate_of_its_own():
    model, batch = Small(), (torch.arange(4), torch.ones(4, 8))
    optimizer, before = MuonAdamW(model, 0.1, adam_lr=0.001), copy.deepcopy(model.state_dict())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    model(*batch)["loss"].backward()
    optimizer.step()
    moved = {name: (each - before[name]).abs().max().item() for name, each in model.state_dict().items()}
    assert moved["embedding.weight"] == pytest.approx(0.0005, rel=0.01) and moved["layers.0.weight"] > 0.01
    assert schedule.get_last_lr() == pytest.approx([0.05, 0.0005])


def test_convolutions_of_a_region_encoder_are_matrices_and_shares_slow_a_part_down():
    model = nn.ModuleDict({"region_encoder": nn.Conv2d(3, 4, 2), "head": nn.Linear(4, 2)})
    optimizer = MuonAdamW(model, 0.1, adam_lr=0.01, shares={"region_encoder": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005, 0.01])
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        assert all(each.grad is None for each in model.parameters())
        model["head"](model["region_encoder"](torch.randn(5, 3, 2, 2)).flatten(1)).square().mean().backward()
        optimizer.step()
    moved = (model["region_encoder"].weight - before["region_encoder.weight"]).flatten(1)
    assert model["region_encoder"].weight.shape == (4, 3, 2, 2) and moved.norm() > 0
    low, high = torch.linalg.svdvals(moved)[[-1, 0]]
    assert low > 0.2 * high  # Muon's steps go in all directions alike, those of a gradient of rank 2 do not


def test_training_goes_down_and_continues_exactly(tmp_path):
    """Ten steps in one go, and the same ten stopped after five."""
    data = [(i % 5, torch.full((8,), float(i % 5))) for i in range(40)]

    def collate(items):
        return dict(ids=torch.tensor([i for i, _ in items]), wanted=torch.stack([w for _, w in items]))

    def run(out, stop=None):
        model = Small()
        options = dict(batch=8, lr=0.02, save_every=5, log_every=1, muon=True)
        if stop:
            with pytest.MonkeyPatch.context() as patch:
                taken = []
                step = MuonAdamW.step

                def counted(self, closure=None):
                    if len(taken) == stop:
                        raise KeyboardInterrupt
                    taken.append(1)
                    return step(self, closure)

                patch.setattr(MuonAdamW, "step", counted)
                with pytest.raises(KeyboardInterrupt):
                    training.run(model, data, collate, out, steps=10, **options)
            model = Small()
        training.run(model, data, collate, out, steps=10, **options)
        return model

    whole, stopped = run(tmp_path / "whole"), run(tmp_path / "stopped", stop=7)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(stopped.state_dict()[name], value, rtol=0, atol=0)
    batch = collate(data)
    assert whole(**batch)["loss"] < 0.9 * Small()(**batch)["loss"]
