"""RefCOCO, RefCOCO+ and RefCOCOg files -> dialogues. Expected boxes are worked out by hand."""

import copy
import re
from functools import partial

import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import FORMATS, WORDS, boxes_and_labels, by_id, check_prompt, check_region_per_round, load, said

from roilab import data
from roilab.data import refcoco, requests
from roilab.data.report import MalformedRecord

FOLDER = FORMATS / "refcoco_small"
SMALL = FOLDER / "finetune_refcoco_train.json"
SHORT, NO_AREA = "expression under 3 words", "area 0, a side under 1 px, or outside the picture"


def load_refcoco(content, strict=False, **options):
    return load(refcoco.read, strict, options=options, annotations=content)


changed = partial(reading.changed, SMALL)


def expression(number, caption, box=(10, 10, 50, 50), name="COCO_train2014_000000000009.jpg", width=640, height=480):
    """(image entry, annotation)"""
    entry = {"file_name": name, "height": height, "width": width, "id": number, "caption": caption}
    return entry, {"image_id": number, "id": number, "bbox": list(box), "area": 100.0, "iscrowd": 0}


def content_of(expressions):
    return {"images": [entry for entry, _ in expressions], "annotations": [annotation for _, annotation in expressions]}


def test_expressions_of_a_picture_come_together():
    records, report = load_refcoco(SMALL, strict=True)
    assert [(r.id, r.source, r.image, r.width, r.height) for r in records] == [
        ("refcoco-000000000009", "refcoco", "000000000009.jpg", 640, 480),
        ("refcoco-000000000071", "refcoco", "000000000071.jpg", 100, 200),
    ]
    assert boxes_and_labels(records) == {
        ("000000000009.jpg", (1.0, 2.0, 301.0, 202.0), "bowl on the left"): 1,
        ("000000000009.jpg", (300.0, 10.5, 350.0, 70.5), "orange above <region1>"): 1,
        ("000000000071.jpg", (10.0, 20.0, 40.0, 200.0), "man in red"): 1,
    }
    # "left bowl" has two words; of "the far right one" half a pixel is in the picture.
    assert report.skipped == {SHORT: 1, NO_AREA: 1}
    for record in records:
        check_region_per_round(record, 15)


def test_a_mention_in_an_expression_stays_text():
    record = load_refcoco(SMALL)[0][0]
    assert "orange above \\<region1>" in said(record)
    assert "orange above <region1>" in check_prompt(record, [0, 1])


def test_the_first_turn_recommends_how_to_refer_and_later_ones_are_the_bare_region():
    for name in ("refcoco", "refcoco+"):
        found = set()
        for seed in range(40):
            records, _ = load_refcoco(FOLDER / f"finetune_{name}_train.json", strict=True, name=name, seed=seed)
            first, _, second, _ = said(records[0])
            assert first.endswith("\n<region1>") and second == "<region2>"
            found.add(first.removesuffix("\n<region1>"))
            for record in records:
                check_region_per_round(record, 15)
        assert len(found) >= 3
        for opening in found:
            assert re.search("one object|single object", opening) and re.search("in(side)? the picture", opening)
            assert re.search("relative to|relative position|relations?|beside", opening)
            assert re.search("attributes|looks", opening)
            forbidden = re.search("forbidden|never|do not|without naming", opening, re.IGNORECASE)
            assert bool(forbidden) == (name == "refcoco+")


def test_refcocog_asks_for_a_description_in_many_ways():
    found = set()
    for seed in range(200):
        records, report = load_refcoco(FOLDER / "finetune_refcocog_train.json", strict=True, name="refcocog", seed=seed)
        assert [r.id for r in records] == ["refcocog-000000000009"] and report.skipped == {SHORT: 1}  # "the oranges"
        assert sorted(records[0].labels) == [
            "a plastic box with broccoli and bread in it",
            "orange slices beside almonds",
        ]
        check_region_per_round(records[0], 15)
        for question in said(records[0])[::2]:
            assert len(question) > len("<region1>") + 5
            found.add(re.sub("<region[12]>", "<>", question))
    assert len(found) == len(requests.DESCRIBE) >= 20
    with pytest.raises(ValueError, match="no data set 'refcocos'"):
        load_refcoco(SMALL, name="refcocos")


@pytest.mark.parametrize(
    ("name", "short", "full"),
    [
        ("COCO_train2014_000000000009.jpg", "000000000009.jpg", "COCO_train2014_000000000009.jpg"),
        ("000000000009.jpg", "000000000009.jpg", "000000000009.jpg"),
        ("a_b/COCO_val2014_12.jpg", "a_b/12.jpg", "a_b/COCO_val2014_12.jpg"),
        ("odd_", "odd_", "odd_"),
    ],
)
def test_the_name_of_a_picture_is_what_follows_the_last_underscore(name, short, full):
    content = content_of([expression(1, "three words here", name=name)])
    for folder, image in ((None, short), ("train2017", short), ("train2014", full)):
        assert [r.image for r in load_refcoco(content, folder=folder)[0]] == [image]


@pytest.mark.parametrize("folders", [["train2014"], ["train2017"], ["train2014", "train2017"]])
def test_pictures_are_found_in_either_folder_of_coco(tmp_path, folders):
    (tmp_path / "mdetr_annotations").mkdir()
    for name in ("refcoco", "refcoco+", "refcocog"):
        content = (FOLDER / f"finetune_{name}_train.json").read_text()
        (tmp_path / "mdetr_annotations" / f"finetune_{name}_train.json").write_text(content)
    records = data.read("refcocog", tmp_path, cache=tmp_path / "cache")  # before there are pictures
    assert records.images is None and records[0].image == "000000000009.jpg"
    for folder in folders:
        (tmp_path / folder).mkdir()
        prefix = "COCO_train2014_" if folder == "train2014" else ""
        for number, size in ((9, (640, 480)), (71, (100, 200))):
            Image.new("RGB", size).save(tmp_path / folder / f"{prefix}{number:012d}.jpg")
    for name, count in (("refcoco", 2), ("refcoco+", 1), ("refcocog", 1)):
        records = data.read(name, tmp_path, cache=tmp_path / "cache")
        assert len(records) == count and {r.source for r in records} == {name}
        assert records.images.name == folders[-1]
        for i, record in enumerate(records):
            assert records.picture(i).size == (record.width, record.height)


def test_the_picture_folder_does_not_change_the_dialogue():
    one, other = load_refcoco(SMALL, folder="train2014")[0], load_refcoco(SMALL)[0]
    assert [(r.id, r.turns, r.boxes) for r in one] == [(r.id, r.turns, r.boxes) for r in other]


def test_a_picture_with_more_expressions_than_the_limit_becomes_several_records():
    records, _ = load_refcoco(content_of([expression(i, f"the thing {i}", (i, i, 50, 50)) for i in range(33)]))
    assert [r.id for r in records] == [f"refcoco-000000000009{end}" for end in ("", "-2", "-3")]
    assert [len(r.boxes) for r in records] == [15, 15, 3]
    assert all("\n" in said(r)[0] for r in records)
    pairs = sorted((box[0], label) for r in records for box, label in zip(r.boxes, r.labels))
    assert pairs == [(float(i), f"the thing {i}") for i in range(33)]


@pytest.mark.parametrize(
    ("change", "position", "reason"),
    [
        (lambda c: c["images"][0].pop("caption"), "images[0]", "'caption' is missing"),
        (lambda c: c["images"][0].update(caption=5), "images[0]", "'caption' is 5, expected a text"),
        (lambda c: c["images"][0].update(caption="  "), "images[0]", "'caption' is empty"),
        (lambda c: c["images"][0].update(width="640"), "images[0]", "'width' is '640', expected a whole number"),
        (lambda c: c["images"][0].pop("file_name"), "images[0]", "'file_name' is missing"),
        (lambda c: c["images"][0].update(file_name="/9.jpg"), "images[0]", "'file_name' is '/9.jpg'"),
        (lambda c: c["images"][4].update(width=641), "images[4]", "has 641 x 480 pixels, 640 x 480 in an entry before"),
        (lambda c: c["images"].append([]), "images[5]", "[] stands where an object is expected"),
        (lambda c: c["images"].append({"id": 1}), "images[5]", "image id 1 a second time"),
        (lambda c: c["annotations"][1].pop("bbox"), "annotations[1]", "'bbox' is missing"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, -4]), "annotations[1]", "negative side"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, float("nan")]), "annotations[1]", "'NaN', expected a number"),
        (lambda c: c["annotations"].append({"image_id": 6, "bbox": [1, 2, 3, 4]}), "annotations[5]", "image_id 6 is no image"),
        (lambda c: c["annotations"].append({"image_id": 1, "bbox": [1, 2, 3, 4]}), "images[0]", "2 annotations for one expression"),
    ],
)  # fmt: skip
def test_malformed_records_are_counted_and_skipped(change, position, reason):
    content = changed(change)
    whole, (records, report) = boxes_and_labels(load_refcoco(SMALL)[0]), load_refcoco(content)
    assert report.problems == 1 and report.kept[0].position == position and reason in report.kept[0].reason
    lost = {label for _, _, label in whole - boxes_and_labels(records)}
    assert boxes_and_labels(records) <= whole
    assert lost == ({"bowl on the left"} if position in ("images[0]", "annotations[1]") else set())
    with pytest.raises(MalformedRecord) as error:
        load_refcoco(content, strict=True)
    assert str(error.value).startswith(f"annotations.json, {position}: ") and reason in str(error.value)


def test_an_expression_without_its_annotation_is_no_record():
    content = changed(lambda c: c["annotations"].pop(1))
    records, report = load_refcoco(content, strict=True)
    assert report.skipped == {SHORT: 1, NO_AREA: 1, "without a region": 1} and records[0].labels == [
        "orange above <region1>"
    ]


def test_a_file_that_breaks_off():
    text = SMALL.read_text()
    text = text[: text.index('"image_id": 3')]
    records, report = load_refcoco(text)
    assert report.problems == 1 and "cut off" in report.kept[0].reason and "byte" in report.kept[0].position
    assert {label for r in records for label in r.labels} == {"orange above <region1>", "bowl on the left"}
    with pytest.raises(MalformedRecord, match=f"annotations.json, .*before byte {len(text.encode()):,}: .*cut off"):
        load_refcoco(text, strict=True)


@st.composite
def files(draw):
    """Expressions of a few pictures with whatever text, each with a box of its own."""
    count = draw(st.integers(0, 16))
    expressions = []
    for number in range(count):
        picture = draw(st.integers(1, 3))
        words = draw(st.lists(WORDS, min_size=1, max_size=5))
        box = (number, draw(st.integers(0, 40)), draw(st.integers(1, 60)), draw(st.integers(1, 60)))
        expressions.append(
            expression(number, " ".join(words), box, f"COCO_train2014_{picture:012d}.jpg", 100 + picture, 120)
        )
    return expressions


@settings(deadline=None, max_examples=60)
@given(
    files(), st.sampled_from(["refcoco", "refcoco+", "refcocog"]), st.integers(1, 7), st.randoms(use_true_random=False)
)
def test_every_box_keeps_its_expression_and_none_is_lost_or_doubled(expressions, name, limit, rng):
    records, report = load_refcoco(content_of(expressions), strict=True, name=name, limit=limit)
    expected = set()
    for entry, annotation in expressions:
        x, y, w, h = annotation["bbox"]
        if len(entry["caption"].split()) >= 3:
            expected.add(
                (entry["file_name"].split("_")[-1], (x, y, min(x + w, entry["width"]), y + h), entry["caption"])
            )
    assert set(boxes_and_labels(records)) == expected and set(boxes_and_labels(records).values()) <= {1}
    assert report.skipped[SHORT] == len(expressions) - len(expected)
    for record in records:
        check_region_per_round(record, limit)
        check_prompt(record, list(range(len(record.boxes))))
    shuffled = copy.deepcopy(expressions)
    rng.shuffle(shuffled)
    content = content_of(shuffled)
    rng.shuffle(content["annotations"])
    assert by_id(load_refcoco(content, name=name, limit=limit)[0]) == by_id(records)
    alone = content_of([each for each in expressions if each[0]["width"] == 101])
    assert load_refcoco(alone, name=name, limit=limit)[0] == [r for r in records if r.width == 101]
