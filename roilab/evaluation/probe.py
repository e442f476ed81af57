"""The ceiling of a region encoder: what a small network reads off boxes when it is given the frozen vision tower's features directly."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import roi_align
from tqdm.auto import tqdm

from ..scenes import language, sample
from .naming import VALUES
from .scenes import seeds_of
from .statistics import interval

CELLS = 3  # a box is pooled to 3 x 3 averages
HIDDEN = 320


def probe_boxes(model, scenes: int = 2000, seed: int = 0, training: int = 6000, steps: int = 3000) -> dict:
    """Accuracy of a pooled-box probe on the objects of test scenes, by attribute.

    Every feature level is pooled over 3 x 3 parts of an object's box (RoIAlign); from that and the box a network with one hidden layer
    reads the attributes. Nothing but this network is trained; no language model is involved.

    Args:
        scenes, seed: the test scenes, as in `evaluate_scenes`.
        training, steps: scenes of the training split to learn from, and steps of 512 boxes.
    Returns:
        `{family: {accuracy, n, interval}}` for the families of attributes, 0-1.
    """
    learned = _boxes(model, [language.seed_of("train", i) for i in range(training)], "probe learns")
    asked = _boxes(model, seeds_of(scenes, seed), "probe reads")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _learn(*learned, steps)
    features, labels = asked
    with torch.inference_mode():
        found = network(features).split([len(values) for values in VALUES.values()], 1)
    result = {}
    for name, logits, wanted in zip(VALUES, found, labels.T):
        known = wanted >= 0
        right, n = (logits[known].argmax(1) == wanted[known]).sum().item(), known.sum().item()
        result[name] = {"accuracy": right / max(n, 1), "n": n, "interval": interval(right, n)}
    return result


def _learn(features, labels, steps):
    sizes = [len(values) for values in VALUES.values()]
    network = nn.Sequential(
        nn.Linear(features.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(HIDDEN, sum(sizes))
    )
    network[0].weight.data /= features.std().clamp_min(1e-6)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(features), (512,))
        logits = network(features[rows]).split(sizes, 1)
        losses = [
            F.cross_entropy(each, wanted, ignore_index=-1)
            for each, wanted in zip(logits, labels[rows].T)
            if (wanted >= 0).any()
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def _boxes(model, seeds, title: str, chunk: int = 100):
    """Pooled features [N, ...] of all objects of scenes, and labels [N, attributes] (-1: does not apply), on the CPU."""
    rows, labels = [], []
    for start in tqdm(range(0, len(seeds), chunk), desc=title, unit=f"x{chunk}"):
        world = [sample(each, held_out=False) for each in seeds[start : start + chunk]]
        features = model.encode_image(model.processor.preprocess([scene.image for scene in world]))
        for i, scene in enumerate(world):
            boxes = torch.tensor([item.box for item in scene.objects], device=features.patches.device) / scene.size
            pooled = []
            for level in features.levels:
                sides = boxes.new_tensor(level.shape[:-3:-1] * 2)  # W, H, W, H
                pooled.append(roi_align(level[i : i + 1].float(), [boxes * sides], CELLS, 1.0, 4, True).flatten(1))
            rows.append(torch.cat([*pooled, boxes], 1).cpu())
            for item in scene.objects:
                facts = item.attributes
                labels.append([values.index(facts[name]) if name in facts else -1 for name, values in VALUES.items()])
    return torch.cat(rows), torch.tensor(labels)
