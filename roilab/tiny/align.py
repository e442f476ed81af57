"""The region encoder learns, without the language model, to say in its words what a box shows.

Stage 0 taught the language model to read word bags (`words.WordBag`). Here the region encoder first learns which words each box's
bag holds; the linear map from what it found to the bag's embedding then has a closed form. Stage 1 goes on from there.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .. import scenes, training
from ..scenes import language
from ..training.centring import centred
from .dialogues import SceneDialogues
from .sight import AIMS, FACTS
from .words import bag_tensors, padded

BOXES = ("kind", *("granularity",) * 4, *("pointing",) * 2, "looking", "holding")
"""Families whose regions are learned from: whole objects, their parts, pairs and groups, and who is directed at something."""
LIKENESS = 40.0
"""Weight of how unlike the bag the embedding is, beside the losses of single words: content has to be words in sum, not only to tell them."""
DETAILS = {"material": 4.0, "mood": 2.0, "action": 2.0, "headgear": 2.0, "facing": 2.0}
"""Weight of the words of facts that a few pixels tell, a highlight or a mouth; of all other words it is 1."""


class RegionReading(nn.Module):
    """Region encoder with heads that name the words in a region's bag, its role and its aims, and one that sums them as the bag does.

    Only the encoder is kept, and what the last head says comes back in closed form (`fit_content`).
    """

    def __init__(self, model, bag):
        super().__init__()
        self.region_encoder = model.region_encoder
        self.beside = model.encode_image, bag, model.get_input_embeddings()  # no submodules: neither trained nor saved
        hidden, vocabulary = model.config.region_config.hidden_size, model.config.text_config.vocab_size
        self.first, self.second = nn.Linear(hidden, vocabulary), nn.Linear(hidden, vocabulary)
        self.role, self.aim = nn.Linear(hidden, 4), nn.Linear(hidden, AIMS)
        self.words = nn.Linear(hidden, model.config.region_config.output_size)
        self.register_buffer("weights", word_weights(bag, vocabulary), persistent=False)

    def content(self, pixel_values, boxes):
        """What the encoder finds in the boxes of all pictures: [N, hidden_size]."""
        encoder = self.region_encoder
        with torch.no_grad():
            features = self.beside[0](pixel_values)
        return encoder.content(encoder.cells(encoder.fuse(features.levels, features.grid), boxes).flatten(1))

    @torch.no_grad()
    def wanted(self, bags):
        """The bags' words as the language model has learned to read them: [N, D]."""
        _, bag, embedding = self.beside
        return bag.words(embedding, *bags[:4])

    def forward(self, pixel_values, boxes, bags):
        first, second, roles, aims, _ = bags
        content = self.content(pixel_values, boxes)
        missed, directed = (self.aim(content).float() - aims).abs().mean(1), aims.any(1)
        losses = [F.cross_entropy(self.role(content).float(), roles)]
        losses += [10 * missed[rows].sum() / rows.sum().clamp_min(1) for rows in (directed, ~directed)]
        for head, ids in ((self.first, first), (self.second, second)):
            known, ids = ids >= 0, ids.clamp_min(0)
            chance = head(content).float().log_softmax(-1).gather(1, ids)
            losses.append(-(chance * known * self.weights[ids]).sum() / known.sum().clamp_min(1))
        losses.append(LIKENESS * unlike(self.words(content).float(), self.wanted(bags).float()))
        return {"loss": sum(losses)}


def word_weights(bag, vocabulary: int):
    """How much telling each token counts, by `DETAILS`: [vocabulary]."""
    weights = torch.ones(vocabulary)
    for fact, weight in DETAILS.items():
        weights[[token for word in FACTS[fact] if word != "none" for token in bag.tokens(word)]] = weight
    return weights


def unlike(found, wanted):
    """The share of the variance of `wanted` [N, D] that `found` leaves unexplained."""
    return (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()


class AlignmentBatch:
    """Collates dialogues for `RegionReading`: every region of every dialogue with its word bag; `order` may exchange a dialogue's boxes."""

    def __init__(self, pictures, bag, order=lambda boxes: boxes):
        self.pictures, self.bag, self.order = pictures, bag, order

    def __call__(self, items):
        boxes, rows = [], []
        for _, scene, (_, regions, slots) in items:
            boxes.append(self.pictures.jittered(torch.tensor(regions).reshape(-1, 4) / scene.size))
            rows += [self.bag.row(scene, slot, box.tolist()) for slot, box in zip(slots, boxes[-1])]
            boxes[-1] = self.order(boxes[-1])
        return dict(pixel_values=self.pictures.pixels([i for i, _, _ in items]), boxes=boxes, bags=bag_tensors(rows))


def fit_position(encoder, bag, steps: int = 3000, count: int = 256, lr: float = 5e-3) -> float:
    """Sets `position` and `output` so that a box alone gives the word bag's embedding of its place.

    Returns:
        The share of the places' variance that is explained on fresh random boxes.
    """
    optimizer = torch.optim.Adam([*encoder.position.parameters(), *encoder.output.parameters()], lr=lr)
    device = encoder.output.weight.device
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        boxes = random_boxes(count).to(device)
        loss = F.mse_loss(encoder.output(encoder.position(boxes)), bag.place(boxes).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    boxes = random_boxes(4 * count).to(device)
    with torch.no_grad():
        return 1 - unlike(encoder.output(encoder.position(boxes)), bag.place(boxes)).item()


def random_boxes(count: int):
    """[count, 4] boxes of any shape and place, normalised xyxy."""
    extent = 0.05 + 0.95 * torch.rand(count, 2) ** 2
    corner = torch.rand(count, 2) * (1 - extent)
    return torch.cat([corner, corner + extent], 1)


@torch.no_grad()
def fit_content(reading: RegionReading, batches) -> float:
    """Ridge regression: sets `content` of the region encoder so that embeddings are word bags as nearly as a linear map can.

    Args:
        batches: what `AlignmentBatch` collates; every third one only measures.
    Returns:
        The share of the bags' variance that is explained on the batches that were left out.
    """
    encoder = reading.region_encoder
    device = encoder.output.weight.device
    found, wanted = [], []
    for batch in batches:
        content = reading.content(batch["pixel_values"].to(device), [each.to(device) for each in batch["boxes"]])
        found.append(F.pad(content, (0, 1), value=1.0).double())
        wanted.append(reading.wanted([each.to(device) for each in batch["bags"]]).double())
    fitted, target = (
        torch.cat([x for i, x in enumerate(found) if i % 3]),
        torch.cat([x for i, x in enumerate(wanted) if i % 3]),
    )
    solution = _ridge(fitted, target)  # [hidden_size + 1, D]
    # Embeddings are output(content + position): content has to reach the words through the output that positions use.
    back = torch.linalg.pinv(encoder.output.weight.double()) @ solution.T  # [hidden_size, hidden_size + 1]
    left, aim = torch.cat(found[::3]) @ back.T @ encoder.output.weight.double().T, torch.cat(wanted[::3])
    content = encoder.content
    content.bias.copy_(back[:, :-1] @ content.bias.double() + back[:, -1])
    content.weight.copy_(back[:, :-1] @ content.weight.double())
    return 1 - unlike(left, aim).item()


def _ridge(features, target):
    gram = features.T @ features
    gram.diagonal().add_(1e-4 * gram.diagonal().mean())
    return torch.linalg.solve(gram, features.T @ target)


@torch.no_grad()
def fit_projector(model, bag, pictures, count: int = 1200) -> float:
    """Sets `model.projector` so that every patch says where this is, as the picture of the text warm-up did; see `fit_patches`.

    Args:
        bag: the word bag that the language model has learned to read.
    """

    def wanted(rows):
        ids = padded([bag.place_ids(scenes.SETTINGS[pictures.pool.settings[row]]) for row in rows])
        return bag.picture(model.get_input_embeddings(), ids.to(model.device))[:, None]

    return fit_patches(model, pictures, wanted, count)


@torch.no_grad()
def fit_patches(model, pictures, wanted, count: int) -> float:
    """Ridge regression: sets `model.projector` so that patches become given embeddings as nearly as a linear map can.

    Args:
        pictures: a `train.SceneBatch`; `count` pictures of its pool are used, of which every third one only measures.
        wanted: pool rows -> embeddings [rows, P or 1, D].
    Returns:
        The share of the variance that is explained on the pictures that were left out.
    """
    rows = range(min(count, len(pictures.pool)))
    parts = [rows[start : start + 100] for start in range(0, len(rows), 100)]
    patches = torch.cat([model.encode_image(pictures.pixels(part)).patches for part in parts])
    features = F.pad(patches, (0, 1), value=1.0).double()
    target = torch.cat([wanted(part).double().expand(-1, features.shape[1], -1) for part in parts])
    kept = torch.arange(len(rows), device=features.device) % 3 > 0
    solution = _ridge(features[kept].flatten(0, 1), target[kept].flatten(0, 1))
    model.projector.weight.copy_(solution[:-1].T)
    model.projector.bias.copy_(solution[-1])
    left, aim = features[~kept] @ solution, target[~kept]
    return 1 - unlike(left.flatten(0, 1), aim.flatten(0, 1)).item()


def read_regions(recipe, model, collate: AlignmentBatch, out: Path, **options) -> RegionReading:
    """Teaches `model.region_encoder` which words each box's bag holds.

    Args:
        options: for `training.run`.
    """
    done = out / "alignment" / "reading.pt"
    reading = RegionReading(model, collate.bag).to(model.device)
    if done.exists():
        reading.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"))
        return reading.eval()
    training.set_trainable(model, "stage1")
    for kept in (model.region_encoder.position, model.region_encoder.output):
        kept.requires_grad_(False)
    with centred(model.region_encoder):
        training.run(
            reading, SceneDialogues(recipe.scenes, 250, BOXES), collate, out / "alignment", steps=recipe.alignment_steps,
            batch=recipe.alignment_batch, lr=recipe.alignment_lr, weight_decay=0.01, bf16=True, log_every=25, muon=True,
            adam_lr=recipe.alignment_lr / 2, **options,
        )  # fmt: skip
    training.save_state(reading.state_dict(), done)
    shares = probe(reading.eval(), collate.bag, model.processor)
    print(
        "alignment, words read off unseen objects: "
        + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    )
    return reading


@torch.no_grad()
def probe(reading: RegionReading, bag, processor, count: int = 100) -> dict[str, float]:
    """Share of the objects of `count` validation scenes of whose words for a fact the head finds the true one most probable, by fact."""
    world = [scenes.sample(language.seed_of("val", i), held_out=False) for i in range(count)]
    boxes = [torch.tensor([item.box for item in scene.objects]) / scene.size for scene in world]
    pixels = processor.preprocess([scene.image for scene in world]).to(reading.first.weight.device)
    scores = reading.first(reading.content(pixels, [each.to(pixels.device) for each in boxes])).cpu()
    objects, shares = [item for scene in world for item in scene.objects], {}
    for name, values in FACTS.items():
        words = [value for value in values if value != "none"]  # no hat is no word
        truth = [item.facing if name == "facing" else item.attributes.get(name) for item in objects]
        known = [i for i, value in enumerate(truth) if value in words]
        if known:
            by_word = torch.stack([scores[known][:, bag.tokens(word)].mean(1) for word in words], 1)
            shares[name] = sum(words[k] == truth[i] for i, k in zip(known, by_word.argmax(1).tolist())) / len(known)
    return shares


def align_regions(recipe, model, collate: AlignmentBatch, out: Path, fitted: int = 1800, **options):
    """Trains `model.region_encoder` in place to speak the word bag's language.

    Args:
        recipe: a `TinyRecipe`.
        out: folder for checkpoints, log, the finished `alignment.pt` and, with its heads and before the last fit, `reading.pt`.
        fitted: dialogues from which `fit_content` learns.
        options: for `training.run`.
    """
    done = out / "alignment" / "alignment.pt"
    if done.exists():
        model.region_encoder.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"))
        return
    reading = read_regions(recipe, model, collate, out, **options)
    model.region_encoder.requires_grad_(True)
    placed = fit_position(model.region_encoder, collate.bag)
    explained = fit_content(reading, alignment_batches(recipe, collate, fitted))
    print(f"alignment reached {placed:.2%} of the variance of places and {explained:.2%} of the variance of words")
    training.save_state(model.region_encoder.state_dict(), done)


def alignment_batches(recipe, collate: AlignmentBatch, count: int):
    """What `fit_content` learns from: batches of the first `count` dialogues."""
    data = SceneDialogues(recipe.scenes, 250, BOXES)
    count = min(count, len(data))
    return (collate([data[i] for i in range(start, min(start + 30, count))]) for start in range(0, count, 30))
