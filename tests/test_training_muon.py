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
    assert muon == {id(layer.weight) for layer in model.layers}
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
