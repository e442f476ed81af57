"""Stage 0, vision: scenes rendered once, and a ViT that learns to read boxes and patches of them."""

import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from .. import scenes, training
from ..scenes import language
from .recipe import TinyRecipe

SLOTS = 12  # boxes kept per scene for stage 0: its objects and one part of each
PART_NAMES = sorted(set(scenes.PARTS.values()) | {"head", "hat"})
FACTS = {
    "kind": (*scenes.KINDS, "person"), "colour": scenes.COLOURS, "material": scenes.MATERIALS, "size": scenes.SIZES,
    "action": scenes.ACTIONS, "mood": scenes.MOODS, "headgear": scenes.HEADGEAR, "facing": ("left", "right"), "part": ("whole", *PART_NAMES),
}  # fmt: skip
"""What stage 0 teaches the vision tower to read off a box."""
AIMS = 4  # where a person's action and gaze are directed, see `aims`


def aims(scene, item) -> list[float]:
    """The way from an object's centre to that of what it points at, holds or kicks, and to that of what it looks at.

    Returns:
        [x, y, x, y] in shares of the picture's side; 0, 0 where there is no target, for a thing and where the gaze is not clear.
    """
    if not item.is_person:
        return [0.0] * AIMS
    others = [other.id for other in scene.objects if other is not item]
    seen = next((id for id in others if scene.holds("looking at", item.id, id)), None)
    ends = [item if id is None else scene.object(id) for id in (item.target, seen)]
    return [(end.centre[axis] - item.centre[axis]) / scene.size for end in ends for axis in (0, 1)]


def _facts(scene, rng):
    """Boxes [SLOTS, 4] normalised, labels [SLOTS, facts] (-1: does not apply) and aims [SLOTS, 4] of a scene's objects and one part of each."""
    boxes, labels = np.zeros((SLOTS, 4), np.float32), np.full((SLOTS, len(FACTS)), -1, np.int8)
    directed = np.zeros((SLOTS, AIMS), np.float32)
    row = 0
    for item in scene.objects:
        known = {**item.attributes, "facing": item.facing, "part": "whole"}
        entries = [(item.box, known)]
        if item.parts:
            name = rng.choice(sorted(item.parts))
            entries.append((rng.choice(item.parts[name]), {"part": name, "kind": item.kind, "colour": item.colour}))
        for box, facts in entries:
            boxes[row] = np.asarray(box) / scene.size
            labels[row] = [FACTS[f].index(facts[f]) if facts.get(f) in FACTS[f] else -1 for f in FACTS]
            directed[row] = aims(scene, item) if facts is known else 0
            row += 1
    return boxes, labels, directed


def _render_range(start, stop, image_size):
    images = np.empty((stop - start, image_size, image_size, 3), np.uint8)
    boxes, labels = np.empty((stop - start, SLOTS, 4), np.float32), np.empty((stop - start, SLOTS, len(FACTS)), np.int8)
    directed, settings = np.empty((stop - start, SLOTS, AIMS), np.float32), np.empty(stop - start, np.int8)
    for row, index in enumerate(range(start, stop)):
        rng = random.Random(f"pool {index}")
        scene = scenes.sample(index, held_out=False)
        picture = scene.scaled(rng.choice((160, 320))).image if rng.random() < 0.2 else scene.image
        images[row] = np.asarray(picture.resize((image_size, image_size), Image.Resampling.BICUBIC))
        boxes[row], labels[row], directed[row] = _facts(scene, rng)
        settings[row] = scenes.SETTINGS.index(scene.setting)
    return images, boxes, labels, directed, settings


class Pool(torch.utils.data.Dataset):
    """Scenes of the training split, rendered once: images uint8 [N, S, S, 3], boxes and aims [N, SLOTS, 4], labels [N, SLOTS, facts]."""

    names = ("images", "boxes", "labels", "aims", "settings")

    def __init__(self, folder: Path, count: int, image_size: int, workers: int = 2):
        names = self.names
        if not all((folder / f"{name}.npy").exists() for name in names):
            folder.mkdir(parents=True, exist_ok=True)
            edges = [*range(0, count, 500), count]
            with ProcessPoolExecutor(workers) as executor:
                pieces = list(executor.map(_render_range, edges[:-1], edges[1:], [image_size] * (len(edges) - 1)))
            for name, arrays in zip(names, zip(*pieces)):
                np.save(folder / f"{name}.npy", np.concatenate(arrays))
        for name in names:
            setattr(self, name, np.load(folder / f"{name}.npy", mmap_mode="r"))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return index


class VisionPretraining(nn.Module):
    """The tower with heads that read boxes and patches; only the tower is kept."""

    def __init__(self, tower, hidden: int = 320, cells: int = 3):
        super().__init__()
        self.tower = tower
        width = tower.model.config.hidden_size
        self.cells = cells
        self.read = nn.Sequential(
            nn.Linear(2 * width * cells**2 + 4, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, len(values)) for name, values in FACTS.items()})
        self.aim = nn.Linear(hidden, AIMS)
        self.patch = nn.Linear(width, len(FACTS["kind"]) + 1)  # what covers a patch; the last class is background
        self.setting = nn.Linear(width, len(scenes.SETTINGS))

    def read_boxes(self, features, boxes):
        """Logits per fact, and the aims, for [B, SLOTS, 4] normalised boxes: the pooled-box probe."""
        pooled = [average_pool(features.levels[i], boxes, self.cells).flatten(0, 1).flatten(1) for i in (1, -1)]
        hidden = self.read(torch.cat([*pooled, boxes.flatten(0, 1)], 1))
        return {name: head(hidden) for name, head in self.heads.items()} | {"aims": self.aim(hidden)}

    def forward(self, pixel_values, boxes, labels, aims, settings, patches):
        features = self.tower(pixel_values)
        logits = self.read_boxes(features, boxes)
        person = labels[..., list(FACTS).index("action")] >= 0
        missed = (logits["aims"].float() - aims.flatten(0, 1)).abs().mean(-1)[person.flatten()]
        labels = labels.flatten(0, 1)
        real = [i for i in range(len(FACTS)) if (labels[:, i] >= 0).any()]
        losses = [
            F.cross_entropy(logits[name], labels[:, i], ignore_index=-1) for i, name in enumerate(FACTS) if i in real
        ]
        weight = torch.ones(self.patch.out_features, device=pixel_values.device)
        weight[-1] = 0.1  # most patches are background: without this the small things are lost
        patch_loss = F.cross_entropy(self.patch(features.patches).flatten(0, 1), patches.flatten(), weight=weight)
        setting_loss = F.cross_entropy(self.setting(features.patches.mean(1)), settings)
        loss = sum(losses) + 0.5 * patch_loss + 0.2 * setting_loss + 3 * missed.sum() / max(len(missed), 1)
        return {"loss": loss}


def average_pool(level, boxes, cells: int):
    """Mean of a level [B, C, H, W] over `cells` x `cells` parts of boxes [B, N, 4] (normalised): [B, N, cells^2, C].

    Two small matrix products instead of RoIAlign, whose backward pass on a CPU costs more than the tower.
    """

    def share(low, high, count):  # how much of each cell of the box lies on each column (or row) of the grid
        edges = low[..., None] + (high - low)[..., None] * torch.linspace(
            0, 1, cells + 1, device=low.device
        )  # [B, N, cells + 1]
        edges = edges.unsqueeze(-1) * count
        column = torch.arange(count, device=low.device)
        shared = (torch.minimum(edges[..., 1:, :], column + 1) - torch.maximum(edges[..., :-1, :], column)).clamp_min(0)
        return shared / shared.sum(-1, keepdim=True).clamp_min(1e-6)  # [B, N, cells, count]

    across, down = (
        share(boxes[..., 0], boxes[..., 2], level.shape[3]),
        share(boxes[..., 1], boxes[..., 3], level.shape[2]),
    )
    weights = torch.einsum("bnyh,bnxw->bnyxhw", down, across).flatten(4).flatten(1, 3)  # [B, N cells^2, H W]
    return (weights.to(level.dtype) @ level.flatten(2).transpose(1, 2)).unflatten(1, (boxes.shape[1], -1))


def jittered(boxes, share: float):
    """Every side of boxes [..., 4] moved by up to `share` of the box's width or height."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return boxes + torch.cat([extent, extent], -1) * share * (2 * torch.rand_like(boxes) - 1)


class VisionBatch:
    """Collates pool rows: flips, shifts by up to `shift` pixels, jitters boxes (training only), normalises."""

    def __init__(self, pool: Pool, mean, std, grid: int, shift: int = 6, train: bool = True):
        self.pool, self.grid, self.shift, self.train = pool, grid, shift, train
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, indices):
        order = sorted(indices)
        pixels = torch.from_numpy(self.pool.images[order]).permute(0, 3, 1, 2).float() / 255
        boxes = torch.from_numpy(self.pool.boxes[order])
        labels = torch.from_numpy(self.pool.labels[order]).long()
        directed = torch.from_numpy(self.pool.aims[order])
        settings = torch.from_numpy(self.pool.settings[order]).long()
        empty = (labels < 0).all(-1)
        if self.train:
            size, facing = pixels.shape[-1], list(FACTS).index("facing")
            flip = torch.rand(len(pixels)) < 0.5
            pixels[flip] = pixels[flip].flip(-1)
            boxes = torch.where(
                flip[:, None, None],
                torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1),
                boxes,
            )
            directed = torch.where(flip[:, None, None], directed * torch.tensor([-1.0, 1.0, -1.0, 1.0]), directed)
            turned = (labels[..., facing] >= 0) & flip[:, None]
            labels[..., facing] = torch.where(turned, 1 - labels[..., facing], labels[..., facing])
            dx, dy = (torch.randint(-self.shift, self.shift + 1, (2,))).tolist()
            pad = self.shift
            pixels = F.pad(pixels, (pad,) * 4, mode="replicate")[
                ..., pad - dy : pad - dy + size, pad - dx : pad - dx + size
            ]
            boxes = boxes + torch.tensor([dx, dy, dx, dy]) / size
            boxes = jittered(boxes, 0.06)
        boxes = boxes.clamp(0, 1)
        patches = self._patches(boxes, labels, empty)
        boxes = torch.where(empty[..., None], torch.tensor([0.0, 0.0, 1.0, 1.0]), boxes)
        return dict(
            pixel_values=(pixels - self.mean) / self.std, boxes=boxes, labels=labels, aims=directed, settings=settings, patches=patches,
        )  # fmt: skip

    def _patches(self, boxes, labels, empty):
        """[B, P] kind of the last (frontmost) whole object whose box holds the patch's centre."""
        centres = (torch.arange(self.grid) + 0.5) / self.grid
        inside_x = (boxes[..., 0, None] < centres) & (centres < boxes[..., 2, None])  # [B, SLOTS, W]
        inside_y = (boxes[..., 1, None] < centres) & (centres < boxes[..., 3, None])
        inside = (inside_y[..., :, None] & inside_x[..., None, :]).flatten(2)  # [B, SLOTS, P]
        whole = (labels[..., list(FACTS).index("part")] == 0) & ~empty
        kinds = labels[..., 0]
        target = torch.full((len(boxes), self.grid**2), len(FACTS["kind"]))
        for slot in range(SLOTS):
            target = torch.where(inside[:, slot] & whole[:, slot, None], kinds[:, slot, None], target)
        return target


def vision_tower(recipe: TinyRecipe):
    """The tiny CLIP-style tower; all of its last layers are levels, the last one gives the image tokens."""
    from transformers import CLIPVisionConfig

    from ..vision import VisionTower

    config = CLIPVisionConfig(
        hidden_size=recipe.vision_width, intermediate_size=4 * recipe.vision_width, num_hidden_layers=recipe.vision_layers,
        num_attention_heads=recipe.vision_width // 32, image_size=recipe.image_size, patch_size=recipe.patch_size, hidden_act="gelu",
    )  # fmt: skip
    return VisionTower(config, [-4, -3, -2, -1], -1)


def pretrain_vision(recipe: TinyRecipe, out: Path):
    """Stage 0, vision: returns the trained tower with its heads."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    pool = Pool(out / "pool", recipe.scenes, recipe.image_size)
    torch.manual_seed(0)
    model = VisionPretraining(vision_tower(recipe))
    model.tower.model.set_attn_implementation("eager")  # see `train.train`
    done = out / "vision" / "vision.pt"
    if done.exists():
        model.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"))
        return model
    collate = VisionBatch(pool, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, recipe.image_size // recipe.patch_size)
    training.run(
        model,
        pool,
        collate,
        out / "vision",
        steps=recipe.vision_steps,
        batch=recipe.vision_batch,
        lr=recipe.vision_lr,
        weight_decay=0.05,
        bf16=True,
        save_every=500,
    )
    training.save_state(model.state_dict(), done)
    shares = probe(model.eval(), recipe)
    print(
        "vision, read off boxes of unseen scenes: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    )
    return model


@torch.no_grad()
def probe(model: VisionPretraining, recipe: TinyRecipe, count: int = 400) -> dict[str, float]:
    """Share of boxes of `count` validation scenes whose facts the heads read correctly: the tower's ceiling, by fact."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    first = language.seed_of("val", 0)
    unseen = SimpleNamespace(**dict(zip(Pool.names, _render_range(first, first + count, recipe.image_size))))
    grid, device = recipe.image_size // recipe.patch_size, model.patch.weight.device
    collate = VisionBatch(unseen, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, grid, train=False)
    right, asked, off = {name: 0 for name in FACTS}, {name: 0 for name in FACTS}, []
    for start in range(0, count, 100):
        batch = collate(range(start, min(start + 100, count)))
        logits = model.read_boxes(model.tower(batch["pixel_values"].to(device)), batch["boxes"].to(device))
        for i, name in enumerate(FACTS):
            labels = batch["labels"].flatten(0, 1)[:, i].to(device)
            right[name] += (logits[name].argmax(-1) == labels).sum().item()  # -1, does not apply, is never predicted
            asked[name] += (labels >= 0).sum().item()
        person = (batch["labels"][..., list(FACTS).index("action")] >= 0).flatten()
        off += [(logits["aims"].cpu() - batch["aims"].flatten(0, 1)).unflatten(1, (2, 2)).norm(dim=-1)[person]]
    close = (torch.cat(off) < 0.1).float().mean(0).tolist()
    shares = {name: right[name] / max(asked[name], 1) for name in FACTS}
    return shares | {"target within a tenth of the picture": close[0], "gaze within a tenth of the picture": close[1]}
