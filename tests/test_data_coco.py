"""COCO detection files -> dialogues. Expected boxes are worked out by hand; 224 / 640 = 0.35 and 224 / 480 = 0.467 pixels per pixel."""

import copy
import json
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import FORMATS, boxes_and_labels, by_id, check_prompt, check_region_per_round, load, said

from roilab import data
from roilab.data import coco
from roilab.data.report import MalformedRecord

SMALL = FORMATS / "coco_small/annotations/instances_val2017.json"
REAL = FORMATS / "coco_real/annotations/instances_val2017.json"
TINY = "a side under 2 px when the picture is resized to 224 x 224"
NO_AREA = "area 0, a side under 1 px, or outside the picture"


def load_coco(content, strict=False, **options):
    return load(coco.read, strict, options=options, annotations=content)


changed = partial(reading.changed, SMALL)


def test_boxes_names_and_rules_of_the_small_file():
    records, report = load_coco(SMALL, strict=True)
    assert boxes_and_labels(records) == {
        ("000000000009.jpg", (10.5, 20.0, 40.5, 60.25), "dog"): 1,
        ("000000000009.jpg", (200.0, 100.0, 205.75, 150.0), "car"): 1,  # 5.75 x 0.35 = 2.01 pixels; 5.7 would be 1.995
        ("000000000009.jpg", (400.0, 100.0, 450.0, 104.5), "toothbrush"): 1,  # 4.5 x 0.467 = 2.1; 4.25 would be 1.98
        ("000000000025.jpg", (90.0, 150.0, 100.0, 200.0), "person"): 1,  # clipped to 100 x 200
        ("000000000025.jpg", (20.0, 30.0, 21.0, 80.0), "car"): 1,  # one pixel wide, but 2.24 after the resize
    }
    assert report.skipped == {"crowd": 1, TINY: 2, NO_AREA: 3, "without a region": 1}
    assert [(r.id, r.source, r.width, r.height) for r in records] == [
        ("coco-9", "coco", 640, 480),
        ("coco-25", "coco", 100, 200),
    ]
    for record in records:
        check_region_per_round(record, 100)


def test_the_first_turn_lists_the_categories_in_the_order_of_the_file_and_later_ones_are_the_bare_region():
    record = load_coco(SMALL)[0][0]
    first, _, second, _, third, _ = said(record)
    assert "person, dog, car, toothbrush" in first and first.endswith("\n<region1>")
    assert (second, third) == ("<region2>", "<region3>")
    assert "name" in first and any(word in first for word in ("only", "nothing but", "no more", "without any other"))
    openings = {said(load_coco(SMALL, seed=seed)[0][0])[0] for seed in range(40)}
    assert len(openings) == len(coco.DETECTION) >= 2


def test_another_size_of_the_models_pictures():
    records, report = load_coco(SMALL, image_size=448)
    assert (
        len(records[0].boxes) == 5 and TINY not in report.skipped and not any("448" in rule for rule in report.skipped)
    )
    records, report = load_coco(SMALL, image_size=20)
    assert sum(len(r.boxes) for r in records) == 1  # the person: 10 / 100 x 20 = 2


@pytest.mark.parametrize(
    ("change", "position", "reason"),
    [
        (lambda c: c["images"][1].pop("width"), "images[1]", "'width' is missing"),
        (lambda c: c["images"][1].update(width="100"), "images[1]", "'width' is '100', expected a whole number"),
        (lambda c: c["images"][1].update(height=-4), "images[1]", "a picture of 100 x -4 pixels"),
        (lambda c: c["images"][1].update(width=10**12), "images[1]", "a picture of 1000000000000 x 200 pixels"),
        (lambda c: c["images"][1].pop("file_name"), "images[1]", "'file_name' is missing"),
        (lambda c: c["images"][1].update(file_name="../x.jpg"), "images[1]", "'file_name' is '../x.jpg'"),
        (lambda c: c["images"][2].pop("id"), "images[2]", "'id' is missing"),
        (lambda c: c["images"][2].update(id=9), "images[2]", "image id 9 a second time"),
        (lambda c: c["images"][2].update(id=1e30), "images[2]", "'id' is 1e+30, expected a whole number"),
        (lambda c: c["images"].append(7), "images[3]", "7 stands where an object is expected"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotations[0]", "'bbox' is missing"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotations[0]", "box [1, 2, 3], expected four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), "annotations[0]", "negative side"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "annotations[0]", "'NaN', expected a number"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("inf"), 4]), "annotations[0]", "'Infinity', expected a number"),
        (lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]), "annotations[0]", "is '1', expected a number"),
        (lambda c: c["annotations"][0].update(area="12"), "annotations[0]", "'area' is '12', expected a number"),
        (lambda c: c["annotations"][0].update(iscrowd="no"), "annotations[0]", "'iscrowd' is 'no'"),
        (lambda c: c["annotations"][0].update(category_id=4), "annotations[0]", "category_id 4 is no category of the file, which has 4"),
        (lambda c: c["annotations"][0].pop("category_id"), "annotations[0]", "'category_id' is missing"),
        (lambda c: c["annotations"][0].update(image_id=10), "annotations[0]", "image_id 10 is no image of the file"),
        (lambda c: c["annotations"][0].pop("image_id"), "annotations[0]", "'image_id' is missing"),
        (lambda c: c["annotations"].append(None), "annotations[11]", "None stands where an object is expected"),
        (lambda c: c["categories"].append({"id": 18, "name": "cat"}), "categories[4]", "category id 18 a second time"),
        (lambda c: c["categories"].append({"id": 19}), "categories[4]", "'name' is missing"),
        (lambda c: c["categories"][1].update(name=" "), "annotations[0]", "the category's name is empty"),
        (lambda c: c.pop("categories"), "categories", "the list is missing or empty"),
    ],
)  # fmt: skip
def test_malformed_records_are_counted_and_skipped(change, position, reason):
    content = changed(change)
    whole, (records, report) = boxes_and_labels(load_coco(SMALL)[0]), load_coco(content)
    assert report.problems == 1 and report.kept[0].file == "annotations.json"
    assert report.kept[0].position == position and reason in report.kept[0].reason
    assert boxes_and_labels(records) <= whole  # what is left is as before
    if position.startswith("annotations"):
        assert sum(boxes_and_labels(records).values()) == sum(whole.values()) - (position != "annotations[11]")
    with pytest.raises(MalformedRecord) as error:
        load_coco(content, strict=True)
    assert str(error.value).startswith(f"annotations.json, {position}: ") and reason in str(error.value)


@pytest.mark.parametrize("categories_first", [True, False])
def test_a_file_that_breaks_off(categories_first):
    content = json.loads(SMALL.read_text())
    if categories_first:
        content = {"categories": content.pop("categories")} | content
    text = json.dumps(content)
    text = text[: text.index('"id": 105')]
    records, report = load_coco(text)
    assert report.problems == 1 and "not valid JSON from here on, or cut off" in report.kept[0].reason
    assert f"before byte {len(text):,}" in report.kept[0].position
    assert sum(len(r.boxes) for r in records) == (2 if categories_first else 0)  # the dog and the person come before
    with pytest.raises(MalformedRecord, match="annotations.json, .*byte .*cut off"):
        load_coco(text, strict=True)


def test_a_picture_with_more_regions_than_the_limit_becomes_several_records():
    content = changed(lambda c: None)
    content["annotations"] = [
        {"id": i, "image_id": 9, "category_id": 1, "bbox": [i, 1, 50, 50], "area": 2500, "iscrowd": 0}
        for i in range(250)
    ]
    records, _ = load_coco(content)
    assert [r.id for r in records] == ["coco-9", "coco-9-2", "coco-9-3"] and [len(r.boxes) for r in records] == [
        100,
        100,
        50,
    ]
    assert sorted(box[0] for r in records for box in r.boxes) == list(range(250))
    assert [box[0] for box in records[0].boxes] != sorted(box[0] for box in records[0].boxes)  # shuffled
    assert all("toothbrush" in said(r)[0] for r in records)
    for record in records:
        check_region_per_round(record, 100)


# Properties


@st.composite
def coco_files(draw):
    names = draw(
        st.lists(
            st.sampled_from(["dog", "<region1>", "hot ###", "\\<region2>", "{names}", "é"]), min_size=1, unique=True
        )
    )
    ids = draw(st.lists(st.integers(0, 999), unique=True, max_size=4))
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": draw(st.integers(60, 200)), "height": draw(st.integers(60, 200))}
        for i in ids
    ]
    annotations = []
    for number in range(draw(st.integers(0, 14)) if images else 0):
        box = [draw(st.integers(0, 20)), draw(st.integers(0, 20)), draw(st.integers(4, 39)), draw(st.integers(4, 39))]
        category = draw(st.integers(0, len(names) - 1))
        annotations.append({
            "id": number, "image_id": draw(st.sampled_from(ids)), "category_id": category, "bbox": box, "area": 9.5, "iscrowd": 0,
        })  # fmt: skip
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in enumerate(names)],
    }


@settings(deadline=None, max_examples=40)
@given(coco_files(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_box_keeps_its_name_and_none_is_lost_or_doubled(content, limit, rng):
    records, report = load_coco(content, strict=True, limit=limit)
    expected = [
        (f"{a['image_id']}.jpg", (a["bbox"][0], a["bbox"][1], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]), a["category_id"])
        for a in content["annotations"]
    ]  # fmt: skip
    found = boxes_and_labels(records)
    assert sum(found.values()) == len(expected)
    names = [each["name"] for each in content["categories"]]
    assert all(
        found[image, box, names[category]] == expected.count((image, box, category))
        for image, box, category in expected
    )
    for record in records:
        check_region_per_round(record, limit)
        check_prompt(record, list(range(len(record.boxes))))
    # The order in the file, and what else is in it, changes nothing.
    other = copy.deepcopy(content)
    rng.shuffle(other["images"])
    rng.shuffle(other["annotations"])
    assert by_id(load_coco(dict(reversed(other.items())), limit=limit)[0]) == by_id(records)
    for image in content["images"][-1:]:
        alone = content | {
            "images": [image],
            "annotations": [a for a in content["annotations"] if a["image_id"] == image["id"]],
        }
        assert load_coco(alone, limit=limit)[0] == [r for r in records if r.image == image["file_name"]]


# Real files, and a directory


def test_real_pictures(tmp_path):
    (tmp_path / "val2017").mkdir()
    for name in ("000000165518.jpg", "000000183709.jpg", "000000255165.jpg"):
        shutil.copy(Path(__file__).parent / "data/photographs" / name, tmp_path / "val2017")
    shutil.copytree(REAL.parent, tmp_path / "annotations")
    records = data.read("coco", tmp_path, "val", cache=tmp_path / "cache", strict=True)
    # 49 annotations, of which one is a crowd and one is 4.25 px wide in a picture of 480.
    assert len(records) == 3 and sum(len(r.boxes) for r in records) == 47
    assert records.report.skipped == {"crowd": 1, TINY: 1} and records.report.problems == 0
    for i, record in enumerate(records):
        assert records.picture(i).size == (record.width, record.height)
        check_region_per_round(record, 100)
    motorcyclist = next(r for r in records if r.image == "000000165518.jpg")
    pairs = {label: [round(side, 2) for side in box] for label, box in zip(motorcyclist.labels, motorcyclist.boxes)}
    assert pairs == {"motorcycle": [261.36, 262.7, 433.76, 510.41], "person": [248.33, 173.92, 423.31, 460.71]}
    names = said(motorcyclist)[0]
    assert "person, bicycle, car, motorcycle" in names and "hair drier, toothbrush" in names and names.count(",") >= 79
    assert data.read("coco", tmp_path, "val", cache=tmp_path / "cache")[0] == records[0]


def test_the_seed_decides_the_order():
    content = changed(lambda c: None)
    rng = random.Random(0)
    content["annotations"] = [
        {"id": i, "image_id": 9, "category_id": rng.choice((1, 3)), "bbox": [10 * i, 1, 50, 50]} for i in range(20)
    ]  # without area and iscrowd, which need not be there
    first, again, other = (load_coco(content, seed=seed)[0][0] for seed in (0, 0, 1))
    assert first == again and first.boxes != other.boxes and sorted(first.boxes) == sorted(other.boxes)
    # Pictures with the same regions have orders of their own.
    content["annotations"] += [annotation | {"image_id": 25} for annotation in content["annotations"]]
    content["images"][1] |= {"width": 640, "height": 480}
    one, two = load_coco(content)[0]
    assert one.boxes != two.boxes and sorted(one.boxes) == sorted(two.boxes) and one == first
