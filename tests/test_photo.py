"""The photo model's parts on small random models: what its dialogues say is true, what it learns is what the region encoder then computes."""

import json
import random
import re

import pytest
import torch
from conftest import REGION
from PIL import Image
from test_backbones import TIMM, built

import roilab
from roilab import data
from roilab.cli import main
from roilab.evaluation import evaluate_classes
from roilab.photo import evaluation, questions
from roilab.photo.features import content_weight, features, flat_weight
from roilab.photo.putting_together import merge
from roilab.photo.questions import CATEGORIES, KINDS, Asker, a, named, plural, turns
from roilab.photo.readout import Readout, fit_to_words, unseen_embeddings
from roilab.photo.train import Dialogues, Talking, first_clause, learn_knowledge, nearest

NAMES = ["car", "dog", "kite"]


@pytest.fixture
def model(monkeypatch):
    for name, value in {"focal_size": 32, "focal_width": 6, "focal_contexts": [1, 2], "words": 3}.items():
        monkeypatch.setitem(REGION, name, value)
    return built(TIMM, image_size=64).requires_grad_(False)


@pytest.fixture
def folder(tmp_path):
    """Ten pictures with two boxes each in one file, as `roilab train photo` takes them."""
    (tmp_path / "images").mkdir()
    pictures, boxes = [], []
    rng = random.Random(0)
    for number in range(1, 11):
        colours = Image.frombytes("RGB", (6, 4), rng.randbytes(72)).resize((60, 40))
        colours.save(tmp_path / "images" / f"{number}.png")
        pictures.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
        for box in ([2, 2, 20, 30], [30, 5, 25, 20]):
            kind = rng.randrange(3)
            boxes.append(
                {
                    "id": len(boxes),
                    "image_id": number,
                    "category_id": kind,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    kinds = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    (tmp_path / "instances.json").write_text(
        json.dumps({"images": pictures, "annotations": boxes, "categories": kinds})
    )
    return tmp_path


def test_of_one_file_every_fifth_picture_is_kept_aside(folder, tmp_path):
    known, kept = (data.read("coco", folder, split, cache=tmp_path / "cache") for split in ("train", "val"))
    assert [record.id for record in kept] == ["coco-5", "coco-10"] and len(known) == 8
    assert kept.picture(0).size == (60, 40)


# Questions


def rounds_of(kind: str, count: int = 200):
    """What an `Asker` says of one kind of round, with its boxes and labels."""
    for seed in range(count):
        rng = random.Random(seed)
        labels = [rng.choice(CATEGORIES) for _ in range(4)]
        labels[1] = rng.choice([labels[0], labels[1]])
        boxes = []
        for _ in labels:
            x, y = rng.random() * 0.7, rng.random() * 0.7
            boxes.append([x, y, x + 0.05 + rng.random() * 0.25, y + 0.05 + rng.random() * 0.25])
        asker = Asker(boxes, labels, CATEGORIES, {}, rng)
        made = getattr(asker, kind)(
            *([0, 1, 2, 3] if kind in ("which", "count") else [2, 0] if kind not in ("judge", "judge_kind") else [2])
        )
        if made:
            yield *made, boxes, labels


def test_yes_and_no_are_true():
    said = set()
    for question, answer, _, labels in rounds_of("judge"):
        right = "yes" if question == f"Is <region3> {a(labels[2])}?" else "no"
        assert answer == f"It is {a(labels[2])}, so {right}."
        said.add(right)
    for question, answer, _, labels in rounds_of("judge_kind"):
        kind = question.removeprefix("Is <region3> ").rstrip("?")
        assert answer == f"It is {a(labels[2])}, so {'yes' if labels[2] in KINDS[kind] else 'no'}."
    for question, answer, _, labels in rounds_of("both"):
        kind = next(kind for kind, words in questions.ALL_OF.items() if question.endswith(f"both {words}?"))
        right = "yes" if labels[2] in KINDS[kind] and labels[0] in KINDS[kind] else "no"
        assert answer == f"<region3> is {a(labels[2])}, <region1> is {a(labels[0])}, so {right}."
    assert said == {"yes", "no"}


def test_places_and_sizes_are_true():
    kinds = set()
    for question, answer, boxes, _ in rounds_of("beside"):
        (x1, y1), (x2, y2) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (boxes[2], boxes[0]))
        truth = {"left of": x1 < x2, "right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}
        asked = question.removeprefix("Is <region3> ").removesuffix(" <region1>?")
        edge, one, two = ("left", x1, x2) if asked in ("left of", "right of") else ("top", y1, y2)
        found = re.fullmatch(rf"<region3> is (\d+) % from the {edge}, <region1> (\d+) %, so (yes|no)\.", answer)
        assert [int(each) for each in found.groups()[:2]] == pytest.approx([100 * one, 100 * two], abs=2.51)
        assert (found[3] == "yes") == truth[asked] and found[1] != found[2]
        kinds.add((asked, found[3]))
    assert len(kinds) == 8
    for _, answer, boxes, _ in rounds_of("larger"):
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
        found = re.fullmatch(r"<region3> covers (\d+) %, <region1> (\d+) %, so <region(\d)>\.", answer)
        assert int(found[3]) == (3 if areas[2] > areas[0] else 1) == (3 if int(found[1]) > int(found[2]) else 1)
        for told, area in zip(found.groups(), (areas[2], areas[0])):
            assert area < 0.015 if told == "1" else 0.7 < 100 * area / int(told) < 1.5


def test_counts_and_choices_are_true():
    def each_of(labels):
        return ", ".join(f"<region{i}> is {a(label)}" for i, label in enumerate(labels, 1))

    for question, answer, _, labels in rounds_of("count"):
        name = next(name for name in CATEGORIES if question.endswith(f" are {plural(name)}?"))
        assert answer == f"{each_of(labels)}, so {('none', 'one', 'two', 'three', 'four')[labels.count(name)]}."
    for question, answer, _, labels in rounds_of("which"):
        name = next(name for name in CATEGORIES if question.endswith(f" is {a(name)}?"))
        assert labels.count(name) == 1 and answer == f"{each_of(labels)}, so <region{labels.index(name) + 1}>."


def test_names_as_they_are_said():
    assert [named(each) for each in ("cat", "umbrella", "scissors")] == ["A cat.", "An umbrella.", "Scissors."]
    assert [plural(each) for each in ("person", "wine glass", "couch", "mouse", "sheep")] == [
        "people",
        "wine glasses",
        "couches",
        "mice",
        "sheep",
    ]
    assert len(CATEGORIES) == 80 and set().union(*KINDS.values()) < set(CATEGORIES)
    assert (
        first_clause("A toaster is an appliance used to toast bread, which is")
        == "A toaster is an appliance used to toast bread."
    )
    assert first_clause("Dogs, cats and birds are animals. They") == "Dogs, cats and birds are animals."
    assert first_clause("It never came to an end") == ""


# Learning


def test_the_region_encoder_computes_what_the_read_out_learned(model, folder, tmp_path):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    seen = [features(model, records, way, tmp_path / f"{way}.safetensors") for way in (False, True)]
    assert torch.equal(
        features(None, None, False, tmp_path / "False.safetensors").cells, seen[0].cells
    )  # read, not computed
    encoder, words = model.region_encoder, torch.randn(3, model.region_encoder.config.output_size)
    readout = Readout(encoder.config, words, seen[0])
    targets = torch.tensor([NAMES.index(label) for record in records for label in record.labels])
    loss = fit_to_words(readout, words, seen, targets, steps=60, batch=32)
    readout.write(encoder)
    with torch.no_grad():
        found = readout(seen[0].cells)
        record = records[2]
        fused = model.fuse(model.encode_image(model.processor.preprocess(records.picture(2))))
        boxes = torch.tensor(record.boxes) / torch.tensor([60, 40, 60, 40])
        wanted = encoder.pool(fused, [boxes])[0]
        place = encoder.position(boxes) @ encoder.output.weight.T
    torch.testing.assert_close(
        found[seen[0].of(2)], wanted - place, rtol=2e-2, atol=2e-2
    )  # features are kept in float16
    between = words - words.mean(0)
    assert (place @ between.T).abs().max() < 1e-3 < place.norm(dim=1).min()  # the place tells no words apart
    assert not torch.allclose(place[0], place[1], atol=1e-2)
    inside = torch.linalg.lstsq(between.T, (found - words.mean(0)).T).solution
    torch.testing.assert_close(between.T @ inside, (found - words.mean(0)).T, rtol=1e-3, atol=1e-3)
    right = torch.cdist(found, words).argmin(1) == targets
    assert right.float().mean() > 0.8 and loss < 1.5
    said = []
    unseen = unseen_embeddings(encoder.config, words, seen, targets, steps=10, batch=32, say=said.append)
    assert [each.shape for each in unseen] == [found.shape] * 2 and unseen[0].norm(dim=1).min() > 0
    assert not torch.allclose(unseen[0], found, atol=0.1) and "% of the training boxes" in said[0]
    with pytest.raises(ValueError, match="hidden_size is .*: 80 tell 81 words apart"):
        Readout(encoder.config, torch.randn(81, words.shape[1]), seen[0]).write(encoder)


def test_flat_weights_come_back_and_others_are_refused():
    flat = torch.randn(5, 3 * 4 + 7)
    weight = content_weight(flat, 3, 2)
    assert weight.shape == (5, (3 + 7) * 4)
    torch.testing.assert_close(flat_weight(weight, 3, 2), flat)
    weight[0, -1] += 1
    with pytest.raises(ValueError, match="differ from cell to cell"):
        flat_weight(weight, 3, 2)


def test_dialogues_give_a_loss_and_the_shared_beginning_changes_nothing(model, folder, tmp_path):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    seen = [features(model, records, way, tmp_path / f"{way}.safetensors") for way in (False, True)]
    width = model.region_encoder.config.output_size
    embeddings = [torch.randn(len(each.boxes), width) for each in seen * 2]
    words = torch.randn(len(NAMES), width)
    said = [nearest(each, words, NAMES) for each in embeddings]
    model.projector.weight.zero_()
    losses = {}
    for kind in ("one", "dialogue", "two"):
        dialogues = Dialogues(records, seen, said, NAMES, {}, kind, 0, 6)
        assert dialogues[3] == dialogues[3] and dialogues[3] != dialogues[4]
        items = [dialogues[i] for i in range(6)]
        if kind == "one":
            for record, way, [box], places, [_, answer] in items:  # called what the embedding says, not what it is
                assert answer["content"] == named(NAMES[(words - embeddings[way][box]).norm(dim=1).argmin()])
                assert places == [box] and box in range(*seen[0].of(record).indices(len(seen[0].boxes)))
        for shared in (True, False):
            learns = {"rest": torch.nn.Linear(2, 2)} if kind == "two" else {}
            talking = Talking(model, seen, embeddings, learns, shared)
            losses[kind, shared] = talking(**talking.collate(items))["loss"]
        assert {name.split(".")[0] for name, _ in talking.named_parameters()} == set(learns)
        torch.testing.assert_close(losses[kind, True], losses[kind, False], rtol=1e-4, atol=1e-5)
        assert losses[kind, False].isfinite() and len(items[0][2]) == (1 if kind == "one" else 2)
    ids = model.processor.encode_dialogue(items[0][4], 2)
    assert -100 in ids.labels and len(set(ids.labels)) > 3


def test_two_things_at_places_of_others(model, folder, tmp_path):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    seen = [features(model, records, way, tmp_path / f"{way}.safetensors") for way in (False, True)]
    embeddings = [torch.randn(len(each.boxes), model.region_encoder.config.output_size) for each in seen * 2]
    said = [[f"thing {i}" for i in range(len(each.boxes))] for each in seen * 2]
    dialogues = Dialogues(records, seen, said, [f"thing {i}" for i in range(40)], {}, "two", 0, 200)
    talking = Talking(model, seen, embeddings, {}, shared=True)
    for item in (dialogues[i] for i in range(200)):
        _, way, things, places, [question, answer] = item
        if "from the left" in answer["content"]:
            told = [int(each) for each in re.findall(r"(\d+) %", answer["content"])]
            first = answer["content"].startswith("<region2>")
            centres = 50 * (seen[way].boxes[places][:, 0] + seen[way].boxes[places][:, 2])
            assert told == pytest.approx((centres.flip(0) if first else centres).tolist(), abs=2.51)
        elif question["content"].startswith("What are"):
            wanted = [f"<region{i + 1}> is a thing {things[i]}" for i in range(2)]
            assert answer["content"] in (f"{wanted[0]}, {wanted[1]}.", f"{wanted[1]}, {wanted[0]}.")
            rows = embeddings[way][things] + talking.places[way][places]
            order = [int(each) - 1 for each in re.findall(r"<region(\d)>", question["content"])]
            assert torch.equal(talking.collate([item])["regions"][0][:2], rows[order])


def test_the_language_models_own_words_are_kept(model, tmp_path):
    made = learn_knowledge(model, NAMES, tmp_path / "knowledge.json", batch=2)
    assert set(made) == set(questions.KNOWLEDGE) and json.loads((tmp_path / "knowledge.json").read_text()) == made
    assert learn_knowledge(None, None, tmp_path / "knowledge.json") == made


def test_merging_is_that_of_peft(model):
    peft = pytest.importorskip("peft")
    from roilab.training.preparing import low_rank_adapters

    before = {name: each.clone() for name, each in model.language_model.state_dict().items()}
    adapters = low_rank_adapters(model.language_model, 2)
    for name, each in model.language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each)
    lora = {
        name.replace(".default.weight", ""): each.detach()
        for name, each in model.language_model.named_parameters()
        if "lora_" in name
    }
    merged = adapters.merge_and_unload().state_dict()
    fresh = built(TIMM, image_size=64).requires_grad_(False).language_model
    fresh.load_state_dict(before)
    merge(fresh, lora, 2)
    assert peft and any((merged[name] - before[name]).abs().max() > 0.1 for name in before)
    for name, each in fresh.state_dict().items():
        torch.testing.assert_close(each, merged[name])


# Evaluation


def test_sizes_apart_and_answers_in_a_phrase(model, folder, tmp_path):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    result = evaluate_classes(
        model, evaluation.Asking(records), "photo", names=NAMES, phrase=named, scoring="likelihood",
        sizes={"large": (0.21, 1.1), "small": (0, 0.21), "none": (2, 3)},
    )  # fmt: skip
    scores = {score.questions: score for score in result.scores if score.name == "accuracy"}
    assert {words: score.n for words, score in scores.items()} == {
        "all": 16,
        "large": 8,
        "small": 8,
    }  # 540 and 500 of 2,400 pixels
    assert scores["all"].value == (scores["large"].value + scores["small"].value) / 2


def test_the_command(model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(roilab, "load", lambda name: model)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- evaluate photo -->\n<!-- /evaluate photo -->\n")
    options = ["--limit", "1", "--json", str(tmp_path / "found.json"), "--readme", str(readme)]
    assert main(["evaluate", "photo", "--data", str(folder), *options]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["data"], found["split"], len(found["settings"]["names"])) == ("photo", "val", 80)
    assert {(score["by"], score["n"]) for score in found["scores"] if score["questions"] == "all"} == {
        ("generated", 2),
        ("likelihood", 2),
    }
    assert "accuracy | likelihood" in readme.read_text() and "accuracy | likelihood" in capsys.readouterr().out


def test_swaps_are_counted_on_the_pictures_of_the_limit(model, folder, tmp_path, monkeypatch):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    two = [record.id for record in records if len(set(record.labels)) == 2]

    def by_place(model, reader, rows, **_):
        return ["region1 is a {}, region2 is a {}.".format(*(int(box[0]) for box in boxes)) for _, _, boxes in rows]

    monkeypatch.setattr(evaluation, "answer_all", by_place)
    found = evaluation.swapped(model, records)
    assert [each["id"] for each in found] == two and all(each["swapped"] for each in found) and len(two) > 2
    spread = {records[i].id for i in (0, 4)}
    assert [each["id"] for each in evaluation.swapped(model, records, 2)] == [each for each in two if each in spread]
    monkeypatch.setattr(
        evaluation, "answer_all", lambda model, reader, rows, **_: ["region1 is a dog, region2 is a cat."] * len(rows)
    )
    assert not any(each["swapped"] for each in evaluation.swapped(model, records))


def test_what_is_judged_follows_from_boxes_that_leave_no_doubt(model, folder, tmp_path, monkeypatch):
    records = data.read("coco", folder, "train", cache=tmp_path / "cache")
    asked = []

    def by_boxes(model, reader, rows, **_):
        said = []
        for index, asking, boxes in rows:
            question = asking[-1]["content"]
            asked.append(question)
            record = records[index]
            names = [record.labels[record.boxes.index(list(box))] for box in boxes]
            if question.startswith("Which of <region1> and <region2> is"):
                assert names[0] != names[1]
                said.append(f"It is that one, so <region{1 + names.index(question.split()[-1].rstrip('?'))}>.")
            elif len(boxes) == 1:
                said.append("It is, so yes." if question == f"Is <region1> {a(names[0])}?" else "It is not, so No.")
            elif "larger" in question:
                assert question == "Which is larger in the picture, <region1> or <region2>?"
                said.append(f"So region{1 + (evaluation.area(boxes[1]) > evaluation.area(boxes[0]))}.")
            else:
                across = "left" in question or "right" in question
                one, two = (box[0] + box[2] if across else box[1] + box[3] for box in boxes)
                first = "left of" in question or "above" in question
                said.append("Yes." if first == bool(one < two) else "It is somewhere else, so no.")
        return said

    monkeypatch.setattr(evaluation, "answer_all", by_boxes)
    kinds = {each["kind"] for each in evaluation.judged(model, records)}
    assert kinds == {"judge", "which", "beside"}  # 600 and 500 square pixels are too alike
    monkeypatch.setattr(questions, "CLEARLY", 1.1)
    asked.clear()
    found = evaluation.judged(model, records)
    assert {each["kind"] for each in found} == set(evaluation.ASKED) and len(asked) == len(found) > 4
    assert all(each["right"] for each in found) and {evaluation.last_word(each["truth"])[:2] for each in found} == {
        "ye",
        "no",
        "re",
    }
    monkeypatch.setattr(evaluation, "answer_all", lambda model, reader, rows, **_: ["Perhaps."] * len(rows))
    assert not any(each["right"] for each in evaluation.judged(model, records))


def test_what_two_answers_say():
    assert evaluation.things("region1 is a dog, region2 is a cat.") == ("a dog", "a cat")
    assert evaluation.things("A dog.") is None


def test_turns():
    assert turns([("a", "b")]) == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
