"""The published region module's weights in ours.

The parameter names and shapes are facts of the checkpoint of GPT4RoI (arXiv 2307.03601); every size of the encoder follows from them,
except what weights cannot show (norm groups, RoIAlign samples).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import RegionConfig
    from ..regions import RegionEncoder


OFFICIAL_REGION_PREFIX = "model.spi_module."
# Ours -> published name, and the sizes that its shape shows; `{}` is the number of a level or of a fusion round.
_OFFICIAL_REGION_PARAMETERS = {
    "fusion.inputs.{}.weight": ("mlvl_fuse.input_conv.{}.weight", ("width", "level_width + 2", 1, 1)),
    "fusion.inputs.{}.bias": ("mlvl_fuse.input_conv.{}.bias", ("width",)),
    "fusion.rounds.{}.conv.weight": ("mlvl_fuse.fuse_convs.{}.conv.weight", ("width", "width", 3, 3)),
    "fusion.rounds.{}.norm.weight": ("mlvl_fuse.fuse_convs.{}.gn.weight", ("width",)),
    "fusion.rounds.{}.norm.bias": ("mlvl_fuse.fuse_convs.{}.gn.bias", ("width",)),
    "cells.convs.{}.weight": ("roi_align.pconvs.{}.weight", ("width", "width", 3, 3)),
    "cells.convs.{}.bias": ("roi_align.pconvs.{}.bias", ("width",)),
    "position.0.weight": ("roi_align.pos_embedd.0.weight", ("position_hidden_size", 4)),
    "position.0.bias": ("roi_align.pos_embedd.0.bias", ("position_hidden_size",)),
    "position.2.weight": ("roi_align.pos_embedd.2.weight", ("position_hidden_size",)),
    "position.2.bias": ("roi_align.pos_embedd.2.bias", ("position_hidden_size",)),
    "position.3.weight": ("roi_align.pos_embedd.3.weight", ("hidden_size", "position_hidden_size")),
    "position.3.bias": ("roi_align.pos_embedd.3.bias", ("hidden_size",)),
    "position.5.weight": ("roi_align.pos_embedd.5.weight", ("hidden_size",)),
    "position.5.bias": ("roi_align.pos_embedd.5.bias", ("hidden_size",)),
    "content.weight": ("roi_align.flatten_linear.weight", ("hidden_size", "width * roi_size ** 2")),
    "content.bias": ("roi_align.flatten_linear.bias", ("hidden_size",)),
    "output.weight": ("roi_align.updims.weight", ("output_size", "hidden_size")),
    "output.bias": ("roi_align.updims.bias", ("output_size",)),
}


def region_encoder_from_official(
    state_dict: dict[str, Tensor], *, norm_groups: int = 64, sampling_ratio: int = 2
) -> RegionEncoder:
    """The published region module as a `RegionEncoder` in eval mode.

    Args:
        state_dict: the published parameters and nothing else, with or without the prefix `model.spi_module.`.
        norm_groups, sampling_ratio: not visible in weights; the published values by default.
    Returns:
        An encoder of the inferred sizes that shares memory with the given tensors.
    Raises:
        ValueError: keys are missing, unknown or misshapen (all are named), or `norm_groups` does not divide the width.
    """
    import torch

    from ..regions import RegionEncoder

    prefix = OFFICIAL_REGION_PREFIX if any(key.startswith(OFFICIAL_REGION_PREFIX) for key in state_dict) else ""
    shapes = {key.removeprefix(OFFICIAL_REGION_PREFIX): tuple(value.shape) for key, value in state_dict.items()}
    config = official_region_config(shapes, norm_groups, sampling_ratio)
    with torch.device("meta"):
        encoder = RegionEncoder(config)

    official = {name: prefix + official_region_name(name) for name in encoder.state_dict()}
    problems = [f"missing key {key}" for key in official.values() if key not in state_dict]
    problems += [f"unknown key {key}" for key in state_dict if key not in official.values()]
    for name, value in encoder.state_dict().items():
        key = official[name]
        if key in state_dict and state_dict[key].shape != value.shape:
            problems.append(f"{key} has the shape {list(state_dict[key].shape)}, expected {list(value.shape)}")
    if problems:
        raise ValueError("not a published region module: " + "; ".join(problems))
    encoder.load_state_dict({name: state_dict[key] for name, key in official.items()}, assign=True)
    return encoder.eval()


def official_region_name(name: str) -> str:
    """`fusion.rounds.3.norm.weight` -> `mlvl_fuse.fuse_convs.3.gn.weight`."""
    if name in _OFFICIAL_REGION_PARAMETERS:
        return _OFFICIAL_REGION_PARAMETERS[name][0]
    number = re.search(r"\d+", name)[0]
    return _OFFICIAL_REGION_PARAMETERS[name.replace(number, "{}", 1)][0].format(number)


def official_region_config(shapes: dict[str, tuple[int, ...]], norm_groups: int, sampling_ratio: int) -> RegionConfig:
    """Sizes from shapes. Every parameter that shows a size has a vote, so that one misshapen key does not hide behind the others."""
    from ..config import RegionConfig

    votes: dict[str, list[tuple[int, str]]] = {}  # size -> (value, the key that shows it)
    highest = {}  # pattern of the published name -> highest level or round; a gap below it is a missing key
    level_widths: dict[int, int] = {}
    for key, shape in shapes.items():
        for pattern, symbols in _OFFICIAL_REGION_PARAMETERS.values():
            match = re.fullmatch(re.escape(pattern).replace(r"\{\}", r"(\d+)"), key)
            if match is None:
                continue
            if match.groups():
                block = pattern.split(".{}")[0]
                highest[block] = max(highest.get(block, -1), int(match[1]))
            if len(shape) != len(symbols):
                continue
            for symbol, value in zip(symbols, shape, strict=True):
                votes.setdefault(symbol, []).append((value, key))
                if symbol == "level_width + 2" and value > 2:
                    level_widths[int(match[1])] = value - 2

    sizes = {symbol: _elect(symbol, found) for symbol, found in votes.items() if isinstance(symbol, str)}
    # Without any vote a default stands in: the caller then names the missing keys.
    defaults = RegionConfig()
    width = sizes.get("width", defaults.width)
    levels = max(highest.get("mlvl_fuse.input_conv", 0), highest.get("roi_align.pconvs", 0)) + 1
    if max(highest.values(), default=0) > len(shapes):
        raise ValueError(f"not a published region module: {len(shapes)} keys, but one numbered {max(highest.values())}")
    return RegionConfig(
        level_widths=[level_widths.get(i, width) for i in range(levels)],
        width=width,
        fusion_rounds=highest.get("mlvl_fuse.fuse_convs", -1) + 1,
        norm_groups=norm_groups,
        roi_size=math.isqrt(sizes.get("width * roi_size ** 2", width * defaults.roi_size**2) // width),
        sampling_ratio=sampling_ratio,
        hidden_size=sizes.get("hidden_size", defaults.hidden_size),
        position_hidden_size=sizes.get("position_hidden_size", defaults.position_hidden_size),
        output_size=sizes.get("output_size", defaults.output_size),
    )


def _elect(size: str, votes: list[tuple[int, str]]) -> int:
    if size == "level_width + 2":
        return 0  # every level has its own
    (value, count), *others = Counter(value for value, _ in votes).most_common()
    if others and others[0][1] == count:
        shown = ", ".join(f"{key} says {value}" for value, key in votes)
        raise ValueError(f"not a published region module: its keys do not agree on {size}: {shown}")
    return value
