"""Filters with a mean of zero, without which a narrow region encoder stops learning."""

from __future__ import annotations

import contextlib

import torch


@contextlib.contextmanager
def centred(region_encoder):
    """While it lasts, the filters that make the RoI cells keep a mean of zero.

    They read maps that are never negative, so one Adam step moves all of their outputs the same way: at the rates at which a narrow encoder
    learns, the ReLU behind them is dead within some 25 steps. A filter without a mean cannot follow the common direction: gradients
    lose it before the optimizer sees them, and what a step has put there is taken out before the next use. Names of parameters stay.
    """
    hooks = []
    for conv in region_encoder.cells.convs:
        if conv.weight.requires_grad:
            hooks.append(conv.weight.register_hook(_without_mean))
        hooks.append(conv.register_forward_pre_hook(_take_out_mean))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        take_out_means(region_encoder)


def take_out_means(region_encoder):
    """What the next use would do to a region encoder while it is `centred`: after a step, before it is kept."""
    for conv in region_encoder.cells.convs:
        _take_out_mean(conv)


def _without_mean(filters: torch.Tensor) -> torch.Tensor:
    return filters - filters.mean((1, 2, 3), keepdim=True)


def _take_out_mean(conv, inputs=None):
    # Past autograd: within a step the filters hardly change by it, and what was kept for the backward pass stays valid.
    conv.weight.data.sub_(conv.weight.data.mean((1, 2, 3), keepdim=True))
