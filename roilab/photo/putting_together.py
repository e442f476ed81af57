"""`roilab.load("photo")`: the photo model, put together once from two public backbones and what this package carries of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from ..fetch import cache, fetch
from ..files import atomic_folder
from ..weights.checkpoint import sha256
from .features import content_weight

ASSETS = Path(__file__).parent.parent / "assets" / "photo"
TRAINED = "trained.safetensors"
ADAPTERS = "adapters."  # what the names of LoRA's matrices begin with
OWN = ("region_encoder", "region_words", "projector")  # parts that neither backbone has
CONTENT = "region_encoder.content.weight"
FLAT = "region_encoder.content.flat"  # the same for flat cells (`features.flat_weight`)
SETTINGS = "settings"
LAYOUT = 1  # of the folder that is written


def photo_folder(directory=None, trained: Path = ASSETS / TRAINED, say: Callable[[str], None] = print) -> Path:
    """The folder of the photo model, for `roilab.load`; the first time it is made, which needs the hub or a package index and takes a minute.

    Args:
        directory: where it is, with the backbones; by default `roilab.fetch.cache()`.
        trained: what `roilab train photo` made.
        say: is told what is loaded and how large it is, before it is loaded.
    Raises:
        OSError: neither the hub nor the package index can be reached.
        ValueError: what `roilab.fetch` says; `trained` does not belong to these backbones.
    """
    directory = cache() if directory is None else Path(directory)
    digest = sha256(trained)
    folder = directory / f"photo-{LAYOUT}-{digest[:12]}"
    if not folder.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".photo.lock"):  # of two processes the second waits, and finds it made
            if not folder.is_dir():
                fetch(directory, say)
                model = put_together(directory, trained)
                with atomic_folder(folder) as target:
                    model.half().save_pretrained(target)
    return folder


def put_together(directory, trained: Path):
    """The photo model in float32 on the CPU, from the backbones in `directory` and `trained`."""
    from safetensors import safe_open

    from ..presets import photo

    with safe_open(trained, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}
        settings = json.loads(file.metadata()[SETTINGS])
    model = photo(directory, device="cpu", dtype=torch.float32)
    region = model.config.region_config
    if FLAT in state:
        state[CONTENT] = content_weight(state.pop(FLAT), region.width, region.roi_size)
    lora = {name.removeprefix(ADAPTERS): state.pop(name) for name in list(state) if name.startswith(ADAPTERS)}
    told = model.load_state_dict(state, strict=False)
    lacking = [name for name in told.missing_keys if name.split(".")[0] in OWN]
    if lacking or told.unexpected_keys:
        raise ValueError(
            f"{trained} lacks {lacking[:1] or 'nothing'} and has {told.unexpected_keys[:1] or 'nothing'} too much"
        )
    merge(model.language_model, lora, settings["adapters_scale"])
    return model


@torch.no_grad()
def merge(language_model, lora: dict[str, Tensor], scale: float):
    """Add `scale` * B @ A to the weight of every layer that has a pair LAYER.lora_A [r, in], LAYER.lora_B [out, r]."""
    layers = {name.rpartition(".")[0] for name in lora}
    for name in layers:
        down, up = lora[f"{name}.lora_A"], lora[f"{name}.lora_B"]
        language_model.get_submodule(name).weight.add_(up @ down, alpha=scale)
