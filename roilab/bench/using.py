"""What using a model costs beside doing the same with transformers, PIL or a plain loop."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import torch

from .measure import BOX, FIRST, compared, noise_picture, small_language_model

TOKENS = 48  # of a streamed answer
WORDS = 500  # of a long question, whose attention matrices are large


def bench_streaming(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """`Chat.stream` against `generate` of transformers on the same language model and the same embeddings, keys and values from nothing."""
    found, (plain, ours), _ = compared("streaming", streaming_ways, max(repeats, 3), device)
    if plain[0].tolist() != ours:
        raise RuntimeError("Chat.stream and generate gave other tokens: their speeds cannot be compared")
    return found


def bench_attention_rows(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """`roilab.interpret.trace` against a pass that returns all attention matrices, in a prompt of some 800 positions."""
    found, (plain, ours), _ = compared("attention_rows", attention_ways, repeats, device)
    rows = ours.shape[2]  # the last ones, of one position less
    difference = max(
        (one[0, :, -rows:] - two[..., :-1]).abs().max().item() for one, two in zip(plain, ours, strict=True)
    )
    return found | {"attention_rows_difference": difference}


def bench_ig_caches(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """Integrated gradients to tokens, 64 steps of the tiny model, against a loop that encodes picture and regions anew at every step."""
    return compared("ig_caches", ig_ways, repeats, device)[0]


def bench_images(repeats: int = 3) -> dict[str, float]:
    """A JPEG of 6 megapixels to the pixels that a model reads: PIL and the image processor alone, against the checked way of this package."""
    return compared("images", image_ways, max(repeats, 3))[0]


def streaming_ways(device: str) -> tuple[Callable, Callable]:
    from ..chat import Chat

    model = small_language_model(device)
    image = noise_picture()
    options = dict(min_new_tokens=TOKENS, max_new_tokens=TOKENS)
    stops = dict(stop_strings=model.generation_config.stop_strings, tokenizer=model.processor.tokenizer)
    chat = Chat(model, image)
    prompt = chat.prompt(FIRST, [BOX])
    with torch.no_grad():
        embeds = chat._memory.embed(prompt.input_ids, [BOX])  # what a chat sends, its caches of the picture included
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=device)

    def ours():
        chat.clear()
        chat._memory.forget_prompt()
        for _ in chat.stream(FIRST, [BOX], **options):
            pass
        return chat.answer.ids[:TOKENS]

    @torch.no_grad()
    def plain():
        return model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options, **stops)

    return plain, ours


def attention_ways(device: str) -> tuple[Callable, Callable]:
    from ..chat import Chat
    from ..interpret import Target, trace
    from ..interpret.passes import prepare, splice

    model = small_language_model(device)
    image = noise_picture()
    question = f"{FIRST} " + "picture " * WORDS
    target = Target.of(Chat(model, image), question, [BOX], answer="The picture provides an overview.")
    inputs, language = prepare(model, target), model.language_model
    embeds = splice(model, inputs)[:, :-1]  # the last answer token predicts nothing that is asked for

    def ours():
        return trace(model, target, check=False, inputs=inputs).attention

    @torch.no_grad()
    def plain():
        before = language.config._attn_implementation
        language.set_attn_implementation("eager")
        try:
            return language(inputs_embeds=embeds, output_attentions=True, use_cache=False).attentions
        finally:
            language.set_attn_implementation(before)

    return plain, ours


def ig_ways(device: str) -> tuple[Callable, Callable]:
    from ..chat import Chat
    from ..interpret import Target, to_tokens
    from ..interpret.passes import prepare, score
    from ..regions import normalise_regions
    from ..scenes import sample
    from ..weights import load

    model = load("tiny", device).requires_grad_(False)
    scene = sample(7)
    target = Target.of(Chat(model, scene.image), "What is <region1> doing?", [scene.objects[0].box])
    target = dataclasses.replace(target, chosen=target.chosen[:1])
    pixels = model.processor.preprocess(scene.image).to(device)
    boxes, _ = normalise_regions(target.shapes, scene.image.size, model.config.region_config.roi_size)
    ids, boxes = prepare(model, target).ids, boxes.to(device)

    def plain():
        total = 0
        for step in range(64):
            with torch.no_grad():
                embeds = model.embed(ids, pixel_values=pixels, boxes=[boxes])
                baseline = model.embed(ids, pixel_values=torch.zeros_like(pixels), boxes=[boxes])
            point = (baseline + (step + 0.5) / 64 * (embeds - baseline)).requires_grad_()
            (gradient,) = torch.autograd.grad(score(model, point, target).sum(), point)
            total = total + gradient * (embeds - baseline) / 64
        return total

    def ours():
        return to_tokens(model, target, baseline="black")

    return plain, ours


def image_ways(device: str = "cpu") -> tuple[Callable, Callable]:
    from PIL import Image

    from ..pictures import read_picture
    from ..weights import load

    processor = load("tiny", "cpu").processor
    file = io.BytesIO()
    Image.effect_noise((3000, 2000), 80).convert("RGB").save(file, "JPEG")
    content, side = file.getvalue(), min(processor.image_size)

    def plain():
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return processor.image_processor(image, size={"shortest_edge": side}, do_center_crop=False, return_tensors="pt")

    def ours():
        return processor.preprocess(read_picture(content))

    return plain, ours
