"""Activation patching: states of one pass are put into another, and what comes back of the first pass's answer is measured.

After Heimersheim and Nanda and Zhang and Nanda (arXiv 2309.16042). Clean and corrupt sequences have the same length and differ in a region's
box or in the picture: nothing is noise, every state is one that the model makes itself. Both directions are measured, since they answer
different questions: what is enough to bring the answer back, and what it cannot do without.

Axes: L layers (L + 1 states), G groups of positions, T sequence, D language-model width.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import ALONE
from .attending import decoder_layers
from .memory import fitting
from .passes import logits_at, prepare, score, splice
from .results import Result, origin
from .target import Target
from .tracing import keeping_states

CLOSE = 0.1  # of log-probability: clean and corrupt passes that differ by less have nothing to recover


@dataclass
class Patching(Result):
    """What patching did.

    Attributes:
        target: the clean one.
        groups: [G] names of the positions that were patched together.
        recovered: [L + 1, G] corrupt pass with clean states: 0 is as corrupt, 1 as clean.
        lost: [L + 1, G] clean pass with corrupt states: 0 is as clean, 1 as corrupt.
        clean, corrupt: the target's score in the two passes.
        origin: model, dtype and attention implementation.
    """

    target: Target
    groups: list[str]
    recovered: Tensor = field(repr=False)
    lost: Tensor = field(repr=False)
    clean: float
    corrupt: float
    origin: dict = field(default_factory=dict)

    def plot(self, lost: bool = False):
        """A figure; see `roilab.plotting.show_patching`."""
        from ..plotting import show_patching

        return show_patching(self, lost)


@torch.no_grad()
def activation_patching(
    model, clean: Target, corrupt: Target, groups: dict[str, list[int]] | None = None, batch: int | str = 16
) -> Patching:
    """Patches states of the residual stream, at every depth, group by group, in both directions.

    Args:
        clean, corrupt: the same question and answer about another box or another picture: `dataclasses.replace(clean, shapes=..., image=...)`.
        groups: name -> positions; by default one group per part of the sequence.
        batch: sequences in one pass, or the memory that it may take, as in `cover`.
    Raises:
        ValueError: the sequences differ in their words; the two scores are too close to have anything to recover.
    """
    groups = groups or {name: clean.positions(name).tolist() for name in dict.fromkeys(clean.parts)}
    first, second, clean_score, corrupt_score = _both(model, clean, corrupt)
    states = [_states(model, embeds) for embeds in (first, second)]
    sides = [(second, states[0]), (first, states[1])]
    jobs = [(depth, positions) for depth in range(len(states[0])) for positions in groups.values()]
    recovered, lost = (
        _patched_scores(model, clean, embeds, source, jobs, batch).reshape(-1, len(groups)) for embeds, source in sides
    )
    span = clean_score - corrupt_score
    return Patching(
        clean,
        list(groups),
        (recovered - corrupt_score) / span,
        (clean_score - lost) / span,
        clean_score,
        corrupt_score,
        origin(model),
    )


@dataclass
class AttributionPatching(Result):
    """An estimate of `activation_patching` at every position and depth, and the truth at the largest of them.

    Attributes:
        target: the clean one.
        estimated: [L + 1, T] recovered share, by one gradient of the corrupt pass.
        verified: (depth, position, estimated, true) of the largest estimates.
        clean, corrupt: the target's score in the two passes.
        origin: model, dtype and attention implementation.
    """

    target: Target
    estimated: Tensor = field(repr=False)
    verified: list[tuple[int, int, float, float]]
    clean: float
    corrupt: float
    origin: dict = field(default_factory=dict)

    def plot(self):
        """A figure: the largest estimates beside the true effects; see `roilab.plotting.show_table`."""
        from ..plotting import show_table

        rows = [
            f"{'embedding' if depth == 0 else f'layer {depth}'}, {self.target.parts[at]} “{self.target.tokens[at].strip()}”"
            for depth, at, _, _ in self.verified
        ]
        values = [each[2:] for each in self.verified]
        return show_table(values, rows, ["estimated", "true"], "recovered by one state", "share", signed=True, cell=90)


def attribution_patching(
    model, clean: Target, corrupt: Target, top: int = 10, batch: int | str = 16
) -> AttributionPatching:
    """Patching of single positions estimated to first order (Nanda; Syed et al., arXiv 2310.10348; Kramár et al., arXiv 2403.00745).

    estimate = gradient at the corrupt state . (clean state - corrupt state). One backward pass instead of T x (L + 1) passes; wrong wherever
    the model is not linear on the way, most of all at the first states: hence the true patches of the `top` largest, beside them.

    Args, Raises: as in `activation_patching`.
    """
    with torch.no_grad():
        first, second, clean_score, corrupt_score = _both(model, clean, corrupt)
        wanted = _states(model, first)
    with torch.enable_grad():
        embeds = second.detach().requires_grad_()
        with keeping_states(model) as states:
            total = score(model, embeds, clean).sum()
        slopes = torch.cat(torch.autograd.grad(total, states))
    span = clean_score - corrupt_score
    estimated = ((wanted - torch.cat(states).detach()) * slopes).sum(-1).float().cpu() / span
    best = estimated.abs().flatten().topk(min(top, estimated.numel())).indices.tolist()
    jobs = [(i // estimated.shape[1], [i % estimated.shape[1]]) for i in best]
    true = (_patched_scores(model, clean, second, wanted, jobs, batch) - corrupt_score) / span
    verified = [
        (depth, position, estimated[depth, position].item(), share)
        for (depth, (position,)), share in zip(jobs, true.tolist(), strict=True)
    ]
    return AttributionPatching(clean, estimated, verified, clean_score, corrupt_score, origin(model))


@contextlib.contextmanager
def patched(model, depths: list[int], positions: list[list[int]], states: Tensor):
    """While it lasts, row b of a batch gets, at depth `depths[b]` and `positions[b]`, the states [L + 1, T, D] of another pass."""
    hooks, layers = [], decoder_layers(model)

    def fill(hidden, depth):
        hidden = hidden.clone()
        for row, (at, where) in enumerate(zip(depths, positions, strict=True)):
            if at == depth:
                hidden[row, where] = states[depth, where].to(hidden)
        return hidden

    def before(module, args, kwargs):
        if args:
            return (fill(args[0], 0), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": fill(kwargs["hidden_states"], 0)}

    def after(depth):
        def hook(module, args, output):
            return (fill(output[0], depth), *output[1:]) if isinstance(output, tuple) else fill(output, depth)

        return hook

    with ALONE:
        if 0 in depths:
            hooks.append(layers[0].register_forward_pre_hook(before, with_kwargs=True))
        hooks += [layers[depth - 1].register_forward_hook(after(depth)) for depth in sorted({*depths} - {0})]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@torch.no_grad()
def _patched_scores(model, explained: Target, embeds: Tensor, states: Tensor, jobs: list, batch: int | str) -> Tensor:
    """Scores [len(jobs)] of one sequence with states of another at (depth, positions)."""
    scores, batch = [], fitting(batch, lambda: score(model, embeds, explained))
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        with patched(model, [depth for depth, _ in part], [where for _, where in part], states):
            scores.append(score(model, embeds.expand(len(part), -1, -1), explained).float().cpu())
    return torch.cat(scores)


def _states(model, embeds: Tensor) -> Tensor:
    """[L + 1, T, D] of embeddings [1, T, D]."""
    with keeping_states(model) as states:
        logits_at(model, embeds, [embeds.shape[1] - 1])
    return torch.cat(states)


def _both(model, clean: Target, corrupt: Target) -> tuple[Tensor, Tensor, float, float]:
    """Embeddings and scores of the clean and the corrupt sequence."""
    if clean.ids != corrupt.ids:
        differ = sum(a != b for a, b in zip(clean.ids, corrupt.ids, strict=False))
        raise ValueError(
            f"clean and corrupt sequences must have the same words: {len(clean.ids)} and {len(corrupt.ids)} positions, {differ} differ"
        )
    first, second = (splice(model, prepare(model, each)) for each in (clean, corrupt))
    scores = [score(model, embeds, clean).item() for embeds in (first, second)]
    if abs(scores[0] - scores[1]) < CLOSE:
        raise ValueError(
            f"the target's score is {scores[0]:.3f} clean and {scores[1]:.3f} corrupt: less than {CLOSE} apart, nothing to recover"
        )
    return first, second, *scores
