"""Weights in and out: loading and building models, conversion of the published region module.

`load` reads a saved folder, `build` puts a fresh projector and region encoder on given backbones. (Saving is `model.save_pretrained`.) The published parameter names and shapes are facts of the checkpoint of GPT4RoI (arXiv 2307.03601); every size of the encoder follows
from them, except what weights cannot show (norm groups, RoIAlign samples).
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import GenerationConfig

    from .config import RegionConfig
    from .model import GPT4RoI
    from .processing import GPT4RoIProcessor
    from .regions import RegionEncoder

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

    from .regions import RegionEncoder

    prefix = OFFICIAL_REGION_PREFIX if any(key.startswith(OFFICIAL_REGION_PREFIX) for key in state_dict) else ""
    shapes = {key.removeprefix(OFFICIAL_REGION_PREFIX): tuple(value.shape) for key, value in state_dict.items()}
    config = _official_region_config(shapes, norm_groups, sampling_ratio)
    with torch.device("meta"):
        encoder = RegionEncoder(config)

    official = {name: prefix + _official_region_name(name) for name in encoder.state_dict()}
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


def _official_region_name(name: str) -> str:
    """`fusion.rounds.3.norm.weight` -> `mlvl_fuse.fuse_convs.3.gn.weight`."""
    if name in _OFFICIAL_REGION_PARAMETERS:
        return _OFFICIAL_REGION_PARAMETERS[name][0]
    number = re.search(r"\d+", name)[0]
    return _OFFICIAL_REGION_PARAMETERS[name.replace(number, "{}", 1)][0].format(number)


def _official_region_config(shapes: dict[str, tuple[int, ...]], norm_groups: int, sampling_ratio: int) -> RegionConfig:
    """Sizes from shapes. Every parameter that shows a size has a vote, so that one misshapen key does not hide behind the others."""
    from .config import RegionConfig

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


ASSETS = Path(__file__).parent / "assets"
PAPER_LAYERS = (-11, -8, -5, -2)


def load(name_or_path="tiny", device=None, dtype=None, **kwargs) -> GPT4RoI:
    """A saved model with its processor in `model.processor`, in eval mode.

    Args:
        name_or_path: "tiny" (shipped with the package), a folder that `save_pretrained` wrote, or a hub id.
        device: by default cuda if present, else cpu.
        dtype: by default float32 on the CPU; on CUDA bfloat16 where native, else float16.
        kwargs: for `from_pretrained` (`device_map`, `attn_implementation`, `revision`, ...).
    Raises:
        ValueError: there is no such folder, or it holds another kind of model.
    """
    from .model import GPT4RoI
    from .processing import GPT4RoIProcessor

    source = _find(name_or_path)
    device = default_device() if device is None else device
    hub = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    with _quiet(small=isinstance(source, Path)):
        model = GPT4RoI.from_pretrained(source, dtype=dtype or default_dtype(device), **kwargs)
    model.processor = GPT4RoIProcessor.from_pretrained(source, **hub)
    return (model if "device_map" in kwargs else model.to(device)).eval()


def build(
    vision,
    language,
    region: dict | RegionConfig | None = None,
    template: str | None = None,
    tokenizer=None,
    image_processor=None,
    feature_layers=None,
    image_layer: int = -2,
    device=None,
    dtype=None,
) -> GPT4RoI:
    """A model with a fresh projector and region encoder on given backbones.

    Args:
        vision: folder or hub id of a vision transformer (CLIP, SigLIP, DINOv2, ...), or a configuration (then its weights are fresh).
        language: folder or hub id of a causal language model, or a configuration.
        region: sizes of the region encoder that differ from the paper's (`RegionConfig`); widths of levels and output follow the backbones.
        template: `vicuna_v0`, `chatml` or `tiny`; by default chatml if the tokenizer has a chat template, else vicuna_v0.
        tokenizer: by default the language model's; needed if that is a configuration. The special tokens are added to it.
        image_processor: by default the vision model's; for a configuration CLIP's mean and standard deviation.
        feature_layers: hidden states that become levels, earliest first; by default the paper's, or spread over a shallower tower.
        image_layer: hidden state that becomes the image tokens.
        device, dtype: as in `load`.
    Raises:
        ValueError: a backbone has no tokenizer or image processor, or sizes do not fit.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    from .config import GPT4RoIConfig, RegionConfig
    from .model import GPT4RoI, fill_with_mean
    from .processing import GPT4RoIProcessor, add_special_tokens
    from .vision import VisionTower

    device = default_device() if device is None else device
    dtype = dtype or default_dtype(device)
    tokenizer = _tokenizer(language) if tokenizer is None else tokenizer
    template = template or ("chatml" if tokenizer.chat_template else "vicuna_v0")
    old_rows = len(tokenizer)
    add_special_tokens(tokenizer, template)
    if image_processor is None:
        image_processor = _image_processor(vision)

    vision_config = copy.deepcopy(_configuration(vision))
    vision_config = getattr(vision_config, "vision_config", vision_config)
    text_config = copy.deepcopy(_configuration(language))
    vision_model = language_model = None
    if not _is_config(vision):
        vision_model = AutoModel.from_pretrained(vision, config=vision_config, dtype=dtype)
    if not _is_config(language):
        language_model = AutoModelForCausalLM.from_pretrained(language, config=text_config, dtype=dtype)

    layers = list(feature_layers or spread_layers(vision_config.num_hidden_layers))
    sizes = region.to_dict() if isinstance(region, RegionConfig) else dict(region or {})
    sizes |= {"level_widths": [vision_config.hidden_size] * len(layers), "output_size": text_config.hidden_size}
    ids = tokenizer.convert_tokens_to_ids(["<im_patch>", "<bbox>"])
    config = GPT4RoIConfig(
        vision_config=vision_config,
        text_config=text_config,
        region_config=RegionConfig(**sizes),
        feature_layers=layers,
        image_layer=image_layer,
        image_token_id=ids[0],
        region_token_id=ids[1],
        template=template,
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    model = GPT4RoI(config, vision_model, language_model)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    if language_model is not None:
        # Also where the checkpoint had spare rows: nothing was ever learned in them.
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            fill_with_mean(layer, old_rows)

    tower: VisionTower = model.vision
    model.processor = GPT4RoIProcessor(
        plain_image_processor(image_processor, tower.image_size),
        tokenizer,
        template,
        tower.num_patches,
        tower.image_size,
    )
    model.generation_config = generation_config(model.processor)
    return model.to(device, dtype).eval()


def generation_config(processor: GPT4RoIProcessor, max_new_tokens: int = 256) -> GenerationConfig:
    """Greedy generation that stops where this template's answers stop."""
    from transformers import GenerationConfig

    tokenizer = processor.tokenizer
    stops = [tokenizer.eos_token_id]
    if not processor.stop_strings:
        stops.append(processor.stop_ids()[-1])  # chat templates often close a turn with another token than EOS
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted({each for each in stops if each is not None}) or None,
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=list(processor.stop_strings) or None,
        suppress_tokens=[processor.image_token_id, processor.region_token_id],  # places for pictures are not words
    )


def spread_layers(num_layers: int) -> list[int]:
    """The paper's four hidden states, or, in a tower too shallow for them, four spread evenly up to the second-last layer."""
    if num_layers + 1 >= -PAPER_LAYERS[0]:
        return list(PAPER_LAYERS)
    first = min(-2, -num_layers)  # hidden state 1, the first layer's output
    return [round(first + (-2 - first) * i / 3) for i in range(4)]


def plain_image_processor(image_processor, image_size: tuple[int, int]):
    """A CLIP image processor without crop for this size, with the mean, standard deviation and resampling of the given one."""
    from transformers import CLIPImageProcessor

    known = {} if image_processor is None else image_processor.to_dict()
    kept = {
        key: known[key]
        for key in ("image_mean", "image_std", "resample", "rescale_factor")
        if known.get(key) is not None
    }
    return CLIPImageProcessor(do_center_crop=False, size={"shortest_edge": min(image_size)}, **kept)


def default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device) -> torch.dtype:
    """float32 on the CPU; on CUDA bfloat16 where native (compute capability 8 and later), else float16."""
    import torch

    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _find(name_or_path) -> Path | str:
    """The folder of a model, checked, or a hub id as it is."""
    path = ASSETS / "tiny" if name_or_path == "tiny" else Path(name_or_path)
    if not path.exists():
        if name_or_path == "tiny":
            raise ValueError(
                f"the tiny model is not in this installation (no folder {path}); make it with `roilab train tiny`"
            )
        if isinstance(name_or_path, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_path):
            return name_or_path
        raise ValueError(f"no model {str(name_or_path)!r}: neither 'tiny', nor a folder, nor a hub id (owner/name)")
    config = path / "config.json"
    if not config.is_file():
        raise ValueError(f"{path} has no config.json: expected a folder that save_pretrained wrote")
    found = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if found != "gpt4roi":
        raise ValueError(
            f"{path} holds a model of type {found!r}, expected 'gpt4roi'; to put GPT4RoI on backbones use roilab.build"
        )
    return path


def _is_config(source) -> bool:
    from transformers import PreTrainedConfig

    return isinstance(source, PreTrainedConfig)


def _configuration(source):
    from transformers import AutoConfig

    return source if _is_config(source) else AutoConfig.from_pretrained(source)


def _tokenizer(language):
    from transformers import AutoTokenizer

    if _is_config(language):
        raise ValueError("language is a configuration, which brings no tokenizer: pass tokenizer=")
    _need_file(language, "tokenizer", ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return AutoTokenizer.from_pretrained(language)


def _image_processor(vision):
    from transformers import AutoImageProcessor

    if _is_config(vision):
        return None
    _need_file(vision, "image_processor", ("preprocessor_config.json", "processor_config.json"))
    return AutoImageProcessor.from_pretrained(vision)


def _need_file(source, part: str, names: tuple[str, ...]):
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise ValueError(
            f"{folder} has none of {', '.join(names)}: save the {part.replace('_', ' ')} there, or pass {part}="
        )


@contextlib.contextmanager
def _quiet(small: bool):
    """No progress bar for a folder that loads in a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if small:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
