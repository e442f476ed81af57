"""`roilab.tiny`: the truth that stage 0 learns from is the scenes' truth, and the whole run starts, stops and continues."""

import copy
import dataclasses
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import roilab
from roilab import scenes, training
from roilab.scenes import language
from roilab.tiny import align, dialogues, recall, sight, statements, train, truth, words
from roilab.tiny.recipe import TinyRecipe


def test_average_pool_by_hand():
    level = torch.arange(16.0).reshape(1, 1, 4, 4)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15
    whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5], [0.125, 0.0, 0.375, 0.25]]])
    got = sight.average_pool(level, whole, 1)[0, :, 0, 0]
    # all: 7.5; upper right quarter: (2 + 3 + 6 + 7) / 4; half of column 0 and half of column 1 of row 0: 0.5
    torch.testing.assert_close(got, torch.tensor([7.5, 4.5, 0.5]))
    quarters = sight.average_pool(level, whole[:, :1], 2)[0, 0, :, 0]
    torch.testing.assert_close(quarters, torch.tensor([2.5, 4.5, 10.5, 12.5]))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return sight.Pool(tmp_path_factory.mktemp("pool"), 24, 64, workers=1)


def test_pool_rows_are_the_training_scenes(pool):
    for index in range(len(pool)):
        scene = scenes.sample(index, held_out=False)
        boxes, labels = pool.boxes[index], pool.labels[index]
        used = (labels >= 0).any(-1)
        whole = [row for row in range(sight.SLOTS) if used[row] and labels[row, -1] == 0]
        assert len(whole) == len(scene.objects)
        for row, item in zip(whole, scene.objects):
            np.testing.assert_allclose(boxes[row] * scene.size, item.box, rtol=1e-5)
            for name, value in item.attributes.items():
                if name in sight.FACTS:
                    assert sight.FACTS[name][labels[row, list(sight.FACTS).index(name)]] == value
            np.testing.assert_allclose(pool.aims[index, row], sight.aims(scene, item), rtol=1e-5)
        assert not pool.aims[index, ~used].any()
        assert scenes.SETTINGS[pool.settings[index]] == scene.setting
    reopened = sight.Pool(_folder(pool), 24, 64)
    assert np.array_equal(reopened.images, pool.images)


def _folder(pool):
    return Path(pool.images.filename).parent


def test_training_batches_move_boxes_with_the_pixels(pool):
    """A white block painted over a box before collation lies under the box after flips and shifts."""

    class Marked:
        boxes, labels, aims, settings = pool.boxes, pool.labels, pool.aims, pool.settings
        images = np.zeros_like(pool.images)

    for row in range(len(pool)):
        x1, y1, x2, y2 = (pool.boxes[row, 0] * 64).round().astype(int)
        Marked.images[row, y1:y2, x1:x2] = 255
    torch.manual_seed(0)
    batch = sight.VisionBatch(Marked, [0.0] * 3, [1.0] * 3, grid=8, shift=3)(list(range(len(pool))))
    flipped = 0
    for row in range(len(pool)):
        x1, y1, x2, y2 = (batch["boxes"][row, 0] * 64).tolist()
        lit = batch["pixel_values"][row, 0].nonzero()
        found = [lit[:, 1].min().item(), lit[:, 0].min().item(), lit[:, 1].max().item() + 1, lit[:, 0].max().item() + 1]
        side = max(x2 - x1, y2 - y1)
        assert np.abs(np.subtract(found, [x1, y1, x2, y2])).max() <= 1.5 + 0.07 * side, (row, found, (x1, y1, x2, y2))
        facing = list(sight.FACTS).index("facing")
        turned = bool((batch["labels"][row, :, facing] != torch.from_numpy(pool.labels[row, :, facing]).long()).any())
        flipped += turned
        aims = torch.from_numpy(pool.aims[row]) * torch.tensor([1 - 2 * turned, 1, 1 - 2 * turned, 1])
        if (pool.labels[row, :, facing] >= 0).any():  # otherwise nobody is there whose aims could tell
            torch.testing.assert_close(batch["aims"][row], aims)
    assert 0 < flipped < len(pool)


def test_aims_lead_to_targets_and_to_what_is_looked_at():
    pointed = seen = 0
    for seed in range(40):
        scene = scenes.sample(seed)
        for item in scene.objects:
            ways = np.array(sight.aims(scene, item)) * scene.size
            if item.target is not None:
                np.testing.assert_allclose(ways[:2] + item.centre, scene.object(item.target).centre)
                pointed += 1
            else:
                assert not ways[:2].any()
            looked = [other for other in scene.objects if scene.holds("looking at", item.id, other.id) is True]
            if looked:
                np.testing.assert_allclose(ways[2:] + item.centre, looked[0].centre)
                seen += 1
            else:
                assert not ways[2:].any()
    assert pointed > 10 and seen > 10


def test_word_bags_hold_the_truth(model):
    bag = words.WordBag(48, model.processor.tokenizer)

    def read(ids):
        return model.processor.tokenizer.decode(ids)

    for seed in range(20):
        scene = scenes.sample(seed)
        rng = random.Random(seed)
        for question in language.questions(scene, rng, ["kind", "granularity"], 6):
            for slot in question.slots:
                first, second, role = bag.ids(scene, slot)
                things = sorted((scene.object(i) for i in slot.objects), key=lambda o: o.centre[0])
                if slot.part:
                    assert role == 1 and slot.part in read(first)
                elif len(things) > 2:
                    people = sum(o.is_person for o in things)
                    text = read(first) + read(second)
                    assert (
                        role == 3
                        and ("people" in text) == (people > 0)
                        and ("things" in text) == (people < len(things))
                    )
                else:
                    assert role == (2 if len(things) == 2 else 0)
                    for item, ids in zip(things, (first, second)):
                        assert all(value in read(ids) for value in (item.kind, item.colour))


def test_another_order_renumbers_words_boxes_and_slots_together():
    scene, moved = scenes.sample(3), 0
    for seed in range(10):
        rng = random.Random(seed)
        turns, boxes, slots = language.combine(language.questions(scene, rng, ["kind", "left_of", "vcr"], 6))
        order = rng.sample(range(len(boxes)), len(boxes))
        again, new_boxes, new_slots = dialogues.renumbered(turns, boxes, slots, order)
        assert new_boxes == [boxes[old] for old in order]
        for old, new in zip(turns, again, strict=True):
            pairs = list(
                zip(
                    re.findall(r"<region(\d+)>", old["content"]),
                    re.findall(r"<region(\d+)>", new["content"]),
                    strict=True,
                )
            )
            for one, two in pairs:
                assert (boxes[int(one) - 1], slots[int(one) - 1]) == (new_boxes[int(two) - 1], new_slots[int(two) - 1])
                moved += one != two
            assert re.sub(r"<region\d+>", "", old["content"]) == re.sub(r"<region\d+>", "", new["content"])
    assert moved > 20


def test_fit_content_reaches_bags_that_are_linear_in_the_content(model):
    """Words that truly are a linear map of what the encoder finds come out as embedding minus the place."""
    model = copy.deepcopy(model)
    encoder = model.region_encoder
    torch.manual_seed(0)
    secret = torch.randn(encoder.config.hidden_size, encoder.config.hidden_size)

    class Bag:
        @staticmethod
        def words(embedding, first, second, roles, aims):
            return first  # the test puts the wanted words here

        @staticmethod
        def tokens(word):
            return []

    reading = align.RegionReading(model, Bag)
    side = model.config.vision_config.image_size
    batches = []
    for _ in range(12):
        pixels, corner = torch.randn(2, 3, side, side), torch.rand(2, 5, 2) * 0.5
        boxes = list(torch.cat([corner, corner + 0.2 + 0.3 * torch.rand(2, 5, 2)], 2))
        with torch.no_grad():
            wanted = (
                reading.content(pixels, boxes) @ secret + 3
            ) @ encoder.output.weight.T  # what the output can reach
        batches.append(dict(pixel_values=pixels, boxes=boxes, bags=(wanted,) * 5))
    explained = align.fit_content(reading, batches)
    assert explained > 0.99
    last = batches[0]
    with torch.no_grad():
        features = model.encode_image(last["pixel_values"])
        found = torch.cat(encoder(features.levels, last["boxes"], features.grid))
        place = encoder.output(encoder.position(torch.cat(last["boxes"])))
    torch.testing.assert_close(found - place, last["bags"][0], atol=0.1 * last["bags"][0].std().item(), rtol=0)


def test_places_are_those_of_the_bag_at_hand_not_those_of_a_reading_kept_before(model, tmp_path, monkeypatch):
    """What `reading.pt` holds of places does not survive: they are fitted after it is read."""
    model = copy.deepcopy(model)
    bag = words.TextWarmup(model).bag
    kept = align.RegionReading(copy.deepcopy(model), bag)
    torch.nn.init.constant_(kept.region_encoder.position[0].weight, -3)
    (tmp_path / "alignment").mkdir()
    training.save_state(kept.state_dict(), tmp_path / "alignment" / "reading.pt")
    monkeypatch.setattr(align, "fit_position", lambda encoder, bag: encoder.position[0].weight.data.fill_(5).mean())
    monkeypatch.setattr(align, "alignment_batches", lambda *given: iter(()))
    monkeypatch.setattr(align, "fit_content", lambda *given: 1.0)
    align.align_regions(TinyRecipe(), model, align.AlignmentBatch(None, bag), tmp_path)
    assert (model.region_encoder.position[0].weight == 5).all()
    assert all(each.requires_grad for each in model.region_encoder.parameters())


def test_words_that_details_tell_weigh_more(model):
    """A material named wrongly costs `DETAILS` times what a colour named wrongly does."""
    tokenizer = roilab.load("tiny").processor.tokenizer
    bag = words.WordBag(8, tokenizer)
    weights = align.word_weights(bag, len(tokenizer))
    assert all((weights[bag.tokens(word)] == align.DETAILS["material"]).all() for word in scenes.MATERIALS)
    assert (weights[[token for word in scenes.COLOURS for token in bag.tokens(word)]] == 1).all()

    model = copy.deepcopy(model)
    reading = align.RegionReading(model, words.TextWarmup(model).bag)
    reading.weights[:] = 1
    reading.weights[7] = 4
    side, loss = model.config.vision_config.image_size, []
    for token in (7, 8):
        bags = (torch.tensor([[token]]), torch.tensor([[-1]]), torch.tensor([0]), torch.zeros(1, 4), torch.rand(1, 4))
        for parameter in (reading.first.weight, reading.first.bias):
            torch.nn.init.zeros_(parameter)
        reading.zero_grad()
        reading(torch.zeros(1, 3, side, side), [torch.tensor([[0.1, 0.1, 0.6, 0.6]])], bags)["loss"].backward()
        loss.append(reading.first.bias.grad[token].item())
    assert loss[0] == pytest.approx(4 * loss[1], rel=1e-4) and loss[1] < 0


def test_unlike_is_the_unexplained_share_of_the_variance():
    wanted = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    mean = wanted.mean(0).expand_as(wanted)
    assert align.unlike(wanted, wanted) == 0
    torch.testing.assert_close(align.unlike(mean, wanted), torch.tensor(1.0))
    torch.testing.assert_close(align.unlike((mean + wanted) / 2, wanted), torch.tensor(0.25))


def test_a_folder_keeps_to_its_recipe(tmp_path):
    train.keep_recipe(TinyRecipe(scenes=150), tmp_path / "recipe.json")
    train.keep_recipe(TinyRecipe(scenes=150), tmp_path / "recipe.json")
    with pytest.raises(ValueError, match="begun with another recipe .scenes 150 -> 36000.*choose another --out"):
        train.keep_recipe(TinyRecipe(), tmp_path / "recipe.json")


def test_the_text_warm_up_continues_from_its_checkpoint(model, tmp_path):
    warmup = words.TextWarmup(copy.deepcopy(model))
    data = dialogues.Batches(
        8, (dialogues.Portion(("kind", "statement"), 4, 2),), words.TextBatch(model.processor, warmup.bag)
    )
    for steps in (1, 2):
        training.run(
            warmup, data, words.first, tmp_path, steps=steps, batch=1, accumulate=data.per_step, lr=1e-3, save_every=1, log_every=1, muon=hasattr(torch.optim, "Muon"),
        )  # fmt: skip
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "loss" in entry] == [1, 2]


def test_a_fresh_model_looks_from_a_number_back_to_the_region_that_it_named(tmp_path):
    """The first layer's heads look back exactly; the match of numbers is one of random embeddings, so it holds on average alone."""
    blank = train.blank_model(TinyRecipe(), tmp_path)
    turns = [
        {"role": "user", "content": "There are <region4>, <region2> and <region7>. What is <region2>?"},
        {"role": "assistant", "content": "a car"},
        {"role": "user", "content": "What colour is <region7>?"},
    ]
    ids = blank.processor.encode_dialogue(turns, 7, add_generation_prompt=True, image=False).input_ids
    tokens = blank.processor.tokenizer.convert_ids_to_tokens(ids)
    boxes = {tokens[i - 2]: i for i, token in enumerate(tokens) if token == "<bbox>"}  # "4", " ", <bbox>
    assert list(boxes) == ["4", "2", "7"]
    asked = {i: token for i, token in enumerate(tokens) if token in boxes and i + 2 not in boxes.values()}
    assert list(asked.values()) == ["2", "7"]
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        model = type(blank)(blank.config).eval()
        recall.start_looking_back(model)
        model.language_model.set_attn_implementation("eager")
        with torch.no_grad():
            looks = model.language_model.model(torch.tensor([ids]), output_attentions=True).attentions
        for head, distance in enumerate((1, 2, 3)):  # whatever stands there
            assert (looks[0][0, head].diagonal(-distance) > 0.9).all()
        # the head of the second layer that goes with distance 2
        found += [looks[1][0, 1, position, boxes[number]].item() * position for position, number in asked.items()]
    assert sum(found) / len(found) > 3, found  # 1 is what evenly spread attention gives


def test_quiet_blocks_do_not_drown_the_words(tmp_path):
    model = train.blank_model(TinyRecipe(), tmp_path).eval()
    ids = torch.randint(300, 700, (4, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = model.language_model.model(ids, output_hidden_states=True).hidden_states
    lengths = [state.norm(dim=-1).mean() for state in states]
    assert lengths[-2] < 6 * lengths[0]
    for layer in model.language_model.model.layers[2:]:
        assert layer.mlp.down_proj.weight.std() < 2 * recall.QUIET * layer.mlp.up_proj.weight.std()


@pytest.mark.parametrize("by_letter", [True, False])
def test_every_option_is_judged_at_its_end(by_letter):
    """In training the label behind each option is its letter (or " yes"), or " no"; all other labels stay as they were."""
    import roilab

    model = roilab.load("tiny", device="cpu")
    tokenizer = model.processor.tokenizer
    texts = (" no", *("ABCD" if by_letter else [" yes"] * 4))
    no, *letters = (tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts)
    for seed in range(6):
        scene = scenes.sample(seed)
        found = language.questions(scene, random.Random(seed), ["vcr"])
        if not found:
            continue
        turns, boxes, _ = language.combine(found)
        plain = model.processor.encode_dialogue(turns, len(boxes))
        judged = copy.deepcopy(plain)
        dialogues.judge_options(judged, tokenizer, by_letter)
        assert judged.input_ids == plain.input_ids
        added = [i for i, (old, new) in enumerate(zip(plain.labels, judged.labels)) if old != new]
        assert len(added) == 8 and all(plain.labels[i] == -100 for i in added)
        for turn, ends in zip(turns[::2], (added[:4], added[4:])):
            options = re.split(r"\s*\([A-D]\) ", turn["content"])[1:]
            for option, end in zip(options, ends, strict=True):
                said = tokenizer.decode(plain.input_ids[:end])
                assert said.endswith(language.plain(option).split()[-1]), (said, option)
        verdicts = [judged.labels[i] for i in added]
        wanted = [
            token if letter == turn["content"].strip("()") else no
            for turn in turns[1::2]
            for letter, token in zip("ABCD", letters)
        ]
        assert verdicts == wanted


def test_the_fitted_projector_says_where_pictures_are(model, tmp_path):
    """On a tower whose patches show the setting as a colour, nearly all of it is told, on pictures that were left out too."""
    model = copy.deepcopy(model)
    bag = words.WordBag(model.config.text_config.hidden_size, model.processor.tokenizer)
    settings = torch.arange(60) % len(scenes.SETTINGS)

    class Pictures:
        class pool(list):
            pass

        @staticmethod
        def pixels(rows):
            side = model.config.vision_config.image_size
            return torch.stack([torch.full((3, side, side), float(settings[row]) - 1.5) for row in rows])

    Pictures.pool = Pictures.pool(range(60))
    Pictures.pool.settings = settings.tolist()
    before = model.projector.weight.clone()
    told = align.fit_projector(model, bag, Pictures, 60)
    assert told > 0.5 and not torch.equal(before, model.projector.weight)
    with torch.no_grad():
        said = model.projector(model.encode_image(Pictures.pixels(range(4))).patches).mean(1)
        meant = bag.picture(
            model.get_input_embeddings(), words.padded([bag.place_ids(name) for name in scenes.SETTINGS])
        )
    assert torch.cdist(said, meant).argmin(1).tolist() == [0, 1, 2, 3]


def test_every_step_has_batches_of_all_portions():
    portions = dialogues.Portion(("kind", "leftmost"), 9, 4), dialogues.Portion(("vcr",), 2)
    batches = dialogues.Batches(20, portions, list)
    assert batches.per_step == 5
    for _ in range(6):
        step = [batches[i] for i in range(5)]
        assert sorted(map(len, step)) == [2, 2, 2, 2, 3]
        rounds = [len(turns) for batch in step for _, _, (turns, _, _) in batch]
        assert rounds.count(4) == 2 and rounds.count(2) == 9  # scenes without a four-choice question are passed over
        single = [[dialogues._length(item) for item in batch] for batch in step if len(batch[0][2][0]) == 2]
        spans = sorted((min(lengths), max(lengths)) for lengths in single)
        assert all(one[1] <= two[0] for one, two in zip(spans, spans[1:]))


def test_families_that_few_scenes_offer_are_asked_as_often_as_others():
    data = dialogues.SceneDialogues(60, 1, ("kind", "same_colour"))
    torch.manual_seed(0)
    asked = [turns[0]["content"] for _, _, (turns, _, _) in (data[i % 60] for i in range(240))]
    assert 90 < sum("colour" in text for text in asked) < 150
    with pytest.raises(ValueError, match="none of 0 scenes offers a question of same_colour"):
        dialogues.SceneDialogues(0, 1, ("same_colour",))[0]


def _holds(item, said: str) -> bool:
    """Whether what `statements.statement` says of a region is so, found from its words alone."""
    values = {value for name, value in item.attributes.items() if value}
    said = said.removeprefix("<region1> ").removesuffix("?")
    if said == "has nothing on the head":
        return item.headgear == "none"
    return any(f" {value} " in f" {said} " for value in values)


def test_statements_are_true_half_of_the_time_and_say_so():
    answers = []
    for seed in range(300):
        scene = scenes.sample(seed)
        question = statements.statement(scene, random.Random(seed))
        item = scene.object(question.slots[0].objects[0])
        assert question.boxes == (item.box,) and question.answer == ("yes" if _holds(item, question.text) else "no")
        answers.append(question.answer)
    assert 120 < answers.count("yes") < 180


def test_single_options_are_judged_as_the_labels_have_it():
    answers, kinds = [], set()
    for seed in range(200):
        scene = scenes.sample(seed)
        question = statements.option(scene, random.Random(seed))
        whole = language.questions(scene, random.Random(seed), ["vcr"])
        if question is None:
            assert not whole
            continue
        asked = whole[0].choices
        part = "rationales" if question.text.startswith("Answer: ") else "answers"
        right = asked[part][asked[part[:-1] + "_label"]]
        said = next(text for text in asked[part] if question.text.endswith(f" {text}?"))
        assert question.answer == ("yes" if said == right else "no") and question.boxes == whole[0].boxes
        answers.append(question.answer)
        kinds.add(part)
    assert len(kinds) == 2 and 0.4 < answers.count("yes") / len(answers) < 0.6


def test_answers_from_truth_are_read_off_the_bags(model, monkeypatch):
    """Regions reach the model as their word bags, in the order of the prompt, and each family is scored by its own answers."""
    warmup = words.TextWarmup(copy.deepcopy(model))
    torch.manual_seed(0)
    torch.nn.init.normal_(warmup.bag.box.weight)
    asked = []

    def answer_all(model, reader, rows):
        inputs = reader.inputs(rows)
        slots = (inputs["input_ids"] == model.config.region_token_id).sum(1).tolist()
        assert slots == [len(each) for each in inputs["region_embeddings"]]
        for (index, turns, pairs), given in zip(rows, inputs["region_embeddings"]):
            scene = reader.scenes[index]
            for number, embedding in zip(language.mentions(turns[-1]["content"]), given):
                slot, box = pairs[number - 1]
                row = words.bag_tensors([warmup.bag.row(scene, slot, [v / scene.size for v in box])])
                torch.testing.assert_close(embedding, warmup.bag(model.get_input_embeddings(), *row)[0])
        asked.append(len(rows))
        return ["red" if "colour" in turns[-1]["content"] else "yes" for _, turns, _ in rows]

    monkeypatch.setattr(truth, "answer_all", answer_all)
    shares = truth.answers_from_truth(warmup, model.processor, 12)
    assert set(shares) == {"Q->A", "Q->AR", *statements.JUDGING, *language.FAMILIES} - {"vcr", *words.BLIND}
    assert (
        asked and 0.2 < shares["statement"] < 0.8 and shares["kind"] == 0 and all(0 <= v <= 1 for v in shares.values())
    )


@pytest.mark.parametrize("listed", [0.0, 1.0])
def test_listed_dialogues_show_every_region_before_the_first_question(listed):
    data = dialogues.SceneDialogues(8, 60, words.READING, 1.0, listed)
    for index in range(8):
        _, scene, (turns, boxes, slots) = data[index]
        assert len(boxes) == len(slots) > 0
        first = re.match(r"There (?:is|are) (.*?)\. ", turns[0]["content"])
        assert bool(first) == bool(listed)
        if first:
            assert sorted(map(int, re.findall(r"<region(\d+)>", first[1]))) == list(range(1, len(boxes) + 1))
        for box, slot in zip(boxes, slots):
            if len(slot.objects) == 1 and not slot.part:
                assert box == scene.object(slot.objects[0]).box


@pytest.mark.parametrize("knows", [True, False])
def test_the_alignment_is_probed_with_the_words_of_every_object(model, knows):
    """Heads that hold the true words for the most probable read everything right, heads that hold the others read nothing."""
    bag = words.WordBag(model.config.text_config.hidden_size, model.processor.tokenizer)
    world = [scenes.sample(language.seed_of("val", i), held_out=False) for i in range(12)]
    objects = [item for scene in world for item in scene.objects]

    class Heads:
        class first:
            weight = torch.zeros(1)

            def __new__(cls, numbers):
                scores = torch.zeros(len(numbers), model.config.text_config.vocab_size)
                for row, number in zip(scores, numbers):
                    item = objects[number]
                    for value in (*item.attributes.values(), item.facing):
                        row[bag.tokens(value) if value else []] = 1.0 if knows else -1.0
                return scores

        @staticmethod
        def content(pixels, boxes):
            assert len(pixels) == len(boxes) == 12
            assert torch.allclose(torch.cat(boxes), torch.tensor([o.box for o in objects]) / world[0].size)
            return list(range(len(objects)))

    shares = align.probe(Heads, bag, model.processor, 12)
    assert {"kind", "colour", "material", "action", "facing"} <= set(shares) and "part" not in shares
    # Of a small vocabulary some words share pieces, so that a few are as probable as the true one.
    assert all(share > 0.8 if knows else share < 0.1 for share in shares.values()), shares


def test_the_finished_parts_are_those_of_the_shipped_model():
    """`training/tiny` is what `roilab train ablation` begins with: by the recipe of today, and the tower that is shipped."""
    import roilab

    folder = Path(__file__).resolve().parent.parent / "training" / "tiny"
    recipe = TinyRecipe()
    assert json.loads((folder / "recipe.json").read_text()) == dataclasses.asdict(recipe)
    model = train.blank_model(recipe, folder)
    vision = sight.VisionPretraining(sight.vision_tower(recipe))
    vision.load_state_dict(torch.load(folder / "vision" / "vision.pt", weights_only=True))
    shipped = roilab.load("tiny", device="cpu")
    for name, value in shipped.vision.state_dict().items():
        assert torch.equal(value, vision.tower.state_dict()[name]), name
    state = torch.load(folder / "text" / f"{list(words.CURRICULUM)[-1]}.pt", weights_only=True)
    found = words.TextWarmup(model).load_state_dict(state, strict=False)
    assert not found.unexpected_keys and all("lm_head" in key for key in found.missing_keys)
    assert shipped.processor.tokenizer.get_vocab() == model.processor.tokenizer.get_vocab()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="the recipe needs torch.optim.Muon, which came with torch 2.9"
)
def test_the_whole_run_from_nothing_and_again(tmp_path, capsys, monkeypatch):
    import roilab
    from roilab.cli import main

    options = [
        "train",
        "tiny",
        "--out",
        str(tmp_path / "run"),
        "--scenes",
        "150",
        "--vision-batch",
        "8",
        "--batch",
        "4",
        "--text-share",
        "0.001",
    ]
    parts = ["vision", "alignment", "stage1", "stage2"]
    for name in parts:
        options += [f"--{name}-steps", "2"]
    assert main(options) == 0
    model = roilab.load(tmp_path / "run" / "model", device="cpu")
    logs = sorted(p.name for p in (tmp_path / "run" / "model").glob("log_*.jsonl"))
    assert logs == sorted(f"log_{name}.jsonl" for name in [*parts, *(f"text_{phase}" for phase in words.CURRICULUM)])
    scene = scenes.sample(1)
    chat = roilab.Chat(model, scene.image, max_new_tokens=4)
    first = chat.ask("What is <region1>?", regions=[scene.objects[0].box])
    monkeypatch.setattr("roilab.training.run", lambda *a, **k: pytest.fail("a finished stage was trained again"))
    assert main(options) == 0
    again = roilab.load(tmp_path / "run" / "model", device="cpu")
    assert (
        roilab.Chat(again, scene.image, max_new_tokens=4).ask("What is <region1>?", regions=[scene.objects[0].box]).text
        == first.text
    )
    monkeypatch.undo()
    _ablation_of(tmp_path, capsys)


def _ablation_of(tmp_path, capsys):
    """Two arms from that run's stage 0; a second call reads what the first one did."""
    from roilab.cli import main

    options = [
        "train",
        "ablation",
        "--source",
        str(tmp_path / "run"),
        "--out",
        str(tmp_path / "ablation"),
        "--scenes",
        "4",
        "--batch",
        "2",
    ]
    options += [
        "--arms",
        "text coordinates",
        "swaps 1 and 2",
        "no box embedding",
        "--json",
        str(tmp_path / "results.json"),
    ]
    options += ["--finished", str(tmp_path / "run" / "model")]
    for name in ("reading", "stage1", "stage2", "defect", "drill"):
        options += [f"--{name}-steps", "2"]
    tables = []
    for _ in range(2):
        assert main(options) == 0
        tables.append(capsys.readouterr().out.split("| arm |")[1])
    results = json.loads((tmp_path / "results.json").read_text())
    ran = sorted((each["arm"], each["training_seed"]) for each in results)
    assert ran == [("no box embedding", 0), ("swaps 1 and 2", 0), *(("text coordinates", seed) for seed in range(3))]
    assert tables[0] == tables[1] and "| text coordinates | 3 |" in tables[0]
    for name, seed in ran:
        assert (tmp_path / "ablation" / f"{name.replace(' ', '-')}-{seed}" / "model" / "model.safetensors").exists()
