"""Flickr30k Entities files -> dialogues. Expected phrases are read off the captions by hand."""

import copy
import re
from functools import partial

import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import FORMATS, WORDS, boxes_and_labels, by_id, check_prompt, load, said, unquoted

from roilab import data
from roilab.data import flickr30k, requests
from roilab.data.report import MalformedRecord
from roilab.dialogues import check_turns, find_mentions

SMALL = FORMATS / "flickr30k_small" / "final_flickr_mergedGT_train.json"
CAPTION = "Two young guys with shaggy hair look at their hands ."


def load_flickr(content, strict=False, **options):
    return load(flickr30k.read, strict, options=options, annotations=content)


changed = partial(reading.changed, SMALL)


def mentions(text):
    return [number for *_, number in find_mentions(text)]


def check_sentence(record, caption, limit=150):
    """First all regions and the caption, then region by region its phrase."""
    check_turns(record.turns, ends_with_user=False)
    texts, numbers = said(record), list(range(1, len(record.boxes) + 1))
    assert 1 <= len(record.boxes) == len(record.labels) <= limit and len(texts) == 2 + 2 * len(numbers)
    assert mentions(texts[0]) == numbers and unquoted(texts[1]) == caption.strip()
    assert [mentions(question) for question in texts[2::2]] == [[number] for number in numbers]
    assert [unquoted(answer) for answer in texts[3::2]] == record.labels
    assert not any(mentions(answer) for answer in texts[1::2])


def test_sentences_phrases_and_rules_of_the_small_file():
    records, report = load_flickr(SMALL, strict=True)
    assert [(r.id, r.source, r.image, r.width, r.height) for r in records] == [
        (f"flickr30k-{i}", "flickr30k", "1000092795.jpg", 333, 500) for i in (0, 1)
    ]
    assert boxes_and_labels(records[:1]) == {
        ("1000092795.jpg", (50.0, 60.0, 150.0, 360.0), "Two young guys"): 1,  # a phrase with two boxes
        ("1000092795.jpg", (180.0, 60.0, 280.0, 360.0), "Two young guys"): 1,
        ("1000092795.jpg", (200.0, 61.0, 240.0, 91.0), "shaggy hair"): 1,  # the first of two spans
        ("1000092795.jpg", (190.0, 200.0, 333.0, 230.5), "their hands"): 1,  # clipped at 333
    }
    assert report.skipped == {"area 0, a side under 1 px, or outside the picture": 1}
    check_sentence(records[0], CAPTION)
    check_sentence(records[1], "A café <region1> sign ### stands there .")


def test_text_that_looks_like_a_mention_stays_text():
    record = load_flickr(SMALL)[0][1]
    assert (
        said(record)[1] == "A café \\<region1> sign ### stands there ." and said(record)[3] == "A café \\<region1> sign"
    )
    learned = check_prompt(record, [0])
    assert "A café <region1> sign # # # stands there ." in learned  # "###" ends a turn, so it is spaced out


def test_one_region_is_asked_for_in_the_singular():
    for seed in range(30):
        several, one = (said(record)[0] for record in load_flickr(SMALL, seed=seed)[0])
        assert "<region1>, <region2>, <region3> and <region4>" in several
        assert not re.search("these|areas|together|each", one) and mentions(one) == [1]


def test_requests_vary():
    first, later = set(), set()
    for seed in range(60):
        texts = said(load_flickr(SMALL, seed=seed)[0][0])
        first.add(texts[0])
        later.update(re.sub("[1-4]", "", question) for question in texts[2::2])
    assert len(first) == len(requests.DESCRIBE_AREAS) >= 5 and len(later) == len(requests.WHICH_WORDS) >= 5


def test_boxes_are_not_shuffled_apart_from_their_phrases():
    """The published reader once shuffled the boxes of a sentence and left its phrases in the order of the file."""
    words = [f"word{i}" for i in range(20)]
    caption, spans = "", []
    for word in words:
        start = len(caption) + bool(caption)
        caption = f"{caption} {word}".strip()
        spans.append([start, len(caption)])
    content = changed(lambda c: None)
    content["images"] = [content["images"][0] | {"caption": caption}]
    content["annotations"] = [
        {"image_id": 0, "bbox": [i, 2 * i, 100, 100], "tokens_positive": [span]} for i, span in enumerate(spans)
    ]
    orders = set()
    for seed in range(5):
        (record,), _ = load_flickr(content, strict=True, seed=seed)
        assert [f"word{box[0]:g}" for box in record.boxes] == record.labels
        check_sentence(record, caption)
        orders.add(tuple(record.labels))
        assert tuple(record.labels) != tuple(words)
    assert len(orders) == 5


def test_a_sentence_with_more_regions_than_the_limit_becomes_several_records():
    content = changed(lambda c: None)
    content["annotations"] = [
        {"image_id": 0, "bbox": [i % 20, i // 20, 100, 100], "tokens_positive": [[0, 14] if i % 2 else [20, 31]]}
        for i in range(310)
    ]
    records, _ = load_flickr(content)
    assert [(r.id, len(r.boxes)) for r in records] == [
        ("flickr30k-0", 150),
        ("flickr30k-0-2", 150),
        ("flickr30k-0-3", 10),
    ]
    for record in records:
        check_sentence(record, CAPTION)
        for box, label in zip(record.boxes, record.labels):
            assert label == ("Two young guys" if (box[0] + 20 * box[1]) % 2 else "shaggy hair")
    assert len(boxes_and_labels(records)) == 310


def test_sizes_that_are_numbers_are_read_too():
    content = changed(lambda c: c["images"][0].update(width=333, height=500.0))
    assert load_flickr(content, strict=True)[0] == load_flickr(SMALL)[0]


@pytest.mark.parametrize(
    ("change", "position", "reason"),
    [
        (lambda c: c["images"][0].update(width="wide"), "images[0]", "'width' is 'wide', expected a whole number"),
        (lambda c: c["images"][0].update(width="333.5"), "images[0]", "'width' is '333.5'"),
        (lambda c: c["images"][0].update(width="-333"), "images[0]", "'width' is '-333'"),
        (lambda c: c["images"][0].update(width="٣٣٣"), "images[0]", "'width' is '٣٣٣'"),
        (lambda c: c["images"][0].update(height="0"), "images[0]", "a picture of 333 x 0 pixels"),
        (lambda c: c["images"][0].update(height=None), "images[0]", "'height' is None"),
        (lambda c: c["images"][0].pop("height"), "images[0]", "'height' is missing"),
        (lambda c: c["images"][0].pop("caption"), "images[0]", "'caption' is missing"),
        (lambda c: c["images"][0].update(caption=""), "images[0]", "'caption' is empty"),
        (lambda c: c["images"][0].update(file_name=""), "images[0]", "'file_name' is ''"),
        (lambda c: c["annotations"][3].pop("tokens_positive"), "annotations[3]", "'tokens_positive' is missing"),
        (lambda c: c["annotations"][3].update(tokens_positive=[]), "annotations[3]", "'tokens_positive' is empty"),
        (lambda c: c["annotations"][3].update(tokens_positive=[20, 31]), "annotations[3]", "span 20, expected start and end"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[20]]), "annotations[3]", "span [20], expected start and end"),
        (lambda c: c["annotations"][3].update(tokens_positive=[["20", 31]]), "annotations[3]", "is '20', expected a whole number"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[20, 54]]), "annotations[3]", "span [20, 54] of a caption of 53 characters"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[-3, 5]]), "annotations[3]", "span [-3, 5] of a caption"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[31, 20]]), "annotations[3]", "span [31, 20] of a caption"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[20, 20]]), "annotations[3]", "span [20, 20] of a caption"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[3, 4]]), "annotations[3]", "span [3, 4] of the caption is blank"),
        (lambda c: c["annotations"][3].update(tokens_positive=[[20, 31], [40, 99]]), "annotations[3]", "span [40, 99] of a caption"),
        (lambda c: c["annotations"][3].update(bbox=[1, 2, float("nan"), 4]), "annotations[3]", "'NaN', expected a number"),
        (lambda c: c["annotations"][3].update(bbox=[1, 2, -1, 4]), "annotations[3]", "negative side"),
        (lambda c: c["annotations"][3].pop("bbox"), "annotations[3]", "'bbox' is missing"),
        (lambda c: c["annotations"][3].update(image_id=2), "annotations[3]", "image_id 2 is no image of the file"),
    ],
)  # fmt: skip
def test_malformed_records_are_counted_and_skipped(change, position, reason):
    content = changed(change)
    whole, (records, report) = boxes_and_labels(load_flickr(SMALL)[0]), load_flickr(content)
    assert report.problems == 1 and report.kept[0].position == position and reason in report.kept[0].reason
    lost = whole - boxes_and_labels(records)
    assert boxes_and_labels(records) <= whole
    assert sum(lost.values()) == 4 if position == "images[0]" else [key[2] for key in lost] == ["shaggy hair"]
    with pytest.raises(MalformedRecord) as error:
        load_flickr(content, strict=True)
    assert str(error.value).startswith(f"annotations.json, {position}: ") and reason in str(error.value)


def test_a_sentence_without_regions_and_a_file_that_breaks_off():
    records, report = load_flickr(changed(lambda c: c["annotations"].pop(1)), strict=True)
    assert len(records) == 1 and report.skipped["without a region"] == 1
    text = SMALL.read_text()
    text = text[: text.index('"id": 3, "bbox"')]
    records, report = load_flickr(text)
    assert report.problems == 1 and "cut off" in report.kept[0].reason and len(records) == 2
    assert sorted(records[0].labels) == ["Two young guys", "Two young guys"]
    check_sentence(records[0], CAPTION)
    with pytest.raises(MalformedRecord, match=f"annotations.json, .*before byte {len(text.encode()):,}: .*cut off"):
        load_flickr(text, strict=True)


def test_a_directory(tmp_path):
    (tmp_path / "mdetr_annotations").mkdir()
    (tmp_path / "mdetr_annotations" / SMALL.name).write_text(SMALL.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "flickr30k_images").mkdir()
    Image.new("RGB", (333, 500)).save(tmp_path / "flickr30k_images/1000092795.jpg")
    records = data.read("flickr30k", tmp_path, cache=tmp_path / "cache")
    assert (
        len(records) == 2 and records.picture(1).size == (333, 500) and records[1].labels == ["A café <region1> sign"]
    )


@st.composite
def files(draw):
    """Sentences of any words; a phrase is one or more words; every box of a sentence has its number as left side."""
    images, annotations, expected = [], [], set()
    for number in range(draw(st.integers(0, 3))):
        words = draw(st.lists(WORDS, min_size=1, max_size=6))
        caption = draw(st.sampled_from(["", "  "])) + " ".join(words) + draw(st.sampled_from(["", " "]))
        starts, position = [], len(caption) - len(caption.lstrip(" "))
        for word in words:
            starts.append(position)
            position += len(word) + 1
        images.append({
            "id": number, "file_name": f"{number}.jpg", "width": "200", "height": "150", "caption": caption,
        })  # fmt: skip
        for i in range(draw(st.integers(0, 9))):
            first = draw(st.integers(0, len(words) - 1))
            last = draw(st.integers(first, len(words) - 1))
            span = [starts[first], starts[last] + len(words[last])]
            annotations.append({"image_id": number, "bbox": [i, 3, 20, 20], "tokens_positive": [span]})
            expected.add((f"{number}.jpg", (i, 3, i + 20, 23), " ".join(words[first : last + 1])))
    return {"images": images, "annotations": annotations}, expected


@settings(deadline=None, max_examples=60)
@given(files(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_box_keeps_its_phrase_and_none_is_lost_or_doubled(case, limit, rng):
    content, expected = case
    records, _ = load_flickr(content, strict=True, limit=limit)
    assert set(boxes_and_labels(records)) == expected and sum(map(len, (r.boxes for r in records))) == len(expected)
    captions = {image["file_name"]: image["caption"] for image in content["images"]}
    for record in records:
        check_sentence(record, captions[record.image], limit)
        check_prompt(record, list(range(len(record.boxes))))
    other = copy.deepcopy(content)
    rng.shuffle(other["images"])
    rng.shuffle(other["annotations"])
    assert by_id(load_flickr(dict(reversed(other.items())), limit=limit)[0]) == by_id(records)
    alone = {
        "images": content["images"][-1:],
        "annotations": [a for a in content["annotations"] if a["image_id"] == len(content["images"]) - 1],
    }
    assert load_flickr(alone, limit=limit)[0] == [r for r in records if r.image == f"{len(content['images']) - 1}.jpg"]
