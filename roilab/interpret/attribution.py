"""How much every token, or every pixel, contributes to a target: captum's methods, wrapped for sequences with pictures and regions.

A picture reaches the answer on two paths: as image tokens, and through RoIAlign as region tokens. `to_pixels` follows one of them while
the other keeps what it says, or both.

Axes: B batch, T sequence, P patches, N regions, D language-model width.
"""

from __future__ import annotations

import torch
from captum import attr
from torch import Tensor

from .memory import fitting
from .passes import Inputs, prepare, score, splice
from .pictures import baseline_pixels
from .results import Scores, origin, scored
from .target import IMAGE, Target

GRADIENTS = {
    "saliency": attr.Saliency,
    "input_x_gradient": attr.InputXGradient,
    "integrated_gradients": attr.IntegratedGradients,
}
PATHS = ("both", "image", "regions")
GAP = 0.05  # share of the difference to the baseline that may be missing before a result says so


def to_tokens(
    model,
    explained: Target,
    method: str = "integrated_gradients",
    baseline: str = "mean",
    steps: int = 64,
    batch: int | str = 8,
) -> Scores:
    """Attribution to image, region and text tokens, summed over the entries of each token's embedding.

    saliency: absolute gradient (Simonyan et al., arXiv 1312.6034): where a small change would matter, not what contributed.
    input_x_gradient: a first-order estimate of setting the embedding to zero; wrong where the model saturates.
    integrated_gradients (Sundararajan et al., arXiv 1703.01365): gradients averaged on the way from a baseline. Scores add up to the
    difference between target and baseline, up to the completeness gap that `settings` report; what they mean depends on the baseline.

    Args:
        baseline: of integrated gradients. "mean", "blur" or "black": image and region tokens of such a picture, with the same boxes; text
            tokens are the mean word. "zero": zeros.
        steps: of integrated gradients, at least 50.
        batch: sequences in one pass; memory grows with it. Or the memory that a pass may take above the model, e.g. "2 GB".
    Raises:
        ValueError: another method or baseline; too few steps.
    """
    _check(method, steps)
    with torch.no_grad():
        inputs = prepare(model, explained)
        text = explained.positions("text").to(inputs.ids.device)
        words = model.get_input_embeddings()(inputs.ids[:, text])
    parts = (IMAGE, "regions", "text") if explained.boxes else (IMAGE, "text")  # captum cannot take what is empty
    given = {IMAGE: inputs.image.detach(), "regions": inputs.regions.detach(), "text": words.detach()}

    def forward(*values):
        shown = given | dict(zip(parts, values, strict=True))
        embeds = splice(model, inputs, shown[IMAGE], shown["regions"])
        return score(model, embeds.index_copy(1, text, shown["text"].to(embeds.dtype)), explained)

    baselines = None
    if method == "integrated_gradients":
        baselines = _token_baselines(model, explained, inputs, words, baseline)
        baselines = tuple(baselines[part] for part in parts)
    found, settings = _gradients(method, forward, tuple(given[part] for part in parts), baselines, steps, batch)
    settings |= {"baseline": baseline} if baselines else {}
    scores = scored(explained, {part: each[0].sum(-1) for part, each in zip(parts, found, strict=True)})
    return Scores(method, explained, scores, model.vision.grid, settings=settings, origin=origin(model))


def to_pixels(
    model,
    explained: Target,
    method: str = "integrated_gradients",
    path: str = "both",
    baseline: str = "blur",
    steps: int = 64,
    batch: int | str = 8,
) -> Scores:
    """Attribution to the pixels that the vision tower reads, summed over the colours.

    Args:
        path: "image": through the image tokens, while the regions keep their embeddings; "regions": through RoIAlign, while the image
            tokens stay; "both".
        method, baseline, steps, batch: as in `to_tokens`; the baseline is a picture: "mean", "blur" or "black".
    Raises:
        ValueError: another method, path or baseline; too few steps; a path to regions, but the question shows none.
    """
    _check(method, steps)
    pixels = model.processor.preprocess(explained.image).to(model.device)
    forward = from_pixels(model, explained, path)
    baselines = (baseline_pixels(model, pixels, baseline),) if method == "integrated_gradients" else None
    (found,), settings = _gradients(method, forward, (pixels,), baselines, steps, batch)
    settings |= {"path": path} | ({"baseline": baseline} if baselines else {})
    return Scores(
        method,
        explained,
        None,
        model.vision.grid,
        found[0].detach().sum(0).float().cpu(),
        settings=settings,
        origin=origin(model),
    )


def from_pixels(model, explained: Target, path: str = "both"):
    """A function of pixels [B, 3, H, W] -> scores [B]; what is not on the path stays that of the target's picture.

    Raises:
        ValueError: another path; a path to regions, but the question shows none.
    """
    if path not in PATHS:
        raise ValueError(f"path {path!r}, expected one of {', '.join(PATHS)}")
    if path == "regions" and not explained.boxes:
        raise ValueError("path 'regions', but the question shows no region (0 boxes)")
    with torch.no_grad():
        fixed = prepare(model, explained)

    def forward(pixel_values: Tensor) -> Tensor:
        features = model.encode_image(pixel_values)
        image = model.projector(features.patches) if path != "regions" else fixed.image
        regions = fixed.regions
        if path != "image" and explained.boxes:
            boxes, masks = ([each] * len(pixel_values) for each in (fixed.boxes, fixed.masks))
            masks = None if fixed.masks is None else masks
            regions = torch.stack(model.region_encoder.pool(model.fuse(features), boxes, masks))
        return score(model, splice(model, fixed, image, regions), explained)

    return forward


def _check(method: str, steps: int):
    if method not in GRADIENTS:
        raise ValueError(f"method {method!r}, expected one of {', '.join(GRADIENTS)}")
    if method == "integrated_gradients" and steps < 50:
        raise ValueError(f"{steps} steps, expected at least 50: fewer leave gaps that say nothing about the model")


def _gradients(
    method: str, forward, given: tuple, baselines: tuple | None, steps: int, batch: int | str
) -> tuple[tuple, dict]:
    """captum's attributions of each input, and what to report."""
    given = tuple(each.requires_grad_() for each in given)
    explain = GRADIENTS[method](forward)
    if method != "integrated_gradients":
        return explain.attribute(given), {}
    batch = fitting(batch, lambda: torch.autograd.grad(forward(*given).sum(), given, allow_unused=True))
    found, gap = explain.attribute(
        given,
        baselines,
        n_steps=steps,
        internal_batch_size=batch,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    with torch.no_grad():
        reached = forward(*given).item() - forward(*baselines).item()
    share = abs(gap.item()) / max(abs(reached), 1e-12)
    return found, {
        "steps": steps,
        "difference": reached,
        "gap": gap.item(),
        "gap_share": share,
        "complete": share <= GAP,
    }


@torch.no_grad()
def _token_baselines(model, explained: Target, inputs: Inputs, words: Tensor, kind: str) -> dict[str, Tensor]:
    if kind == "zero":
        return {
            IMAGE: torch.zeros_like(inputs.image),
            "regions": torch.zeros_like(inputs.regions),
            "text": torch.zeros_like(words),
        }
    pixels = model.processor.preprocess(explained.image).to(model.device)
    plain = prepare(model, explained, pixel_values=baseline_pixels(model, pixels, kind))
    mean = model.get_input_embeddings().weight.mean(0).to(words.dtype)
    return {IMAGE: plain.image, "regions": plain.regions, "text": mean.expand_as(words).clone()}
