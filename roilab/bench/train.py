"""What a step of stage 1 gains from prefixes without gradients, and from vision features on disk.

A step is forward, backward and AdamW. For the prefixes: a random language model of 12 layers of 512 (38 M parameters, and a vocabulary of
4,000, so that the output layer is nearly as small a part of it as of one of 7 B), which takes nearly all of the time; four records of one picture,
300 of 400 positions before the first region; logits only where something is learned, whatever the formulation. For the features: the same
language model behind a vision tower of CLIP ViT-L/14's shape (303 M parameters, random), four records of four pictures of 640 x 480 pixels,
from decoded pictures to the optimizer; the disk is this machine's, and what was just written may still be in its memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .literal import PAPER_GRID, PATCH
from .measure import REGION_SIZES, alternate
from .memory import peak_of, run_alone

RECORDS, POSITIONS, BEFORE = 4, 400, 300  # of a batch; of a record; before its first region
ROUND, ANSWER = 20, 10  # positions of a round, which begins with its region, and of its answer
IMAGE, REGION, FIRST_WORD, VOCABULARY = 3, 4, 10, 4000  # ids
QUESTION, REPLY = "What is <region1>?", "A small red ball next to the blue box."

FORMULATIONS = ("prefix", "frozen", "all")
"""`prefix`: `prefix_loss`. `frozen`: the region encoder alone requires gradients, as published. `all`: all but the vision tower learns."""


def bench_stage1(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """A step with `prefix_loss` against the other two formulations: ratios of time and of peak memory, difference of the gradients."""
    call = "from roilab.bench.train import step_memory; print(step_memory({!r}, {!r}))"
    peak = {name: float(run_alone(call.format(name, device))) for name in FORMULATIONS}
    model, batch = stage1_model(device), stage1_batch(device)
    gradients = {}
    for name in ("prefix", "frozen"):
        backward(name, model, batch)
        gradients[name] = torch.cat([each.grad.flatten() for each in model.region_encoder.parameters()])
    largest = (gradients["prefix"] - gradients["frozen"]).abs().max() / gradients["frozen"].abs().max()
    steps = {name: _step(name, model, batch) for name in FORMULATIONS}
    for step in steps.values():
        step()  # the first one makes the optimizer's state
    seconds = alternate(steps, 2 * repeats + 1)  # short steps: more of them
    return {
        "stage1_speedup": seconds["frozen"] / seconds["prefix"],
        "stage1_speedup_over_all": seconds["all"] / seconds["prefix"],
        "stage1_memory_ratio": peak["prefix"] / peak["frozen"],
        "stage1_memory_ratio_over_all": peak["prefix"] / peak["all"],
        "stage1_gradient_difference": largest.item(),
    }


def step_memory(name: str, device: str) -> int:
    """Peak bytes above weights and inputs during two steps of a formulation."""
    step = _step(name, stage1_model(device), stage1_batch(device))
    return peak_of(lambda: (step(), step()), device)  # the first one makes the optimizer's state


def backward(name: str, model, batch: dict) -> Tensor:
    """The loss of a batch by one of the formulations, and its gradients and no others in the parameters."""
    from ..training.prefix import prefix_loss

    model.requires_grad_(name == "all")
    model.region_encoder.requires_grad_(True)
    model.vision.requires_grad_(False)
    model.zero_grad()
    loss = prefix_loss(model, batch).loss if name == "prefix" else whole_loss(model, batch)
    loss.backward()
    return loss.detach()


def whole_loss(model, batch: dict) -> Tensor:
    """The loss of `model(**batch)`, with logits only where something is learned: here the same positions in all rows."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "boxes")}
    columns = (batch["labels"][0, 1:] != -100).nonzero().squeeze(1)
    logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, columns + 1].flatten())


def _step(name: str, model, batch: dict) -> Callable[[], None]:
    parts = [model.region_encoder] if name != "all" else [model.region_encoder, model.projector, model.language_model]
    optimizer = torch.optim.AdamW([each for part in parts for each in part.parameters()], lr=1e-6)

    def step():
        backward(name, model, batch)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bench_features(repeats: int = 3) -> dict[str, float]:
    """`FeatureCache` against the tower, for the features alone and for a whole step."""
    from ..pictures import read_picture
    from ..training.features import FeatureCache
    from ..training.prefix import prefix_loss

    with tempfile.TemporaryDirectory(prefix="roilab-features-") as folder:
        model = features_model()
        model.requires_grad_(False)
        model.region_encoder.requires_grad_(True)
        optimizer = torch.optim.AdamW(model.region_encoder.parameters(), lr=1e-6)
        size, collate = (640, 480), model.processor.collate
        noise = torch.randint(0, 256, (RECORDS, size[1], size[0], 3), dtype=torch.uint8)
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": REPLY}]
        items = [{"image": read_picture(each.numpy()), "turns": turns, "boxes": [[20, 30, 220, 240]]} for each in noise]
        cached = FeatureCache(folder, model).wrap(collate)

        def see(collate):
            batch = dict(collate(items))
            with torch.no_grad():
                features = batch.pop("features", None)
                return batch | {
                    "features": model.encode_image(batch.pop("pixel_values")) if features is None else features
                }

        def step(collate):
            loss = prefix_loss(model, collate(items)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        with torch.no_grad():
            losses = [
                prefix_loss(model, each(items)).loss.item() for each in (collate, cached)
            ]  # the cache is filled here
        seconds = alternate(
            {
                "tower": lambda: see(collate),
                "disk": lambda: see(cached),
                "step, tower": lambda: step(collate),
                "step, disk": lambda: step(cached),
            },
            repeats,
        )
    return {
        "features_speedup": seconds["tower"] / seconds["disk"],
        "features_step_speedup": seconds["step, tower"] / seconds["step, disk"],
        "features_loss_difference": abs(losses[0] - losses[1]),
    }


def language_config(**ids):
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=12,
        num_attention_heads=8,
        max_position_embeddings=1024,
        **ids,
    )


def stage1_model(device: str = "cpu"):
    """A random model of which the language model takes nearly all of the time, in training mode."""
    from transformers import CLIPVisionConfig

    from ..config import GPT4RoIConfig, RegionConfig
    from ..model import GPT4RoI

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=12, num_attention_heads=4, image_size=PAPER_GRID * PATCH,
        patch_size=PATCH,
    )  # fmt: skip
    language = language_config(vocab_size=VOCABULARY)
    region = RegionConfig(level_widths=[vision.hidden_size] * 4, output_size=language.hidden_size, **REGION_SIZES)
    config = GPT4RoIConfig(vision, language, region, image_token_id=IMAGE, region_token_id=REGION)
    return GPT4RoI(config).train().to(device)


def stage1_batch(device: str = "cpu") -> dict:
    """Records of one picture that begin with the same words; rounds of one region each follow."""
    torch.manual_seed(1)
    words = torch.randint(FIRST_WORD, VOCABULARY, (RECORDS, POSITIONS))
    words[:, :BEFORE] = words[0, :BEFORE].clone()
    words[:, 20 : 20 + PAPER_GRID**2] = IMAGE
    labels = torch.full_like(words, -100)
    for start in range(BEFORE, POSITIONS, ROUND):
        words[:, start] = REGION
        answer = slice(start + ROUND - ANSWER, start + ROUND)
        labels[:, answer] = words[:, answer]
    corners = (
        torch.rand(RECORDS, (POSITIONS - BEFORE) // ROUND, 2, 2).sort(dim=2).values
    )  # of each box: two corners (x, y)
    pixels = torch.randn(1, 3, PAPER_GRID * PATCH, PAPER_GRID * PATCH)
    tensors = {
        "input_ids": words, "attention_mask": torch.ones_like(words), "labels": labels,
        "pixel_values": pixels.repeat(RECORDS, 1, 1, 1),
    }  # fmt: skip
    tensors = {name: each.to(device) for name, each in tensors.items()}
    return tensors | {"boxes": list(corners.flatten(2).to(device)), "picture_ids": ["one"] * RECORDS}


def features_model():
    """A random model with a vision tower of CLIP ViT-L/14's shape, with a processor."""
    from ..presets import paper_7b
    from ..templates import IMAGE_SENTENCE, VICUNA_SYSTEM
    from ..tokens import train_tokenizer
    from ..weights import build

    torch.manual_seed(0)
    # It has to know the prompt's words, as a real tokenizer does.
    words = " ".join([VICUNA_SYSTEM, *IMAGE_SENTENCE, "### Human: ### Assistant:", QUESTION, REPLY])
    tokenizer = train_tokenizer([words] * 2, 640)
    language = language_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return build(
        paper_7b().vision_config, language, REGION_SIZES, "vicuna_v0", tokenizer, device="cpu", dtype=torch.float32
    )
