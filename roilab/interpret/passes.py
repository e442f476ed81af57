"""From a target to what the language model reads, and from there to the target's score.

Axes: B batch, T sequence, P patches, N regions, D language-model width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from ..memory import CACHE
from ..model import ALONE, keeping_logits
from ..regions import normalise_regions
from ..vision import VisionFeatures
from .target import Target

_LISTENER: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(callback: Callable[[int], None]):
    """While it lasts, in this thread, `callback(sequences)` is called before every pass of the language model.

    For progress, and for cancelling: what the callback raises ends the method, which leaves the model as it was.
    """
    token = _LISTENER.set(callback)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@dataclass
class Inputs:
    """What is spliced into the words of a target's sequence.

    Attributes:
        ids: [1, T].
        image: [1, P, D] projected patches.
        regions: [1, N, D] region embeddings.
        boxes: [N, 4] normalised xyxy.
        masks: [N, r, r] of the RoI cells; None if no region is an outline.
        features, fused: what image and regions were computed from.
    """

    ids: Tensor
    image: Tensor
    regions: Tensor
    boxes: Tensor
    masks: Tensor | None
    features: VisionFeatures
    fused: list[Tensor]


def prepare(model, target: Target, image=None, pixel_values: Tensor | None = None) -> Inputs:
    """The target's picture and regions as the language model gets them; gradients flow if they are on.

    Args:
        image: another picture of any size in the place of the target's; boxes keep their normalised places.
        pixel_values: [1, 3, H, W] preprocessed pixels in its place.
    """
    device = model.device
    if pixel_values is None:
        pixel_values = model.processor.preprocess(target.image if image is None else image)
    features = model.encode_image(pixel_values)
    fused = model.fuse(features)
    boxes, masks = normalise_regions(target.shapes, target.image.size, model.config.region_config.roi_size)
    boxes, masks = boxes.to(device), None if masks is None else masks.to(device)
    return Inputs(
        ids=torch.tensor([target.ids], device=device),
        image=model.projector(features.patches),
        regions=model.region_encoder.pool(fused, [boxes], None if masks is None else [masks])[0][None],
        boxes=boxes,
        masks=masks,
        features=features,
        fused=fused,
    )


def splice(model, inputs: Inputs, image: Tensor | None = None, regions: Tensor | None = None) -> Tensor:
    """[B, T, D]: the sequence with this picture and these regions, by default the target's own.

    Args:
        image: [B or 1, P, D]. regions: [B or 1, N, D].
    """
    image = inputs.image if image is None else image
    regions = inputs.regions if regions is None else regions
    batch = max(len(image), len(regions))
    return model.embed(
        inputs.ids.expand(batch, -1),
        image_embeddings=image.expand(batch, -1, -1),
        region_embeddings=list(regions.expand(batch, -1, -1)),
    )


def logits_at(model, embeds: Tensor, positions: list[int], **kwargs) -> Tensor:
    """Logits [B, len(positions), V] of embeddings [B, T, D] at these positions, without computing the others where that is possible."""
    if (listener := _LISTENER.get()) is not None:
        listener(len(embeds))
    language_model = model.language_model
    wanted = torch.tensor(positions, dtype=torch.long, device=embeds.device)
    options = keeping_logits(language_model, wanted)
    kwargs = {"use_cache": False} | kwargs
    with ALONE:
        logits = language_model(inputs_embeds=embeds, return_dict=True, **options, **kwargs).logits
    return logits if options else logits[:, wanted]


def log_probabilities(logits: Tensor, target: Target) -> Tensor:
    """Logits [B, A, V] at `target.predicting` -> log-probabilities [B, A] of the chosen tokens, at least float32."""
    said = torch.tensor([target.ids[i] for i in target.chosen], device=logits.device)
    return (
        logits.to(torch.promote_types(logits.dtype, torch.float32))
        .log_softmax(-1)
        .gather(2, said.expand(len(logits), -1)[..., None])[..., 0]
    )


def score(model, embeds: Tensor, target: Target, **kwargs) -> Tensor:
    """The target's score [B], the sum of the chosen tokens' log-probabilities, of embeddings [B, T, D]; gradients flow if they are on."""
    return log_probabilities(logits_at(model, embeds, target.predicting, **kwargs), target).sum(1)


class Scorer:
    """Scores of many sequences that share their beginning: what stands in front is read once.

    Args:
        embeds: [1, T, D], whose first `start` positions all sequences share.
        start: first position that may differ; by default that of the first region (what stands before cannot see it).
        batch: sequences per pass; memory grows with it.
    """

    def __init__(self, model, target: Target, embeds: Tensor, start: int | None = None, batch: int = 16):
        self.model, self.target, self.batch = model, target, batch
        if start is None:
            start = min([*target.positions("regions").tolist(), target.predicting[0]])
        if not 0 <= start <= target.predicting[0]:
            raise ValueError(f"start {start} is behind position {target.predicting[0]}, whose logits are asked for")
        self.start = start
        with torch.no_grad():
            self._known = _keys_and_values(model, embeds[:, :start]) if start else []

    @torch.no_grad()
    def __call__(self, embeds: Tensor) -> Tensor:
        """[B, T, D] sequences that share the first `start` positions -> scores [B]."""
        parts = [log_probabilities(self.logits(part), self.target).sum(1) for part in embeds.split(self.batch)]
        return torch.cat(parts)

    @torch.no_grad()
    def logits(self, embeds: Tensor) -> Tensor:
        """The same sequences, in one pass -> logits [B, A, V] where the target's chosen tokens are predicted."""
        if not self.start:
            return logits_at(self.model, embeds, self.target.predicting)
        return self._on(self._cache(len(embeds)), embeds[:, self.start :], self.target.predicting)

    @torch.no_grad()
    def say(self, embeds: Tensor, longest: int = 64) -> list[int]:
        """Ids of the greedy answer to one prompt [1, T', D] that shares the first `start` positions, with its stop marker.

        The same as `generate` with `do_sample=False`, at half the cost for a small model.
        """
        model, processor = self.model, self.model.processor
        eos, stop = model.generation_config.eos_token_id, processor.stop_ids()
        ends, ids, cache = set(eos if isinstance(eos, list) else [eos]), [], self._cache(1)
        new, length = embeds[:, self.start :], embeds.shape[1]
        never = model.generation_config.suppress_tokens or []
        while len(ids) < longest:
            logits = self._on(cache, new, [length - 1])[0, 0]
            logits[never] = -torch.inf
            ids.append(logits.argmax().item())
            if (
                ids[-1] in ends
                or ids[-len(stop) :] == stop
                or any(
                    each in processor.tokenizer.decode(ids, skip_special_tokens=False)
                    for each in processor.stop_strings
                )
            ):
                break
            new, length = model.get_input_embeddings()(torch.tensor([ids[-1:]], device=embeds.device)), length + 1
        return ids

    def _cache(self, batch: int) -> DynamicCache:
        """Keys and values of what stands in front, for as many sequences."""
        cache = DynamicCache()
        for layer, pair in enumerate(self._known):
            cache.update(*(each.expand(batch, -1, -1, -1) for each in pair), layer)
        return cache

    def _on(self, cache: DynamicCache, embeds: Tensor, positions: list[int]) -> Tensor:
        """Logits [B, len(positions), V] of what follows on a cache, [B, T', D]; positions are those of the whole sequence."""
        start = cache.get_seq_length()
        places = torch.arange(start, start + embeds.shape[1], device=embeds.device)[None].expand(len(embeds), -1)
        wanted = [position - start for position in positions]
        return logits_at(self.model, embeds, wanted, position_ids=places, use_cache=True, **{CACHE: cache})


def _keys_and_values(model, embeds: Tensor) -> list[tuple[Tensor, Tensor]]:
    cache = DynamicCache()
    logits_at(model, embeds, [embeds.shape[1] - 1], use_cache=True, **{CACHE: cache})
    return [(layer.keys, layer.values) for layer in cache.layers]
