"""Scenes in the file formats of the data sets: every statement in the files is read back, by patterns written here, and compared with
the scene; the files have the keys, units and layout of the published ones, are the same on every run, and appear whole or not at all."""

import hashlib
import importlib
import io
import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from roilab.data.lvis import NAMES
from roilab.scenes import COLOURS, HELD_OUT, KINDS, MATERIALS, MOODS, SIZES, export, sample
from roilab.scenes.language import SPLITS

COUNTS = {"train": 60, "val": 20, "test": 20}
SIZE = 128
FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # what the pictures' numbers count from


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("scenes") / "data"
    for split, count in COUNTS.items():
        export(target, count, split, size=SIZE)
    export(target, COUNTS["train"], "train", ["vg_official"], size=SIZE)
    return target


@pytest.fixture(scope="module")
def scene_of():
    """Number of a picture -> its scene, drawn anew."""
    known = {}

    def find(number):
        if number not in known:
            split = max((s for s in FIRST if number > FIRST[s]), key=FIRST.get)
            known[number] = sample(SPLITS[split].start + number - FIRST[split] - 1, SIZE, held_out=False)
        return known[number]

    return find


def load(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def at(scene, xywh, tolerance=0.02):
    """The object with this box."""
    x, y, width, height = xywh
    found = [o for o in scene.objects if np.allclose(o.box, (x, y, x + width, y + height), atol=tolerance)]
    assert len(found) == 1, (xywh, [o.box for o in scene.objects])
    return found[0]


# What words say of objects: geometry from the boxes, the rest from the attributes. None is too close to call.


def centre(item):
    return (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2


def before(one, two, axis):
    gap = (centre(two)[axis] - centre(one)[axis]) / SIZE
    return None if abs(gap) < 0.08 else gap > 0


def larger(one, two):
    ratio = math.prod((one.box[2] - one.box[0], one.box[3] - one.box[1])) / math.prod(
        (two.box[2] - two.box[0], two.box[3] - two.box[1])
    )
    return None if 1 / 1.3 < ratio < 1.3 else ratio > 1


def related(scene, words, one, two):
    """Whether "<one> <words> <two>" holds."""
    if one is two:
        return False
    words = re.sub(r"^(?:is )?(?:to (?:the )?)?", "", words)
    if words in ("left of", "right of"):
        return before(one, two, 0) if words == "left of" else before(two, one, 0)
    if words in ("above", "higher than", "below", "lower than"):
        return before(one, two, 1) if words in ("above", "higher than") else before(two, one, 1)
    if words in ("larger than", "smaller than"):
        return larger(one, two) if words == "larger than" else larger(two, one)
    if words in ("holding", "kicking", "pointing at"):
        return one.action == words.split()[0] and one.target == two.id
    if words == "looking at":
        return scene.holds("looking at", one.id, two.id)
    if words in ("held by", "kicked by"):
        return related(scene, {"held by": "holding", "kicked by": "kicking"}[words], two, one)
    raise AssertionError(f"unknown relation {words!r}")


ACTIONS = "standing|running|sitting|jumping|waving|pointing at something|holding something|kicking something"
NOUNS = "|".join((*KINDS, "person", "thing", "object"))
ADJECTIVES = "|".join((*SIZES, *MATERIALS, *COLOURS, *MOODS))
HATS = "cap|top hat|helmet"
RELATION = (
    r"(?:to (?:the )?)?(?:left|right) of|above|below|(?:higher|lower|larger|smaller) than|holding|kicking|pointing at|looking at|"
    r"held by|kicked by"
)
SIDE = "upper left|upper right|lower left|lower right|left|right|top|bottom|upper|lower"
HEAD = re.compile(
    rf"(?:(?:the|an?) )?(?:(leftmost|rightmost|highest|lowest|largest|smallest) )?(?:({SIDE}) )?((?:(?:{ADJECTIVES}) )*)({NOUNS})\b"
    rf"(?: in (?:an? |the )?({'|'.join(COLOURS)}) shirt)?(?: and)?(?: (?:(?:with )?(?:an? )?({HATS})|(without headgear)))?"
)
PLACE = re.compile(
    r" (?:on (?:the )?(left|right)(?: side)?|at (?:the )?(top|bottom)|in (?:the )?((?:upper|lower) (?:left|right)) corner)$"
)


def side(words, item):
    """Within 40 % of the named sides: True; in the other half on one of them: False; between: None."""
    shares = {"left": 0, "right": 0, "top": 1, "upper": 1, "bottom": 1, "lower": 1}
    values = []
    for word in words.split():
        value = centre(item)[shares[word]] / SIZE
        values.append(value if word in ("left", "top", "upper") else 1 - value)
    return False if max(values) > 0.5 else True if max(values) < 0.4 else None


def facts_of(scene, text):
    """A noun phrase -> (superlative or None, tests of an object), each true, false or None."""
    head = HEAD.match(text)
    assert head, text
    superlative, where, adjectives, noun, shirt, hat, bare = head.groups()
    tests = [lambda o: not o.is_person if noun in ("thing", "object") else o.kind == noun]
    for word in adjectives.split():
        tests.append(
            lambda o, word=word: word in (o.mood, o.size, o.material) or (not o.is_person and o.colour == word)
        )
    if shirt:
        tests.append(lambda o: o.is_person and o.colour == shirt)
    if hat or bare:
        tests.append(lambda o: o.headgear == (hat or "none"))
    if where:
        tests.append(lambda o: side(where, o))
    rest = text[head.end() :]
    place = PLACE.search(rest)
    if place:
        words = place[1] or place[2] or place[3]
        tests.append(lambda o: side(words, o))
        rest = rest[: place.start()]
    rest = re.sub(r"^,? (?:that is|who is)?\b ?", "", rest)
    if re.fullmatch(ACTIONS, rest):
        tests.append(lambda o: o.action == rest.split()[0])
    elif found := re.fullmatch(r"(?:that )(.+) is (holding|kicking|pointing at|looking at)", rest):
        other = the_one(scene, found[1])
        tests.append(lambda o: related(scene, found[2], other, o))
    elif found := re.fullmatch(rf"({RELATION}) (.+)", rest):
        other = the_one(scene, found[2])
        tests.append(lambda o: related(scene, found[1], o, other))
    else:
        assert not rest, (text, rest)
    return superlative, tests


def fitting(scene, text):
    """Objects that a noun phrase may mean, and those that it certainly fits."""
    superlative, tests = facts_of(scene, text)
    may = [o for o in scene.objects if all(test(o) is not False for test in tests)]
    sure = [o for o in may if all(test(o) is True for test in tests)]
    if superlative:
        assert len(may) > 1, f"{text}: a superlative of one"
        words = dict(
            leftmost="left of",
            rightmost="right of",
            highest="above",
            lowest="below",
            largest="larger than",
            smallest="smaller than",
        )
        may = [
            o
            for o in may
            if all(related(scene, words[superlative], o, other) is not False for other in may if other is not o)
        ]
        sure = [o for o in sure if all(related(scene, words[superlative], o, other) for other in may if other is not o)]
    return may, sure


def the_one(scene, text):
    may, sure = fitting(scene, text)
    assert len(may) == 1 and may == sure, (text, [o.id for o in may], [o.id for o in sure])
    return may[0]


def test_the_patterns_of_this_file_refuse_what_is_false(scene_of):
    """The reading back can fail: an ambiguous or false phrase does."""
    scene = scene_of(1)  # a person and two boats, an orange one and a larger red one
    assert sorted(o.kind for o in scene.objects) == ["boat", "boat", "person"]
    assert the_one(scene, "the orange boat smaller than the red boat").colour == "orange"
    assert the_one(scene, "largest boat").colour == the_one(scene, "boat that person is pointing at").colour == "red"
    for text in (
        "the boat",
        "the blue boat",
        "orange boat larger than red boat",
        "the person who is running",
        "the leftmost person",
    ):
        with pytest.raises(AssertionError):
            the_one(scene, text)
    with pytest.raises(AssertionError):
        the_one(scene, "the boat with wings")


def test_layout(folder):
    files = {str(p.relative_to(folder)) for p in folder.iterdir()}
    refcoco = {
        f"finetune_{name}_{split}.json"
        for name in ("refcoco", "refcoco+")
        for split in ("train", "val", "testA", "testB")
    }
    assert files == refcoco | {
        "roilab_scenes.json", "annotations", "train2017", "val2017", "finetune_refcocog_train.json", "finetune_refcocog_val.json",
        "finetune_refcocog_test.json", "final_flickr_mergedGT_train.json", "final_flickr_mergedGT_val.json", "final_flickr_mergedGT_test.json",
        "flickr30k-images", "vg", "VG_100K", "VG_100K_2", "region_descriptions.json", "image_data.json", "llava_instruct_150k.json",
        "llava_150k_bbox_pred_results.pkl", "train.jsonl", "val.jsonl", "test.jsonl", "vcr1images", "dataset_v7w_telling.json",
        "dataset_v7w_pointing.json", "visual7w_images",
    }  # fmt: skip
    assert {p.name for p in (folder / "annotations").iterdir()} == {
        "instances_train2017.json",
        "instances_val2017.json",
    }
    assert {p.name for p in (folder / "vg").iterdir()} == {"train.json", "val.json", "test.json"}
    assert load(folder, "roilab_scenes.json")["splits"]["val"]["coco"] == COUNTS["val"]


def test_pictures_are_those_of_the_scenes(folder, scene_of):
    contents = {}
    for path in folder.rglob("*.jpg"):
        contents.setdefault(int(re.search(r"(\d+)(?:@0)?\.jpg$", path.name)[1]), []).append(path.read_bytes())
    assert len(contents) == sum(COUNTS.values())
    for number, copies in contents.items():
        assert len(set(copies)) == 1 and len(copies) >= 4, (
            number
        )  # one for COCO and its kin, Flickr30k, Visual Genome, Visual7W and mostly VCR
        with Image.open(io.BytesIO(copies[0])) as picture:
            assert picture.size == (SIZE, SIZE) and picture.format == "JPEG"
            difference = np.abs(np.asarray(picture).astype(int) - np.asarray(scene_of(number).image))
        assert difference.mean() < 2.5 and np.percentile(difference, 99) < 25
    assert (folder / f"train2017/{1_000_003:012d}.jpg").exists()  # RefCOCO's val pictures are COCO's training pictures


def drawn_area(item):
    """Square pixels of an object's silhouette, painted here 16 times finer."""
    mask = Image.new("1", (SIZE * 8, SIZE * 8))
    for points in item.polygons:
        ImageDraw.Draw(mask).polygon([(x * 8, y * 8) for x, y in points], fill=1)
    return np.asarray(mask).sum() / 64


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco(folder, scene_of, split):
    content = load(folder, f"annotations/instances_{split}2017.json")
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert set(names.values()) == {"person", *KINDS} and sorted(names) != list(range(1, 14))
    assert len(content["images"]) == COUNTS[split] and len({a["id"] for a in content["annotations"]}) == len(
        content["annotations"]
    )
    for image in content["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg" and (image["width"], image["height"]) == (SIZE, SIZE)
        assert (folder / f"{split}2017" / image["file_name"]).exists()
        scene = scene_of(image["id"])
        found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert len(found) == len(scene.objects)
        for each in found:
            assert (
                set(each) == {"segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id"}
                and each["iscrowd"] == 0
            )
            item = at(scene, each["bbox"])
            assert names[each["category_id"]] == item.kind
            xs = [v for polygon in each["segmentation"] for v in polygon[::2]]
            ys = [v for polygon in each["segmentation"] for v in polygon[1::2]]
            assert np.allclose((min(xs), min(ys), max(xs), max(ys)), item.box, atol=0.06)
            assert abs(each["area"] - drawn_area(item)) < 0.06 * drawn_area(item) + 4


REFERRING = [(name, split) for name in ("refcoco", "refcoco+") for split in ("train", "val", "testA", "testB")]
REFERRING += [("refcocog", split) for split in COUNTS]


@pytest.mark.parametrize("name, split", REFERRING)
def test_referring_expressions_single_out_their_object(folder, scene_of, name, split):
    content = load(folder, f"finetune_{name}_{split}.json")
    categories = {c["id"]: c["name"] for c in content["categories"]}
    annotation_of = {a["image_id"]: a for a in content["annotations"]}
    assert len(annotation_of) == len(content["images"]) == len(content["annotations"]) > 20
    captions = []
    for image in content["images"]:
        each, caption = annotation_of[image["id"]], image["caption"]
        assert set(image) == {
            "file_name",
            "height",
            "width",
            "id",
            "original_id",
            "caption",
            "dataset_name",
            "tokens_negative",
        }
        assert set(each) == {
            "area",
            "iscrowd",
            "image_id",
            "category_id",
            "id",
            "bbox",
            "original_id",
            "tokens_positive",
        }
        assert image["file_name"] == f"COCO_train2014_{image['original_id']:012d}.jpg" and image["dataset_name"] == name
        scene = scene_of(image["original_id"])
        item = at(scene, each["bbox"])
        assert the_one(scene, caption) is item and categories[each["category_id"]] == item.kind
        [(start, end)] = each["tokens_positive"]
        assert caption[start:end].split()[-1] in (item.kind, "thing", "object") and image["tokens_negative"] == [
            [0, len(caption)]
        ]
        if split in ("testA", "testB"):
            assert item.is_person == (split == "testA")
        captions.append(caption)
    placed = [
        bool(
            re.search(
                r"\b(left|right|top(?! hat)|bottom|upper|lower|above|below|highest|lowest|higher|leftmost|rightmost)\b",
                c,
            )
        )
        for c in captions
    ]
    if name == "refcoco+":
        assert not any(placed), captions[placed.index(True)]
    elif name == "refcoco":
        assert 0.4 < np.mean(placed) < 0.9
    lengths = [len(c.split()) for c in captions]
    assert np.mean(lengths) > (7 if name == "refcocog" else 3.5) and np.mean([n < 3 for n in lengths]) < 0.05
    assert len(set(captions)) > 0.6 * len(captions)


def test_refcoco_refers_to_the_annotations_of_coco(folder):
    coco = {a["id"]: a for a in load(folder, "annotations/instances_train2017.json")["annotations"]}
    for name in ("refcoco", "refcoco+", "refcocog"):
        for each in load(folder, f"finetune_{name}_train.json")["annotations"]:
            same = coco[each["original_id"]]
            assert all(same[key] == each[key] for key in ("bbox", "area", "category_id"))


def shown(scene, text, item):
    """Whether a noun phrase with an indefinite article is true of an object."""
    return item in fitting(scene, text)[1]


NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PLACES = {"Indoors": "indoor", "Outdoors": "outdoor", "Outdoors in the rain": "rain", "Outdoors in the sun": "sun"}


def check_phrase(scene, phrase, boxes):
    """A phrase of a Flickr sentence is true of its boxes; returns the objects."""
    if found := re.fullmatch(r"(two|three|four|five|six) (?:(\w+) )?(\w+)", phrase, re.IGNORECASE):
        items = [at(scene, box) for box in boxes]
        kind = {"people": "person", "boxes": "box"}.get(found[3], found[3][:-1])
        assert len(items) == len({o.id for o in items}) == NUMBERS[found[1].lower()]
        assert all(not o.is_person if kind == "thing" else o.kind == kind for o in items)
        assert all(o.colour == found[2] for o in items if found[2])
        assert found[2] or len(items) == sum(
            (not o.is_person) if kind == "thing" else o.kind == kind for o in scene.objects
        )
        return items
    [box] = boxes
    if hat := re.fullmatch(rf"an? ({HATS})", phrase):
        wearers = [
            o
            for o in scene.objects
            if o.headgear == hat[1]
            and np.allclose(o.parts["hat"][0], (box[0], box[1], box[0] + box[2], box[1] + box[3]), atol=0.02)
        ]
        assert len(wearers) == 1
        return wearers
    item = at(scene, box)
    assert shown(scene, phrase[0].lower() + phrase[1:], item), phrase
    return [item]


@pytest.mark.parametrize("split", COUNTS)
def test_flickr30k_phrases_have_their_boxes_and_sentences_are_true(folder, scene_of, split):
    content = load(folder, f"final_flickr_mergedGT_{split}.json")
    assert content["categories"] == [{"supercategory": "object", "id": 1, "name": "object"}]
    assert len(content["images"]) == 2 * COUNTS[split] and len({i["id"] for i in content["images"]}) == len(
        content["images"]
    )
    seen = Counter()
    for image in content["images"]:
        assert (image["height"], image["width"], image["dataset_name"]) == (str(SIZE), str(SIZE), "flickr")
        assert (
            image["file_name"] == f"{image['original_img_id']}.jpg"
            and (folder / "flickr30k-images" / image["file_name"]).exists()
        )
        scene, caption = scene_of(image["original_img_id"]), image["caption"]
        boxes = {}
        for each in content["annotations"]:
            if each["image_id"] == image["id"]:
                assert (
                    each["category_id"] == 1
                    and each["iscrowd"] == 0
                    and abs(each["area"] - each["bbox"][2] * each["bbox"][3]) < 0.1
                )
                seen["several spans"] += len(each["tokens_positive"]) > 1
                for span in each["tokens_positive"]:
                    boxes.setdefault(tuple(span), []).append(each["bbox"])
        assert sorted(boxes) == sorted(tuple(span) for [span] in image["tokens_positive_eval"])
        items = {span: check_phrase(scene, caption[slice(*span)], found) for span, found in boxes.items()}
        seen["several boxes"] += any(len(found) > 1 for found in items.values())
        marked = caption
        for number, span in reversed(list(enumerate(sorted(boxes)))):
            marked = f"{marked[: span[0]]}[{number}]{marked[span[1] :]}"
        objects = [items[span] for span in sorted(boxes)]
        if found := re.match(r"(Indoors|Outdoors[a-z ]*) , ", marked):
            assert PLACES[found[1]] == scene.setting
            marked = marked[found.end() :]
        assert marked.endswith(" .")
        for clause in re.split(r" , while | , and | and ", marked[:-2]):
            check_clause(scene, clause, objects)
            seen[re.sub(r"\[\d\]", "", clause)] += 1
    assert seen["several boxes"] > 3 and len(seen) > (12 if split == "train" else 8)
    assert split != "train" or seen["several spans"] > 0


def check_clause(scene, clause, objects):
    if found := re.fullmatch(rf"\[(\d)\] is ({ACTIONS})", clause):
        [person] = objects[int(found[1])]
        assert person.action == found[2].split()[0]
    elif found := re.fullmatch(r"\[(\d)\] is wearing \[(\d)\]", clause):
        assert objects[int(found[1])] == objects[int(found[2])]
    elif found := re.fullmatch(r"\[(\d)\] (.+) \[(\d)\]", clause):
        words = {"looks at": "looking at", "stands left of": "left of", "is higher up than": "above"}.get(
            found[2], found[2]
        )
        [one], [two] = objects[int(found[1])], objects[int(found[3])]
        assert related(scene, words.removeprefix("is "), one, two) is True
    else:
        assert re.fullmatch(r"\[\d\](?: can be seen| are in the picture| are there)?", clause), clause


def check_region(scene, caption, box):
    """A region caption of Visual Genome is true of a box (x, y, width, height)."""
    x, y, width, height = box
    box = (x, y, x + width, y + height)

    def close(other, tolerance=1.6):
        return np.allclose(box, other, atol=tolerance)

    if found := re.fullmatch(
        rf"(?:the|an?) (lid|wheel|leg|handle|shade|neck|tail|face|sail|roof|head|{HATS}) of (.+)", caption
    ):
        part = "hat" if found[1] in ("cap", "top hat", "helmet") else found[1]
        owners = [o for o in scene.objects if any(close(each) for each in o.parts.get(part, ()))]
        assert any(shown(scene, found[2], o) and (part != "hat" or o.headgear == found[1]) for o in owners), caption
        return "part"
    whole = [o for o in scene.objects if close(o.box)]
    pairs = [
        (a, b)
        for a in scene.objects
        for b in scene.objects
        if a is not b and close([*np.minimum(a.box[:2], b.box[:2]), *np.maximum(a.box[2:], b.box[2:])])
    ]
    if found := re.fullmatch(
        r"(an? .+?) (holding|kicking|pointing at|looking at|to the left of|above) (an? .+)", caption
    ):
        assert any(
            shown(scene, found[1], a) and shown(scene, found[3], b) and related(scene, found[2], a, b) for a, b in pairs
        ), caption
        return "pair"
    if found := re.fullmatch(r"the (\w+) is (\w+)", caption):
        if found[1] != "person":
            assert any(o.kind == found[1] and found[2] in (o.colour, o.material) for o in whole), caption
            return "state"
    if found := re.fullmatch(rf"person wearing an? ({HATS})", caption):
        assert any(o.headgear == found[1] for o in whole)
        return "clothes"
    assert any(shown(scene, caption.replace("the person is ", "person "), o) for o in whole), caption
    return "whole"


@pytest.mark.parametrize("split", COUNTS)
def test_visual_genome_as_grit_has_it(folder, scene_of, split):
    content = load(folder, f"vg/{split}.json")
    assert content["categories"] == [{"id": 1, "name": "object"}]
    path_of = {i["id"]: i["file_name"] for i in content["images"]}
    assert len(path_of) == COUNTS[split] and all((folder / path).exists() for path in path_of.values())
    assert {path.split("/")[0] for path in path_of.values()} == {"VG_100K", "VG_100K_2"}
    seen = Counter()
    for each in content["annotations"]:
        assert (
            set(each) == {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "caption"}
            and each["category_id"] == 1
        )
        seen[check_region(scene_of(each["image_id"]), each["caption"], each["bbox"])] += 1
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    assert set(seen) == {"part", "pair", "state", "clothes", "whole"} and seen["whole"] > seen["part"] > 10


def test_visual_genome_as_its_site_has_it(folder, scene_of):
    described, places = load(folder, "region_descriptions.json"), load(folder, "image_data.json")
    assert (
        [each["id"] for each in described]
        == [each["image_id"] for each in places]
        == list(range(1, COUNTS["train"] + 1))
    )
    for each, place in zip(described, places):
        assert (place["width"], place["height"]) == (SIZE, SIZE) and (
            folder / "/".join(place["url"].split("/")[-2:])
        ).exists()
        assert len(each["regions"]) > 5
        for region in each["regions"]:
            assert (
                set(region) == {"region_id", "image_id", "phrase", "x", "y", "width", "height"}
                and region["image_id"] == each["id"]
            )
            assert all(isinstance(region[key], int) for key in ("x", "y", "width", "height"))
            check_region(scene_of(each["id"]), region["phrase"], [region[key] for key in ("x", "y", "width", "height")])


WHERE = {
    "indoors": "indoor", "outdoors in dry and cloudy weather": "outdoor", "outdoors in the rain": "rain", "outdoors in the sun": "sun",
}  # fmt: skip
WHEN = {"on a dry and cloudy day": "outdoor", "while it was raining": "rain", "on a sunny day": "sun"}
COUNTED = ("none", "one", "two", "three", "four", "five", "six")


def number_of(scene, plural):
    kind = {"people": "person", "boxes": "box"}.get(plural, plural.rstrip("s"))
    return sum(not o.is_person if kind == "thing" else o.kind == kind for o in scene.objects)


def told_truly(scene, question, answer):
    """Whether a short answer to a telling question is true; None for questions that these patterns do not know (commonsense)."""
    answer = answer[0].lower() + answer[1:].rstrip(".")
    if re.match(r"Where (is this|does this take place|was the picture made)\?", question):
        return WHERE[answer] == scene.setting
    if question.startswith("When "):
        return WHEN.get(answer, "neither night nor snow") == scene.setting
    if found := re.match(r"How many (\w+) ", question):
        return number_of(scene, found[1]) == COUNTED.index(answer)
    if found := re.fullmatch(rf"Who is ({ACTIONS})\?", question):
        actors = [o for o in scene.objects if o.action == found[1].split()[0]]
        wearers = [o for o in scene.objects if o.is_person and answer == f"the person in the {o.colour} shirt"]
        return not actors if answer == "nobody" else bool(wearers) and wearers == actors
    if found := re.fullmatch(
        r"What colour is the shirt of (.+)\?|What colour does (.+) wear\?|What (?:colour is|is the colour of) (.+)\?",
        question,
    ):
        return the_one(scene, next(filter(None, found.groups()))).colour == answer
    if found := re.fullmatch(r"What does (.+) have on the head\?", question):
        return the_one(scene, found[1]).headgear == answer.replace("nothing", "none").removeprefix("a ")
    if found := re.fullmatch(r"What (?:is (.+) doing|does (the [\w ]*person[\w ]*) do)\?", question):
        person = the_one(scene, found[1] or found[2])
        action = re.match(r"(\w+)(?: at)?(?: (.+))?", answer)
        return person.action == action[1] and (
            action[2] in (None, "something") or the_one(scene, action[2]).id == person.target
        )
    if found := re.fullmatch(r"What is (.+) (holding|kicking|pointing at|looking at)\?", question):
        person = the_one(scene, found[1])
        return any(shown(scene, answer, o) and related(scene, found[2], person, o) for o in scene.objects)
    return None


def test_visual7w_telling(folder, scene_of):
    content = load(folder, "dataset_v7w_telling.json")
    assert Counter(i["split"] for i in content["images"]) == COUNTS
    assert [i["image_id"] for i in content["images"]] == sorted(i["image_id"] for i in content["images"])
    types, known, ids = Counter(), 0, set()
    for image in content["images"]:
        assert (
            set(image) == {"image_id", "filename", "split", "qa_pairs"}
            and image["filename"] == f"v7w_{image['image_id']}.jpg"
        )
        assert (folder / "visual7w_images" / image["filename"]).exists()
        for each in image["qa_pairs"]:
            assert set(each) == {"qa_id", "image_id", "question", "answer", "multiple_choices", "type"}
            assert len({each["answer"], *each["multiple_choices"]}) == 4 and len(each["multiple_choices"]) == 3
            assert re.split(r"\. ", each["question"])[-1].lower().startswith(each["type"])
            ids.add(each["qa_id"])
            types[each["type"]] += 1
            verdicts = [
                told_truly(scene_of(image["image_id"]), each["question"], a)
                for a in (each["answer"], *each["multiple_choices"])
            ]
            assert verdicts in ([True, False, False, False], [None] * 4), (each, verdicts)
            known += verdicts[0] is True
    assert set(types) == {"what", "where", "when", "who", "why", "how"} and min(types.values()) > 8
    assert len(ids) == sum(types.values()) and known > 0.7 * len(ids)


def test_visual7w_pointing(folder, scene_of):
    content = load(folder, "dataset_v7w_pointing.json")
    boxes = {b["box_id"]: b for b in content["boxes"]}
    assert len(boxes) == len(content["boxes"]) and set(content["boxes"][0]) == {
        "box_id",
        "name",
        "x",
        "y",
        "width",
        "height",
    }
    assert Counter(i["split"] for i in content["images"]) == COUNTS
    used = set()
    for image in content["images"]:
        scene = scene_of(image["image_id"])
        for each in image["qa_pairs"]:
            choices = [each["answer"], *each["multiple_choices"]]
            assert len(set(choices)) == 4 and not used & set(choices) and each["type"] == "which"
            used |= set(choices)
            item = the_one(scene, re.fullmatch(r"Which (?:box shows|is|one is) (.+)\?", each["question"])[1])
            for number in choices:
                box = boxes[number]
                corners = (max(box["x"], 0), max(box["y"], 0), box["x"] + box["width"], box["y"] + box["height"])
                assert np.allclose(corners, item.box, atol=0.06 * SIZE + 1) == (number == each["answer"]), each
    assert used == set(boxes)
    negative = [b for b in boxes.values() if b["x"] < 0 or b["y"] < 0]
    assert 0.03 < len(negative) / len(boxes) < 0.3 and min(min(b["x"], b["y"]) for b in boxes.values()) >= -2


def test_llava_conversations(folder, scene_of):
    content = load(folder, "llava_instruct_150k.json")
    assert {each["image"] for each in content} == {f"{n:012d}.jpg" for n in range(1, COUNTS["train"] + 1)}
    checked, openings, rounds = Counter(), Counter(), []
    for each in content:
        assert set(each) == {"id", "image", "conversations"} and each["image"] == f"{each['id']}.jpg"
        turns = each["conversations"]
        assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2)
        first = turns[0]["value"]
        assert sum(t["value"].count("<image>") for t in turns) == 1 and ("<image>\n" in first or "\n<image>" in first)
        openings["<image>\n" in first] += 1
        rounds.append(len(turns) // 2)
        scene = scene_of(int(each["id"]))
        for question, answer in zip(turns[::2], turns[1::2]):
            checked[check_round(scene, question["value"].replace("<image>", "").strip(), answer["value"])] += 1
    assert max(rounds) >= 5 and min(openings.values()) > 5
    assert set(checked) == {"told", "whether", "where", "material", "mood", "account", "sense"} and checked[
        "sense"
    ] < 0.25 * sum(rounds)


def check_round(scene, question, answer):
    """A round of a conversation is true; returns what it was about."""
    if found := re.match(r"Is there an? (\w+)", question):
        assert answer.startswith("Yes, " if number_of(scene, found[1]) else "No, ")
        if colour := re.match(r"Yes, there is an? (\w+) (\w+)\.", answer):
            assert any((o.colour, o.kind) == colour.groups() for o in scene.objects)
        return "whether"
    if (found := re.match(r"(?:Where is|Where do you see) (.+)\?", question)) and found[1] != "this":
        subject, rest = answer[0].lower() + answer[1 : len(found[1])], answer[len(found[1]) + 4 : -1]
        relation, other = re.fullmatch(rf"({RELATION}) (.+)", rest).groups()
        assert subject == found[1] and related(scene, relation, the_one(scene, subject), the_one(scene, other)) is True
        return "where"
    if found := re.fullmatch(r"What does the surface of (.+) look like\?", question):
        assert answer.endswith(f" is {the_one(scene, found[1]).material}.")
        return "material"
    if found := re.fullmatch(r"How does (.+) (?:feel|look)\?", question):
        if not found[1].startswith("the head"):
            assert answer.endswith(f" looks {the_one(scene, found[1]).mood}.")
            return "mood"
    if question in (
        "Describe the picture in detail.",
        "What does the picture show?",
        "Tell me all that you see in this picture.",
    ):
        first, *told = answer[:-1].split(". ")
        people, things = number_of(scene, "people"), number_of(scene, "things")
        for word, one, many, number in (
            ("person", "one person", "people", people),
            ("thing", "one thing", "things", things),
        ):
            said = one if number == 1 else f"{COUNTED[number]} {many}"
            assert (said in first) == (number > 0), (word, answer)
        assert first.endswith(
            {"indoor": " indoors", "outdoor": " outdoors", "rain": " in the rain", "sun": " in the sun"}[scene.setting]
        )
        for item, text in zip(scene.objects, told):
            assert shown(scene, text.removeprefix("There is "), item)
        for text in told[len(scene.objects) :]:
            if found := re.fullmatch(rf"(The .+?) is ({RELATION}) (the .+)", text):
                one, two = (the_one(scene, name[0].lower() + name[1:]) for name in (found[1], found[3]))
                assert related(scene, found[2], one, two) is True
            else:
                the_one(scene, text.removeprefix("There is "))
        return "account"
    for short in short_forms(answer):
        if (verdict := told_truly(scene, question, short)) is not None:
            assert verdict, (question, answer)
            return "told"
    return "sense"


def short_forms(answer):
    """What a sentence answers, in few words."""
    patterns = (
        r"This is (.+)\.", r"The picture was made (.+)\.", r"There (?:is|are) (\w+) \w+ in the picture\.", r"(The person in the \w+ shirt|Nobody) is .+\.",
        r".+ wears an? (\w+) shirt\.", r".+ has (.+) on the head\.", r".+ is (?:holding|kicking|pointing at|looking at) (an? .+)\.", r".+? is (.+)\.",
    )  # fmt: skip
    for pattern in patterns:
        if found := re.fullmatch(pattern, answer):
            yield {"no": "none"}.get(found[1], found[1])
            return
    yield answer


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (math.prod((a[2] - a[0], a[3] - a[1])) + math.prod((b[2] - b[0], b[3] - b[1])) - shared)


def test_llava_detections(folder, scene_of):
    with open(folder / "llava_150k_bbox_pred_results.pkl", "rb") as file:
        content = pickle.load(file)
    assert [each["filename"] for each in content] == [f"{n:012d}.jpg" for n in range(1, COUNTS["train"] + 1)]
    right, wrong, low, exact = 0, 0, 0, 0
    for number, each in enumerate(content, 1):
        boxes, labels = each["pred_bboxes"], each["labels"]
        assert (
            set(each) == {"filename", "pred_bboxes", "labels"}
            and boxes.dtype == np.float32
            and boxes.shape == (len(labels), 5)
        )
        assert np.issubdtype(labels.dtype, np.integer) and boxes.min() >= 0 and boxes.max() <= 1
        assert (
            (boxes[:, 0] < boxes[:, 2]).all()
            and (boxes[:, 1] < boxes[:, 3]).all()
            and (np.diff(boxes[:, 4]) <= 0).all()
        )
        for score in boxes[:, 4].tolist():
            low += score <= 0.3
        for box, label in zip(boxes[:, :4].tolist(), labels.tolist()):
            close = [o for o in scene_of(number).objects if overlap(box, [v / SIZE for v in o.box]) > 0.6]
            good = any(NAMES[label].split(" (")[0] == o.kind for o in close)
            right, wrong = right + good, wrong + (not good)
            exact += any(np.allclose(np.multiply(box, SIZE), o.box, atol=1e-3) for o in close)
    assert right > 5 * wrong > 0 and low > 10 and exact < 5


def vcr_lines(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


VCR_KEYS = {
    "movie", "objects", "interesting_scores", "answer_likelihood", "img_fn", "metadata_fn", "question", "answer_choices", "rationale_choices",
    "img_id", "question_number", "annot_id", "match_fold", "match_index",
}  # fmt: skip
VCR_LABELS = {
    f"{name}_{key}" for name in ("answer", "rationale") for key in ("label", "orig", "match_iter", "sources")
} | {"question_orig"}


def written_out(tokens):
    """A VCR text with 1-based numbers, as the `_orig` texts have them."""
    words = [" and ".join(str(n + 1) for n in t) if isinstance(t, list) else t for t in tokens]
    return re.sub(r" ([.,?:])", r"\1", " ".join(words))


@pytest.mark.parametrize("split", COUNTS)
def test_vcr(folder, scene_of, split):
    lines = vcr_lines(folder, split)
    assert len(lines) > 2 * COUNTS[split] and len({line["annot_id"] for line in lines}) == len(lines)
    shapes = Counter()
    for line in lines:
        assert set(line) == (VCR_KEYS if split == "test" else VCR_KEYS | VCR_LABELS)
        number = int(line["img_id"].split("-")[1])
        scene = scene_of(number)
        metadata = load(folder, f"vcr1images/{line['metadata_fn']}")
        assert (folder / "vcr1images" / line["img_fn"]).exists() and line["img_fn"].split("/")[
            0
        ] == f"lsmdc_{line['movie']}"
        assert set(metadata) == {"boxes", "segms", "names", "width", "height"} and (
            metadata["width"],
            metadata["height"],
        ) == (SIZE, SIZE)
        assert line["objects"] == metadata["names"] == sorted(line["objects"], key=lambda name: name != "person")
        items = []
        for (x1, y1, x2, y2, score), polygons, name in zip(
            metadata["boxes"], metadata["segms"], metadata["names"], strict=True
        ):
            item = at(scene, (x1, y1, x2 - x1, y2 - y1))
            assert item.kind == name and 0.5 < score <= 1 and item not in items
            points = np.concatenate(polygons)
            assert np.allclose((*points.min(0), *points.max(0)), item.box, atol=0.06)
            items.append(item)
        assert len(items) == len(scene.objects)
        for key in ("answer_choices", "rationale_choices"):
            assert len({json.dumps(tokens) for tokens in line[key]}) == 4
        texts = [line["question"], *line["answer_choices"], *line["rationale_choices"]]
        named = {n for t in line["question"] if isinstance(t, list) for n in t}
        for tokens in texts:
            for token in tokens:
                if isinstance(token, list):
                    assert token and all(0 <= n < len(items) for n in token) and set(token) <= named
                    shapes["list of two"] += len(token) == 2
                else:
                    assert re.fullmatch(r"\w+|[.,?:]", token), token
            assert tokens[-1] in (".", "?") and (isinstance(tokens[0], list) or tokens[0][0].isupper())
        shapes["number"] += any(isinstance(t, str) and t[0].isdigit() for t in line["question"])
        shapes["object that is not named"] += len(named) < len(items)
        shapes["last object"] += len(items) - 1 in named
        if split != "test":
            assert line["question_orig"] == written_out(line["question"])
            for name in ("answer", "rationale"):
                label = line[f"{name}_label"]
                assert line[f"{name}_orig"] == written_out(line[f"{name}_choices"][label])
                assert line[f"{name}_match_iter"][label] == 0 and sorted(line[f"{name}_match_iter"]) == [0, 1, 2, 3]
            for i, tokens in enumerate(line["rationale_choices"]):
                verdict = rationale_holds(items, written_out(tokens))
                shapes["rationale"] += verdict is not None
                assert verdict in (None, i == line["rationale_label"]), (line["annot_id"], written_out(tokens))
            outcome = answer_holds(scene, items, line)
            shapes["answer"] += outcome is not None
            assert outcome in (None, True), (line["annot_id"], line["question_orig"], line["answer_orig"])
    assert shapes["number"] and shapes["list of two"] and shapes["last object"] and shapes["object that is not named"]
    assert split == "test" or (shapes["rationale"] > 2.5 * len(lines) and shapes["answer"] > 0.2 * len(lines))
    labels = Counter(line.get("answer_label") for line in lines)
    assert split != "train" or max(labels.values()) < 0.4 * len(lines)


def rationale_holds(items, text):
    """Whether a rationale is true of the numbered objects; None for those that these patterns do not know."""
    if found := re.match(
        rf"(\d)(?: is(?: an?)?| is holding (\d), an?)(?: (?:small|medium|large))?(?: (matte|shiny|striped))? ({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b",
        text,
    ):
        item = items[int(found[2] or found[1]) - 1]
        return (item.colour, item.kind) == (found[4], found[5]) and found[3] in (None, item.material)
    if found := re.fullmatch(r"(\d) is an? (\w+) and (\d) is an? (\w+)\.", text):
        return (items[int(found[1]) - 1].kind, items[int(found[3]) - 1].kind) == (found[2], found[4])
    if (found := re.match(r"(\d) in the (\w+) shirt (?:is|looks \w+ while) (\w+)", text)) and "faces" not in text:
        return (items[int(found[1]) - 1].colour, items[int(found[1]) - 1].action) == (found[2], found[3])
    return None


def answer_holds(scene, items, line):
    """Whether the right answer to a question about kicking, floating or seats is right; None for other rules."""
    question, answer = line["question_orig"], line["answer_orig"]
    if "kick" in question and not re.search(r"\d (is kicking|kicks) \d|Where will", question):
        item = items[int(re.findall(r"\d+", question)[-1]) - 1]
        outcomes = {
            "roll": ("ball", "clock", "car"),
            "break": ("bottle", "cup", "lamp"),
            "fall": ("chair", "umbrella", "kite"),
            "hardly": ("house", "boat", "box"),
        }
        [word] = [word for word in outcomes if word in answer]
        return item.kind in outcomes[word]
    for words, kinds in (
        (("float", "swim"), ("ball", "boat", "bottle", "box")),
        (("seat", "sit down"), ("chair", "box", "car", "boat")),
    ):
        if any(word in question for word in words):
            pair = [int(n) for n in re.findall(r"\d+", question)[-2:]]
            fits = [items[n - 1].kind in kinds for n in pair]
            said = re.match(r"Only (\d)|(Both)|(Neither)", answer)
            return fits == [n == int(said[1]) for n in pair] if said[1] else fits == [bool(said[2])] * 2
    return None


def test_the_test_split_of_vcr_does_not_give_its_answers_away(folder):
    """Any value of a line that varies with the label would do: with labels hidden, none is left but the choices and what is the same for all."""
    for line in vcr_lines(folder, "test"):
        lists = [key for key, value in line.items() if isinstance(value, list) and len(value) == 4]
        assert set(lists) <= {"answer_choices", "rationale_choices", "objects", "question"}


def test_no_text_names_a_held_out_combination(folder):
    pattern = re.compile(rf"\b({'|'.join(COLOURS)})[\", ]+({'|'.join(KINDS)})\b", re.IGNORECASE)
    found = 0
    for path in folder.rglob("*.json*"):
        for colour, kind in pattern.findall(path.read_text(encoding="utf-8")):
            assert (colour.lower(), kind.lower()) not in HELD_OUT, (path.name, colour, kind)
            found += 1
    assert found > 3000


def digest(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def agree(one, two):
    """Whether two directories have the same bytes in the files that both have, except for the note of what was exported."""
    one, two = digest(one), digest(two)
    both = (set(one) & set(two)) - {"roilab_scenes.json"}
    assert len(both) > 20
    return all(one[name] == two[name] for name in both)


def test_the_same_call_writes_the_same_bytes(tmp_path):
    """Twice, in another process with other hashes of texts (LLaVA excepted, which loads torch), and whatever else is exported."""
    for name in ("a", "b"):
        export(tmp_path / name, 20, size=64)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    names = ["v7w_telling", "v7w_pointing", "vcr", "vg", "flickr30k", "refcocog", "refcoco+", "refcoco", "coco"]
    code = f"import sys; from roilab.scenes import export; export(sys.argv[1], 20, names={names}, size=64)"
    environment = {"PYTHONHASHSEED": "77", "PATH": ""}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c")], check=True, env=environment, cwd=Path(__file__).parent.parent, capture_output=True
    )  # fmt: skip
    assert agree(tmp_path / "a", tmp_path / "c")
    export(tmp_path / "d", 20, names=["vcr", "refcoco+"], size=64)
    assert agree(tmp_path / "a", tmp_path / "d")


def test_another_seed_and_more_scenes(tmp_path):
    for name, scenes, seed in (("few", 4, 0), ("more", 6, 0), ("other", 4, 1)):
        export(tmp_path / name, scenes, names=["coco", "refcoco"], size=64, seed=seed)
    few, more, other = (
        load(tmp_path / name, "finetune_refcoco_train.json")["images"] for name in ("few", "more", "other")
    )
    assert more[: len(few)] == few and len(more) > len(few)
    assert [i["caption"] for i in other] != [i["caption"] for i in few]
    assert (tmp_path / "few/train2017/000000000001.jpg").read_bytes() != (
        tmp_path / "other/train2017/000000000001.jpg"
    ).read_bytes()
    before = digest(tmp_path / "few")
    export(tmp_path / "few", 6, names=["coco", "refcoco"], size=64)  # grows
    assert digest(tmp_path / "few") == digest(tmp_path / "more") != before


def test_visual7w_keeps_the_other_splits(tmp_path):
    names = ["v7w_telling", "v7w_pointing"]
    for order in (("train", "val", "test"), ("test", "train", "val", "train")):
        for split in order:
            export(tmp_path / order[0], 5, split, names, size=64)
    assert digest(tmp_path / "train") == {
        **digest(tmp_path / "test"),
        "roilab_scenes.json": digest(tmp_path / "train")["roilab_scenes.json"],
    }
    for name in names:
        assert Counter(i["split"] for i in load(tmp_path / "test", f"dataset_{name}.json")["images"]) == dict.fromkeys(
            COUNTS, 5
        )
    export(tmp_path / "test", 2, "val", names, size=64)  # replaces its split alone
    found = load(tmp_path / "test", "dataset_v7w_pointing.json")
    assert Counter(i["split"] for i in found["images"]) == {"train": 5, "val": 2, "test": 5}
    used = {n for i in found["images"] for q in i["qa_pairs"] for n in (q["answer"], *q["multiple_choices"])}
    assert used == {b["box_id"] for b in found["boxes"]}


def test_an_interrupted_export_leaves_no_file_of_records_and_goes_on(tmp_path, monkeypatch):
    module = importlib.import_module("roilab.scenes.formats.export")
    export(tmp_path / "whole", 6, size=64)
    calls = iter(range(100))

    def interrupted(*args, **kwargs):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return sample(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "broken", 6, size=64)
    left = [p for p in (tmp_path / "broken").rglob("*") if p.is_file()]
    assert {p.suffix for p in left} == {".jpg", ".json"} and not any(p.name.endswith(".part") for p in left)
    assert {p.name for p in left if p.suffix == ".json" and "vcr1images" not in p.parts} == {"roilab_scenes.json"}
    assert load(tmp_path / "broken", "roilab_scenes.json")["splits"] == {}
    kept = tmp_path / "broken/train2017/000000000002.jpg"
    kept.write_bytes(kept.read_bytes() + b"kept")
    export(tmp_path / "broken", 6, size=64)
    assert kept.read_bytes().endswith(b"kept")
    kept.write_bytes(kept.read_bytes().removesuffix(b"kept"))
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    export(tmp_path, 3, names=["coco"], size=64)
    before = digest(tmp_path)

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path, 5, names=["coco"], size=64)
    after = digest(tmp_path)
    assert {name: after[name] for name in before} == before and not any(".part" in name for name in after)


def test_what_is_refused(tmp_path):
    for arguments, message in (
        (dict(names=["coco", "cocoa"]), "unknown data sets cocoa; known: coco, refcoco"),
        (dict(names=["llava"], split="val"), "llava has no split 'val'; it has train"),
        (dict(split="dev"), "unknown split 'dev'"), (dict(scenes=0), "0 scenes asked for, expected 1 to"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            export(tmp_path / "new", **{"scenes": 2, **arguments})
    assert not (tmp_path / "new").exists()
    export(tmp_path / "new", 1, names="coco", size=64)
    with pytest.raises(ValueError, match="'size': 64.*asked for.*'size': 32"):
        export(tmp_path / "new", 1, names="coco", size=32)
    with pytest.raises(ValueError, match="'seed': 0.*asked for.*'seed': 3"):
        export(tmp_path / "new", 1, names="coco", size=64, seed=3)
    (tmp_path / "real/annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match="not empty and was not written by export"):
        export(tmp_path / "real", 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        export(tmp_path / "file", 1)


def test_counts_are_those_of_the_files(tmp_path):
    counts = export(tmp_path, 6, size=64)
    assert list(counts) == [
        "coco",
        "refcoco",
        "refcoco+",
        "refcocog",
        "flickr30k",
        "vg",
        "llava",
        "vcr",
        "v7w_telling",
        "v7w_pointing",
    ]
    assert counts["coco"] == len(load(tmp_path, "annotations/instances_train2017.json")["annotations"])
    assert counts["refcocog"] == len(load(tmp_path, "finetune_refcocog_train.json")["images"])
    assert counts["flickr30k"] == 12 and counts["vcr"] == len(vcr_lines(tmp_path, "train"))
    assert counts["llava"] == len(load(tmp_path, "llava_instruct_150k.json"))
    for kind in ("telling", "pointing"):
        assert counts[f"v7w_{kind}"] == sum(
            len(i["qa_pairs"]) for i in load(tmp_path, f"dataset_v7w_{kind}.json")["images"]
        )
    assert export(tmp_path, 6, names=["vg_official"], size=64)["vg_official"] == sum(
        len(e["regions"]) for e in load(tmp_path, "region_descriptions.json")
    )


def test_importing_scenes_does_not_import_the_formats():
    code = "import sys, roilab.scenes; print([m for m in sys.modules if m in ('torch', 'numpy') or 'formats' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_readers_read_every_record(folder, tmp_path):
    """No more than that they take all of it; what they make of it is tested with files written by hand."""
    from roilab import data

    read = 0
    for name, source in data.SOURCES.items():
        for split in source.splits:
            records = data.read(name, folder, split, strict=True, cache=tmp_path)
            records.picture(random.Random(name).randrange(len(records)))
            read += 1
    assert read >= 30
