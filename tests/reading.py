"""Small data files, written and read: for the tests of the readers."""

import json
import re
import tempfile
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path

from conftest import small_model
from hypothesis import strategies as st

from roilab.data.report import Report
from roilab.dialogues import EscapedMarker, check_turns, find_mentions

FORMATS = Path(__file__).parent / "data" / "formats"
# Whatever may stand in a caption, and what could be taken for something else there.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=6) | st.sampled_from(
    ["<region1>", "\\<region2>", "\\\\<region1>", "###", "<bbox>", "</s>", "NaN", '"', "\\", "{names}", "é\u0301", "😀"]
)


def load(read, strict=False, *, options=None, **contents):
    """(records, report) of files that hold `contents`: role -> a value to be written as JSON, a text as it is, or a path."""
    report = Report(strict)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for role, content in contents.items():
            files[role] = content if isinstance(content, Path) else Path(folder) / f"{role}.json"
            if not isinstance(content, Path):
                files[role].write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return list(read(files, report, **options or {})), report


def changed(path, change):
    """What a file of `FORMATS` holds, after `change` was applied to it."""
    content = json.loads(path.read_text())
    change(content)
    return content


def said(record):
    return [turn["content"] for turn in record.turns]


def by_id(records):
    found = {record.id: record for record in records}
    assert len(found) == len(records)
    return found


def boxes_and_labels(records):
    """(picture, box, label) -> how often."""
    return Counter(
        (record.image, tuple(box), label) for record in records for box, label in zip(record.boxes, record.labels)
    )


def check_region_per_round(record, limit):
    """Round i is about region i alone, and answered by its label."""
    check_turns(record.turns, ends_with_user=False)
    assert 1 <= len(record.boxes) == len(record.labels) == len(record.turns) // 2 <= limit
    for number, (question, answer) in enumerate(zip(said(record)[::2], said(record)[1::2]), start=1):
        assert [mention for *_, mention in find_mentions(question)] == [number]
        assert find_mentions(answer) == [] and unquoted(answer) == record.labels[number - 1]


def unquoted(text):
    """The text that a turn without mentions sends: `\\<region1>` is `<region1>`, and backslashes before it are doubled."""
    return re.sub(r"(\\*)\\(<region[0-9]+>)", lambda match: match[1][: len(match[1]) // 2] + match[2], text)


@lru_cache
def processor():
    return small_model("vicuna_v0").processor


def check_prompt(record, regions):
    """The dialogue becomes ids in which `regions` (0-based) are sent in this order; returns what is learned, as text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EscapedMarker)
        ids = processor().encode_dialogue(record.turns, num_regions=len(record.boxes))
    assert ids.regions == regions
    return processor().tokenizer.decode([i for i in ids.labels if i >= 0], clean_up_tokenization_spaces=False)
