"""One teacher-forced pass over prompt and answer that keeps what was asked for and no more.

Axes: K kept layers, A answer tokens, T sequence, D language-model width, V vocabulary. The residual stream has one state more than layers:
state 0 is what the language model is given, state i what layer i - 1 leaves behind, before the final norm.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import ALONE
from .attending import Watch, attending, decoder_layers
from .passes import Inputs, logits_at, prepare, splice
from .target import ANSWER, Target

TOLERANCE = 1e-4  # of logits in float32, between a traced and an untraced pass


@dataclass
class Trace:
    """What a pass left behind.

    Attributes:
        target: what was forced.
        layers: [K] numbers of the layers in `attention`.
        attention: [K, heads, A, T] float32 on the CPU: where the position that predicts each answer token looks; None if not asked for.
        positions: positions of `states`.
        states: [layers + 1, len(positions), D] residual stream; None if not asked for.
        logits: [A, V] float32: what predicts each answer token.
        difference: largest difference of the logits to those of an untraced pass; nan if that was not computed.
    """

    target: Target
    layers: list[int]
    attention: Tensor | None = field(repr=False)
    positions: list[int]
    states: Tensor | None = field(repr=False)
    logits: Tensor = field(repr=False)
    difference: float = float("nan")

    @property
    def logprobs(self) -> Tensor:
        """[A] log-probabilities of the answer's tokens."""
        ids = torch.tensor([self.target.ids[i] for i in answer_positions(self.target)])
        return self.logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def answer_positions(target: Target) -> list[int]:
    """Positions of all tokens of the answer."""
    return target.positions(ANSWER).tolist()


@torch.no_grad()
def trace(
    model,
    target: Target,
    layers: list[int] | None = None,
    positions: list[int] | None = None,
    attention: bool = True,
    check: bool = True,
    inputs: Inputs | None = None,
) -> Trace:
    """Runs the target once and keeps attention rows and hidden states.

    Args:
        layers: layers whose attention is kept; by default all.
        positions: positions whose residual stream is kept; by default none.
        attention: whether attention rows are kept: memory grows with answer x T per layer, never with T x T.
        check: run it untraced as well and compare the logits.
        inputs: what `prepare` gave for this target, if it is there already.
    Raises:
        ValueError: there is no such layer or position.
        RuntimeError: in float32, logits differ from the untraced pass by more than 1e-4.
    """
    count = len(decoder_layers(model))
    layers = list(range(count)) if layers is None else list(layers)
    positions = [] if positions is None else target.check_positions(positions)
    inputs = prepare(model, target) if inputs is None else inputs
    embeds, asked = splice(model, inputs), [position - 1 for position in answer_positions(target)]
    watches = {layer: Watch(rows=torch.tensor(asked)) for layer in layers} if attention else {}
    keeping = keeping_states(model, positions) if positions else contextlib.nullcontext()
    with keeping as states, attending(model, watches):
        logits = logits_at(model, embeds, asked)[0]
    difference = float("nan")
    if check:
        difference = (logits - logits_at(model, embeds, asked)[0]).abs().max().item()
        if logits.dtype == torch.float32 and difference > TOLERANCE:
            raise RuntimeError(
                f"traced logits differ from untraced ones by {difference:.1e}, more than {TOLERANCE:.0e}"
            )
    rows = torch.cat([watches[layer].weights.cpu() for layer in layers]) if attention and layers else None
    kept = torch.stack(states).cpu() if positions else None
    return Trace(target, layers if attention else [], rows, positions, kept, logits.float().cpu(), difference)


@contextlib.contextmanager
def keeping_states(model, positions: list[int] | None = None):
    """While it lasts, a pass fills the list it gives, before the first and after each layer: [len(positions), D] of its only sequence.

    Without positions the states are kept as they are, [B, T, D], so that gradients can be asked for.
    """
    states: list[Tensor] = []

    def chosen(hidden):
        return hidden if positions is None else hidden[0, positions]

    layers = decoder_layers(model)

    def before(module, args, kwargs):
        states[:] = [chosen(_hidden(args, kwargs))]

    def after(module, args, output):
        states.append(chosen(output[0] if isinstance(output, tuple) else output))

    with ALONE:
        hooks = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
        hooks += [layer.register_forward_hook(after) for layer in layers]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()


def _hidden(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
