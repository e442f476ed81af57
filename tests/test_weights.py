import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import REGION, chatml_tokenizer, llama_tokenizer, small_model, text_config, tiny_tokenizer, vision_config
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    LlamaForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

import roilab
from roilab.files import atomic_folder, clear_unfinished
from roilab.weights import ASSETS, PAPER_LAYERS, default_dtype, spread_layers


def logits(model):
    inputs = model.processor(
        images=Image.new("RGB", (50, 40), (9, 99, 200)), text="What is <region1>?", boxes=[[5, 5, 30, 20]]
    )
    return model(**inputs).logits


def test_import_is_cheap():
    code = (
        "import time, sys; t = time.perf_counter(); import roilab; s = time.perf_counter() - t;"
        "heavy = [m for m in ('torch', 'transformers', 'numpy', 'PIL', 'matplotlib') if m in sys.modules]; print(s, heavy); assert not heavy and s < 0.5"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    assert roilab.__version__ == "0.1.0"
    assert callable(roilab.load) and callable(roilab.build) and roilab.Chat.__name__ == "Chat"
    for name in roilab.__all__:
        assert getattr(roilab, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        roilab.nothing_such  # noqa: B018
    assert roilab.regions.RegionEncoder and "regions" in dir(roilab) and not hasattr(roilab, "_private")


# Loading


def test_saved_half_loads_as_float32_with_its_processor(tmp_path):
    model = small_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    expected = logits(model)  # of the rounded weights
    model.half().save_pretrained(tmp_path / "half")
    files = sorted(path.name for path in (tmp_path / "half").iterdir())
    assert files == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert {each.dtype for each in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    loaded = roilab.load(tmp_path / "half", device="cpu")
    assert {each.dtype for each in loaded.parameters()} == {torch.float32} and not loaded.training
    torch.testing.assert_close(logits(loaded), expected)
    assert loaded.language_model.lm_head.weight is loaded.get_input_embeddings().weight
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    assert roilab.load(str(tmp_path / "half"), device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("template", ["vicuna_v0", "chatml"])
def test_the_other_templates_survive_saving(tmp_path, template):
    model = small_model(template)
    model.save_pretrained(tmp_path / "saved")
    loaded = roilab.load(tmp_path / "saved", device="cpu")
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-4, rtol=1e-4)
    assert loaded.processor.template == template
    assert loaded.generation_config.stop_strings == model.generation_config.stop_strings
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_the_shipped_model_loads():
    if not (ASSETS / "tiny" / "config.json").exists():
        pytest.skip("the tiny model is not in this checkout")
    model = roilab.load("tiny", device="cpu")
    assert model.dtype == torch.float32 and model.processor.template == "tiny" and not model.training
    assert sum(path.stat().st_size for path in (ASSETS / "tiny").iterdir()) < 25e6


def test_default_dtype():
    assert default_dtype("cpu") == torch.float32


def test_default_dtype_on_gpus(monkeypatch):
    for capability, expected in [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert default_dtype("cuda") == expected


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(ValueError, match="'nowhere': neither 'tiny' nor 'photo', nor a folder, nor a hub id"):
        roilab.load("nowhere")
    with pytest.raises(ValueError, match="no config.json"):
        roilab.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="type 'llama', expected 'gpt4roi'.*roilab.build"):
        roilab.load(tmp_path)


# Building


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """A two-tower CLIP and a LLaMA-type model with a chat template, saved as their owners would."""
    folder = tmp_path_factory.mktemp("backbones")
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 20,
    }
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision_config().to_dict(), projection_dim=8))
    clip.save_pretrained(folder / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder / "clip")
    siglip = SiglipVisionModel(
        SiglipVisionConfig(
            image_size=32,
            patch_size=8,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=12,
            num_attention_heads=4,
        )
    )
    siglip.save_pretrained(folder / "siglip")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "siglip")
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(folder / "language")
    language = LlamaForCausalLM(text_config(tokenizer, tie_word_embeddings=False, vocab_size=len(tokenizer) + 2))
    language.save_pretrained(folder / "language")
    return folder, clip, siglip, language


def test_build_on_folders_keeps_the_backbones(backbones, tmp_path):
    folder, clip, _, language = backbones
    model = roilab.build(str(folder / "clip"), str(folder / "language"), REGION, device="cpu")
    assert model.config.template == "chatml"
    saved = clip.vision_model.state_dict()
    ours = model.vision.model.state_dict()
    assert ours.keys() == saved.keys() and all(torch.equal(ours[key], saved[key]) for key in saved)
    old = language.get_input_embeddings().weight
    rows = len(chatml_tokenizer())  # the checkpoint has two spare rows
    for ours, theirs in [(model.get_input_embeddings(), old), (model.get_output_embeddings(), language.lm_head.weight)]:
        assert ours.weight.shape[0] == rows + 4 == len(model.processor.tokenizer)
        assert torch.equal(ours.weight[:rows], theirs[:rows])
        torch.testing.assert_close(ours.weight[rows:], theirs[:rows].mean(0).expand(4, -1))
    for name, theirs in language.model.layers.state_dict().items():
        assert torch.equal(model.language_model.model.layers.state_dict()[name], theirs), name
    assert (
        tuple(model.processor.image_processor.image_mean) == (0.1, 0.2, 0.3)
        and not model.processor.image_processor.do_center_crop
    )
    assert model.processor.num_image_tokens == 16
    model.save_pretrained(tmp_path / "built")
    torch.testing.assert_close(
        logits(roilab.load(tmp_path / "built", device="cpu")), logits(model), atol=1e-4, rtol=1e-4
    )


def test_build_on_siglip_with_paper_layers(backbones):
    folder, _, siglip, _ = backbones
    model = roilab.build(folder / "siglip", folder / "language", REGION, device="cpu")
    assert model.config.feature_layers == list(PAPER_LAYERS)
    pixels = torch.randn(1, 3, 32, 32)
    states = siglip.eval()(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(model.encode_image(pixels).patches, states[-2])
    assert tuple(model.processor.image_processor.image_mean) == (0.5, 0.5, 0.5)
    assert torch.isfinite(logits(model)).all()


def test_region_sizes():
    model = roilab.build(
        vision_config(),
        text_config(tiny_tokenizer()),
        REGION,
        "tiny",
        tiny_tokenizer(),
        feature_layers=[-4, -2],
        device="cpu",
    )
    config = model.config.region_config
    assert (config.level_widths, config.width, config.roi_size, config.output_size) == ([32, 32], 16, 4, 48)
    assert torch.isfinite(logits(model)).all()


def test_a_misspelt_size_is_named():
    with pytest.raises(ValueError, match="region has widht, but the sizes are level_widths, width, "):
        roilab.build(vision_config(), text_config(tiny_tokenizer()), {"widht": 16}, "tiny", tiny_tokenizer())


def test_layers_of_shallow_towers():
    assert spread_layers(24) == spread_layers(10) == list(PAPER_LAYERS)
    assert spread_layers(6) == [-6, -5, -3, -2]
    for layers in range(5, 24):
        assert spread_layers(layers) == sorted(set(spread_layers(layers))) and spread_layers(layers)[-1] == -2


def test_missing_parts_are_named(backbones, tmp_path):
    folder, clip, _, language = backbones
    clip.save_pretrained(tmp_path / "clip")
    language.save_pretrained(tmp_path / "language")
    with pytest.raises(ValueError, match="preprocessor_config.json.*image_processor="):
        roilab.build(tmp_path / "clip", folder / "language", REGION, device="cpu")
    with pytest.raises(ValueError, match="tokenizer.json.*tokenizer="):
        roilab.build(folder / "clip", tmp_path / "language", REGION, device="cpu")
    with pytest.raises(ValueError, match="pass tokenizer="):
        roilab.build(vision_config(), text_config(tiny_tokenizer()), REGION, device="cpu")
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        roilab.build(vision_config(), text_config(llama_tokenizer()), REGION, "chatml", llama_tokenizer(), device="cpu")


# Saving


def contents(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_failed_save_leaves_the_older_folder_whole(tmp_path, monkeypatch):
    model = small_model()
    model.save_pretrained(tmp_path / "saved")
    before = contents(tmp_path / "saved")
    with torch.no_grad():
        model.projector.weight.add_(1)
    monkeypatch.setattr(type(model.processor), "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path / "saved") == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    monkeypatch.undo()
    model.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path / "saved")["model.safetensors"] != before["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_write_leaves_the_older_folder_whole(tmp_path):
    target = tmp_path / "saved"
    target.mkdir()
    (target / "model.safetensors").write_text("old")
    code = textwrap.dedent(
        f"""
        import os, signal
        from roilab.files import atomic_folder
        with atomic_folder({str(target)!r}) as folder:
            (folder / "model.safetensors").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    root = Path(roilab.__file__).parents[1]
    process = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)})
    assert process.returncode == -signal.SIGKILL
    assert contents(target) == {"model.safetensors": b"old"}
    assert len(list(tmp_path.iterdir())) == 2
    clear_unfinished(target)
    assert list(tmp_path.iterdir()) == [target] and contents(target) == {"model.safetensors": b"old"}


def test_what_is_cleared_holds_nothing_of_others(tmp_path):
    target, older, other = (tmp_path / name for name in ("saved", ".saved.x1.tmp", ".saved2.x1.tmp"))
    for folder in (target, older, other):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    (older / "notes.txt").write_text("mine")  # killed after the new folder took its place, before this file moved
    clear_unfinished(target)
    assert (older / "notes.txt").read_text() == "mine"
    os.rename(older / "notes.txt", target / "notes.txt")
    (older / "model-00001-of-00002.safetensors").write_text("old")
    (tmp_path / ".saved.mine.tmp").write_text("a file, not what a killed write leaves")
    clear_unfinished(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".saved.mine.tmp", ".saved2.x1.tmp", "saved"]


@pytest.mark.parametrize("linux", [True, False])
def test_other_files_stay_and_old_shards_go(tmp_path, monkeypatch, linux):
    if not linux:
        monkeypatch.setattr(sys, "platform", "darwin")
    target = tmp_path / "saved"
    (target / "checkpoint-5").mkdir(parents=True)
    (target / "checkpoint-5" / "optimizer.pt").write_text("state")
    for name in ("notes.txt", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"):
        (target / name).write_text("old")
    with atomic_folder(target) as folder:
        (folder / "model.safetensors").write_text("new")
        (folder / "config.json").write_text("new")
        assert (target / "config.json").read_text() == "old"
    assert sorted(path.name for path in target.iterdir()) == [
        "checkpoint-5",
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]
    assert (target / "config.json").read_text() == "new" and (
        target / "checkpoint-5" / "optimizer.pt"
    ).read_text() == "state"
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_file_is_not_overwritten_by_a_folder(tmp_path):
    (tmp_path / "saved").write_text("mine")
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        small_model().save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved").read_text() == "mine"
