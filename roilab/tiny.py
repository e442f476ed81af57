"""How the shipped tiny model is made, from nothing: `roilab train tiny`.

Stage 0 gives the two towers what CLIP and Vicuna bring at paper scale. Vision: a CLIP-style ViT learns to name what lies in a box
(heads on RoIAligned features, thrown away afterwards). Language: the LLaMA-type model learns the dialogues with every region slot
filled by a bag of true words and a linear map of the box. Then come the two stages of GPT4RoI (`training.py`): the region encoder
alone, then everything but vision. Every part saves checkpoints below `--out` and continues from them.
"""

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from . import scenes

SLOTS = 12  # boxes kept per scene for stage 0: its objects and one part of each
PART_NAMES = sorted(set(scenes.PARTS.values()) | {"head", "hat"})
FACTS = {
    "kind": (*scenes.KINDS, "person"), "colour": scenes.COLOURS, "material": scenes.MATERIALS, "size": scenes.SIZES,
    "action": scenes.ACTIONS, "mood": scenes.MOODS, "headgear": scenes.HEADGEAR, "facing": ("left", "right"), "part": ("whole", *PART_NAMES),
}  # fmt: skip
"""What stage 0 teaches the vision tower to read off a box."""


@dataclass
class TinyRecipe:
    """Sizes and schedule of the shipped tiny model."""

    image_size: int = 128
    patch_size: int = 16
    vision_width: int = 128
    vision_layers: int = 5
    scenes: int = 36_000
    vision_steps: int = 3600
    vision_batch: int = 64
    vision_lr: float = 1.5e-3
    vocabulary: int = 768
    text_width: int = 128
    text_layers: int = 5
    region_width: int = 32
    fusion_rounds: int = 3
    words: int = 140
    text_steps: int = 4000
    text_batch: int = 16
    text_lr: float = 1.5e-3


def _facts(scene, rng):
    """Boxes [SLOTS, 4] normalised and labels [SLOTS, facts] (-1: does not apply) of a scene's objects and one part of each."""
    boxes, labels = np.zeros((SLOTS, 4), np.float32), np.full((SLOTS, len(FACTS)), -1, np.int8)
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
            row += 1
    return boxes, labels


def _render_range(start, stop, image_size):
    images = np.empty((stop - start, image_size, image_size, 3), np.uint8)
    boxes, labels = np.empty((stop - start, SLOTS, 4), np.float32), np.empty((stop - start, SLOTS, len(FACTS)), np.int8)
    settings = np.empty(stop - start, np.int8)
    for row, index in enumerate(range(start, stop)):
        rng = random.Random(f"pool {index}")
        scene = scenes.sample(index, held_out=False)
        picture = scene.scaled(rng.choice((160, 320))).image if rng.random() < 0.2 else scene.image
        images[row] = np.asarray(picture.resize((image_size, image_size), Image.Resampling.BICUBIC))
        boxes[row], labels[row] = _facts(scene, rng)
        settings[row] = scenes.SETTINGS.index(scene.setting)
    return images, boxes, labels, settings


class Pool(torch.utils.data.Dataset):
    """Scenes of the training split, rendered once: images uint8 [N, S, S, 3], boxes [N, SLOTS, 4], labels [N, SLOTS, facts]."""

    def __init__(self, folder: Path, count: int, image_size: int, workers: int = 2):
        names = ("images", "boxes", "labels", "settings")
        if not all((folder / f"{name}.npy").exists() for name in names):
            folder.mkdir(parents=True, exist_ok=True)
            edges = [*range(0, count, 500), count]
            with ProcessPoolExecutor(workers) as executor:
                pieces = list(executor.map(_render_range, edges[:-1], edges[1:], [image_size] * (len(edges) - 1)))
            for name, arrays in zip(names, zip(*pieces)):
                np.save(folder / f"{name}.npy", np.concatenate(arrays))
        self.images, self.boxes, self.labels, self.settings = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in names)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return index


class VisionPretraining(nn.Module):
    """The tower with heads that read boxes and patches; only the tower is kept.

    Returns the loss (and, in evaluation mode, how often each fact was read correctly).
    """

    def __init__(self, tower, hidden: int = 320, cells: int = 3):
        super().__init__()
        self.tower = tower
        width = tower.model.config.hidden_size
        self.cells = cells
        self.read = nn.Sequential(nn.Linear(2 * width * cells**2 + 4, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, len(values)) for name, values in FACTS.items()})
        self.patch = nn.Linear(width, len(FACTS["kind"]) + 1)  # what covers a patch; the last class is background
        self.setting = nn.Linear(width, len(scenes.SETTINGS))

    def read_boxes(self, features, boxes):
        """Logits per fact for [B, SLOTS, 4] normalised boxes: the pooled-box probe."""
        pooled = [average_pool(features.levels[i], boxes, self.cells).flatten(0, 1).flatten(1) for i in (1, -1)]
        hidden = self.read(torch.cat([*pooled, boxes.flatten(0, 1)], 1))
        return {name: head(hidden) for name, head in self.heads.items()}

    def forward(self, pixel_values, boxes, labels, settings, patches):
        features = self.tower(pixel_values)
        logits = self.read_boxes(features, boxes)
        labels = labels.flatten(0, 1)
        real = [i for i in range(len(FACTS)) if (labels[:, i] >= 0).any()]
        losses = [F.cross_entropy(logits[name], labels[:, i], ignore_index=-1) for i, name in enumerate(FACTS) if i in real]
        weight = torch.ones(self.patch.out_features, device=pixel_values.device)
        weight[-1] = 0.1  # most patches are background: without this the small things are lost
        patch_loss = F.cross_entropy(self.patch(features.patches).flatten(0, 1), patches.flatten(), weight=weight)
        setting_loss = F.cross_entropy(self.setting(features.patches.mean(1)), settings)
        loss = sum(losses) + 0.5 * patch_loss + 0.2 * setting_loss
        if self.training:
            return {"loss": loss}
        right = {n: (logits[n].argmax(-1) == labels[:, i]) for i, n in enumerate(FACTS)}
        return {"loss": loss, "right": right, "labels": labels, "setting": self.setting(features.patches.mean(1)).argmax(-1)}


def average_pool(level, boxes, cells: int):
    """Mean of a level [B, C, H, W] over `cells` x `cells` parts of boxes [B, N, 4] (normalised): [B, N, cells^2, C].

    Two small matrix products instead of RoIAlign, whose backward pass on a CPU costs more than the tower.
    """

    def share(low, high, count):  # how much of each cell of the box lies on each column (or row) of the grid
        edges = low[..., None] + (high - low)[..., None] * torch.linspace(0, 1, cells + 1)  # [B, N, cells + 1]
        edges = edges.unsqueeze(-1) * count
        column = torch.arange(count)
        shared = (torch.minimum(edges[..., 1:, :], column + 1) - torch.maximum(edges[..., :-1, :], column)).clamp_min(0)
        return shared / shared.sum(-1, keepdim=True).clamp_min(1e-6)  # [B, N, cells, count]

    across, down = share(boxes[..., 0], boxes[..., 2], level.shape[3]), share(boxes[..., 1], boxes[..., 3], level.shape[2])
    weights = torch.einsum("bnyh,bnxw->bnyxhw", down, across).flatten(4).flatten(1, 3)  # [B, N cells^2, H W]
    return (weights.to(level.dtype) @ level.flatten(2).transpose(1, 2)).unflatten(1, (boxes.shape[1], -1))


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
        settings = torch.from_numpy(self.pool.settings[order]).long()
        empty = (labels < 0).all(-1)
        if self.train:
            size, facing = pixels.shape[-1], list(FACTS).index("facing")
            flip = torch.rand(len(pixels)) < 0.5
            pixels[flip] = pixels[flip].flip(-1)
            boxes = torch.where(flip[:, None, None], torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1), boxes)
            turned = (labels[..., facing] >= 0) & flip[:, None]
            labels[..., facing] = torch.where(turned, 1 - labels[..., facing], labels[..., facing])
            dx, dy = (torch.randint(-self.shift, self.shift + 1, (2,))).tolist()
            pad = self.shift
            pixels = F.pad(pixels, (pad,) * 4, mode="replicate")[..., pad - dy : pad - dy + size, pad - dx : pad - dx + size]
            boxes = boxes + torch.tensor([dx, dy, dx, dy]) / size
            side = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
            boxes = boxes + side * (torch.rand_like(boxes) - 0.5) * 0.12
        boxes = boxes.clamp(0, 1)
        patches = self._patches(boxes, labels, empty)
        boxes = torch.where(empty[..., None], torch.tensor([0.0, 0.0, 1.0, 1.0]), boxes)
        return dict(pixel_values=(pixels - self.mean) / self.std, boxes=boxes, labels=labels, settings=settings, patches=patches)

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

    from .vision import VisionTower

    config = CLIPVisionConfig(
        hidden_size=recipe.vision_width, intermediate_size=4 * recipe.vision_width, num_hidden_layers=recipe.vision_layers,
        num_attention_heads=recipe.vision_width // 32, image_size=recipe.image_size, patch_size=recipe.patch_size, hidden_act="gelu",
    )  # fmt: skip
    return VisionTower(config, [-4, -3, -2, -1], -1)


def pretrain_vision(recipe: TinyRecipe, out: Path):
    """Stage 0, vision: returns the trained tower with its heads."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    from . import training

    pool = Pool(out / "pool", recipe.scenes, recipe.image_size)
    torch.manual_seed(0)
    model = VisionPretraining(vision_tower(recipe))
    done = out / "vision" / "vision.pt"
    if done.exists():
        model.load_state_dict(torch.load(done, weights_only=True))
        return model
    collate = VisionBatch(pool, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, recipe.image_size // recipe.patch_size)
    training.run(
        model, pool, collate, out / "vision", steps=recipe.vision_steps, batch=recipe.vision_batch, lr=recipe.vision_lr, weight_decay=0.05
    )
    torch.save(model.state_dict(), done)
    return model


PLACES = ("first", "second", "part", "group")
BLIND = ("caption", "setting")  # families that need the picture, not only regions: not in the text warm-up


class WordBag(nn.Module):
    """Region slots filled with the truth: the sum of one vector per true word, plus a linear map of the box.

    It stands in for the region encoder while the language model learns to read regions, and is thrown away afterwards.
    """

    def __init__(self, width: int):
        super().__init__()
        words = [(place, name, value) for place in PLACES[:3] for name, values in FACTS.items() for value in values]
        words += [("group", kind, count) for kind in ("people", "things") for count in range(7)]
        self.index = {word: i + 1 for i, word in enumerate(words)}  # 0 pads
        self.words = nn.Embedding(len(words) + 1, width, padding_idx=0)
        self.box = nn.Linear(5, width)
        nn.init.normal_(self.words.weight, std=0.1)

    def ids(self, scene, slot) -> list[int]:
        """The words of what a box shows: one object, a part of one, a pair (left one first) or a group."""
        objects = sorted((scene.object(i) for i in slot.objects), key=lambda o: o.centre[0])
        if slot.part:
            facts = {"part": slot.part, "kind": objects[0].kind, "colour": objects[0].colour}
            return [self.index["part", name, value] for name, value in facts.items()]
        if len(objects) > 2:
            people = sum(o.is_person for o in objects)
            return [self.index["group", "people", people], self.index["group", "things", len(objects) - people]]
        found = []
        for place, item in zip(PLACES, objects):
            facts = {**item.attributes, "facing": item.facing, "part": "whole"}
            found += [self.index[place, name, facts[name]] for name in FACTS if facts.get(name) in FACTS[name]]
        return found

    def forward(self, ids, boxes):
        """Ids [N, K] padded with 0 and boxes [N, 4] normalised -> [N, D]."""
        area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp_min(1e-6).sqrt()
        return self.words(ids).sum(1) + self.box(torch.cat([boxes, area[:, None]], 1))


class TextWarmup(nn.Module):
    """The language model reads dialogues whose regions are word bags; there is no picture."""

    accepts_loss_kwargs = True

    def __init__(self, model):
        super().__init__()
        self.language_model = model.language_model
        self.model = [model]  # not a submodule: only the language model and the bag are trained
        self.bag = WordBag(model.config.text_config.hidden_size)
        self.register_state_dict_post_hook(lambda module, state, prefix, meta: state.pop(f"{prefix}language_model.lm_head.weight"))  # tied

    def forward(self, input_ids, attention_mask, labels, words, boxes, counts, **kwargs):
        embeddings = self.bag(words, boxes).split(counts)
        return {"loss": self.model[0](input_ids, attention_mask, region_embeddings=embeddings, labels=labels, **kwargs).loss}


class SceneDialogues(torch.utils.data.Dataset):
    """Dialogues of about `words` words about training scenes, sampled anew every epoch: index -> (index, scene, dialogue)."""

    def __init__(self, count: int, words: int, families):
        from .scenes import language

        self.count, self.words, self.rounds, self.families = count, words, 16, list(families)
        self.language = language
        self.scenes: dict[int, scenes.Scene] = {}

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index not in self.scenes:
            self.scenes[index] = scenes.sample(index, held_out=False)
        scene = self.scenes[index]
        rng = random.Random(torch.randint(2**62, ()).item())
        questions, length = [], 0
        for question in self.language.questions(scene, rng, self.families, self.rounds):
            length += sum(len(turn["content"].split()) + 4 for turn in self.language.turns_of(question))
            if questions and length > self.words:
                break
            questions.append(question)
        return index, scene, self.language.combine(questions)


class TextBatch:
    """Collates dialogues for `TextWarmup`."""

    def __init__(self, processor, bag: WordBag):
        self.processor, self.index_words = processor, bag.ids

    def __call__(self, items):
        encoded, words, boxes, counts = [], [], [], []
        for _, scene, (turns, regions, slots) in items:
            ids = self.processor.encode_dialogue(turns, len(regions), image=False)
            encoded.append(ids)
            words += [self.index_words(scene, slots[r]) for r in ids.regions]
            boxes += [[v / scene.size for v in regions[r]] for r in ids.regions]
            counts.append(len(ids.regions))
        longest = max(map(len, words), default=1)
        batch = dict(self.processor.pad(encoded))
        batch.pop("regions")
        return batch | dict(
            words=torch.tensor([w + [0] * (longest - len(w)) for w in words], dtype=torch.long).reshape(len(words), longest),
            boxes=torch.tensor(boxes).reshape(-1, 4), counts=counts,
        )  # fmt: skip


def blank_model(recipe: TinyRecipe):
    """The tiny model with random weights, its tokenizer trained on the scenes' language."""
    from transformers import CLIPImageProcessor, LlamaConfig

    from .config import GPT4RoIConfig, RegionConfig
    from .model import GPT4RoI
    from .processing import GPT4RoIProcessor, train_tokenizer
    from .scenes import language

    tokenizer = train_tokenizer(language.language_corpus(range(400)), recipe.vocabulary)
    torch.manual_seed(1)
    tower = vision_tower(recipe)
    processor = GPT4RoIProcessor(CLIPImageProcessor(size={"shortest_edge": recipe.image_size}), tokenizer, "tiny", tower.num_patches)
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.text_width, intermediate_size=3 * recipe.text_width, num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_width // 32, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    region = RegionConfig(
        level_widths=[recipe.vision_width] * 4, width=recipe.region_width, fusion_rounds=recipe.fusion_rounds, norm_groups=8, roi_size=7,
        hidden_size=256, position_hidden_size=64, output_size=recipe.text_width,
    )  # fmt: skip
    config = GPT4RoIConfig(
        tower.model.config, text, region, feature_layers=tower.feature_layers, image_layer=tower.image_layer,
        image_token_id=processor.image_token_id, region_token_id=processor.region_token_id, template="tiny",
    )  # fmt: skip
    model = GPT4RoI(config)
    model.processor = processor
    return model


def pretrain_text(recipe: TinyRecipe, model, out: Path):
    """Stage 0, language: trains `model.language_model` in place; returns the warm-up module with its word bag."""
    from . import training
    from .scenes import language

    warmup = TextWarmup(model)
    done = out / "text" / "text.pt"
    if done.exists():
        warmup.load_state_dict(torch.load(done, weights_only=True), strict=False)
        return warmup
    data = SceneDialogues(recipe.scenes, recipe.words, [f for f in language.FAMILIES if f not in BLIND])
    training.run(
        warmup, data, TextBatch(model.processor, warmup.bag), out / "text", steps=recipe.text_steps, batch=recipe.text_batch,
        lr=recipe.text_lr, weight_decay=0.01,
    )  # fmt: skip
    torch.save(warmup.state_dict(), done)
    return warmup
