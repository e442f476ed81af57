"""How the photo model is made: `roilab train photo --data DIR`.

The backbones come from `roilab.fetch`. What learns: the region encoder's read-out, the projector, and low-rank additions to the language
model (LoRA), which are merged into it when the model is put together.

    words    the region encoder's read-out alone: every region's embedding close to the word of its category, without the language model, which
             then gets a sharp blend of words (`regions.RegionWords`)
    stage 1  LoRA: one question about one box; the picture's own tokens say nothing yet, so their keys and values are shared
    stage 2  LoRA, the projector and what of the box's place goes beside the words: dialogues of several rounds about several boxes and the picture
    stage 3  LoRA and the place: one question about two boxes, put together from the thing of one box and the place of another, of any pictures

In stages 1 and 3 the regions' embeddings are those of read-outs that have not seen their pictures (`readout.unseen_embeddings`), as they will come
from pictures of a user; in stage 2 they are so in a part of the dialogues. Trained through the language model, the read-out learned the few
pictures by heart instead.

What an answer calls a region is the word nearest to its embedding, right or not: what things are is the read-out's to learn, and the language
model learns to say what the embedding says.

Pictures whose id is a multiple of five are kept aside (`roilab.data.coco`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize
from transformers import DynamicCache

from .. import data, presets, training
from ..fetch import fetch
from ..interpret.anatomy import position_terms
from ..memory import CACHE
from ..tiny.recipe import parse
from ..training.preparing import low_rank_adapters
from ..weights.loading import default_device
from .features import Features, features, flat_weight
from .putting_together import ADAPTERS, CONTENT, FLAT, OWN, SETTINGS, TRAINED
from .questions import KNOWLEDGE, WHAT, Asker, a, named, turns
from .readout import Readout, fit_to_words, spread, unseen_embeddings

ADAPTED = ["q_proj", "v_proj", "o_proj"]  # on a CPU additions to the wide layers would take a third more time


@dataclass
class PhotoRecipe:
    """Schedule of the photo model."""

    rank: int = 32
    word_steps: int = 400
    sharpness: float = 60.0  # of the blend of words, in units of their spread
    stage1_steps: int = 40
    stage1_batch: int = 48
    stage1_lr: float = 2e-3
    stage2_steps: int = 300
    stage2_batch: int = 4
    stage2_lr: float = 1e-3
    stage3_steps: int = 80
    stage3_batch: int = 32
    stage3_lr: float = 7e-4
    seed: int = 0


class Dialogues(torch.utils.data.Dataset):
    """Training dialogues, decided by their number and the seed alone. An item is (record, way, things, places, turns): which of the N boxes are the
    things in <region1> ..., and which are their places.

    Ways: 0 as it is, 1 mirrored; 2 and 3 the same with embeddings of the read-out that was fitted on this picture.

    Args:
        records: with labels. seen: features of them, as they are and mirrored.
        said: for each way and each of the N boxes, what answers call it; see `nearest`. What is in the whole picture is told by the records' labels.
        kind: "one", "What is <region1>?", about one box after the other; "dialogue", about up to `most` boxes of a picture; "two", one question
            about two things of any pictures at places of any others.
        count: how many there are.
    """

    most = 6
    # Share of dialogues with embeddings that the read-out knows: surer ones than come later, and all right.
    fitted = 0.3

    def __init__(
        self,
        records,
        seen: list[Features],
        said: list[list[str]],
        names: list[str],
        knowledge: dict,
        kind: str,
        seed: int,
        count: int,
    ):
        self.labels, self.said = [record.labels for record in records], said
        self.seen, self.names, self.knowledge, self.kind = seen, names, knowledge, kind
        self.seed, self.count = seed, count
        self.record = [record for record, labels in enumerate(self.labels) for _ in labels]  # of each box

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        rng = random.Random(f"{self.seed} {self.kind} {index}")
        mirrored = rng.randrange(2)
        if self.kind == "two":
            return self._two(mirrored, rng)
        if self.kind == "one":
            box = index % len(self.record)
            return self.record[box], mirrored, [box], [box], turns([(WHAT, named(self.said[mirrored][box]))])
        record = index % len(self.labels)
        labels, rows = self.labels[record], self.seen[mirrored].of(record)
        shown = [rows.start + i for i in rng.sample(range(len(labels)), min(len(labels), self.most))]
        way = mirrored + 2 * (rng.random() < self.fitted)
        asker = self._asker(way, shown, shown, rng, in_picture=labels)
        return record, way, shown, shown, turns(asker.dialogue())

    def _two(self, way: int, rng: random.Random):
        while True:
            things, places = (rng.sample(range(len(self.record)), 2) for _ in range(2))
            asker = self._asker(way, things, places, rng)
            if made := asker.about_two():
                return rng.randrange(len(self.labels)), way, things, places, turns([made])

    def _asker(self, way: int, things, places, rng: random.Random, **options) -> Asker:
        boxes, said = self.seen[way % 2].boxes[places].tolist(), [self.said[way][i] for i in things]
        return Asker(boxes, said, self.names, self.knowledge, rng, **options)


class Across(nn.Module):
    """A weight [D, D] that reads nothing of what tells words apart: of a region it may learn the place, not the boxes by heart.

    Args:
        axes: [K - 1, D], of unit length and at right angles, between the words.
    """

    def __init__(self, axes: torch.Tensor):
        super().__init__()
        self.register_buffer("axes", axes.clone(), persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight - weight @ self.axes.T @ self.axes


class Talking(nn.Module):
    """The loss of dialogues on frozen features and embeddings of regions; of the model's parts those that learn are its parameters.

    Args:
        seen: as in `Dialogues`. embeddings: [N, D] of the same boxes without their places, for each way.
        learns: parts of the model that learn beside the adapters.
        shared: a batch sees one picture, and what all its dialogues begin with is computed once for all, without gradients.
    """

    def __init__(self, model, seen: list[Features], embeddings: list[torch.Tensor], learns: dict, shared: bool):
        super().__init__()
        self.__dict__["model"] = model  # whole, but not saved with every checkpoint
        self.seen, self.embeddings, self.shared = seen, embeddings, shared
        self.places = [position_terms(model.region_encoder, each.boxes) for each in seen]
        for name, part in learns.items():
            setattr(self, name, part)
        self.adapters = nn.ParameterList(
            each for name, each in model.language_model.named_parameters() if "lora_" in name
        )

    def collate(self, items) -> dict:
        """Items of `Dialogues` -> arguments of `forward`."""
        model, encoded, regions, patches = self.model, [], [], []
        for record, way, things, places, said in items:
            ids = model.processor.encode_dialogue(said, len(things))
            encoded.append(ids)
            regions.append((self.embeddings[way][things] + self.places[way % 2][places])[ids.regions])
            patches.append(self.seen[way % 2].patches[record])
        batch = model.processor.pad(encoded, "right")
        return {
            "input_ids": batch["input_ids"],
            "labels": batch["labels"],
            "regions": regions,
            "patches": torch.stack(patches),
        }

    def forward(self, input_ids, labels, regions, patches) -> dict:
        model, start, cache = self.model, 0, None
        lm = model.language_model
        if self.shared:  # all rows begin alike: system, picture, and what all questions have in common
            others = (input_ids != input_ids[0]) | (input_ids == model.config.region_token_id)
            start = others.any(0).nonzero()[0].item()
            with torch.no_grad():
                images = model.projector(patches[:1].float())
                words = model.embed(input_ids[:1, :start], image_embeddings=images)
                known = lm.model(inputs_embeds=words, use_cache=True)[CACHE]
            cache = DynamicCache(config=lm.config)
            for i, layer in enumerate(known.layers):
                cache.update(*(each.expand(len(input_ids), -1, -1, -1) for each in (layer.keys, layer.values)), i)
            words = model.embed(input_ids[:, start:], region_embeddings=regions)
        else:
            words = model.embed(input_ids, image_embeddings=model.projector(patches.float()), region_embeddings=regions)
        states = lm.model(inputs_embeds=words, use_cache=cache is not None, **{CACHE: cache}).last_hidden_state
        targets = labels[:, start + 1 :]
        kept = targets != -100
        return {"loss": F.cross_entropy(lm.lm_head(states[:, :-1][kept]), targets[kept])}


@torch.no_grad()
def learn_knowledge(model, names: list[str], path: Path, batch: int = 20) -> dict:
    """What the language model itself answers about every category: kind of `KNOWLEDGE` -> name -> the first clause. Kept in `path`."""
    if path.is_file():
        return json.loads(path.read_text())
    processor, made = model.processor, {}
    for kind, question in KNOWLEDGE.items():
        made[kind] = {}
        for start in range(0, len(names), batch):
            some = names[start : start + batch]
            asked = [[{"role": "user", "content": question.format(a(name))}] for name in some]
            prompts = processor.pad([processor.encode_dialogue(each, 0, True, image=False) for each in asked], "left")
            ids, mask = prompts["input_ids"], prompts["attention_mask"]
            answers = model.language_model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=40, do_sample=False, eos_token_id=processor.stop_ids()[-1],
                pad_token_id=processor.tokenizer.pad_token_id,
            )  # fmt: skip
            for name, answer in zip(some, answers[:, ids.shape[1] :], strict=True):
                clause = first_clause(processor.decode_answer(answer))
                if clause:
                    made[kind][name] = clause
    path.write_text(json.dumps(made, indent=1) + "\n")
    return made


def first_clause(text: str, words: int = 6) -> str:
    """A text up to its first full stop or, after at least so many words, comma; nothing if it has neither."""
    for match in re.finditer(r"[.,](?=\s|$)", text):
        clause = text[: match.start()]
        if match.group() == "." or len(clause.split()) >= words:
            return clause + "."
    return ""


def train_photo(directory: Path, out: Path, recipe: PhotoRecipe, say=print):
    """The trained model; what `save_trained` keeps of it is then in `out`, after each stage. Goes on from what `out` holds.

    Args:
        directory: as `roilab.data.read("coco", ...)` takes it.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    fetch()
    torch.manual_seed(recipe.seed)
    model = presets.photo(device="cpu", dtype=torch.float32).requires_grad_(False)
    start = out / "start.safetensors"  # other versions of PyTorch draw other numbers
    if start.is_file():
        model.region_encoder.load_state_dict(load_file(start))
    else:
        save_file(model.region_encoder.state_dict(), start)
    records = data.read("coco", directory, "train")
    names = sorted({label for record in records for label in record.labels})
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        model.projector.weight.zero_()
        model.projector.bias.copy_(table.mean(0))
    seen = [
        features(model, records, way, out / f"{'mirrored' if way else 'plain'}.safetensors", say)
        for way in (False, True)
    ]
    knowledge = learn_knowledge(model, names, out / "knowledge.json")

    ids = [model.processor.tokenizer(" " + name, add_special_tokens=False).input_ids for name in names]
    words = torch.stack([table[each].mean(0) for each in ids])
    targets = torch.tensor([names.index(label) for record in records for label in record.labels])
    options = {"steps": recipe.word_steps, "seed": recipe.seed}
    kept = out / "embeddings.safetensors"
    encoder = model.region_encoder
    if kept.is_file():
        embeddings = list(load_file(kept).values())
    else:
        embeddings = unseen_embeddings(encoder.config, words, seen, targets, say=say, **options)
        save_file(dict(zip(("0 plain", "1 mirrored"), embeddings, strict=True)), kept)
    readout = Readout(encoder.config, words, seen[0])
    say(f"words: loss {fit_to_words(readout, words, seen, targets, **options):.3f}")
    readout.write(encoder)
    with torch.no_grad():
        embeddings += [readout(each.cells) for each in seen]
        said = [nearest(each, words, names) for each in embeddings]
        model.region_words.keys.copy_(words)
        model.region_words.values.copy_(words)
        model.region_words.sharpness.fill_(recipe.sharpness / spread(words))

    torch.manual_seed(recipe.seed)
    low_rank_adapters(model.language_model, recipe.rank, ADAPTED)
    projector, rest = model.projector, model.region_words.rest
    for stage, kind, learns in (
        ("stage1", "one", {}), ("stage2", "dialogue", {"projector": projector, "rest": rest}), ("stage3", "two", {"rest": rest}),
    ):  # fmt: skip
        steps, batch, lr = (getattr(recipe, f"{stage}_{name}") for name in ("steps", "batch", "lr"))
        for part in (projector, rest):
            part.requires_grad_(part in learns.values())
        if "rest" in learns:
            parametrize.register_parametrization(rest, "weight", Across(readout.axes[: len(names) - 1]))
        talking = Talking(model, seen, embeddings, learns, shared=kind != "dialogue")
        dialogues = Dialogues(records, seen, said, names, knowledge, kind, recipe.seed, steps * batch)
        model.to(default_device())
        training.run(
            talking, dialogues, talking.collate, out / stage, steps=steps, batch=batch, lr=lr, seed=recipe.seed,
            save_every=40, log_every=10,
        )  # fmt: skip
        model.to("cpu")
        if "rest" in learns:
            parametrize.remove_parametrizations(rest, "weight")
        save_trained(model, recipe, names, out / f"{stage}-{TRAINED}")
    return model


def nearest(embeddings: torch.Tensor, words: torch.Tensor, names: list[str]) -> list[str]:
    """Of each embedding [N, D] the name whose word [K, D] is nearest to it."""
    return [names[k] for k in torch.cdist(embeddings, words).argmin(1).tolist()]


def save_trained(model, recipe: PhotoRecipe, names: list[str], path: Path):
    """Everything in which the model differs from its backbones, float16: region encoder, region words, projector and `ADAPTERS`."""
    kept = {f"{part}.{name}": each for part in OWN for name, each in getattr(model, part).state_dict().items()}
    kept |= {
        ADAPTERS + name.replace(".default.weight", ""): each
        for name, each in model.language_model.named_parameters()
        if "lora_" in name
    }
    region = model.config.region_config
    kept[FLAT] = flat_weight(kept.pop(CONTENT), region.width, region.roi_size)
    told = {SETTINGS: json.dumps({"recipe": asdict(recipe), "names": names, "adapters_scale": 2})}
    save_file({name: each.detach().half().contiguous() for name, each in kept.items()}, path, metadata=told)


def main(argv) -> int:
    """`roilab train photo …`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="roilab train photo", description="The region encoder, projector and LoRA of the photo model."
    )
    parser.add_argument("stage", choices=["photo"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="COCO boxes and pictures")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("train-photo"),
        metavar="DIR",
        help="features, checkpoints, logs and the result",
    )
    recipe, arguments = parse(parser, PhotoRecipe, argv)
    train_photo(arguments["data"], arguments["out"], recipe)
    print(f"saved: {arguments['out'] / ('stage3-' + TRAINED)}")
    return 0
