"""Hostile folders of published weights, for `roilab.weights.convert`."""

import json
import pickle
import shutil

import torch
from hostile import EITHER, NO_JSON, NO_OBJECT, hostile, mutations, search
from hypothesis import given

from roilab.weights import convert, generated


def published(world, name="published"):
    """A copy of small published weights: official, llama, clip."""
    files = world.once("published", lambda: generated.write_official(world.root / "published"))
    return world.folder(files, name)


def converted(world, files, out, **options):
    """Converts into a folder that holds something already, and sees to it that a failure leaves it as it was."""
    out.mkdir(exist_ok=True)
    (out / "mine").write_text("kept")
    before = sorted(path.name for path in out.iterdir())
    given = {"base": files / "llama", "vision": files / "clip", "progress": False} | options
    try:
        return convert(files / "official", out, **given)
    except Exception:
        assert sorted(path.name for path in out.iterdir()) == before and (out / "mine").read_text() == "kept"
        assert sorted(path.name for path in out.parent.iterdir()) == sorted({"published", "out"} | others(world))
        raise


def others(world):
    """What rows put beside the folders."""
    return {path.name for path in world.here.iterdir() if path.name.startswith("outside")}


def tries(world, attempt, says=""):
    """(files, try): what a try converts, for real and as a dry run."""
    files = published(world)

    def both(text=says):
        for dry_run in (True, False):
            attempt(lambda dry_run=dry_run: converted(world, files, world.here / "out", dry_run=dry_run), text)

    return files, both


def shard(files):
    return sorted((files / "official").glob("*.bin"))[0]


def index(files):
    return files / "official" / "pytorch_model.bin.index.json"


@hostile("weights.convert", "index: paths that lead out, missing shards, no JSON")
def _(world, attempt):
    files, convert_it = tries(world, attempt)
    whole = json.loads(index(files).read_text())
    outside = world.here / "outside.bin"
    shutil.copy(shard(files), outside)
    name = next(key for key, file in whole["weight_map"].items() if file == shard(files).name)
    for file in ("../../outside.bin", str(outside), "no.bin", "", "..", "a/b.bin", "..\\outside.bin", "\0", 5, None):
        index(files).write_text(json.dumps(whole | {"weight_map": whole["weight_map"] | {name: file}}))
        convert_it("index.json")
    for content in [*(NO_JSON | NO_OBJECT).values(), b"{}", b'{"weight_map": []}', b'{"weight_map": {}}']:
        index(files).write_bytes(content)
        convert_it("index.json")


@hostile("weights.convert", "shards: pickled code, cut off, empty, no tensors")
def _(world, attempt):
    files, convert_it = tries(world, attempt)
    path = shard(files)
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    key = next(iter(state))
    for content in (
        b"",
        whole[:99],
        whole[: len(whole) // 2],
        whole[:-9],
        *(pickle.dumps(world.evil(), protocol) for protocol in (0, 2, 4)),
    ):
        path.write_bytes(content)
        convert_it(path.name)
    for zipped in (True, False):
        torch.save(state | {key: world.evil()}, path, _use_new_zipfile_serialization=zipped)
        convert_it(path.name)
    for other in ([1], {1: 2}, {key: 5}, {key: None}):
        torch.save(other, path)
        convert_it(path.name)
    path.unlink()
    convert_it(path.name)
    path.mkdir()
    convert_it(path.name)


@hostile("weights.convert", "tensors: gigantic, misshapen, missing, unknown, whole numbers, NaN")
def _(world, attempt):
    files, convert_it = tries(world, attempt)
    path = shard(files)
    state = torch.load(path, weights_only=True)
    key = next(name for name in state if name.endswith("weight") and state[name].dim() == 2)
    for value in (
        torch.zeros(1).expand(10**6, 10**6), torch.zeros(3), torch.zeros(0), torch.zeros(()), state[key].to(torch.int64), state[key] > 0,
        state[key].to(torch.complex64), state[key].to_sparse(),
    ):  # fmt: skip
        torch.save(state | {key: value}, path)
        convert_it()
    torch.save({name: each for name, each in state.items() if name != key}, path)
    convert_it(key)
    torch.save(state | {"made.up": torch.zeros(3)}, path)
    convert_it("made.up")
    for bad in (float("nan"), float("inf")):  # a dry run reads no values
        torch.save(state | {key: torch.full_like(state[key], bad)}, path)
        attempt(lambda: converted(world, files, world.here / "out"), key)


@hostile("weights.convert", "config and tokenizer: no JSON, gigantic sizes, other models, remote code")
def _(world, attempt):
    files, convert_it = tries(world, attempt)
    for name in (
        "official/config.json",
        "official/tokenizer.json",
        "clip/config.json",
        "clip/preprocessor_config.json",
    ):
        whole = (files / name).read_bytes()
        empty = [] if "preprocessor" in name else [b"{}"]  # an image processor without settings is CLIP's own
        for content in [*(NO_JSON | NO_OBJECT).values(), *empty]:
            (files / name).write_bytes(content)
            attempt(lambda: converted(world, files, world.here / "out", dry_run=True))
        (files / name).write_bytes(whole)
    config = files / "official" / "config.json"
    whole = json.loads(config.read_text())
    for change in (
        {"hidden_size": 10**12}, {"hidden_size": -4}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": 0}, {"num_attention_heads": 0},
        {"intermediate_size": 10**10}, {"num_attention_heads": 7},
    ):  # fmt: skip
        config.write_text(json.dumps(whole | change))
        convert_it()


@hostile("weights.convert", "config: one value changed or gone (hypothesis)", EITHER)
def _(world, attempt):
    files = published(world)
    config = files / "official" / "config.json"
    whole = json.loads(config.read_text())

    @search(5)
    @given(mutations(whole))
    def check(changed):
        config.write_text(json.dumps(changed))
        attempt(lambda: converted(world, files, world.here / "out", dry_run=True))

    check()


@hostile("weights.convert", "folders that are none, a file in the place of the new folder")
def _(world, attempt):
    files = published(world)
    out = world.here / "out"
    for folder in (
        world.here / "none",
        files / "official" / "config.json",
        "\0",
        "",
        5,
        None,
        world.here / "published",
    ):
        attempt(lambda folder=folder: convert(folder, out, base=files / "llama", vision=files / "clip"))
        attempt(lambda folder=folder: convert(files / "official", out, base=files / "llama", vision=folder))
        if folder is not None:
            attempt(lambda folder=folder: convert(files / "official", out, base=folder, vision=files / "clip"))
        assert not out.exists()
    (world.here / "file").touch()
    attempt(
        lambda: convert(files / "official", world.here / "file", files / "llama", files / "clip", progress=False),
        "file",
    )
    assert (world.here / "file").read_bytes() == b""


@hostile("weights.convert", "tokenizer: code that it says belongs to it", EITHER)  # it may be read without
def _(world, attempt):
    files = published(world)
    (files / "official" / "evil.py").write_text(world.code())
    config = json.loads((files / "official" / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Thing", "evil.Thing"]}, "tokenizer_class": "Thing"}
    (files / "official" / "tokenizer_config.json").write_text(json.dumps(config))
    attempt(lambda: convert(files / "official", world.here / "out", files / "llama", files / "clip", dry_run=True))
