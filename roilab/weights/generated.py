"""Folders in the layout of the published weights, with random values: what `convert` is tested, taught and measured with.

None of the published files can be part of this project. These have their key names, their shards and index, their tokens and rows, and,
on demand, their sizes; what a model of them answers means nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import in_shards
from .official import OFFICIAL_REGION_PREFIX, official_region_name
from .rows import ADDED

TEXTS = [
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the "
    "human's questions.\n\n### Human: The picture provides an overview of the picture.\nWhat is region1 doing? Is region2 larger?\n### Assistant: Yes.",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>/_.,:;!?'# ## ###",
] * 5


def small_config(**text_changes):
    """A `GPT4RoIConfig` of the published architecture with small sizes: 56 x 56 pixels, 16 patches, 1.5 million parameters."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from ..config import GPT4RoIConfig, RegionConfig

    vision = CLIPVisionConfig(
        image_size=56, patch_size=14, hidden_size=64, intermediate_size=96, num_hidden_layers=12, num_attention_heads=4
    )
    sizes = dict(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=2048
    )
    text = LlamaConfig(**sizes | text_changes | {"vocab_size": 626, "tie_word_embeddings": False})
    region = RegionConfig([64] * 4, width=64, hidden_size=40, position_hidden_size=16, output_size=text.hidden_size)
    return GPT4RoIConfig(vision, text, region)


def write_official(
    folder,
    config=None,
    seed: int = 0,
    shards: int = 3,
    pad: bool = True,
    safetensors: bool = False,
    legacy: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Writes `folder/official` (a difference), `folder/llama` (what it is a difference to) and `folder/clip`.

    Args:
        config: a `GPT4RoIConfig` of CLIP and LLaMA; by default `small_config()`. Its vocabulary counts six added tokens.
        seed: of the values.
        shards: about so many files per language model.
        pad: False leaves out the row of [PAD], as other tokenizer versions did.
        safetensors, legacy: write that format instead of torch's zip format.
        dtype: of the values; published is float16.
    Returns:
        `folder`.
    """
    from transformers import CLIPImageProcessor

    config = small_config() if config is None else config
    folder, values = Path(folder), _Values(seed)
    text, words = config.text_config, config.text_config.vocab_size - len(ADDED)
    added = ADDED if pad else ADDED[1:]
    tokenizer = llama_tokenizer(words=words)
    tokenizer.save_pretrained(_made(folder / "llama"))
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(_made(folder / "official"))
    shapes = _shapes(config)
    told = text.to_dict() | {"vocab_size": words + len(added), "dtype": "float16"}
    for name in ("llama", "official"):
        rows = words if name == "llama" else words + len(added)
        language = {
            key: (rows, *shape[1:]) if key in ("model.embed_tokens.weight", "lm_head.weight") else shape
            for key, shape in shapes["language"].items()
        }
        extra = shapes["official"] if name == "official" else {"model.layers.0.self_attn.rotary_emb.inv_freq": (8,)}
        scale = 1.0 if name == "llama" else 0.2  # of a difference
        _write_shards(
            folder / name, language | extra, values, scale, shapes["official"], shards, safetensors, legacy, dtype
        )
        file = {"model_type": "llava", "mm_vision_select_layer": -2} if name == "official" else {}
        (folder / name / "config.json").write_text(
            json.dumps(told | {"vocab_size": rows} | file, indent=2, default=str)
        )
    _write_shards(_made(folder / "clip"), shapes["clip"], values, 1.0, shapes["clip"], 1, True, False, dtype)
    config.vision_config.save_pretrained(folder / "clip")
    side = config.vision_config.image_size
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side).save_pretrained(folder / "clip")
    return folder


def llama_tokenizer(texts=TEXTS, prefix: str = "first", words: int | None = None):
    """A tokenizer that behaves as LLaMA's: sentencepiece-like BPE with byte fallback, trained on `texts`.

    Args:
        prefix: "first" (a blank only at the start) or "legacy" (after special tokens too).
        words: rows in all, filled up with unused words; by default what was learned (at most 620).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    # Merges never cross a blank, as in sentencepiece; real LLaMA files carry no pre-tokenizer in the legacy form.
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    specials = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=620, special_tokens=specials, show_progress=False)
    )
    # Byte tokens are ordinary vocabulary: keep the learned model alone, and add the real special tokens only.
    learned = json.loads(backend.to_str())["model"]
    vocabulary = learned["vocab"]
    for number in range(len(vocabulary), words or 0):
        vocabulary[f"▁unused{number}"] = number
    merges = [tuple(pair) for pair in learned["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if prefix == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


class _Values:
    """Random numbers, repeated where a tensor is larger than a million: 7 billion fresh ones would take minutes."""

    def __init__(self, seed: int):
        self.block = torch.randn(2**20, generator=torch.Generator().manual_seed(seed))
        self.start = 0

    def __call__(self, name: str, shape: tuple[int, ...], scale: float, dtype: torch.dtype) -> Tensor:
        count = torch.Size(shape).numel()
        self.start = (self.start + 7919) % 2**20
        block = self.block.roll(self.start)
        values = block.repeat(-(-count // len(block)))[:count] if count > len(block) else block[:count]
        values = values.reshape(shape) * (0.1 if len(shape) < 2 else torch.Size(shape[1:]).numel() ** -0.5)
        if scale == 1 and len(shape) == 1 and name.endswith("weight"):
            values = 1 + values  # a norm's
        return (values * scale).to(dtype)


def _shapes(config) -> dict[str, dict[str, tuple[int, ...]]]:
    """Published names and shapes: `language` (both language models), `official` (the rest of the published files), `clip`."""
    from ..model import GPT4RoI

    with torch.device("meta"):
        model = GPT4RoI(config)
    language = {name: tuple(each.shape) for name, each in model.language_model.state_dict().items()}
    official = {f"model.mm_projector.{name}": tuple(each.shape) for name, each in model.projector.state_dict().items()}
    for name, each in model.region_encoder.state_dict().items():
        official[OFFICIAL_REGION_PREFIX + official_region_name(name)] = tuple(each.shape)
    clip = {f"vision_model.{name}": tuple(each.shape) for name, each in model.vision.model.state_dict().items()}
    return {"language": language, "official": official, "clip": clip}


def _write_shards(folder, shapes, values, scale, whole, shards, safetensors, legacy, dtype):
    from safetensors.torch import save_file

    sizes = {name: 2 * torch.Size(shape).numel() for name, shape in shapes.items()}
    groups = in_shards(sizes, sum(sizes.values()) // shards + 1)
    ending, stem = ("safetensors", "model") if safetensors else ("bin", "pytorch_model")
    where = {}
    for number, group in enumerate(groups, 1):
        single = len(groups) == 1
        file = f"{stem}.{ending}" if single else f"{stem}-{number:05}-of-{len(groups):05}.{ending}"
        tensors = {name: values(name, shapes[name], 1.0 if name in whole else scale, dtype) for name in group}
        if safetensors:
            save_file(tensors, folder / file, {"format": "pt"})
        else:
            torch.save(tensors, folder / file, _use_new_zipfile_serialization=not legacy)
        where |= dict.fromkeys(group, file)
    if len(groups) > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": where,
        }
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
