"""What using a model costs beside doing the same with transformers, PIL or a plain loop."""

from __future__ import annotations

import dataclasses
import io

import torch

from .literal import PAPER_GRID, PATCH
from .measure import FIRST, alternate, small_language_model
from .memory import _peak_memory, _reset_peak_memory, run_alone

TOKENS = 48  # of a streamed answer
BOX = (20, 30, 120, 140)
WORDS = 500  # of a long question, whose attention matrices are large


def bench_streaming(repeats: int = 3) -> dict[str, float]:
    """`Chat.stream` against `generate` of transformers on the same language model and the same embeddings, keys and values from nothing."""
    from PIL import Image

    from ..chat import Chat

    model = small_language_model()
    image = Image.effect_noise((PAPER_GRID * PATCH, PAPER_GRID * PATCH), 64).convert("RGB")
    options = dict(min_new_tokens=TOKENS, max_new_tokens=TOKENS)
    chat = Chat(model, image)
    prompt = chat.prompt(FIRST, [BOX])
    with torch.no_grad():
        embeds = chat._memory.embed(prompt.input_ids, [BOX])  # what a chat sends, its caches of the picture included
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)

    def ours():
        chat.clear()
        chat._memory.forget_prompt()
        return "".join(chat.stream(FIRST, [BOX], **options))

    def plain():
        with torch.no_grad():
            config = dict(stop_strings=model.generation_config.stop_strings, tokenizer=model.processor.tokenizer)
            return model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options, **config)

    ours(), plain()
    if chat.answer.ids[:TOKENS] != plain()[0].tolist():
        raise RuntimeError("Chat.stream and generate gave other tokens: their speeds cannot be compared")
    seconds = alternate({"plain": plain, "ours": ours}, max(repeats, 3))
    return {"streaming_speedup": seconds["plain"] / seconds["ours"]}


def bench_attention_rows(repeats: int = 3) -> dict[str, float]:
    """`roilab.interpret.trace` against a pass that returns all attention matrices, in a prompt of some 800 positions."""
    ways, target = attention_ways()
    whole, ours = ways["matrices"](), ways["rows"]()
    asked = [position - 1 for position in target.positions("answer").tolist()]
    kept = torch.stack([layer[0][:, asked] for layer in whole])
    difference = (kept - ours.attention).abs().max().item()
    del whole, ours, kept
    code = "from roilab.bench.using import attention_memory; print(attention_memory({!r}))"
    peak = {name: float(run_alone(code.format(name))) for name in ways}
    seconds = alternate(ways, repeats)
    return {
        "attention_rows_speedup": seconds["matrices"] / seconds["rows"],
        "attention_rows_memory_ratio": peak["rows"] / peak["matrices"],
        "attention_rows_difference": difference,
    }


def attention_memory(way: str) -> int:
    """Peak bytes above those before, while the attention is kept in one of the two ways; for a process of its own."""
    ways, _ = attention_ways()
    before = _reset_peak_memory()
    kept = ways[way]()
    peak = _peak_memory() - before
    del kept
    return peak


def attention_ways():
    """Functions that keep the attention as "matrices" and as "rows", and what they read."""
    from PIL import Image

    from ..chat import Chat
    from ..interpret import Target, trace
    from ..interpret.passes import prepare, splice

    model = small_language_model()
    image = Image.effect_noise((PAPER_GRID * PATCH, PAPER_GRID * PATCH), 64).convert("RGB")
    question = f"{FIRST} " + "picture " * WORDS
    target = Target.of(Chat(model, image), question, [BOX], answer="The picture provides an overview.")
    inputs, language = prepare(model, target), model.language_model

    def rows():
        return trace(model, target, check=False, inputs=inputs)

    @torch.no_grad()
    def matrices():
        before = language.config._attn_implementation
        language.set_attn_implementation("eager")
        try:
            return language(inputs_embeds=splice(model, inputs), output_attentions=True, use_cache=False).attentions
        finally:
            language.set_attn_implementation(before)

    return {"matrices": matrices, "rows": rows}, target


def bench_ig_caches(repeats: int = 3) -> dict[str, float]:
    """Integrated gradients to tokens, 64 steps of the tiny model, against a loop that encodes picture and regions anew at every step."""
    from ..chat import Chat
    from ..interpret import Target, to_tokens
    from ..interpret.passes import prepare, score
    from ..regions import normalise_regions
    from ..scenes import sample
    from ..weights import load

    model = load("tiny", "cpu").requires_grad_(False)
    scene = sample(7)
    target = Target.of(Chat(model, scene.image), "What is <region1> doing?", [scene.objects[0].box])
    target = dataclasses.replace(target, chosen=target.chosen[:1])
    pixels = model.processor.preprocess(scene.image)
    boxes, _ = normalise_regions(target.shapes, scene.image.size, model.config.region_config.roi_size)
    ids = prepare(model, target).ids

    def anew():
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

    anew(), ours()
    seconds = alternate({"anew": anew, "ours": ours}, repeats)
    return {"ig_caches_speedup": seconds["anew"] / seconds["ours"]}


def bench_images(repeats: int = 3) -> dict[str, float]:
    """A JPEG of 6 megapixels to the pixels that a model reads: PIL and the image processor alone, against the checked way of this package."""
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

    seconds = alternate({"plain": plain, "ours": ours}, max(repeats, 3))
    return {"images_speedup": seconds["plain"] / seconds["ours"]}
