"""The loss of stage 1, where only the region encoder learns, without gradients for what comes before the first region.

The embedding of a region depends on parameters that learn; the system text, the picture and the words before the first `<bbox>` do not.
A causal language model computes their keys and values without looking at what follows. So they are computed without gradients, once, and
serve all records of the batch that begin with them:

    <s> system picture A | Describe | region1 <bbox> . A dog.
                         |          | region2 <bbox> . A tree.  And region1 <bbox> ? A dog.
                         | What is  | region1 <bbox> ? A kite.
    once per picture --->| once --->| each record, with gradients

Axes: B records, T sequence, D language-model width.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..memory import CACHE
from ..model import keeping_logits, mask_positions

READ = ("input_ids", "labels", "attention_mask", "boxes", "pixel_values", "features", "picture_ids")
BESIDE = ("regions", "record_ids", "shortened")  # what a collator tells beside the model's inputs

Stem = list[tuple[Tensor, Tensor]]
"""Keys and values, each [heads, n, head size], of n positions: one pair per layer; an empty list for no positions."""


def prefix_loss(model, batch: dict, num_items_in_batch: Tensor | int | None = None) -> CausalLMOutputWithPast:
    """The loss of `model(**batch)` and, for the region encoder, its gradients, in less time and memory.

    Dropout in the frozen parts, where there is any, falls alike on all records that share a prefix.

    Args:
        model: a `GPT4RoI` of which the region encoder alone requires gradients.
        batch: `input_ids` and `labels` [B, T], `attention_mask` [B, T] with the padding on the right, `boxes`, and `pixel_values`
            [B, 3, H, W] or `features`, as `processor.collate` makes them. Rows with the same string in `picture_ids` show the same
            picture; without it, every row has a picture of its own.
        num_items_in_batch: as in `GPT4RoI.forward`.
    Returns:
        An output with the loss alone: logits are computed only where something is learned. Without any region the gradients are 0.
    Raises:
        ValueError: something outside the region encoder requires gradients; gradient checkpointing is on (transformers drops keys and
            values then); the batch is padded on the left, or its rows of one picture differ in their pixels.
    """
    _check_model(model)
    ids, labels, pictures = _read(batch)
    words = _embed(model, batch, ids, pictures)
    learned = [[t for t, label in enumerate(row[1:]) if label != -100] for row in labels]  # t foretells label t + 1

    # Where the shared parts end: what all rows of a picture begin with, then what stands before the first region.
    region = model.config.region_token_id
    first = [row.index(region) if region in row else len(row) for row in ids]
    common = [0] * len(ids)
    for rows in _grouped(pictures):
        length = _common_length([ids[row][: first[row]] for row in rows])
        for row in rows:
            common[row] = length

    stems: list[Stem] = [[] for _ in ids]
    starts, losses = [0] * len(ids), []
    for ends, shared in ((common, True), (first, True), ([len(row) for row in ids], False)):
        keys = [(pictures[i], *ids[i][: ends[i]]) if shared else i for i in range(len(ids))]
        groups = [rows for rows in _grouped(keys) if starts[rows[0]] < ends[rows[0]]]
        if not groups:
            continue
        here = [[t - starts[i] for t in learned[i] if starts[i] <= t < ends[i]] for i in range(len(ids))]
        wanted = sorted({t for rows in groups for row in rows for t in here[row]})
        with torch.set_grad_enabled(torch.is_grad_enabled() and not shared):
            logits, longer = _continue(
                model,
                [stems[rows[0]] for rows in groups],
                [words[rows[0], starts[rows[0]] : ends[rows[0]]] for rows in groups],
                wanted,
                keep=shared,
            )
        column = {t: i for i, t in enumerate(wanted)}
        picked = []
        for group, rows in enumerate(groups):
            for row in rows:
                picked += [(group, column[t], labels[row][starts[row] + t + 1]) for t in here[row]]
                stems[row], starts[row] = longer[group], ends[row]
        if picked:
            group, position, target = torch.tensor(picked, device=logits.device).T
            losses.append(F.cross_entropy(logits[group, position].float(), target, reduction="sum"))

    loss = sum(losses, torch.zeros((), device=words.device))
    if torch.is_grad_enabled() and not loss.requires_grad:
        loss = loss + 0 * sum(each.sum() for each in model.region_encoder.parameters())
    items = max(sum(map(len, learned)), 1) if num_items_in_batch is None else num_items_in_batch
    return CausalLMOutputWithPast(loss=loss / (items.to(loss.device) if torch.is_tensor(items) else items))


def _continue(
    model, stems: list[Stem], words: list[Tensor], wanted: list[int], keep: bool
) -> tuple[Tensor, list[Stem | None]]:
    """What the language model makes of new positions after known ones.

    Args:
        stems: what is known of each of U sequences.
        words: U tensors [n, D], embeddings of the new positions; n may differ.
        wanted: new positions, counted from 0, of which any of the sequences needs logits.
        keep: whether the longer stems are needed.
    Returns:
        Logits [U, len(wanted), vocabulary]; U longer stems, or None in their place.
    """
    known = [stem[0][0].shape[1] if stem else 0 for stem in stems]
    new = [len(each) for each in words]
    before, after = max(known), max(new)
    cache = DynamicCache()
    if before:
        filled = next(stem for stem in stems if stem)
        stems = [stem or [(keys[:, :0], values[:, :0]) for keys, values in filled] for stem in stems]
        for layer, pairs in enumerate(zip(*stems)):
            # Padding goes to the far left: what a row knows and what is new to it stand side by side.
            keys, values = (
                torch.stack([F.pad(each, (0, 0, before - each.shape[1], 0)) for each in part]) for part in zip(*pairs)
            )
            cache.update(keys, values, layer)
    mask = torch.zeros(len(new), before + after, dtype=torch.long, device=words[0].device)
    for row, (n, m) in enumerate(zip(known, new)):
        mask[row, before - n : before + m] = 1

    options = keeping_logits(model.language_model, torch.tensor(wanted, dtype=torch.long, device=mask.device))
    outputs = model.language_model(
        inputs_embeds=torch.stack([F.pad(each, (0, 0, 0, after - len(each))) for each in words]),
        attention_mask=mask,
        position_ids=mask_positions(mask)[:, before:],
        use_cache=True,
        return_dict=True,
        **{CACHE: cache},
        **options,
    )
    logits = outputs.logits if options else outputs.logits[:, wanted]
    if not keep:
        return logits, [None] * len(new)
    pairs = [(layer.keys, layer.values) for layer in cache.layers]
    if not pairs or any(each is None or each.shape[2] != before + after for pair in pairs for each in pair):
        raise ValueError(
            f"a {type(model.language_model).__name__} does not keep keys and values of all {before + after} positions: "
            "its prefixes cannot be shared"
        )
    return logits, [
        [(keys[row, :, before - n : before + m], values[row, :, before - n : before + m]) for keys, values in pairs]
        for row, (n, m) in enumerate(zip(known, new))
    ]


def _embed(model, batch: dict, ids: list[list[int]], pictures: list[Hashable]) -> Tensor:
    """`model.embed` of the batch [B, T, D]: vision and fusion once per picture, gradients from the region encoder on."""
    groups = _grouped(pictures)
    number = [0] * len(ids)
    for i, rows in enumerate(groups):
        for row in rows:
            number[row] = i
    images = regions = None
    features, boxes = batch.get("features"), batch.get("boxes")
    with torch.no_grad():
        if features is not None:
            features = features.rows([rows[0] for rows in groups]).to(model.projector.weight.device)
        elif batch.get("pixel_values") is not None:
            features = model.encode_image(batch["pixel_values"][[rows[0] for rows in groups]])
        if features is not None:
            images = model.projector(features.patches)[number]
    if boxes is not None and images is not None:
        regions = [torch.zeros(0, images.shape[-1], device=images.device)] * len(ids)
        shown = [i for i, rows in enumerate(groups) if any(len(boxes[row]) for row in rows)]
        if shown:
            fused = model.fuse(features.rows(shown))
            together = model.region_encoder.pool(fused, [torch.cat([boxes[row] for row in groups[i]]) for i in shown])
            for i, embeddings in zip(shown, together):
                for row, each in zip(groups[i], embeddings.split([len(boxes[row]) for row in groups[i]])):
                    regions[row] = each
    return model.embed(batch["input_ids"], image_embeddings=images, region_embeddings=regions)


def _check_model(model):
    learning = [name for name, each in model.named_parameters() if each.requires_grad]
    others = [name for name in learning if not name.startswith("region_encoder.")]
    if others:
        raise ValueError(
            f"{others[0]} requires gradients, and so do {len(others) - 1} more outside the region encoder: prefixes run without "
            "gradients, so the region encoder alone may learn"
        )
    if any(getattr(each, "gradient_checkpointing", False) for each in model.language_model.modules()):
        raise ValueError(
            "gradient checkpointing is on: transformers then drops the keys and values that records share; turn it off, or do "
            "without prefix_loss"
        )


def _read(batch: dict) -> tuple[list[list[int]], list[list[int]], list[Hashable]]:
    """Ids and labels of every row without its padding, and its picture's name or number."""
    unknown = sorted(set(batch) - {*READ, *BESIDE})
    if unknown:
        raise ValueError(f"the batch holds {', '.join(unknown)}, but read are {', '.join(READ)}")
    missing = [key for key in ("input_ids", "labels") if batch.get(key) is None]
    if missing:
        raise ValueError(f"the batch has no {' and no '.join(missing)}; it holds {', '.join(batch)}")
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape != ids.shape or (mask.diff(dim=1) > 0).any():
        raise ValueError(
            f"attention_mask {list(mask.shape)}, input_ids {list(ids.shape)}: expected one shape and all padding on the right"
        )
    lengths = mask.sum(1).tolist()
    pictures = batch.get("picture_ids")
    pictures = list(range(len(ids)) if pictures is None else pictures)
    boxes, source = batch.get("boxes"), batch.get("pixel_values")
    source = batch["features"].patches if batch.get("features") is not None else source
    for name, given in (("picture_ids", pictures), ("lists of boxes", boxes), ("pictures", source)):
        if given is not None and len(given) != len(ids):
            raise ValueError(f"{len(given)} {name}, but the batch has {len(ids)} rows")
    if boxes is not None and source is None and any(map(len, boxes)):
        raise ValueError(
            f"{sum(map(len, boxes))} boxes, but no picture: the batch has neither pixel_values nor features"
        )
    for rows in _grouped(pictures) if source is not None else ():
        for row in rows[1:]:
            if not _alike(source[rows[0]], source[row]):
                raise ValueError(
                    f"rows {rows[0]} and {row} both show the picture {pictures[row]!r}, but their pixels differ"
                )
    ids, labels = ([row[:n] for row, n in zip(batch[key].tolist(), lengths)] for key in ("input_ids", "labels"))
    return ids, labels, pictures


def _alike(one: Tensor, two: Tensor) -> bool:
    """Whether pixels or features are the same but for rounding, which may differ with the row of a batch."""
    return bool((one.float() - two.float()).norm() <= 0.02 * one.float().norm())


def _grouped(keys: Iterable[Hashable]) -> list[list[int]]:
    """Rows with equal keys, in order of their first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _common_length(rows: list[list[int]]) -> int:
    """How many ids all the rows begin with."""
    first, last = (
        min(rows),
        max(rows),
    )  # all others lie between them in the alphabet, so they share what these two share
    return next((i for i, (one, two) in enumerate(zip(first, last)) if one != two), min(len(first), len(last)))
