"""Loading a saved folder, and building a model with a fresh projector and region encoder on given backbones."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig

    from ..config import RegionConfig
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor


ASSETS = Path(__file__).parent.parent / "assets"
SHIPPED = ("tiny", "tiny-stage0", "tiny-stage1")
STAGE0 = "ablation-stage0"
VARIANTS = (
    STAGE0, "region-token", "text-coordinates", "shuffled-regions", "ignores-order", "only-positions", "only-text", "swaps-1-and-2",
)  # fmt: skip
OF_ALL_VARIANTS = ("vision.", "familiarity.")  # what they share with the tiny model
PAPER_LAYERS = (-11, -8, -5, -2)


def load(name_or_path="tiny", device=None, dtype=None, **kwargs) -> GPT4RoI:
    """A saved model with its processor in `model.processor`, in eval mode.

    Args:
        name_or_path: "tiny" (shipped with the package), "tiny-stage0" and "tiny-stage1" (where the stages of the course begin: before it has
            seen a region, and after stage 1), "tiny-" and a name in `VARIANTS` (models of the ablation, some with a planted defect; see
            assets/README.md), a folder that `save_pretrained` wrote, or a hub id.
        device: by default cuda if present, else cpu.
        dtype: by default float32 on the CPU; on CUDA bfloat16 where native, else float16.
        kwargs: for `from_pretrained` (`device_map`, `attn_implementation`, `revision`, ...).
    Raises:
        ValueError: there is no such folder, or it holds another kind of model.
    """
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor

    variant = _variant(name_or_path)
    source = _find("tiny" if variant else name_or_path)
    device = default_device() if device is None else device
    hub = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    with _quiet(small=isinstance(source, Path)):
        model = GPT4RoI.from_pretrained(source, dtype=dtype or default_dtype(device), **kwargs)
    model.processor = GPT4RoIProcessor.from_pretrained(source, **hub)
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

    from ..config import GPT4RoIConfig, RegionConfig
    from ..model import GPT4RoI, fill_with_mean
    from ..processing import GPT4RoIProcessor
    from ..tokens import add_special_tokens
    from ..vision import VisionTower

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
    unknown = set(sizes) - set(RegionConfig().to_dict())
    if unknown:
        known = list(inspect.signature(RegionConfig).parameters)[:-1]
        raise ValueError(f"region has {', '.join(sorted(unknown))}, but the sizes are {', '.join(known)}")
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
    shipped = name_or_path in SHIPPED
    path = ASSETS / name_or_path if shipped else Path(name_or_path)
    if not path.exists():
        if shipped:
            raise ValueError(
                f"{name_or_path!r} is not in this installation (no folder {path}); make it with `roilab train tiny`"
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
