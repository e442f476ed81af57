"""Published weights -> roilab: the same logits as the published composition, every file format, every mistake named."""

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

import roilab
from roilab.bench.literal import literal_region_embeddings
from roilab.weights import convert, generated
from roilab.weights.checkpoint import Checkpoint, sha256
from roilab.weights.plan import Plan

QUESTION, BOX = "What is <region1> doing?", (5, 4, 40, 30)
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to "
    "the human's questions."
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return generated.write_official(tmp_path_factory.mktemp("published"))


@pytest.fixture
def copy(files, tmp_path):
    """The files, to be damaged."""
    return Path(shutil.copytree(files, tmp_path / "published"))


def converted(files, out, **options):
    return convert(
        files / "official", out, **{"base": files / "llama", "vision": files / "clip", "progress": False} | options
    )


@pytest.fixture(scope="module")
def model(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    converted(files, out)
    return roilab.load(out, device="cpu", dtype=torch.float32)


def state(folder):
    """All tensors of a folder of torch files."""
    tensors = {}
    for path in sorted(folder.glob("*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def whole_language_model(files):
    """LLaMA + difference, added by hand: the model and the other published tensors."""
    from transformers import LlamaConfig, LlamaForCausalLM

    base, official = state(files / "llama"), state(files / "official")
    whole = {}
    for name, value in official.items():
        if name.startswith(("model.spi_module.", "model.mm_projector.")):
            continue
        value = value.float()
        value[: len(base[name])] += base[name].float()
        whole[name] = value.half().float()
    config = json.loads((files / "official" / "config.json").read_text())
    language = LlamaForCausalLM(
        LlamaConfig(**{key: config[key] for key in config if key not in ("dtype", "architectures")})
    )
    language.load_state_dict(whole)
    return language.eval(), {name: value.float() for name, value in official.items()}


def region_module(official):
    """What `literal_region_embeddings` reads of an encoder, straight from the published names."""
    get = {name.removeprefix("model.spi_module."): value for name, value in official.items()}

    def part(name):
        return types.SimpleNamespace(weight=get[f"{name}.weight"], bias=get.get(f"{name}.bias"), eps=1e-5)

    def position(boxes):
        p, hidden = "roi_align.pos_embedd.", boxes
        for linear, norm in (("0", "2"), ("3", "5")):
            hidden = torch.relu(hidden @ get[f"{p}{linear}.weight"].T + get[f"{p}{linear}.bias"])
            hidden = torch.layer_norm(hidden, hidden.shape[-1:], get[f"{p}{norm}.weight"], get[f"{p}{norm}.bias"])
        return hidden

    rounds = [
        types.SimpleNamespace(conv=part(f"mlvl_fuse.fuse_convs.{i}.conv"), norm=part(f"mlvl_fuse.fuse_convs.{i}.gn"))
        for i in range(5)
    ]
    return types.SimpleNamespace(
        config=types.SimpleNamespace(width=64, norm_groups=64, roi_size=14, sampling_ratio=2),
        fusion=types.SimpleNamespace(inputs=[part(f"mlvl_fuse.input_conv.{i}") for i in range(4)], rounds=rounds),
        cells=types.SimpleNamespace(convs=[part(f"roi_align.pconvs.{i}") for i in range(4)]),
        content=part("roi_align.flatten_linear"),
        output=part("roi_align.updims"),
        position=position,
    )


@torch.no_grad()
def published_logits(files, picture):
    """The published composition, step by step and without this package's model, processor, or conversion."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel

    language, official = whole_language_model(files)
    clip = CLIPVisionModel.from_pretrained(files / "clip", dtype=torch.float32).eval()

    # The picture: shortest side to 56, normalised, then bilinear to 56 x 56.
    pixels = CLIPImageProcessor.from_pretrained(files / "clip")(picture, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ]
    pixels = torch.nn.functional.interpolate(pixels, size=(56, 56), mode="bilinear", align_corners=False)
    states = clip(pixels, output_hidden_states=True).hidden_states
    patches = states[-2][:, 1:] @ official["model.mm_projector.weight"].T + official["model.mm_projector.bias"]

    # The region: box / picture size, four levels without the class token.
    box = torch.tensor([BOX]) / torch.tensor([picture.width, picture.height] * 2)
    levels = [states[i][:, 1:] for i in (-11, -8, -5, -2)]
    region = literal_region_embeddings(region_module(official), levels, [box])[0]

    # The prompt, as one text, with the published tokenizer.
    tokenizer = AutoTokenizer.from_pretrained(files / "official")
    image = "<im_start>" + "<im_patch>" * 16 + "<im_end>"
    text = f"{SYSTEM}\n\n### Human: The {image} provides an overview of the picture.\nWhat is region1 <bbox> doing?\n### Assistant:"
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    embeddings = language.get_input_embeddings()(ids)
    embeddings[ids == tokenizer.convert_tokens_to_ids("<im_patch>")] = patches[0]
    embeddings[ids == tokenizer.convert_tokens_to_ids("<bbox>")] = region
    return ids, language(inputs_embeds=embeddings).logits


def our_inputs(model, picture):
    return model.processor(picture, QUESTION, boxes=[BOX])


def our_logits(model, picture):
    with torch.no_grad():
        return model(**our_inputs(model, picture)).logits


def test_the_logits_are_those_of_the_published_composition(files, model, picture):
    ids, logits = published_logits(files, picture)
    assert our_inputs(model, picture)["input_ids"].tolist() == ids.tolist()
    ours = our_logits(model, picture)
    assert logits.std() > 0.1
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)


def test_it_answers_and_stops_at_the_published_marker(model, picture):
    answer = roilab.Chat(model, picture, max_new_tokens=5).ask(QUESTION, regions=[BOX])
    assert len(answer.tokens) == 5 and len(answer.logprobs) == 5
    assert model.processor.template == "vicuna_v0" and model.generation_config.stop_strings == ["###"]
    assert model.config.feature_layers == [-11, -8, -5, -2] and model.config.image_layer == -2


def test_the_published_tokens_of_a_user_stay_text(model):
    """In the published tokenizer they are ordinary added tokens, which a tokenizer reads in anyone's text."""
    ids = model.processor.encode_dialogue(
        [{"role": "user", "content": "Say <bbox><im_patch>"}], 0, add_generation_prompt=True
    ).input_ids
    assert ids.count(model.config.region_token_id) == 0 and ids.count(model.config.image_token_id) == 16


def test_hashes_of_what_was_read_are_in_the_config(files, model):
    sources = model.config.converted_from
    for part, folder in (("official", "official"), ("base", "llama"), ("vision", "clip")):
        assert sources[part]["folder"] == folder
        paths = [*(files / folder).glob("*.bin"), *(files / folder).glob("*.safetensors")]
        assert sources[part]["sha256"] == {path.name: sha256(path) for path in paths}


@pytest.mark.parametrize("format", ["safetensors", "legacy"])
def test_other_file_formats_give_the_same(format, files, model, tmp_path, picture):
    other = generated.write_official(tmp_path / "other", **{format: True})
    converted(other, tmp_path / "out")
    again = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_whole_weights_need_no_base(files, model, tmp_path):
    folder = tmp_path / "whole"
    shutil.copytree(files / "official", folder)
    for path in folder.glob("*.bin*"):
        path.unlink()
    language, official = whole_language_model(files)
    official |= language.state_dict()
    torch.save({name: value.half() for name, value in official.items()}, folder / "pytorch_model.bin")
    convert(folder, tmp_path / "out", vision=files / "clip", progress=False)
    again = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(ValueError, match="looks whole already"):
        convert(folder, tmp_path / "no", files / "llama", files / "clip")


def test_a_difference_without_its_base_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="looks like a difference to LLaMA"):
        convert(files / "official", tmp_path / "no", vision=files / "clip")
    assert not (tmp_path / "no").exists()


def test_the_vision_tower_may_come_with_its_text_tower(files, tmp_path):
    """As CLIP is published: two towers, projections, and buffers that older versions of transformers saved."""
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    vision = CLIPVisionConfig.from_pretrained(files / "clip")
    text = CLIPTextConfig(vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    folder = tmp_path / "clip"
    clip.save_pretrained(folder)
    saved = {name: each.clone() for name, each in load_file(folder / "model.safetensors").items()} | {
        "vision_model.embeddings.position_ids": torch.arange(17)[None]
    }
    assert any(name.startswith("text_model.") for name in saved) and "logit_scale" in saved
    save_file(saved, folder / "model.safetensors", {"format": "pt"})
    found = converted(files, tmp_path / "out", vision=folder)
    assert "vision: vision_model.embeddings.position_ids" in found["ignored"]
    model = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    patch = model.vision.model.state_dict()["embeddings.patch_embedding.weight"]
    assert torch.equal(patch, saved["vision_model.embeddings.patch_embedding.weight"])


def test_another_size_comes_from_the_files(tmp_path, picture):
    """As the 13B differs from the 7B: wider, deeper, and so the projector and the output of the region encoder."""
    config = generated.small_config(hidden_size=80, intermediate_size=96, num_hidden_layers=5, num_attention_heads=5)
    other = generated.write_official(tmp_path / "other", config, seed=1)
    converted(other, tmp_path / "out")
    model = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    text, region = model.config.text_config, model.config.region_config
    assert (text.hidden_size, text.num_hidden_layers, region.output_size) == (80, 5, 80)
    assert our_logits(model, picture).isfinite().all()


# Rows of the vocabulary


def tokens_of(folder, names):
    """Gives a folder a tokenizer with these added tokens."""
    tokenizer = generated.llama_tokenizer(words=620)
    tokenizer.add_tokens(names)
    tokenizer.save_pretrained(folder)


ADDED = ["[PAD]", "<im_patch>", "<bbox>", "<point>", "<im_start>", "<im_end>"]


@pytest.mark.parametrize(
    "tokenizer", [ADDED, ADDED[1:], [], ["<bbox>", *ADDED[:2], *ADDED[3:]]], ids=["6", "5", "0", "permuted"]
)
@pytest.mark.parametrize("pad", [True, False], ids=["32006", "32005"])
def test_rows_and_tokens_meet_by_name(pad, tokenizer, tmp_path, picture):
    """The same values under both numberings and any tokenizer: the same logits of every word and token."""
    other = generated.write_official(tmp_path / "other", pad=pad)
    if tokenizer != ADDED[not pad :]:
        tokens_of(other / "official", tokenizer)
    if len(tokenizer) == 6 and tokenizer != ADDED and pad:  # a tokenizer that fits the weights is believed
        expected = dict(zip(tokenizer, range(620, 626)))
    else:
        expected = dict(zip(ADDED[not pad :], range(620, 626)))
    found = converted(other, tmp_path / "out")
    model = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    language, _ = whole_language_model(other)
    for ours, published in (
        (model.get_input_embeddings(), language.get_input_embeddings()),
        (model.get_output_embeddings(), language.get_output_embeddings()),
    ):
        assert torch.equal(ours.weight[:620], published.weight[:620])
        for name in ADDED:
            row = ours.weight[model.processor.tokenizer.convert_tokens_to_ids(name)]
            if name in expected:
                assert torch.equal(row, published.weight[expected[name]]), name
            else:
                assert torch.allclose(row, published.weight[:620].mean(0), atol=1e-3)
    assert f"{626 if pad else 625} rows of weights" in found["rows"]
    assert our_logits(model, picture).isfinite().all()


@pytest.mark.parametrize("base", [True, False], ids=["difference", "whole"])
@pytest.mark.parametrize("rows", [626, 625])
def test_a_pad_token_of_the_tokenizers_own(rows, base, tmp_path):
    """Other versions call it <pad>, and have it where training had [PAD]; weights without [PAD] may have a row of it or not."""
    other = generated.write_official(tmp_path / "other", pad=rows == 626)
    tokens_of(other / "official", ["<pad>", *ADDED[1:]] if rows == 626 else ["<pad>"])
    if not base and rows == 625:
        return  # without a base, <pad> would be taken for a word that the weights do not have
    language, official = whole_language_model(other)
    if base:
        converted(other, tmp_path / "out")
    else:
        for path in (other / "official").glob("*.bin*"):
            path.unlink()
        torch.save(
            {k: v.half() for k, v in (official | language.state_dict()).items()},
            other / "official" / "pytorch_model.bin",
        )
        convert(other / "official", tmp_path / "out", vision=other / "clip", progress=False)
    model = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    published = language.get_input_embeddings().weight
    for i, name in enumerate(ADDED[1:]):
        row = model.get_input_embeddings().weight[model.processor.tokenizer.convert_tokens_to_ids(name)]
        assert torch.equal(row, published[rows - 5 + i]), name


def test_a_difference_in_float32_is_added_once_and_the_files_stay(tmp_path):
    files = generated.write_official(tmp_path / "files", dtype=torch.float32)
    before = {path: sha256(path) for path in files.rglob("*.bin")}
    converted(files, tmp_path / "out")
    model = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    base, official = state(files / "llama"), state(files / "official")
    key = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.language_model.state_dict()[key], base[key] + official[key])
    plan = Plan(files / "official", files / "llama", files / "clip")
    assert torch.equal(plan.read(f"language_model.{key}"), plan.read(f"language_model.{key}"))
    assert {path: sha256(path) for path in before} == before


def test_rows_that_fit_no_tokenizer_are_refused(copy, tmp_path):
    generated.llama_tokenizer(words=600).save_pretrained(copy / "official")
    with pytest.raises(ValueError, match="the base has 620 rows of word embeddings, the tokenizer 600 tokens"):
        converted(copy, tmp_path / "no")
    change_shard(
        copy / "llama", lambda tensors: tensors.update({"model.embed_tokens.weight": torch.zeros(600, 48).half()})
    )
    with pytest.raises(ValueError, match=r"626 rows .* 600 words: expected 606 rows .* or 605"):
        converted(copy, tmp_path / "no")


def test_a_sentencepiece_model_as_published(files, model, copy, tmp_path, picture):
    """tokenizer.model + added_tokens.json, without tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(generated.TEXTS + [f"word{i} other{i * 7}" for i in range(300)]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=620, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    folder = copy / "official"
    (folder / "tokenizer.json").unlink()
    shutil.copy(tmp_path / "tokenizer.model", folder)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "added_tokens.json").write_text(json.dumps({name: 620 + i for i, name in enumerate(ADDED)}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    converted(copy, tmp_path / "out")
    again = roilab.load(tmp_path / "out", device="cpu", dtype=torch.float32)
    tokenizer = again.processor.tokenizer
    assert [tokenizer.convert_tokens_to_ids(name) for name in ADDED] == list(range(620, 626))
    # As training read it: sentencepiece takes every run of words between added tokens by itself.
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    expected = [1, *pieces.encode(f"{SYSTEM}\n\n### Human: The ")]
    expected += [624, *[621] * 16, 625, *pieces.encode(" provides an overview of the picture.\nWhat is region1 ")]
    expected += [622, *pieces.encode(" doing?\n### Assistant:")]
    assert our_inputs(again, picture)["input_ids"][0].tolist() == expected
    text = again.processor.encode_dialogue(
        [{"role": "user", "content": "<bbox>"}], 0, add_generation_prompt=True
    ).input_ids
    assert text.count(again.config.region_token_id) == 0


@pytest.mark.parametrize("module", ["sentencepiece", "google.protobuf", "google"])
def test_what_reads_a_sentencepiece_model_may_be_missing(module, copy, tmp_path, monkeypatch):
    (copy / "official" / "tokenizer.json").rename(copy / "official" / "tokenizer.model")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=r"tokenizer.model needs sentencepiece and protobuf: pip install 'roilab\[convert\]'"
    ):
        converted(copy, tmp_path / "no")


# Mistakes


def change_shard(folder, change):
    """Applies `change` to the tensors of the folder, written as one file."""
    tensors = state(folder)
    change(tensors)
    for path in folder.glob("*.bin*"):
        path.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


PLACES = {
    "official": ["model.layers.1.mlp.up_proj.weight", "model.mm_projector.bias", "model.spi_module.roi_align.updims.weight", "lm_head.weight"],
    "llama": ["model.layers.2.input_layernorm.weight", "model.embed_tokens.weight"],
}  # fmt: skip
CASES = [(folder, key) for folder, keys in PLACES.items() for key in keys]


@pytest.mark.parametrize("folder, key", CASES)
def test_a_missing_key_is_named(folder, key, copy, tmp_path):
    change_shard(copy / folder, lambda tensors: tensors.pop(key))
    with pytest.raises(ValueError) as error:
        converted(copy, tmp_path / "no")
    assert key.removeprefix("model.spi_module.") in str(error.value) and "missing" in str(error.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("folder, key", CASES)
def test_a_misshapen_key_is_named_with_both_shapes(folder, key, copy, tmp_path):
    change_shard(copy / folder, lambda tensors: tensors.update({key: torch.zeros(7, 3).half()}))
    with pytest.raises(ValueError) as error:
        converted(copy, tmp_path / "no")
    text = str(error.value)
    assert key.removeprefix("model.spi_module.") in text or "rows of word embeddings" in text or "hidden_size" in text


@pytest.mark.parametrize("folder", ["official", "llama"])
def test_an_unknown_key_is_named(folder, copy, tmp_path):
    change_shard(copy / folder, lambda tensors: tensors.update({"model.surprise": torch.zeros(2).half()}))
    with pytest.raises(ValueError, match=r"unknown in (official|base): model.surprise"):
        converted(copy, tmp_path / "no")


def test_a_dry_run_finds_the_same_and_writes_nothing(files, copy, tmp_path):
    found = converted(files, tmp_path / "out", dry_run=True)
    assert found["parameters"] > 1e6 and "sources" not in found and not (tmp_path / "out").exists()
    change_shard(copy / "official", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(ValueError, match="missing in official: model.norm.weight"):
        converted(copy, tmp_path / "out", dry_run=True)


def test_a_failure_in_the_middle_leaves_the_older_folder(files, copy, tmp_path):
    converted(files, tmp_path / "out")
    before = {path.name: sha256(path) for path in (tmp_path / "out").iterdir()}

    def damage(tensors):
        tensors["lm_head.weight"][3, 3] = float("nan")

    change_shard(copy / "official", damage)
    with pytest.raises(ValueError, match="lm_head.weight .* not finite"):
        converted(copy, tmp_path / "out")
    assert {path.name: sha256(path) for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_is_said_before_the_work(files, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="GB free, the weights take"):
        converted(files, tmp_path / "no")


def rewrite_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"num_hidden_layers": 10**9}, "config.json tells of 1000000000 layers, the weights have 3"),
        ({"hidden_size": 10**8}, "tells of a hidden_size of 100000000, model.embed_tokens.weight has 48"),
        ({"hidden_size": "48"}, "'hidden_size': '48'"),
        ({"num_attention_heads": -4}, "'num_attention_heads': -4"),
        ({"intermediate_size": 65}, "gate_proj.weight of official has the shape"),
    ],
)
def test_sizes_that_do_not_fit(changes, said, copy, tmp_path):
    rewrite_json(copy / "official" / "config.json", **changes)
    with pytest.raises(ValueError) as error:
        converted(copy, tmp_path / "no")
    assert said in str(error.value)


def test_another_vision_tower_is_refused(copy, tmp_path):
    rewrite_json(copy / "clip" / "config.json", hidden_size=32)
    with pytest.raises(ValueError):
        converted(copy, tmp_path / "no")
    rewrite_json(copy / "clip" / "config.json", hidden_size=64, num_hidden_layers=10**9)
    with pytest.raises(ValueError, match="tells of 1000000000 layers, the weights have 12"):
        converted(copy, tmp_path / "no")
    rewrite_json(copy / "clip" / "config.json", hidden_size=64, model_type="siglip_vision_model")
    with pytest.raises(ValueError, match="expected CLIP"):
        converted(copy, tmp_path / "no")


def test_a_level_without_bounds_is_refused(copy, tmp_path):
    key = "model.spi_module.mlvl_fuse.input_conv.999999999.weight"
    change_shard(copy / "official", lambda tensors: tensors.update({key: torch.zeros(2).half()}))
    with pytest.raises(ValueError, match="but one numbered 999999999"):
        converted(copy, tmp_path / "no")


@pytest.mark.parametrize("file", ["../llama/pytorch_model.bin", "/etc/passwd", "sub/x.bin", "..", "x\\y.bin"])
def test_an_index_that_leaves_its_folder_is_refused(file, copy, tmp_path):
    index = copy / "official" / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = file
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not a file name in its own folder"):
        converted(copy, tmp_path / "no")


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(zipped, copy, tmp_path):
    shard = copy / "official" / "pytorch_model-00001-of-00004.bin"
    assert shard.is_file()
    torch.save({"model.x": Runs(tmp_path / "ran")}, shard, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="pytorch_model-00001-of-00004.bin holds more than tensors"):
        converted(copy, tmp_path / "no")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_a_truncated_shard_is_named(format, share, tmp_path):
    files = generated.write_official(tmp_path / "files", safetensors=format == "safetensors", legacy=format == "legacy")
    shard = sorted([*(files / "official").glob("*.bin"), *(files / "official").glob("*.safetensors")])[2]
    shard.write_bytes(shard.read_bytes()[: int(share * shard.stat().st_size)])
    with pytest.raises(ValueError, match=shard.name):
        converted(files, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "value",
    [torch.zeros(48, dtype=torch.int64), torch.zeros(48, dtype=torch.float64), torch.zeros(1).expand(10**9, 48)],
)
def test_wrong_dtypes_and_gigantic_shapes_are_refused(value, copy, tmp_path):
    change_shard(copy / "official", lambda tensors: tensors.update({"model.norm.weight": value}))
    with pytest.raises(ValueError, match="model.norm.weight"):
        converted(copy, tmp_path / "no")


def test_index_and_shards_have_to_agree(copy, tmp_path):
    index = copy / "official" / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="do not agree: lm_head.weight is not listed"):
        Checkpoint(copy / "official")
    content["weight_map"]["lm_head.weight"] = "pytorch_model-00009-of-00004.bin"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names pytorch_model-00009-of-00004.bin, which is not in"):
        Checkpoint(copy / "official")


def test_what_is_no_folder(files, tmp_path):
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        convert("no such folder", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no weights: expected one of"):
        convert(tmp_path / "empty", tmp_path / "no", vision=files / "clip")


def test_the_command(files, tmp_path, capsys):
    from roilab.cli import main

    arguments = [
        "convert",
        str(files / "official"),
        str(tmp_path / "out"),
        "--base",
        str(files / "llama"),
        "--vision",
        str(files / "clip"),
    ]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("nothing written\n") and not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert "626 rows of weights, 620 words and 6 added tokens" in capsys.readouterr().out
    assert main(["convert", str(files / "official"), str(tmp_path / "no"), "--vision", str(files / "clip")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_does_not_grow_with_the_model():
    """One layer of the 7B's width: the widest tensors are there, and 3 GB of files."""
    from roilab.bench.convert import bench_convert
    from roilab.presets import paper_7b

    config = paper_7b()
    config.text_config.num_hidden_layers = 1
    found = bench_convert(config=config)
    assert found["convert_read_gb"] > 2 and found["convert_written_gb"] > 1.5
    assert 0.3 < found["convert_private_gb"] < 4 and found["convert_shard_gb"] <= 2


@pytest.mark.slow
def test_in_four_bits(files, tmp_path, picture):
    """The language model's layers are quantised, nothing else; it looks inside as well as it answers."""
    from roilab import interpret
    from roilab.weights import four_bit

    converted(files, tmp_path / "out")
    model = roilab.load(tmp_path / "out", device="cpu", quantization_config=four_bit("cpu"))
    kinds = {name: type(each).__name__ for name, each in model.named_parameters()}
    quantised = {name for name, kind in kinds.items() if kind == "Params4bit"}
    assert quantised == {name for name in kinds if "model.layers." in name and "proj.weight" in name}
    chat = roilab.Chat(model, picture, max_new_tokens=4)
    answer = chat.ask(QUESTION, regions=[BOX])
    assert len(answer.tokens) == 4
    shown = interpret.attention_map(model, interpret.Target.of(chat))
    assert shown.parts["image"] > 0 and shown.regions[1] > 0
