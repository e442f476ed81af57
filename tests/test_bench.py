"""`roilab bench`: what it runs and writes, and that what is compared agrees. How fast it is, no test says."""

import json
import random
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from roilab import bench
from roilab.bench import drag, encoder, measure, train
from roilab.bench.delay import delayed
from roilab.bench.index import bench_index
from roilab.bench.lab import BrowserMissing, chromium
from roilab.bench.train import language_config
from roilab.cli import main
from roilab.config import RegionConfig
from roilab.regions import RegionEncoder

PHOTO = {name for name in bench.MEANING if name.startswith("photo_")}
DRAG = {name for name in bench.MEANING if name.startswith("drag_")}
INDEX = {name for name in bench.MEANING if name.startswith("index_")}
WHATIF = {name for name in bench.MEANING if name.startswith("whatif_")}
INSIDE = {name for name in bench.MEANING if name.startswith("inside_")}
CONVERT = {name for name in bench.MEANING if name.startswith("convert_")}
FEATURES = {name for name in bench.MEANING if name.startswith("features_")}
SMALL = RegionConfig(
    level_widths=[6] * 3, width=8, fusion_rounds=2, norm_groups=2, output_size=10, position_hidden_size=4
)
CUDA = {name for name in bench.MEANING if name.startswith("region_encoder_16_")}


def test_unknown_benchmarks_and_devices_are_named(monkeypatch):
    with pytest.raises(ValueError, match="nonsense"):
        bench.run_benchmarks(["nonsense"])
    with pytest.raises(ValueError, match="cpu or cuda, not on 'tpu'"):
        bench.run_benchmarks([], device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device was found"):
        bench.run_benchmarks([], device="cuda")


@pytest.fixture
def ran(monkeypatch):
    """Names of the benchmarks that ran, in order; each stand-in gives its own rows of the table."""
    names, rows = [], iter(bench.MEANING)
    counts = {
        "second_question": 3,
        "region_encoder": 8,
        "moved_box": 3,
        "streaming": 2,
        "attention_rows": 3,
        "ig_caches": 2,
        "stage1": 5,
        "images": 2,
        "index": 5,
        "features": 3,
        "inside": len(INSIDE),
        "convert": len(CONVERT),
        "photo": 5,
        "drag": 5,
        "whatif": 2,
    }
    assert counts.keys() == bench.BENCHMARKS.keys() and sum(counts.values()) == len(bench.MEANING)

    def stand_in(name, results):
        return lambda repeats, device="cpu": names.append((name, repeats)) or results

    for name, count in counts.items():
        monkeypatch.setitem(bench.BENCHMARKS, name, stand_in(name, {next(rows): 1.5 for _ in range(count)}))
    return names


def test_without_names_all_run_but_the_long_ones_and_the_one_that_needs_a_browser(ran, capsys):
    assert main(["bench"]) == 0
    assert ran == [(name, 3) for name in bench.BENCHMARKS if name not in bench.BY_NAME_ONLY]
    assert ("region_encoder", 3) in ran and ("features", 3) not in ran
    shown = capsys.readouterr().out
    assert "threads, torch" in shown and "drag" not in shown and "jupyterlab" not in shown
    ran.clear()
    assert main(["bench", "drag", "moved_box"]) == 0
    assert ran == [("drag", 3), ("moved_box", 3)]
    shown = capsys.readouterr().out
    assert all(f"`{name}` | 1.5 |" in shown for name in DRAG | {"moved_box_speedup"})
    assert "threads, torch" in shown and "jupyterlab" in shown and "`max_logit_difference`" not in shown


def test_what_looking_inside_costs_is_a_table_of_its_own(ran, capsys):
    assert main(["bench", "inside"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| `rollout` | 1.5 | 1.5 |" in lines and "| method | seconds | peak memory above the model, GB |" in lines
    assert sum("| 1.5 |" in line for line in lines) == 2 + (len(INSIDE) - 2) / 2


def test_benchmarks_run_where_they_are_told_and_a_gpu_is_the_default(monkeypatch, capsys):
    given = []
    for name in ("moved_box", "images", "inside"):
        monkeypatch.setitem(bench.BENCHMARKS, name, lambda *found, name=name: given.append((name, *found)) or {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Imagined")
    bench.run_benchmarks(["moved_box", "images", "inside"])
    bench.run_benchmarks(["moved_box"], 5, "cpu")
    assert given == [("moved_box", 3, "cuda"), ("images", 3), ("inside", 3, "cuda"), ("moved_box", 5, "cpu")]
    assert "NVIDIA Imagined" in bench.table({"moved_box_speedup": 2.0}, "cuda")
    assert "NVIDIA" not in bench.table({"moved_box_speedup": 2.0}, "cpu")
    assert "NVIDIA" not in bench.table({"drag_ms": 2.0}, "cuda")


def test_the_multiplications_of_the_floor_are_those_that_run():
    """Counted without computing, they are those of a pass with gradients, which goes the way a GPU goes."""
    torch.manual_seed(0)
    region_encoder = RegionEncoder(SMALL)
    inputs = [torch.randn(2, 16, 6) for _ in range(3)], [torch.tensor([[0.1, 0.1, 0.6, 0.7]])] * 2
    with FlopCounterMode(display=False) as counter:
        region_encoder(*inputs)
    counted = encoder.count_flops(region_encoder, *inputs)
    assert counted == counter.get_total_flops() > 1e5
    assert 0 < encoder.floor_seconds(region_encoder, *inputs) < 1


def test_both_ways_of_the_region_encoder_run_in_bfloat16_on_another_device(monkeypatch):
    """`meta` holds no values: what it shows is that nothing is left on the CPU or in float32."""
    made = RegionEncoder(SMALL), [torch.randn(1, 16, 6) for _ in range(3)], [torch.rand(2, 4)]
    monkeypatch.setattr(encoder, "paper_region_encoder", lambda: made)
    for way in encoder.encoder_ways("meta", batch=3):
        found = way()
        assert found.shape == (6, 10) and found.device.type == "meta" and found.dtype == torch.bfloat16


def test_the_second_question_is_asked_with_and_without_what_is_kept(monkeypatch):
    """The plain way reads the whole prompt, ours what is new; never a question that was just asked."""
    lengths = []
    original = measure.small_language_model

    def watched(device):
        model = original(device)
        model.language_model.model.register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
        )
        return model

    monkeypatch.setattr(measure, "small_language_model", watched)
    plain, ours = measure.question_ways("cpu")
    first = lengths[0]
    lengths.clear()
    for way in (plain, ours, ours, ours, plain):
        way()
    assert min(lengths[0], lengths[-1]) > first + 5
    assert all(5 < each < 40 for each in lengths[1:-1]) and len(lengths) == 5


def quick_ways(device, size):
    """Two ways to a sum: one over a list of tensors, one over few."""
    return lambda: sum(torch.ones(size).sum() for _ in range(3)), lambda: torch.ones(3 * size).sum()


@pytest.mark.slow
def test_two_ways_are_compared_in_time_and_memory(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found, (plain, ours), seconds = measure.compared("sums", quick_ways, 2, size=4_000_000)
    assert plain == ours == 12e6 and set(seconds) == {"plain", "ours"} and min(seconds.values()) > 0
    assert found["sums_speedup"] == seconds["plain"] / seconds["ours"]
    assert 2 < found["sums_memory_ratio"] < 4  # 48 MB at once against 16 MB


def test_the_ratios_can_be_drawn(tmp_path):
    from roilab.bench.figure import show_ratios

    figure = show_ratios({"one_speedup": 2.0, "two_memory_ratio": 0.25, "a_difference": 0.1}, tmp_path / "ratios.png")
    (axes,) = figure.axes
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == [2.0, 4.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one_speedup", "two_memory_ratio"]
    assert (tmp_path / "ratios.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no ratio to draw among a_difference"):
        show_ratios({"a_difference": 0.1})


def test_one_name_has_its_own_place_in_the_readme(ran, tmp_path, capsys):
    path = tmp_path / "README.md"
    text = "a\n<!-- bench -->\nb\n<!-- /bench -->\nc\n<!-- bench drag -->\nd\n<!-- /bench drag -->\ne\n"
    path.write_text(text)
    assert main(["bench", "drag", "--readme", str(path)]) == 0
    table = capsys.readouterr().out.strip()
    assert "torch" not in table and path.read_text() == text.replace("\nd\n", f"\n{table}\n")
    assert main(["bench", "--readme", str(path)]) == 0
    assert "\nb\n" not in path.read_text() and table in path.read_text()


@pytest.mark.parametrize(
    ("names", "readme", "word"),
    [
        (["nonsense"], False, "nonsense"),
        (["moved_box"], True, "<!-- bench moved_box -->"),
        (["moved_box", "drag"], True, "not of 2"),
    ],
)
def test_mistaken_names_are_said_before_the_work(ran, tmp_path, capsys, names, readme, word):
    (tmp_path / "README.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    assert main(["bench", *names] + ["--readme", str(tmp_path / "README.md")] * readme) == 2
    out, err = capsys.readouterr()
    assert out == "" and word in err and err.count("\n") == 1 and ran == []


def test_a_missing_browser_is_one_line(monkeypatch, capsys):
    # Nowhere on the path, and what playwright would have installed itself is not there.
    playwright = pytest.importorskip("playwright.sync_api")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(playwright.BrowserType, "executable_path", "/nowhere/chrome")
    with pytest.raises(BrowserMissing, match="^no chromium.*apt-get install chromium.*$"):
        chromium().__enter__()
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert main(["bench", "drag"]) == 2
    assert capsys.readouterr() == ("", "roilab: playwright is not installed: pip install playwright\n")


def test_the_drag_s_rows_come_from_two_round_trips(monkeypatch):
    def measure(round_trip, repeats):
        return {"ms": 10 + round_trip, "sent": 62, "received": 100 + repeats + round_trip}

    monkeypatch.setattr(drag, "measure_drag", measure)
    results = drag.bench_drag(repeats=2)
    assert set(results) == DRAG
    assert [results["drag_ms"], results["drag_ms_far"]] == [10, 10.15]
    assert [results["drag_messages_received"], results["drag_messages_received_far"]] == [102, 102.15]


def echo(listener):
    """Answers every connection with what it sends, until it stops sending."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed: the test is over
            return
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)


@pytest.fixture
def echo_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=echo, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept


def test_delayed_bytes_arrive_whole_in_order_and_late(echo_port):
    sent = random.Random(0).randbytes(1 << 20)
    with delayed(echo_port, 0.2) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as near:
        start = time.monotonic()
        writer = threading.Thread(target=lambda: (near.sendall(sent), near.shutdown(socket.SHUT_WR)))
        writer.start()
        received, first = bytearray(), None
        while data := near.recv(1 << 16):
            first = first or time.monotonic() - start
            received += data
        writer.join()
    assert received == sent
    assert 0.2 <= first
    # Each of the sixteen and more pieces is late, but they wait together: one after the other they would take over 3 s.
    assert time.monotonic() - start < 2


def test_a_delayed_connection_ends_with_the_block_and_with_its_target(echo_port):
    threads = threading.active_count()
    with delayed(echo_port, 0.02) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as near:
        near.sendall(b"one")
        assert near.recv(10) == b"one"
    assert threading.active_count() <= threads
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with delayed(nobody, 0.02) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as near:
        assert near.recv(10) == b""


@pytest.mark.slow
def test_every_benchmark_once(tmp_path, capsys):
    results = bench.run(tmp_path / "bench.json", repeats=1)
    assert json.loads((tmp_path / "bench.json").read_text()) == results
    assert set(results) == set(bench.MEANING) - DRAG - INDEX - FEATURES - INSIDE - CONVERT - PHOTO - WHATIF - CUDA
    shown = capsys.readouterr().out
    for name, value in results.items():
        assert f"`{name}` | {value:.3g} |" in shown
        if name.endswith("_difference"):
            assert value <= 1e-4, name
    # About 0.68: what the allocator keeps differs from run to run.
    assert results["region_encoder_memory_ratio"] <= 0.75
    assert results["stage1_memory_ratio"] < 0.8 and results["moved_box_memory_ratio"] < 0.5


@pytest.fixture
def small_step(monkeypatch):
    """Model and batch of the benchmark `train`, with a smaller language model."""

    def smaller(**ids):
        config = language_config(**ids)
        config.hidden_size, config.intermediate_size, config.num_hidden_layers = 64, 96, 2
        return config

    monkeypatch.setattr(train, "language_config", smaller)
    monkeypatch.setattr(train, "VOCABULARY", 200)
    monkeypatch.setitem(train.REGION_SIZES, "width", 8)
    return train.stage1_model(), train.stage1_batch()


def test_what_the_step_of_stage_1_is_measured_on(small_step):
    model, batch = small_step
    ids, labels = batch["input_ids"], batch["labels"]
    assert ids.shape == (4, 400)
    assert [row.index(train.REGION) for row in ids.tolist()] == [300] * 4
    assert (ids[:, :300] == ids[0, :300]).all() and not (ids[:, 300:] == ids[0, 300:]).all()
    assert (ids == train.IMAGE).sum(1).tolist() == [256] * 4
    assert (ids == train.REGION).sum(1).tolist() == [len(each) for each in batch["boxes"]] == [5] * 4
    assert (labels != -100).sum(1).tolist() == [50] * 4 and (labels[:, :300] == -100).all()
    whole = language_config(vocab_size=10)
    layers = whole.num_hidden_layers * whole.hidden_size * (4 * whole.hidden_size + 3 * whole.intermediate_size)
    assert 30e6 < layers < 100e6


def test_the_formulations_of_a_step_agree_and_train_what_they_say(small_step):
    model, batch = small_step
    inputs = {key: value for key, value in batch.items() if key != "picture_ids"}
    with torch.no_grad():
        wanted = model(**inputs).loss
    parts = {}
    for name in train.FORMULATIONS:
        torch.testing.assert_close(train.backward(name, model, batch), wanted, rtol=1e-5, atol=1e-5)
        parts[name] = {key.split(".")[0] for key, each in model.named_parameters() if each.grad is not None}
    assert parts["prefix"] == parts["frozen"] == {"region_encoder"}
    assert parts["all"] == {"region_encoder", "projector", "language_model"}


def test_ratios_are_of_the_other_formulation_over_ours(monkeypatch, small_step):
    peak = {"prefix": 2.0, "frozen": 4.0, "all": 8.0}
    monkeypatch.setattr(train, "run_alone", lambda code: str(next(peak[name] for name in peak if repr(name) in code)))
    took = {"prefix": 1.0, "frozen": 4.0, "all": 5.0}
    monkeypatch.setattr(train, "alternate", lambda functions, repeats: {name: took[name] for name in functions})
    results = train.bench_stage1(1)
    assert 0 < results.pop("stage1_gradient_difference") < 1e-4
    assert results == {
        "stage1_speedup": 4, "stage1_speedup_over_all": 5, "stage1_memory_ratio": 0.5, "stage1_memory_ratio_over_all": 0.25,
    }  # fmt: skip


@pytest.mark.slow
def test_features_from_disk_give_the_same_loss():
    results = bench.run_benchmarks(["features"], repeats=1)
    assert set(results) == FEATURES
    assert results["features_loss_difference"] <= 1e-5


@pytest.mark.slow
def test_reading_a_large_file_takes_little_memory():
    """A fifth of the benchmark's file; what is held at a time does not grow with it."""
    results = bench_index(regions=200_000)
    assert results["index_regions"] == 200_000 and results["index_file_mb"] > 50
    assert results["index_memory_mb"] <= 300
