"""Hostile annotation files: every data set that `roilab.data` reads, and its checks."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
from hostile import COUNTED, EITHER, LEFT_OUT, NO_JSON, NO_OBJECT, UNHARMED, hostile, mutations, search
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from roilab import data
from roilab.data.detections import load_detections
from roilab.data.report import Report

FORMATS = Path(__file__).parent / "data" / "formats"
# data set, split, its small folder, the file to damage
FILES = [
    ("coco", "val", "coco_small", "annotations/instances_val2017.json"),
    ("refcoco", "train", "refcoco_small", "finetune_refcoco_train.json"),
    ("refcoco+", "train", "refcoco_small", "finetune_refcoco+_train.json"),
    ("refcocog", "train", "refcoco_small", "finetune_refcocog_train.json"),
    ("flickr30k", "train", "flickr30k_small", "final_flickr_mergedGT_train.json"),
    ("vg", "train", "vg_small", "vg/train.json"),
    ("vg", "train", "vg_official_small", "region_descriptions.json"),
    ("vg", "train", "vg_official_small", "image_data.json"),
    ("llava", "train", "llava_small", "llava_instruct_150k.json"),
    ("llava", "train", "llava_small", "detections.json"),
    ("vcr_full", "train", "vcr_small", "train.jsonl"),
    ("vcr_single", "train", "vcr_small", "train.jsonl"),
    ("vcr_multi", "train", "vcr_small", "train.jsonl"),
    ("vcr_full", "train", "vcr_small", "vcr1images/movie/a.json"),
    ("v7w_telling", "val", "v7w_small", "dataset_v7w_telling.json"),
    ("v7w_pointing", "train", "v7w_small", "dataset_v7w_pointing.json"),
]
NAMES = ("file_name", "image", "img_fn", "metadata_fn", "filename", "url")  # keys under which files name pictures
ODD = [
    "NaN", "-Infinity", "1e400", "9" * 5000, "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, '"\\ud800"', '"\\u0000"',
]  # fmt: skip
OUT = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "..\\b.jpg",
    "C:/b.jpg",
    "",
    ".",
    "x\0.jpg",
    5,
    None,
    ["a.jpg"],
]


def source(world, folder):
    """A fresh copy of a small folder, with the pictures whose sizes are read."""
    copy = world.folder(FORMATS / folder, "data")
    if folder == "llava_small":
        names = ["train2017/000000000011.jpg", "train2017/000000000012.jpg"]
    elif folder == "v7w_small":
        content = [json.loads(path.read_text()) for path in sorted(copy.glob("*.json"))]
        names = [f"visual7w_images/{image['filename']}" for each in content for image in each["images"]]
    else:
        names = []
    for name in names:
        (copy / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 100)).save(copy / name)
    return copy


def read(world, name, split, folder, strict):
    shutil.rmtree(world.here / "cache", ignore_errors=True)
    records = data.read(name, folder, split, strict=strict, cache=world.here / "cache")
    for record in records:  # what was read is whole
        assert record.boxes is not None and record.width > 0 and not Path(record.image).is_absolute()
        assert ".." not in Path(record.image).parts
    return COUNTED if records.report.problems else None


def written(value, path):
    """A value as text of the kind of this file."""
    if path.suffix == ".jsonl":
        return "".join(json.dumps(each) + "\n" for each in value)
    return json.dumps(value)


def parsed(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def renamed(value, name):
    """A value in which pictures have another name."""
    if isinstance(value, list):
        return [renamed(each, name) for each in value]
    if isinstance(value, dict):
        return {key: name if key in NAMES else renamed(each, name) for key, each in value.items()}
    return value


def declare(name, split, folder, file):
    entry = f"data.read {name}, {Path(file).name}"

    def each_of(world, attempt, path, contents, strict=False):
        """Reads a file with these contents, every second one strictly."""
        for content in contents:
            path.write_bytes(content)
            attempt(lambda strict=strict: read(world, name, split, path.parents[file.count("/")], strict))
            strict = not strict

    @hostile(
        entry,
        "empty, cut off, no JSON, not UTF-8, deep, another kind of value",
        EITHER if file == "detections.json" else LEFT_OUT,
    )
    def _(world, attempt):
        path = source(world, folder) / file
        whole = path.read_bytes()
        cut = [whole[: int(len(whole) * share)] for share in (0.2, 0.8)]
        each_of(world, attempt, path, [*NO_JSON.values(), *NO_OBJECT.values(), *cut])

    @hostile(entry, "one value changed or gone (hypothesis)", EITHER)
    def _(world, attempt):
        path = source(world, folder) / file
        whole = parsed(path)

        @search(6)
        @given(mutations(whole), st.booleans())
        def check(changed, strict):
            if path.suffix != ".jsonl" or isinstance(changed, list):
                each_of(world, attempt, path, [written(changed, path).encode()], strict)

        check()

    @hostile(entry, "NaN, 1e400, thousands of digits, lists in lists in a record", EITHER)
    def _(world, attempt):
        path = source(world, folder) / file
        whole = path.read_text(encoding="utf-8")
        place = whole.index(":", len(whole) // 2)
        end = place + 1 + len(whole[place + 1 :]) - len(whole[place + 1 :].lstrip())
        stop = min(i for i in (whole.find(sign, end) for sign in ",]}\n") if i >= 0)
        each_of(world, attempt, path, [(whole[:end] + value + whole[stop:]).encode() for value in ODD])

    if any(f'"{key}"' in (FORMATS / folder / file).read_text(encoding="utf-8") for key in NAMES):

        @hostile(
            entry,
            "names of pictures that lead out of their folder",
            EITHER if file in ("detections.json", "image_data.json") else LEFT_OUT,
        )
        def _(world, attempt):
            path = source(world, folder) / file
            whole = parsed(path)
            each_of(world, attempt, path, [written(renamed(whole, name), path).encode() for name in OUT])

    if "/" not in file or "annotations" in file or folder == "vg_small":

        @hostile(
            entry,
            "a folder, a pipe, a link in a circle in its place",
            EITHER if file == "detections.json" else LEFT_OUT,
        )
        def _(world, attempt):
            for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)):
                path = source(world, folder) / file
                path.unlink()
                make(path)
                root = path.parents[file.count("/")]
                attempt(lambda root=root: read(world, name, split, root, False), "lacks")


for each in FILES:
    declare(*each)


@hostile("data.read llava, detections.pkl", "pickled code, damaged pickles", LEFT_OUT)
def _(world, attempt):
    folder = source(world, "llava_small")
    (folder / "detections.json").unlink()
    path = folder / "detections.pkl"
    whole = pickle.dumps([{"filename": "000000000011.jpg", "pred_bboxes": np.zeros((1, 5)), "labels": np.zeros(1)}])
    contents = [pickle.dumps([world.evil()], protocol) for protocol in range(6)]
    contents += [
        b"", b"x", whole[:40], whole[:-3], b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"c__main__\nEvil\n.", b"cnumpy\nload\n.",
        pickle.dumps({"a": 1}), pickle.dumps(np.zeros(2, object)), b"\x80\x04\x8c\xff", b"(" * 10**5 + b".", b"]" * 10**5 + b"a" * 10**4 + b".",
        b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.", b"N" + b"2" * 10**5 + b".",
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        for strict in (False, True):
            attempt(lambda strict=strict: read(world, "llava", "train", folder, strict), "detections.pkl")


@hostile("data.read llava, detections.pkl", "numbers that are none", LEFT_OUT)
def _(world, attempt):
    path = world.here / "detections.pkl"
    entry = {"filename": "a.jpg", "pred_bboxes": np.array([[0, 0, 0.5, 0.5, 0.9]]), "labels": np.array([1])}
    for change in (
        {"pred_bboxes": np.full((1, 5), np.nan)}, {"pred_bboxes": np.zeros((1, 4))}, {"pred_bboxes": 5}, {"pred_bboxes": "x"}, {"labels": np.array([10**6])},
        {"labels": np.array([0.5])}, {"labels": np.array([1, 2])}, {"filename": 5}, {"filename": None}, {"pred_bboxes": np.array([[9, 9, 1, 1, 1.0]])}, {"labels": None},
    ):  # fmt: skip
        path.write_bytes(pickle.dumps([entry | change]))

        def load():
            report = Report()
            assert not list(load_detections(path, report))
            return COUNTED if report.problems else None

        attempt(load)
    for other in ([5], [None], [[]], [entry, entry | {"filename": 7}]):
        path.write_bytes(pickle.dumps(other))
        attempt(lambda: _counted(path))


def _counted(path):
    report = Report()
    list(load_detections(path, report))
    return COUNTED if report.problems else None


@hostile("data.read", "names, splits and folders that are not there")
def _(world, attempt):
    folder = source(world, "coco_small")
    for name, directory, split in (
        ("other", folder, "val"), ("", folder, "val"), ("../coco", folder, "val"), ("coco", folder, "other"), ("coco", folder, "*"), ("coco", folder, "../val"),
        ("coco", world.here / "none", "val"), ("coco", folder / "annotations" / "instances_val2017.json", "val"), ("coco", world.here, "val"),
    ):  # fmt: skip
        attempt(lambda args=(name, directory, split): data.read(*args, cache=world.here / "cache"))


@hostile("data.check", "folders of damaged files: told, not raised", UNHARMED)
def _(world, attempt):
    folder = world.here / "mixed"
    for _, _, small, _ in FILES:
        shutil.copytree(FORMATS / small, folder, dirs_exist_ok=True)
    for damage in (
        b"",
        b'{"a": [1, 2',
        b"[" * 10**5,
        b"\xff\xfe",
        b'{"images": [{"id": NaN}], "annotations": 5}',
        pickle.dumps(world.evil()),
    ):
        for *_, file in FILES:
            (folder / file).write_bytes(damage)
        (folder / "detections.pkl").write_bytes(damage)

        def look():
            found = data.check(folder, cache=world.here / "cache")
            assert found.found and all(each.problem for each in found.found) and str(found)

        attempt(look)


@hostile("data.check", "no folder")
def _(world, attempt):
    (world.here / "file").touch()
    for path in (world.here / "none", world.here / "file", "\0", "/dev/null"):
        attempt(lambda path=path: data.check(path), "is no folder")


@hostile("Records.picture", "pictures that are missing, damaged, of another size")
def _(world, attempt):
    folder = source(world, "coco_small")
    records = data.read("coco", folder, "val", cache=world.here / "cache")
    attempt(lambda: records.picture(0), "no folder of pictures")
    (folder / "val2017").mkdir()
    records = data.read("coco", folder, "val", cache=world.here / "cache")
    attempt(lambda: records.picture(0), "no file")
    path = folder / "val2017" / records[0].image
    for content in (b"", b"no picture", pickle.dumps(world.evil())):
        path.write_bytes(content)
        attempt(lambda: records.picture(0), path.name)
    Image.new("RGB", (3, 3)).save(path)
    attempt(lambda: records.picture(0), "3 x 3")
    path.unlink()
    path.mkdir()
    attempt(lambda: records.picture(0), "folder")
