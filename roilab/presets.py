"""Combinations of backbones with a name: configurations at given sizes, and a model on two that are loaded.

GPT4RoI(presets.paper_7b())                        fresh weights at the paper's sizes
presets.clip_smollm2(vision=DIR, language=DIR)     two trained backbones, with a fresh projector and region encoder
presets.photo()                                    two trained backbones that a package index carries, and crops of each region
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import GPT4RoIConfig
    from .model import GPT4RoI


def paper_7b() -> GPT4RoIConfig:
    """GPT4RoI-7B (arXiv 2307.03601, section 3): CLIP ViT-L/14 at 224 pixels, LLaMA-7B with six added tokens, the paper's region encoder."""
    return _paper(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)


def paper_13b() -> GPT4RoIConfig:
    """As `paper_7b`, with LLaMA-13B (arXiv 2302.13971, table 2)."""
    return _paper(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)


def tiny() -> GPT4RoIConfig:
    """The sizes of `roilab.load("tiny")`."""
    from .config import GPT4RoIConfig

    return GPT4RoIConfig.from_pretrained(Path(__file__).parent / "assets" / "tiny")


def clip_smollm2(
    vision="openai/clip-vit-large-patch14", language="HuggingFaceTB/SmolLM2-135M-Instruct", **kwargs
) -> GPT4RoI:
    """CLIP ViT-L/14 and SmolLM2-135M-Instruct with a fresh projector and region encoder.

    Args:
        vision, language: hub ids, or folders where there is no network (`roilab.fetch` writes one for the language model).
        kwargs: for `roilab.build`.
    """
    from .weights import build

    return build(vision, language, **kwargs)


PHOTO_REGION = {
    "width": 64, "fusion_rounds": 1, "norm_groups": 8, "roi_size": 4, "hidden_size": 160, "position_hidden_size": 64,
    "focal_size": 256, "focal_width": 1280, "focal_contexts": [1, 1.6, 2.6],
    "words": 80,
}  # fmt: skip


def photo(directory=None, **kwargs) -> GPT4RoI:
    """EfficientNet-Lite2 at 448 pixels and SmolLM2-135M-Instruct, with a fresh projector and a region encoder that looks at crops.

    What the region encoder makes of crops is the layer that the network itself has behind its last level; all else of it is fresh.
    For the trained one see `roilab.load("photo")`.

    Args:
        directory: of the two backbones; what is not there is fetched, 116 MB (see `roilab.fetch`). By default `roilab.fetch.cache()`.
        kwargs: for `roilab.build`.
    """
    from safetensors.torch import load_file

    from .fetch import HEAD, fetch
    from .weights import build

    folders = fetch(directory)
    options = {"region": PHOTO_REGION, "image_size": 448} | kwargs
    model = build(folders["efficientnet-lite2"], folders["smollm2-135m-instruct"], **options)
    focal = model.region_encoder.cells.focal
    if focal is not None and focal.out_channels == PHOTO_REGION["focal_width"]:
        focal.load_state_dict(load_file(folders["efficientnet-lite2"] / HEAD))
    return model


def _paper(**sizes) -> GPT4RoIConfig:
    from transformers import CLIPVisionConfig, LlamaConfig

    from .config import GPT4RoIConfig, RegionConfig

    vision = CLIPVisionConfig(
        image_size=224, patch_size=14, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    )  # fmt: skip
    # [PAD], <im_patch>, <bbox> and three more follow LLaMA's 32,000 words.
    text = LlamaConfig(vocab_size=32006, pad_token_id=32000, max_position_embeddings=2048, rms_norm_eps=1e-6, **sizes)
    region = RegionConfig(output_size=text.hidden_size)
    return GPT4RoIConfig(vision, text, region, image_token_id=32001, region_token_id=32002)
