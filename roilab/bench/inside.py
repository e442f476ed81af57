"""Seconds and peak memory of the methods of `roilab.interpret`, at their default settings.

On a GPU of a model of the paper's 7B size with random weights in bfloat16, on a CPU of the tiny model. What the maps of a random model
show means nothing; what they cost does.
"""

from __future__ import annotations

import dataclasses

import torch

from .measure import alternate, noise_picture
from .memory import peak_of

METHODS = (
    "trace", "attention_map", "rollout", "relevance", "logit_lens", "to_tokens", "to_pixels", "occlusion", "ablation", "attention_knockout",
    "activation_patching", "attribution_patching", "region_anatomy", "box_sensitivity", "region_tests", "deletion_insertion",
)  # fmt: skip
QUESTION, ANSWER = "Is <region1> larger than <region2>?", "Yes, it is larger."
BOXES = [(20, 30, 120, 140), (110, 90, 200, 210)]


def bench_inside(repeats: int = 1, device: str = "cpu") -> dict[str, float]:
    """Median seconds of each method and its peak memory above that of the model, in GB; and the size of the model."""
    from ..chat import Chat
    from ..interpret import Target
    from ..weights import load

    model = load("tiny", device) if device == "cpu" else paper_model(device)
    pictures = [noise_picture(spread) for spread in (64, 20)]
    target = Target.of(Chat(model, pictures[0]), QUESTION, BOXES, answer=ANSWER)
    other = dataclasses.replace(target, image=pictures[1])
    results = {"inside_parameters": sum(each.numel() for each in model.parameters()) / 1e9}
    results["inside_positions"] = len(target.ids)
    for name in METHODS:
        seconds, memory = _cost(lambda name=name: _run(name, model, target, other), repeats, device)
        results |= {f"inside_{name}_seconds": seconds, f"inside_{name}_gb": memory / 1e9}
    return results


def _run(name: str, model, target, other):
    from .. import interpret

    if name == "occlusion":
        return interpret.cover(model, target, "occlusion")
    if name == "ablation":
        return interpret.cover(model, target)
    if name == "attention_knockout":
        return interpret.attention_knockout(model, target, "region1")
    if name == "deletion_insertion":
        return interpret.deletion_insertion(model, interpret.attention_map(model, target))
    if name in ("activation_patching", "attribution_patching"):
        return getattr(interpret, name)(model, target, other)
    return getattr(interpret, name)(model, target)


def _cost(run, repeats: int, device: str) -> tuple[float, int]:
    """(median seconds, peak bytes above those before), after a first run that is not counted."""
    run()
    seconds = {}
    peak = peak_of(lambda: seconds.update(alternate({"it": run}, max(1, repeats))), device)
    return seconds["it"], peak


def paper_model(device: str = "cuda", dtype: torch.dtype = torch.bfloat16):
    """A model of the paper's sizes, CLIP ViT-L/14 and a 7B LLaMA, with random weights that are made on the device."""
    from ..presets import paper_7b
    from ..tokens import train_tokenizer
    from ..weights import build

    tokenizer = train_tokenizer([f"{QUESTION} {ANSWER} ### Human: ### Assistant: "] * 2, 640)
    config = paper_7b()
    config.text_config.update(
        {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    )
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return build(
                config.vision_config, config.text_config, {}, "vicuna_v0", tokenizer, device=device, dtype=dtype
            )
    finally:
        torch.set_default_dtype(before)
