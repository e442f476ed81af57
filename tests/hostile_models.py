"""Hostile folders: models, backbones, published weights."""

import json
import pickle
import shutil

import torch
from conftest import REGION, text_config, tiny_tokenizer, vision_config
from hostile import EITHER, NO_JSON, NO_OBJECT, hostile, mutations, search
from hypothesis import given
from safetensors.torch import load_file, save_file
from test_weights_official import official_state

import roilab
from roilab.model import GPT4RoI
from roilab.weights import region_encoder_from_official


def load(folder):
    return roilab.load(folder, device="cpu")


def configuration(folder, *changes):
    """Write config.json with values at other places: ("text_config", "hidden_size", 5), ..."""
    config = json.loads((folder / "config.json").read_text())
    for *keys, last, value in changes:
        place = config
        for key in keys:
            place = place[key]
        place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def tensors(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def index(folder, file, names=None):
    """An index in the place of the single file, all of whose tensors are in `file`."""
    names = list(load_file(folder / "model.safetensors")) if names is None else names
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, str(file))})
    )


# roilab.load


@hostile("roilab.load", "a name that names nothing")
def _(world, attempt):
    names = [
        "nowhere",
        "a/b/c",
        "",
        "\0",
        "../..",
        "x" * 5000,
        "tiny-nothing",
        5,
        None,
        b"tiny",
        ["tiny"],
        "https://example.org/a/b",
    ]
    for name in names:
        attempt(lambda name=name: load(name))


@hostile("roilab.load", "config.json: no JSON, or no object")
def _(world, attempt):
    for content in (NO_JSON | NO_OBJECT).values():
        folder = world.folder(world.saved())
        (folder / "config.json").write_bytes(content)
        attempt(lambda folder=folder: load(folder), r"config\.json|model of type")
    folder = world.folder(world.saved())
    (folder / "config.json").unlink()
    attempt(lambda: load(folder), "no config.json")
    (folder / "config.json").mkdir()
    attempt(lambda: load(folder), "no config.json")


@hostile("roilab.load", "config.json: of another model")
def _(world, attempt):
    for kind in ("llama", None, 5, [], "gpt4roi_region"):
        folder = world.folder(world.saved())
        configuration(folder, ("model_type", kind))
        attempt(lambda folder=folder: load(folder), "expected 'gpt4roi'")


SIZES = [
    ("text_config", "hidden_size"), ("text_config", "num_hidden_layers"), ("text_config", "num_attention_heads"), ("text_config", "vocab_size"),
    ("vision_config", "hidden_size"), ("vision_config", "num_hidden_layers"), ("vision_config", "image_size"), ("vision_config", "patch_size"),
    ("region_config", "width"), ("region_config", "fusion_rounds"), ("region_config", "roi_size"), ("region_config", "hidden_size"),
    ("region_config", "norm_groups"), ("region_config", "level_widths"), ("region_config", "output_size"),
]  # fmt: skip


def sizes(world, attempt, values):
    folder = world.folder(world.saved())
    content = (folder / "config.json").read_bytes()
    for i, place in enumerate(SIZES):  # these values in turn
        (folder / "config.json").write_bytes(content)
        configuration(folder, (*place, values[i % len(values)]))
        attempt(lambda: load(folder), "copy")


@hostile("roilab.load", "config.json: sizes of zero and below")
def _(world, attempt):
    sizes(world, attempt, [0, -3])


@hostile("roilab.load", "config.json: gigantic sizes")
def _(world, attempt):
    sizes(world, attempt, [10**4, 10**12])


@hostile("roilab.load", "config.json: texts, lists and fractions for numbers")
def _(world, attempt):
    sizes(world, attempt, ["many", {"a": 1}, 1.5])


@hostile("roilab.load", "config.json: layers, ids, template that are not there")
def _(world, attempt):
    changes = [
        ("feature_layers", [-4, -3, -2, 99]), ("feature_layers", [-4, -3, -2]), ("feature_layers", []), ("feature_layers", "many"),
        ("feature_layers", [-5, -4, -3, 1.5]), ("feature_layers", [0] * 100_000), ("image_layer", 99), ("image_layer", 1.5),
        ("image_layer", "x"), ("image_token_id", 10**9), ("image_token_id", "x"), ("region_token_id", 0), ("template", "other"),
        ("template", 5), ("familiarity", True), ("text_config", "model_type", "nothing"), ("text_config", 5),
        ("vision_config", "model_type", []), ("vision_config", None), ("region_config", []), ("region_config", "sampling_ratio", 10**9),
        ("region_config", "sampling_ratio", "x"), ("region_config", "level_widths", [32] * 100_000),
    ]  # fmt: skip
    for change in changes:
        folder = world.folder(world.saved())
        configuration(folder, change)
        attempt(lambda folder=folder: load(folder), "copy")


@hostile("roilab.load", "config.json: one value changed or gone (hypothesis)", EITHER)
def _(world, attempt):
    folder = world.folder(world.saved())
    whole = json.loads((folder / "config.json").read_text())
    whole = {key: whole[key] for key in whole if key != "transformers_version"}

    @search(8)
    @given(mutations(whole))
    def check(config):
        (folder / "config.json").write_text(json.dumps(config))
        attempt(lambda: load(folder))

    check()


@hostile("roilab.load", "weights: truncated, empty, no safetensors")
def _(world, attempt):
    folder = world.folder(world.saved())
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (
        b"", whole[:7], whole[:100], whole[: len(whole) // 2], whole[:-1], (2**62).to_bytes(8, "little") + whole[8:],
        (2**63 + 5).to_bytes(8, "little") + whole[8:], whole[:8] + b"x" * 100 + whole[108:], b"\0" * 1000, whole + b"\0" * 8,
        whole.replace(b'"F32"', b'"F99"'), pickle.dumps(world.evil()),
    ):  # fmt: skip
        path.write_bytes(content)
        attempt(lambda: load(folder), "model.safetensors")
    path.unlink()
    attempt(lambda: load(folder), "has no weights")
    path.mkdir()
    attempt(lambda: load(folder), "has no weights")


@hostile("roilab.load", "weights: wrong dtype, wrong shape, missing and unknown keys")
def _(world, attempt):
    def whole_numbers(state):
        state.update({name: each.to(torch.int64) for name, each in state.items()})

    name = "projector.weight"
    for change, says in (
        (whole_numbers, "holds I64"),
        (lambda state: state.update({name: state[name] > 0}), name),
        (lambda state: state.update({name: torch.zeros(3)}), rf"{name} has the shape \[3\]"),
        (lambda state: state.update({name: torch.zeros(0)}), name),
        (lambda state: state.update({name: state[name].T.contiguous()}), name),
        (lambda state: state.pop(name), f"missing key {name}"),
        (lambda state: state.clear(), "copy"),
        (lambda state: state.update({"other": torch.zeros(3)}), "unknown key other"),
        (lambda state: state.update({"__class__": torch.zeros(3)}), "unknown key __class__"),
    ):
        folder = world.folder(world.saved())
        tensors(folder, change)
        attempt(lambda folder=folder: load(folder), says)


@hostile("roilab.load", "index: paths that lead out, missing shards, no index")
def _(world, attempt):
    outside = world.here / "outside.safetensors"
    shutil.copyfile(world.saved() / "model.safetensors", outside)
    for file in (
        "../outside.safetensors",
        outside,
        "no.safetensors",
        "",
        ".",
        "a/../../outside.safetensors",
        "\0",
        "..\\outside",
        5,
    ):
        folder = world.folder(world.saved())
        index(folder, file)
        (folder / "model.safetensors").unlink()
        attempt(lambda folder=folder: load(folder), "index.json")
    folder = world.folder(world.saved())
    index(folder, "model.safetensors", ["projector.weight", "made.up"])
    attempt(lambda: load(folder), "do not agree|made.up")
    for content in (NO_JSON | NO_OBJECT | {"no map": b"{}", "a list": b'{"weight_map": []}'}).values():
        (folder / "model.safetensors.index.json").write_bytes(content)
        attempt(lambda: load(folder), "index.json")


@hostile("roilab.load", "pickled code in pytorch_model.bin")
def _(world, attempt):
    folder = world.folder(world.saved())
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(state | {"projector.bias": world.evil()}, path)
    attempt(lambda: load(folder), "pytorch_model.bin")
    torch.save(state | {"projector.bias": world.evil()}, path, _use_new_zipfile_serialization=False)
    attempt(lambda: load(folder), "pytorch_model.bin")
    for protocol in range(6):
        path.write_bytes(pickle.dumps(world.evil(), protocol))
        attempt(lambda: load(folder), "pytorch_model.bin")
    shutil.copyfile(path, folder / "shard.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state, "shard.bin")}))
    attempt(lambda: load(folder), "shard.bin")


@hostile("GPT4RoI.from_pretrained", "pickled code in pytorch_model.bin", raises=Exception)
def _(world, attempt):
    folder = world.folder(world.saved())
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save({"projector.bias": world.evil()}, path)
    attempt(lambda: GPT4RoI.from_pretrained(folder))
    path.write_bytes(pickle.dumps(world.evil()))
    attempt(lambda: GPT4RoI.from_pretrained(folder))


@hostile("GPT4RoI.from_pretrained", "broken generation_config.json, truncated weights", raises=Exception)
def _(world, attempt):
    folder = world.folder(world.saved())
    for content in (b"", b"[1", b"5"):
        (folder / "generation_config.json").write_bytes(content)
        attempt(lambda: GPT4RoI.from_pretrained(folder))
    folder = world.folder(world.saved())
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    attempt(lambda: GPT4RoI.from_pretrained(folder))


@hostile("roilab.load", "tokenizer and processor files: no JSON, or no object")
def _(world, attempt):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "generation_config.json"):
        folder = world.folder(world.saved())
        for content in (NO_JSON | NO_OBJECT).values():
            (folder / name).write_bytes(content)
            attempt(lambda: load(folder), name if content != NO_JSON["a long number"] else "")  # noqa: B023
    folder = world.folder(world.saved())
    (folder / "tokenizer.json").write_text("{}")
    attempt(lambda: load(folder), "copy")


@hostile("roilab.load", "processor that does not go with the model")
def _(world, attempt):
    changes = [
        ("template", "chatml"), ("template", "no such"), ("num_image_tokens", 17), ("num_image_tokens", 10**12), ("num_image_tokens", "x"),
        ("image_size", [64, 64]), ("image_size", 5), ("image_size", []), ("image_processor", 5), ("image_processor", {}),
    ]  # fmt: skip
    for key, value in changes:
        folder = world.folder(world.saved())
        config = json.loads((folder / "processor_config.json").read_text())
        (folder / "processor_config.json").write_text(json.dumps(config | {key: value}))
        attempt(lambda folder=folder: load(folder), "copy")
    for key, value in (
        ("image_std", [0, 0, 0]),
        ("image_mean", "x"),
        ("image_mean", [float("nan")] * 3),
        ("resample", 99),
    ):
        folder = world.folder(world.saved())
        config = json.loads((folder / "processor_config.json").read_text())
        config["image_processor"][key] = value
        (folder / "processor_config.json").write_text(json.dumps(config))
        attempt(lambda folder=folder: load(folder), "copy")


@hostile("roilab.load", "remote code: auto_map in the folder's files", EITHER)
def _(world, attempt):
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.Thing", "AutoModel": "evil.Thing"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Thing", "evil.Thing"], "AutoProcessor": "evil.Thing"}),
        ("processor_config.json", {"AutoProcessor": "evil.Thing", "AutoImageProcessor": "evil.Thing"}),
    ):
        for other_class in (False, True):
            folder = world.folder(world.saved())
            (folder / "evil.py").write_text(world.code())
            config = json.loads((folder / name).read_text()) | {"auto_map": classes}
            if other_class:
                config |= {"tokenizer_class": "Thing", "processor_class": "Thing"}
                if "image_processor" in config:
                    config["image_processor"] |= {"image_processor_type": "Thing", "auto_map": classes}
                if "vision_config" in config:
                    config["vision_config"]["auto_map"] = config["text_config"]["auto_map"] = classes
            (folder / name).write_text(json.dumps(config))
            attempt(lambda folder=folder: load(folder), "copy")


# roilab.build


@hostile("roilab.build", "sizes, layers and names that do not fit")
def _(world, attempt):
    tokenizer = tiny_tokenizer()

    def build(region=None, template="tiny", **options):
        return roilab.build(
            vision_config(),
            text_config(tokenizer),
            REGION | (region or {}),
            template,
            tokenizer,
            device="cpu",
            **options,
        )

    for region in ({"width": 17}, {"norm_groups": 3}, {"widht": 16}, {"level_widths": []}, {"width": 18}):
        if region != {"level_widths": []}:  # follows the backbones
            attempt(lambda region=region: build(region))
    for layers in ([99], [-99, -2, -2, -2]):
        attempt(lambda layers=layers: build(feature_layers=layers))
    attempt(lambda: build(image_layer=99), "99")
    attempt(lambda: build(template="other"), "other")
    attempt(lambda: roilab.build(vision_config(), text_config(tokenizer)), "tokenizer")


# The published weights


@hostile("region_encoder_from_official", "keys missing, unknown, misshapen; gigantic, empty, contradictory")
def _(world, attempt):
    def convert(change):
        state = official_state()
        change(state)
        return region_encoder_from_official(state, norm_groups=4)

    key = "roi_align.flatten_linear.weight"
    with torch.device("meta"):
        huge = torch.empty(10**6, 10**9)
    for change, says in (
        (lambda state: state.pop(key), key),
        (lambda state: state.clear(), "missing key"),
        (lambda state: state.update({"other": torch.zeros(1)}), "other"),
        (lambda state: state.update({key: torch.zeros(3)}), key),
        (lambda state: state.update({key: torch.zeros(())}), key),
        (lambda state: state.update({key: huge}), key),
        (lambda state: state.update({"mlvl_fuse.input_conv.999.weight": torch.zeros(1)}), "999"),
    ):
        attempt(lambda change=change: convert(change), says)
    attempt(lambda: region_encoder_from_official(official_state(), norm_groups=5), "norm_groups 5")
