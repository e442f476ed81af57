"""The language model's attention, seen and changed while it runs.

transformers looks every attention up by a name (`AttentionInterface`). While `attending` lasts, the language model's name is "roilab": the
output is computed by the same fused kernel as before, and beside it is kept, or cut, what a `Watch` asks for. No T x T map is made
unless one asks for it, and whatever was set before is set again in the end.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..model import ALONE

NAME = "roilab"


@dataclass
class Watch:
    """What is kept of and done to one layer's attention.

    Attributes:
        rows: [A] query positions whose weights are kept.
        cut: [T, T] or [B, T, T] bool, query x key: True where a query may not look; or None.
        whole: make the map of all queries, through which gradients flow.
        take: called with what was kept, which is then not kept here.
        weights: what was kept: [B, heads, A or T, T], float32 rows or the whole map in the model's dtype.
    """

    rows: Tensor | None = None
    cut: Tensor | None = None
    whole: bool = False
    take: Callable[[Tensor], None] | None = None
    weights: Tensor | None = field(default=None, repr=False)

    def keep(self, weights: Tensor):
        if self.take is None:
            self.weights = weights
        else:
            self.take(weights)


_WATCHED: weakref.WeakKeyDictionary[nn.Module, Watch] = weakref.WeakKeyDictionary()


def decoder_layers(model) -> nn.ModuleList:
    """The language model's layers, first to last.

    Raises:
        ValueError: not a LLaMA-type language model: no `layers` with a `self_attn` each.
    """
    layers = getattr(getattr(model.language_model, "base_model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "self_attn") for layer in layers):
        name = type(model.language_model).__name__
        raise ValueError(f"{name} has no list of layers with a self_attn each: only LLaMA-type models can be traced")
    return layers


@contextlib.contextmanager
def attending(model, watches: dict[int, Watch]):
    """While it lasts, layers are watched; the language model's attention is what it was before afterwards, whatever happens.

    Args:
        watches: layer (0 is the first) -> what to keep of it or do to it.
    Raises:
        ValueError: there is no such layer.
    """
    layers, language_model = decoder_layers(model), model.language_model
    for layer in watches:
        if not 0 <= layer < len(layers):
            raise ValueError(f"layer {layer}, but the layers are 0 to {len(layers) - 1}")
    with ALONE:
        before = language_model.config._attn_implementation
        watched = {layers[layer].self_attn: watch for layer, watch in watches.items()}
        outer = {module: _WATCHED[module] for module in watched if module in _WATCHED}
        try:
            language_model.set_attn_implementation(NAME)
            _WATCHED.update(watched)
            yield watches
        finally:
            for module in watched:
                _WATCHED.pop(module, None)
            _WATCHED.update(outer)
            language_model.set_attn_implementation(before)


def _attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    watch = _WATCHED.get(module)
    if watch is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    allowed = None
    if watch.cut is not None or watch.whole or watch.rows is not None:
        allowed = _allowed(query, key, attention_mask)
    if watch.cut is not None:
        cut = watch.cut.to(allowed.device)
        allowed = allowed & ~(cut[None, None] if cut.dim() == 2 else cut[:, None])
        if not allowed.any(-1).all():
            raise ValueError("a position may look nowhere any more: leave it at least itself")
        attention_mask = allowed.expand(len(query), -1, -1, -1)
    scaling = module.head_dim**-0.5 if scaling is None else scaling
    key_heads = repeat_kv(key, query.shape[1] // key.shape[1])
    if watch.whole:
        weights = _weights(query, key_heads, allowed, scaling).to(query.dtype)
        watch.keep(weights)
        values = repeat_kv(value, query.shape[1] // value.shape[1])
        return (weights @ values).transpose(1, 2).contiguous(), weights
    if watch.rows is not None:
        rows = watch.rows.to(query.device)
        weights = _weights(query[:, :, rows], key_heads, allowed[..., rows, :], scaling)
        watch.keep(weights)
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)


def _weights(query: Tensor, key: Tensor, allowed: Tensor, scaling: float) -> Tensor:
    scores = (query @ key.transpose(2, 3)) * scaling
    return scores.float().masked_fill(~allowed, float("-inf")).softmax(-1)


def _allowed(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """[B or 1, 1, queries, keys] bool: where a query looks. Without a mask, at all keys up to its own."""
    if mask is not None:
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    new, old = query.shape[2], key.shape[2] - query.shape[2]
    return torch.ones(new, old + new, dtype=torch.bool, device=query.device).tril(old)[None, None]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
