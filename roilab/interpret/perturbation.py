"""What happens to a target when parts of the picture are covered: occlusion, ablation and Shapley values, by captum.

Unlike gradients these are differences the model really makes, but covered pictures are unlike any it was trained on: what fills the
hole matters (blur and mean are offered, black is a colour like others), and parts that stand in for each other look unimportant one by one.

Axes: H, W height and width of the preprocessed picture.
"""

from __future__ import annotations

import torch
from captum import attr
from torch import Tensor

from ..regions import grid_mask
from .attribution import from_pixels
from .memory import fitting
from .pictures import baseline_pixels
from .results import Scores, origin
from .target import Target

METHODS = ("occlusion", "feature_ablation", "shapley")


@torch.no_grad()
def cover(
    model,
    explained: Target,
    method: str = "feature_ablation",
    segments: str | Tensor = "patches",
    fill: str = "blur",
    path: str = "both",
    samples: int = 25,
    batch: int | str = 16,
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """How much the target falls when a part of the picture is covered.

    occlusion (Zeiler and Fergus, arXiv 1311.2901): a square of 2 x 2 patches slides over the picture by one patch; a pixel's score is the
    mean over the squares that cover it. feature_ablation: one segment at a time. shapley: the mean over random orders in which
    segments are covered one after the other (Strumbelj and Kononenko, 2010), which shares out what segments do together.

    Args:
        segments: "patches" (those of the vision tower), "regions" (each region, and the rest; where they overlap, the smaller one), or whole numbers [H, W] of any
            size, one per segment, e.g. superpixels. Not used by occlusion.
        fill: what covers: "blur", "mean" or "black".
        path: as in `to_pixels`.
        samples: random orders of shapley (`seed`).
        batch: pictures in one pass; memory grows with it. Or the memory that a pass may take above the model, e.g. "2 GB".
        progress: show a bar.
    Raises:
        ValueError: another method, segments, fill or path.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}, expected one of {', '.join(METHODS)}")
    pixels = model.processor.preprocess(explained.image).to(model.device)
    forward, baseline = from_pixels(model, explained, path), baseline_pixels(model, pixels, fill)
    settings, batch = {"fill": fill, "path": path}, fitting(batch, lambda: forward(pixels))
    shared = {"baselines": baseline, "perturbations_per_eval": batch, "show_progress": progress}
    if method == "occlusion":
        patch = tuple(side // cells for side, cells in zip(pixels.shape[2:], model.vision.grid, strict=True))
        window = (3, 2 * patch[0], 2 * patch[1])
        found = attr.Occlusion(forward).attribute(pixels, window, strides=(3, *patch), **shared)
        scores = found[0, 0]  # the same for all colours
        settings |= {"window": window[1:], "stride": patch}
    else:
        labels = segment_labels(model, explained, segments, pixels.shape[2:]).to(pixels.device)
        shared["feature_mask"] = labels[None, None]
        if method == "shapley":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = attr.ShapleyValueSampling(forward).attribute(pixels, n_samples=samples, **shared)
            settings |= {"samples": samples, "seed": seed}
        else:
            found = attr.FeatureAblation(forward).attribute(pixels, **shared)
        sizes = torch.bincount(labels.flatten()).clamp_min(1)
        scores = found[0, 0] / sizes[labels]  # a segment's score is shared out among its pixels, so that scores add up
        settings |= {"segments": segments if isinstance(segments, str) else "given", "count": len(sizes)}
    return Scores(method, explained, None, model.vision.grid, scores.float().cpu(), settings, origin(model))


def segment_labels(model, explained: Target, segments: str | Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W] whole numbers from 0: which segment each pixel of the preprocessed picture belongs to."""
    height, width = size
    y, x = torch.arange(height), torch.arange(width)
    if isinstance(segments, str) and segments == "patches":
        rows, columns = model.vision.grid
        return (y * rows // height)[:, None] * columns + (x * columns // width)[None]
    if isinstance(segments, str) and segments == "regions":
        labels = torch.zeros(height, width, dtype=torch.long)
        masks = [grid_mask(shape, explained.image.size, size) for shape in explained.shapes]
        for i in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):  # the smaller ones on top
            labels[masks[i]] = i + 1
        return labels
    labels = torch.as_tensor(segments) if not isinstance(segments, str) else torch.zeros(0)
    if labels.dim() != 2 or labels.is_floating_point():
        told = repr(segments) if isinstance(segments, str) else f"{labels.dtype} {list(labels.shape)}"
        raise ValueError(f"segments {told}, expected 'patches', 'regions' or whole numbers [H, W]")
    rows, columns = y * labels.shape[0] // height, x * labels.shape[1] // width
    return labels[rows][:, columns].unique(return_inverse=True)[1]
