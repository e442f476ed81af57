"""What a chat keeps between questions: the vision features, the fused pyramid, the embedding of every box, keys and values.

Changed weights and hooks are noticed, and everything is computed anew.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from .regions import normalise_regions

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What the installed transformers calls the keys and values of earlier positions, as an argument and in outputs."""

_UNKNOWN = object()


class Memory:
    """The results about one picture that do not change between questions.

    Args:
        model: a `GPT4RoI` with its `.processor`.
        image: PIL picture.
        keep: False computes everything anew for each prompt.
    """

    def __init__(self, model, image, keep: bool = True):
        self.model, self.image, self.keep = model, image, keep
        self.forget()

    def forget(self):
        """Drop everything computed."""
        self._features = self._fused = self._image_embeddings = None
        self._note = _UNKNOWN
        self._region_embeddings: dict[tuple, torch.Tensor] = {}
        self._stamp = None
        self.forget_prompt()

    def forget_prompt(self):
        """Drop the keys and values; the picture and its regions stay."""
        self._past, self._past_keys = None, []

    def check(self):
        """Drop what was computed with other weights or hooks, or may not be kept."""
        if not self._keeping() or self._stamp != self._fingerprint():
            self.forget()

    def stamp(self):
        """What was computed since `check` may be kept. (After the work: transformers adds hooks of its own when it first runs.)"""
        self._stamp = self._fingerprint()

    def note(self) -> str | None:
        """See `picture_note`."""
        if self._note is _UNKNOWN:
            self._note = picture_note(self.model, self._picture()[0])
        return self._note

    def embed(self, ids: list[int], boxes: list[list]) -> torch.Tensor:
        """[1, T, D], the picture and known boxes and outlines from the caches."""
        device = self.model.get_input_embeddings().weight.device
        boxes = [frozen(box) for box in boxes]
        features, fused = self._picture(need_fused=any(box not in self._region_embeddings for box in boxes))
        if self._image_embeddings is None:
            self._image_embeddings = self.model.projector(features.patches)
        new = list(dict.fromkeys(box for box in boxes if box not in self._region_embeddings))
        if new:
            normalised, masks = normalise_regions(new, self.image.size, self.model.config.region_config.roi_size)
            masks = None if masks is None else [masks.to(device)]
            pooled = self.model.region_encoder.pool(fused, [normalised.to(device)], masks)[0]
            self._region_embeddings.update(zip(new, pooled, strict=True))
        width = self.model.config.text_config.hidden_size
        regions = [self._region_embeddings[box] for box in boxes]
        return self.model.embed(
            torch.tensor([ids], device=device),
            image_embeddings=self._image_embeddings,
            region_embeddings=[torch.stack(regions) if regions else torch.zeros(0, width, device=device)],
        )

    def past(self, keys: list, options: dict):
        """The kept keys and values cut back to what this prompt shares with the last one; an empty cache if nothing is kept."""
        if not options.get("use_cache", True):
            self.forget_prompt()
            return None
        past, known = self._past, self._past_keys
        self.forget_prompt()  # an interrupted answer must not leave a half-written cache behind
        shared = 0
        for one, two in zip(keys[:-1], known, strict=False):  # the last position is needed for its logits
            if one != two:
                break
            shared += 1
        if past is not None and self._keeping() and shared:
            try:
                surplus = past.get_seq_length() - shared
                if surplus:
                    past.crop(-surplus)
                if past.get_seq_length() == shared:
                    return past
            except (RuntimeError, ValueError, NotImplementedError):
                pass  # a cache that cannot be cut (sliding windows, recurrent states): compute it anew
        return DynamicCache(config=self.model.language_model.config)

    def keep_past(self, past, keys: list):
        """Keep what the language model computed for the positions `keys` (it may not have seen the last ones)."""
        if past is not None and self._keeping():
            self._past, self._past_keys = past, keys[: past.get_seq_length()]

    def _picture(self, need_fused: bool = False):
        if self._features is None:
            self._features = self.model.encode_image(self.model.processor.preprocess(self.image))
        if need_fused and self._fused is None:
            self._fused = self.model.fuse(self._features)
        return self._features, self._fused

    def _keeping(self) -> bool:
        return self.keep and not self.model.training

    def _fingerprint(self) -> tuple:
        """Changes when weights are replaced or written (unless through `.data`), or hooks come and go."""
        weights = sum(0 if each.is_inference() else each._version for each in self.model.parameters())
        places = hash(tuple(each.data_ptr() for each in self.model.parameters()))
        hooks = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in self.model.modules())
        return weights, places, hooks


def frozen(region) -> tuple:
    """A box or an outline as a key."""
    return tuple(tuple(each) if isinstance(each, list | tuple) else each for each in region)


def picture_note(model, features) -> str | None:
    """A remark if a picture looks unlike those the model was trained on, else None.

    Args:
        model: with a fitted `familiarity`; without one nothing is known and there is no remark.
        features: `VisionFeatures` of one picture.
    """
    if model.familiarity is None:
        return None
    distance, limit = model.familiarity(features.patches).item(), model.familiarity.threshold.item()
    if distance <= limit:
        return None
    return (
        f"This picture does not look like those the model was trained on (distance {distance:.0f}, familiar up to {limit:.0f}): "
        "take the answer with care. A model for photographs is roilab.load('photo')."
    )
