"""What of a model learns and how it is held meanwhile: freezing, precision, LoRA, quantized language models; and what is saved in the end."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from .centring import centred
from .recipes import StageRecipe, train_only

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(source, recipe: StageRecipe, device=None):
    """`roilab.load` in the form in which the recipe trains it.

    What learns as a whole is kept in float32; on CUDA a frozen language model is held in the recipe's precision, or quantized.

    Raises:
        ValueError: `load_in` without CUDA or without bitsandbytes.
    """
    import roilab

    device = roilab.weights.default_device() if device is None else device
    if recipe.load_in:
        return roilab.load(source, device, **_quantization(recipe, device))
    half = HALVES.get(recipe.precision)
    whole = "language_model" in recipe.trainable and not recipe.lora_rank
    full = half is None or whole or recipe.fsdp or torch.device(device).type != "cuda"
    return roilab.load(source, device, torch.float32 if full else half)


def _quantization(recipe: StageRecipe, device) -> dict:
    if torch.device(device).type != "cuda":
        raise ValueError(f"load_in {recipe.load_in} needs CUDA, but the device is {device}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"load_in {recipe.load_in} needs bitsandbytes: pip install 'roilab[gpu]'")
    from transformers import BitsAndBytesConfig

    from ..weights.quantised import WHOLE, four_bit

    half = HALVES[recipe.precision]
    if recipe.load_in == "4bit":
        config = four_bit(device, half)
    else:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=WHOLE)
    return dict(dtype=half, quantization_config=config)


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether any of its layers is one of bitsandbytes'."""
    return any(type(each).__name__ in ("Linear4bit", "Linear8bitLt") for each in module.modules())


@contextlib.contextmanager
def prepared(model, recipe: StageRecipe):
    """The model as the recipe trains it; afterwards requires_grad, dtypes, mode and layers are as before.

    Yields:
        the LoRA adapters (a peft model whose `merge_and_unload` makes them part of the weights; adapters that were not merged are
        taken off in the end), or None.
    """
    asked = {name: each.requires_grad for name, each in model.named_parameters()}
    dtypes = {name: each.dtype for name, each in model.named_parameters()}
    if is_quantized(model.language_model) != bool(recipe.load_in):
        found = "quantized" if recipe.load_in is None else "not quantized"
        raise ValueError(
            f"load_in is {recipe.load_in}, but the language model is {found}: load it with roilab.training.load_model"
        )
    torch.manual_seed(recipe.seed)  # adapters start at random
    adapters = low_rank_adapters(model.language_model, recipe.lora_rank) if recipe.lora_rank else None
    try:
        train_only(model, [name for name in recipe.trainable if not (adapters and name == "language_model")])
        for name, each in model.named_parameters():
            each.requires_grad_(each.requires_grad or "lora_" in name)
            half = each.dtype in HALVES.values()
            if half and (each.requires_grad or recipe.precision == "float32" or recipe.fsdp):
                each.data = each.data.float()
        if recipe.gradient_checkpointing:
            _checkpointing(model.language_model, True)
        with centred(model.region_encoder) if recipe.centred_cells else contextlib.nullcontext():
            yield adapters
    finally:
        if recipe.gradient_checkpointing:
            _checkpointing(model.language_model, False)
        if adapters is not None and any("lora_" in name for name, _ in model.named_parameters()):
            adapters.unload()
        for name, each in model.named_parameters():
            each.requires_grad_(asked[name])
            each.grad = None
            if each.dtype != dtypes[name]:
                each.data = each.data.to(dtypes[name])
        model.eval()


def low_rank_adapters(language_model, rank: int, layers: str | list[str] = "all-linear"):
    """LoRA (Hu et al., arXiv 2106.09685), put in place; scaled by 2.

    Args:
        layers: the last part of their names; by default all linear layers but the output layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise ValueError(f"lora_rank {rank} needs peft: pip install 'roilab[gpu]'")
    from peft import LoraConfig, get_peft_model

    return get_peft_model(language_model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))


def _checkpointing(language_model, on: bool):
    # transformers renames these functions (activation_...); the older name warns first and goes later.
    verb = "enable" if on else "disable"
    newer = getattr(language_model, f"activation_checkpointing_{verb}", None)
    call = newer or getattr(language_model, f"gradient_checkpointing_{verb}")
    if not on:
        return call()
    return call({"use_reentrant": False})


def trained_tensors(model) -> dict[str, Tensor]:
    """name -> value of every parameter that learns."""
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


@torch.no_grad()
def load_trained(model, tensors: dict[str, Tensor]):
    """Put the values of `trained_tensors` back.

    Raises:
        ValueError: they are of a model in which something else learns.
    """
    learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if learning.keys() != tensors.keys():
        only = sorted(learning.keys() ^ tensors.keys())
        raise ValueError(
            f"{len(tensors)} parameters were saved, {len(learning)} learn; {only[0]} is in one of the two alone"
        )
    for name, each in learning.items():
        each.copy_(tensors[name])


def frozen_fingerprint(model, recipe: StageRecipe) -> str:
    """Changes when weights that the recipe does not train are others (checkpoints hold only what learns)."""
    learning = tuple(f"{name}." for name in recipe.trainable if not (recipe.lora_rank and name == "language_model"))
    digest = hashlib.sha256()
    for name, each in model.named_parameters():
        if not name.startswith(learning):
            digest.update(f"{name} {list(each.shape)} {each.dtype}".encode())
            digest.update(each.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_whole(model, recipe: StageRecipe, adapters, folder: Path):
    """Save the trained model as one folder for `roilab.load`; adapters become part of the weights.

    A quantized language model is not what is saved: the folder that the model came from is read again, as it was, and gets what was trained.
    """
    if recipe.centred_cells:
        with centred(model.region_encoder):
            pass  # the last step as well
    if recipe.load_in is None:
        if adapters is not None:
            adapters.merge_and_unload()
        model.save_pretrained(folder)
        return
    import roilab

    whole = roilab.load(model.name_or_path, device="cpu")
    plain = recipe.replace(load_in=None, gradient_checkpointing=False)
    with prepared(whole, plain) as own:
        load_trained(whole, {name: each.cpu() for name, each in trained_tensors(model).items()})
        save_whole(whole, plain, own, folder)
