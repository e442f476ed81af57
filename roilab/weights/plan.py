"""Where each tensor of a converted model comes from, checked before anything is read: see `convert`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import Checkpoint, guarded, read_json, some
from .loading import generation_config, is_hub_id, make_processor
from .official import OFFICIAL_REGION_PREFIX, official_region_config, official_region_name
from .rows import EMBEDDING, HEAD, Rows

_LLAMA = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
    "max_position_embeddings",
)  # fmt: skip
IGNORED = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # computed, since transformers 4.32
    r"|(vision_model\.)?embeddings\.position_ids|text_model\..*|logit_scale|(visual|text)_projection\.weight"
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class Plan:
    """Where each of our tensors comes from, checked."""

    def __init__(self, official, base, vision):
        from ..model import GPT4RoI

        folders = {"official": official} | ({} if base is None else {"base": base}) | {"vision": vision}
        self.checkpoints = {name: Checkpoint(_folder(each)) for name, each in folders.items()}
        self.official, self.base = self.checkpoints["official"], self.checkpoints.get("base")
        self.clip = self.checkpoints["vision"]
        self._check_dtypes()
        told = read_json(self.official.folder / "config.json")
        sizes = self._sizes(told)
        self.rows = Rows(self.official, self.base)
        self.config = self._configuration(sizes, told.get("mm_vision_select_layer", -2))
        with torch.device("meta"):
            model = GPT4RoI(self.config)
        self.processor = make_processor(
            self._image_processor(), self.rows.tokenizer, self.config.template, model.vision
        )
        self.generation_config = generation_config(self.processor)
        self.expected = {name: each.shape for name, each in model.state_dict().items()}
        self.sources = {name: self._source(name) for name in self.expected}
        self._check_keys()
        self._check_difference()

    def bytes(self, name: str) -> int:
        checkpoint, key = self.sources[name]
        return self.expected[name].numel() * checkpoint.dtypes[key].itemsize

    def read(self, name: str) -> Tensor:
        """One tensor of ours: read, the base added, rows of the vocabulary in the tokenizer's order."""
        checkpoint, key = self.sources[name]
        value = checkpoint.read(key)
        if checkpoint is self.official and self.base is not None and key in self.base.where:
            added = self.base.read(key)
            whole = value.to(torch.float32, copy=True)  # what is mapped stays as the file has it
            whole[: len(added)] += added.float()  # the tokens that training added have no base
            value = whole.to(value.dtype)
        if key in (EMBEDDING, HEAD):
            value = self.rows.reorder(value)
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} of {checkpoint.where[key]} has values that are not finite")
        return value.contiguous()

    def _source(self, name: str) -> tuple[Checkpoint, str]:
        part, _, rest = name.partition(".")
        if part == "vision":
            rest = rest.removeprefix("model.")
            prefixed = f"vision_model.{rest}"
            return self.clip, rest if rest in self.clip.where else prefixed
        if part == "projector":
            return self.official, f"model.mm_projector.{rest}"
        if part == "region_encoder":
            return self.official, OFFICIAL_REGION_PREFIX + official_region_name(rest)
        return self.official, rest  # language_model.

    def _sizes(self, told: dict) -> dict:
        """Those of the language model, as config.json tells and the weights confirm."""
        path = self.official.folder / "config.json"
        sizes = {key: told[key] for key in _LLAMA if told.get(key) is not None}
        wrong = {key: value for key, value in sizes.items() if not _is_size(value)}
        if wrong:
            raise ValueError(f"{path} has {wrong}, expected numbers above 0")
        _check_layers(path, sizes.get("num_hidden_layers"), self.official, r"model\.layers\.(\d+)\.")
        for key in (EMBEDDING, HEAD):
            found = self.official.shapes.get(key, ())[-1:]
            if found and found[0] != sizes.get("hidden_size"):
                raise ValueError(f"{path} tells of a hidden_size of {sizes.get('hidden_size')}, {key} has {found[0]}")
        return sizes

    def _configuration(self, sizes: dict, image_layer):
        from transformers import CLIPConfig, CLIPVisionConfig, LlamaConfig

        from ..config import GPT4RoIConfig

        path = self.clip.folder / "config.json"
        clip = read_json(path)
        if clip.get("model_type") not in ("clip", "clip_vision_model"):
            raise ValueError(f"{self.clip.folder} holds a {clip.get('model_type')!r}, expected CLIP")
        two_towers = clip["model_type"] == "clip"
        clip = guarded(
            path, lambda: CLIPConfig(**clip).vision_config if two_towers else CLIPVisionConfig(**clip), "CLIP"
        )
        _check_layers(path, clip.num_hidden_layers, self.clip, r"(?:vision_model\.)?encoder\.layers\.(\d+)\.")
        tokenizer = self.rows.tokenizer
        named = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        text = sizes | named | {"vocab_size": len(tokenizer), "tie_word_embeddings": False}
        text = guarded(self.official.folder / "config.json", lambda: LlamaConfig(**text), "LLaMA")
        region = {
            key.removeprefix(OFFICIAL_REGION_PREFIX): shape
            for key, shape in self.official.shapes.items()
            if key.startswith(OFFICIAL_REGION_PREFIX)
        }
        ids = self.rows.ids
        return GPT4RoIConfig(
            vision_config=clip,
            text_config=text,
            region_config=official_region_config(region, norm_groups=64, sampling_ratio=2),
            image_layer=image_layer if isinstance(image_layer, int) else -2,
            image_token_id=ids["<im_patch>"],
            region_token_id=ids["<bbox>"],
            template="vicuna_v0",
            tie_word_embeddings=False,
            dtype=self.official.dtypes[EMBEDDING],
        )

    def _image_processor(self):
        """CLIP's; None if its folder has none."""
        from transformers import CLIPImageProcessor

        path = self.clip.folder / "preprocessor_config.json"
        if not path.is_file():
            return None
        return guarded(path, lambda: CLIPImageProcessor.from_pretrained(self.clip.folder), "an image processor")

    def _check_dtypes(self):
        wrong = [
            f"{key} of {each.where[key]} is {dtype}"
            for each in self.checkpoints.values()
            for key, dtype in each.dtypes.items()
            if dtype not in _FLOATS and not IGNORED.fullmatch(key)
        ]
        if wrong:
            raise ValueError(f"expected float16, bfloat16 or float32, but {some(wrong)}")

    def _check_keys(self):
        """Names every key that is missing, unknown or misshapen in any of the folders."""
        problems, used = [], {name: set() for name in self.checkpoints}
        for name, shape in self.expected.items():
            checkpoint, key = self.sources[name]
            parts = ["vision"] if checkpoint is self.clip else ["official"]
            if self.base is not None and name.startswith("language_model."):
                parts.append("base")
            for part in parts:
                used[part].add(key)
                found = self.checkpoints[part].shapes.get(key)
                wanted = self.rows.shape(key, tuple(shape), part == "base")
                if found is None:
                    problems.append(f"missing in {part}: {key}")
                elif found != wanted:
                    problems.append(f"{key} of {part} has the shape {list(found)}, expected {list(wanted)}")
        self.ignored = []
        for part, checkpoint in self.checkpoints.items():
            for key in sorted(set(checkpoint.where) - used[part]):
                if IGNORED.fullmatch(key):
                    self.ignored.append(f"{part}: {key}")
                else:
                    problems.append(f"unknown in {part}: {key}")
        if problems:
            raise ValueError(f"{self.official.folder} and what belongs to it do not fit: {some(problems)}")

    def _check_difference(self):
        """A final norm's weights are about 1 in a whole model and about 0 in a difference: which one this is shows there."""
        size = self.official.read("model.norm.weight").float().abs().mean().item()
        if self.base is None and size < 0.2:
            raise ValueError(
                f"{self.official.folder} looks like a difference to LLaMA (its final norm's weights have a mean size of {size:.2g}): "
                "pass the LLaMA it belongs to as base"
            )
        if self.base is not None:
            whole = self.base.read("model.norm.weight").float().abs().mean().item()
            if size > 0.5 * whole:
                raise ValueError(
                    f"{self.official.folder} looks whole already (its final norm's weights have a mean size of {size:.2g}, those of "
                    f"the base {whole:.2g}): leave the base away"
                )


def _check_layers(path: Path, told: int | None, checkpoint: Checkpoint, pattern: str):
    """Before a model is made of so many."""
    found = {int(each[1]) for key in checkpoint.where if (each := re.match(pattern, key))}
    if told != len(found):
        raise ValueError(f"{path} tells of {told} layers, the weights have {len(found)}")


def _is_size(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _folder(name) -> Path:
    """A folder as it is; a hub id as the folder that it is downloaded to."""
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(f"{name!r} is neither a folder nor a hub id (owner/name)")
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(str(name)) or Path(name).exists():
        raise ValueError(f"{str(name)!r} is neither a folder nor a hub id (owner/name)")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        safe = any(file.endswith(".safetensors") for file in HfApi().list_repo_files(name))
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.model", "*.safetensors" if safe else "*.bin"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"no folder {name}, and the hub does not give it: {reason}") from None
