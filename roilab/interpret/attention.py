"""Where an answer looks: attention maps, rollout and relevance.

Attention says where information may have come from, not what made the answer: weights can be changed without changing an answer
(Jain and Wallace, arXiv 1902.10186), and some positions draw attention whatever is asked (sinks; Kang et al., arXiv 2503.03321). Compare
with `attention_knockout`, which cuts the edges and looks at what happens.

Axes: L layers, A answer tokens, T sequence, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model import ALONE
from .attending import Watch, attending, decoder_layers
from .lens import unembed
from .passes import log_probabilities, logits_at, prepare, splice
from .results import Scores, origin
from .target import IMAGE, Target
from .tracing import answer_positions, trace

SINK = 20.0  # times the root mean square of a state; a position with such an entry in a sink dimension is a sink
SINK_DIMENSIONS = 2  # dimensions of the first position's state that are largest


@torch.no_grad()
def attention_map(
    model,
    explained: Target,
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    sinks: bool = True,
    generic: str | None = None,
) -> Scores:
    """Mean attention of the chosen answer tokens (of the positions that predict them) to every position.

    Shows where the answer's positions read from, layer by layer and head by head if asked. Cannot show that what was read there mattered.

    Args:
        layers, heads: which are averaged; by default all.
        sinks: False takes the attention away from sinks and shares it out among the other positions. Sinks are the first position and
            those whose state, in one of the dimensions in which the first position's is largest, exceeds 20 times its root mean square
            (which no state of fewer than 400 dimensions can: there, the first position alone is taken away).
        generic: a question without regions, e.g. "What is in the picture?"; the attention its answer pays to the image is taken off.
    Raises:
        ValueError: there is no such layer or head, or none is given.
    """
    traced = trace(model, explained, layers, positions=None if sinks else list(range(len(explained.ids))))
    if not traced.layers:
        raise ValueError("0 layers, expected at least 1")
    weights = _of_heads(traced.attention, heads)[:, :, _chosen(explained)]
    settings = {"layers": traced.layers, "heads": heads or "all", "sinks": sinks, "generic": generic}
    if not sinks:
        found = sink_positions(traced.states)
        settings["sink_positions"] = found
        weights = weights.clone()
        weights[..., found] = 0
        weights /= weights.sum(-1, keepdim=True).clamp_min(1e-12)
    scores = weights.mean((0, 1, 2))
    if generic is not None:
        from ..chat import Chat

        plain = attention_map(model, Target.of(Chat(model, explained.image), generic), layers, heads, sinks)
        patches = explained.positions(IMAGE)
        scores[patches] -= plain.positions[plain.target.positions(IMAGE)]
    return Scores("attention", explained, scores, model.vision.grid, settings=settings, origin=origin(model))


def sink_positions(states: Tensor) -> list[int]:
    """Positions of [L + 1, T, D] states that draw attention by their size alone, beside the first."""
    scaled = states / states.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
    inner = scaled[1:-1].abs()  # what is put in and what goes out has no such entries
    dimensions = inner[:, 0].amax(0).topk(SINK_DIMENSIONS).indices
    large = inner[..., dimensions].amax((0, 2)) >= SINK
    return sorted({0, *large.nonzero().flatten().tolist()})


@torch.no_grad()
def rollout(model, explained: Target) -> Scores:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928): half attention, half identity, multiplied up through the layers.

    Takes into account that layers pass on what earlier ones mixed. Ignores values, feed-forward layers and signs, and is the same for every
    answer word at a position. Needs one layer's map of heads x T x T at a time, and a product of T x T.
    """
    product, largest = None, 0

    def take(weights):
        nonlocal product, largest
        largest = max(largest, weights.nbytes)
        mixed = weights[0].float().mean(0)
        mixed = (mixed + torch.eye(len(mixed), device=mixed.device)) / 2
        mixed = mixed / mixed.sum(-1, keepdim=True)
        product = mixed if product is None else mixed @ product

    watches = {layer: Watch(whole=True, take=take) for layer in range(len(decoder_layers(model)))}
    with attending(model, watches):
        logits_at(model, splice(model, prepare(model, explained)), explained.predicting)
    settings = {"map_bytes": largest}
    scores = product[explained.predicting].mean(0).cpu()
    return Scores("rollout", explained, scores, model.vision.grid, settings=settings, origin=origin(model))


def relevance(model, explained: Target) -> Scores:
    """Relevance propagation through attention (Chefer, Gur and Wolf, arXiv 2103.15679) of the target.

    R <- R + mean over heads of (gradient x attention)+ R, layer by layer. Unlike rollout it is about this target, since gradients are the
    target's; what lowers the target is dropped by the (.)+. Layers are run again one by one, last to first: memory is one layer's graph, with
    its map of heads x T x T, and all layers' inputs [T, D].

    Raises:
        ValueError: not a LLaMA-type language model.
    """
    embeds = splice(model, prepare(model, explained)).detach()
    layers, entering = decoder_layers(model), []

    def before(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        entering.append((hidden, {name: value for name, value in kwargs.items() if name != "hidden_states"}, args[1:]))

    last = []
    with ALONE:
        hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
        hooks.append(layers[-1].register_forward_hook(lambda module, args, output: last.append(_first(output))))
        try:
            with torch.no_grad():
                spoken = logits_at(model, embeds, explained.predicting)
        finally:
            for hook in hooks:
                hook.remove()
    with torch.enable_grad():
        leaving = last[0].detach().requires_grad_()
        logits = unembed(model, leaving[:, explained.predicting])
        if not torch.allclose(logits, spoken, rtol=1e-2, atol=1e-2 * spoken.abs().max().item()):
            name = type(model.language_model).__name__
            raise ValueError(
                f"the logits of {name} are not its output layer of its final norm: relevance cannot be computed"
            )
        (slope,) = torch.autograd.grad(log_probabilities(logits, explained).sum(), leaving)
    start = torch.zeros(embeds.shape[1], device=embeds.device)
    start[explained.predicting] = 1 / len(explained.predicting)
    row = start
    largest = 0
    for layer in reversed(range(len(layers))):
        hidden, kwargs, args = entering.pop()
        watch = Watch(whole=True)
        with torch.enable_grad(), attending(model, {layer: watch}):
            hidden = hidden.detach().requires_grad_()
            leaving = _first(layers[layer](hidden, *args, **kwargs))
            slope, upon = torch.autograd.grad(leaving, [hidden, watch.weights], slope)
        largest = max(largest, watch.weights.nbytes)
        matters = (upon * watch.weights.detach()).clamp_min(0)[0].float().mean(0)
        row = row + row @ matters
    settings = {"map_bytes": largest}
    return Scores(
        "relevance", explained, (row - start).cpu(), model.vision.grid, settings=settings, origin=origin(model)
    )


def _first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _chosen(explained: Target) -> list[int]:
    """Which of the answer's tokens are chosen."""
    return [answer_positions(explained).index(position) for position in explained.chosen]


def _of_heads(weights: Tensor, heads: list[int] | None) -> Tensor:
    if heads is None:
        return weights
    count = weights.shape[1]
    if not heads:
        raise ValueError("0 heads, expected at least 1")
    for head in heads:
        if not 0 <= head < count:
            raise ValueError(f"head {head}, but the heads are 0 to {count - 1}")
    return weights[:, heads]
