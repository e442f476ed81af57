"""Loading a saved folder, and building a model with a fresh projector and region encoder on given backbones."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig

    from ..config import RegionConfig
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor
    from ..vision import VisionTower


ASSETS = Path(__file__).parent.parent / "assets"
SHIPPED = ("tiny", "tiny-stage0", "tiny-stage1")
PHOTO = "photo"
STAGE0 = "ablation-stage0"
VARIANTS = (
    STAGE0, "region-token", "text-coordinates", "shuffled-regions", "ignores-order", "only-positions", "only-text", "swaps-1-and-2",
)  # fmt: skip
OF_ALL_VARIANTS = ("vision.", "familiarity.")  # what they share with the tiny model
PAPER_LAYERS = (-11, -8, -5, -2)


def load(name_or_path="tiny", device=None, dtype=None, **kwargs) -> GPT4RoI:
    """A saved model with its processor in `model.processor`, in eval mode.

    Args:
        name_or_path: "tiny" (shipped with the package), "photo" (for photographs; the first time 116 MB are fetched and kept, see
            `roilab.photo`), "tiny-stage0" and "tiny-stage1" (where the stages of the course begin: before it has
            seen a region, and after stage 1), "tiny-" and a name in `VARIANTS` (models of the ablation, some with a planted defect; see
            assets/README.md), a folder that `save_pretrained` wrote, or a hub id.
        device: by default cuda if present, else cpu.
        dtype: by default float32 on the CPU; on CUDA bfloat16 where native, else float16.
        kwargs: for `from_pretrained` (`device_map`, `attn_implementation`, `revision`, `quantization_config`, see `four_bit`, ...).
    Raises:
        ValueError: there is no such folder, it holds another kind of model, or its files are damaged or do not fit together. Nothing in
            it is executed: weights are tensors alone, and Python files are never imported.
        OSError: a hub id that cannot be fetched.
    """
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor
    from .checking import check_folder, check_keys, check_pair, refusing

    variant = _variant(name_or_path)
    source = _find("tiny" if variant else name_or_path)
    device = default_device() if device is None else device
    hub = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    local, quantized = isinstance(source, Path), "quantization_config" in kwargs
    if quantized:  # such weights are made on their device and stay there
        kwargs.setdefault("device_map", {"": device})
    shell = check_folder(source) if local and not variant else None
    with _quiet(small=local), refusing(source) if local else contextlib.nullcontext():
        # Without an answer to whether code of the folder may run, transformers would ask for it on stdin.
        processor = GPT4RoIProcessor.from_pretrained(source, trust_remote_code=False, **hub)
        if shell is not None:
            check_pair(shell, processor, source)
        model, told = GPT4RoI.from_pretrained(
            source, dtype=dtype or default_dtype(device), output_loading_info=True, **kwargs
        )
        if not quantized:
            check_keys(source, told)
        if shell is None:
            check_pair(model, processor, source)
    model.processor = processor
    if variant:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(variant), strict=False)  # the vision tower is the tiny model's
    return (model if "device_map" in kwargs else model.to(device)).eval()


def snapshots() -> dict[str, Path]:
    """The region encoder of "tiny-region-token" on its way: STAGE-STEP -> safetensors file of `region_encoder.state_dict()`, in order."""
    return {path.stem: path for path in sorted((ASSETS / "tiny-variants" / "snapshots").glob("*.safetensors"))}


def build(
    vision,
    language,
    region: dict | RegionConfig | None = None,
    template: str | None = None,
    tokenizer=None,
    image_processor=None,
    feature_layers=None,
    image_layer: int | None = None,
    device=None,
    dtype=None,
    image_size: int | tuple[int, int] | None = None,
) -> GPT4RoI:
    """A model with a fresh projector and region encoder on given backbones.

    Args:
        vision: folder or hub id of a vision transformer (CLIP, SigLIP, DINOv2, ...) or of a network in stages that transformers has as a
            backbone (ResNet, ConvNeXt, Swin, timm's by `TimmBackbone`, ...), or a configuration (then its weights are fresh).
        language: folder or hub id of a causal language model, or a configuration.
        region: sizes of the region encoder that differ from the paper's (`RegionConfig`); widths of levels and output follow the backbones.
        template: `vicuna_v0`, `chatml` or `tiny`; by default chatml if the tokenizer has a chat template, else vicuna_v0.
        tokenizer: by default the language model's; needed if that is a configuration. The special tokens are added to it.
        image_processor: by default the vision model's; for a configuration CLIP's mean and standard deviation.
        feature_layers: hidden states that become levels, earliest first; by default the paper's, or spread over a shallower tower. Of a
            network in stages: which stages (see `vision.pyramid_stages`), by default its natural pyramid, at most four.
        image_layer: hidden state that becomes the image tokens, by default the second-last; of a network in stages the level, by default the
            last.
        device, dtype: as in `load`.
        image_size: pixels, one side or (height, width), of the pictures that a network in stages reads; a transformer brings its own.
    Raises:
        ValueError: a backbone has no tokenizer or image processor, or sizes do not fit.
    """
    from transformers import AutoModelForCausalLM

    from ..config import GPT4RoIConfig, RegionConfig
    from ..model import GPT4RoI, fill_with_mean
    from ..tokens import add_special_tokens
    from ..vision import VisionTower, fresh_vision_model, in_stages, pretrained_vision_model, pyramid_stages

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
    staged = in_stages(vision_config)
    if staged:
        vision_config.image_size = image_size or getattr(vision_config, "image_size", None)
        vision_config.out_indices = pyramid_stages(vision_config, feature_layers)
        layers = list(range(-len(vision_config.out_indices), 0))
    else:
        if image_size is not None:
            raise ValueError(
                f"image_size {image_size}, but the transformer's positions are made for {vision_config.image_size} pixels"
            )
        layers = list(feature_layers or spread_layers(vision_config.num_hidden_layers))
    if image_layer is None:
        image_layer = -1 if staged else -2
    if _is_config(vision):
        vision_model = fresh_vision_model(copy.deepcopy(vision_config))  # a part of another configuration is written to
    else:
        vision_model = pretrained_vision_model(vision, vision_config, dtype)
    language_model = None
    if not _is_config(language):
        language_model = AutoModelForCausalLM.from_pretrained(language, config=text_config, dtype=dtype)

    sizes = region.to_dict() if isinstance(region, RegionConfig) else dict(region or {})
    unknown = set(sizes) - set(RegionConfig().to_dict())
    if unknown:
        known = list(inspect.signature(RegionConfig).parameters)[:-1]
        raise ValueError(f"region has {', '.join(sorted(unknown))}, but the sizes are {', '.join(known)}")
    sizes |= {
        "level_widths": VisionTower(vision_config, layers, image_layer, vision_model).level_widths,
        "output_size": text_config.hidden_size,
    }
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

    model.processor = make_processor(image_processor, tokenizer, template, model.vision)
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


def make_processor(image_processor, tokenizer, template: str, vision: VisionTower) -> GPT4RoIProcessor:
    """The processor of a model with this vision tower; of the image processor (or None) as in `plain_image_processor`."""
    from ..processing import GPT4RoIProcessor

    size = vision.image_size
    return GPT4RoIProcessor(plain_image_processor(image_processor, size), tokenizer, template, vision.num_patches, size)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name))


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
    from .checking import read_configuration

    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(f"no model {name_or_path!r}: expected a name, a folder or a hub id")
    shipped = name_or_path in SHIPPED
    if name_or_path == PHOTO:
        from ..photo import photo_folder

        name_or_path = photo_folder(say=functools.partial(print, file=sys.stderr))
    path = ASSETS / name_or_path if shipped else Path(name_or_path)
    if not os.path.exists(path):
        if shipped:
            raise ValueError(
                f"{name_or_path!r} is not in this installation (no folder {path}); make it with `roilab train tiny`"
            )
        if isinstance(name_or_path, str) and is_hub_id(name_or_path):
            return name_or_path
        raise ValueError(
            f"no model {str(name_or_path)!r}: neither 'tiny' nor 'photo', nor a folder, nor a hub id (owner/name)"
        )
    read_configuration(path)
    return path


def _variant(name) -> Path | None:
    """The file of a variant of the tiny model, if that is what is asked for."""
    if not isinstance(name, str) or name.removeprefix("tiny-") not in VARIANTS or not name.startswith("tiny-"):
        return None
    path = ASSETS / "tiny-variants" / f"{name.removeprefix('tiny-')}.safetensors"
    if not path.exists():
        raise ValueError(
            f"{name!r} is not in this installation (no {path}); make it with `roilab train ablation --keep {path.parent}`"
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
