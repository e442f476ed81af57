"""`roilab train ablation`: every arm is what its name says, and what the patches and coordinates of its text warm-up tell is true."""

import copy
import re
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import roilab
from roilab import scenes, training, weights
from roilab.scenes import language
from roilab.tiny import ablation, ablation_table, arms, coordinates, dialogues, keeping, sight, train, words

COUNT = 8


@pytest.fixture(scope="module")
def stage0():
    return roilab.load("tiny-stage0", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def pictures(stage0, tmp_path_factory):
    pool = sight.Pool(tmp_path_factory.mktemp("pool"), COUNT, stage0.config.vision_config.image_size, workers=1)
    return train.SceneBatch(stage0.processor, pool, jitter=0)


@pytest.fixture(scope="module")
def items():
    data = dialogues.SceneDialogues(COUNT, 60, ("colour", "larger", "leftmost"))
    torch.manual_seed(0)
    return [data[i] for i in range(3)]


def test_patches_say_what_covers_them(stage0):
    bag = words.WordBag(stage0.config.text_config.hidden_size, stage0.processor.tokenizer)
    covered = 0
    for seed in range(5):
        scene = scenes.sample(seed)
        rows = coordinates.patch_rows(bag, scene, 8)
        assert len(rows) == 64
        for number, (ids, _, role, directed, box) in enumerate(rows):
            y, x = divmod(number, 8)
            assert box == pytest.approx([x / 8, y / 8, (x + 1) / 8, (y + 1) / 8]) and role == 0
            said, middle = stage0.processor.tokenizer.decode(ids), [(x + 0.5) / 8, (y + 0.5) / 8]
            over = [o for o in scene.objects if all(o.box[k] <= middle[k] * scene.size < o.box[k + 2] for k in (0, 1))]
            inside = [o for o in scene.objects if [int(8 * v / scene.size) for v in o.centre] == [x, y]]
            owners = [o for o in scene.objects if o in over or o in inside]
            if owners:
                assert owners[-1].kind in said and owners[-1].colour in said
                covered += 1
            else:
                assert scene.setting in said and directed == [0.0] * 4
    assert covered > 25


def test_coordinates_are_read_with_patches_in_words(stage0, items):
    warmup = words.TextWarmup(copy.deepcopy(stage0))
    collate = coordinates.CoordinateBatch(stage0.processor, warmup.bag)
    batch = collate(items)
    assert batch["counts"] == [64] * 3 and not (batch["input_ids"] == stage0.config.region_token_id).any()
    for row, (_, scene, (_, boxes, _)) in zip(batch["input_ids"], items):
        text = stage0.processor.tokenizer.decode(row)
        told = [[float(v) for v in each.split(",")] for each in re.findall(r"region\d+ at \[([\d., ]+)\]", text)]
        assert len(told) == len(boxes)
        for numbers, box in zip(sorted(told), sorted([round(v / scene.size, 2) for v in box] for box in boxes)):
            assert numbers == pytest.approx(box, abs=0.011)
    loss = warmup(**batch)["loss"]
    loss.backward()
    assert loss.isfinite() and warmup.bag.second.weight.grad is not None
    other = warmup(**(batch | dict(bags=collate(items[::-1])["bags"])))["loss"]
    assert other != loss  # what the patches say is read


@pytest.mark.parametrize("name", list(arms.MODELS))
def test_every_arm_is_shown_what_its_name_says_and_can_be_trained(name, stage0, pictures, items):
    arm = arms.MODELS[name]
    torch.manual_seed(0)
    batch = arms.ArmBatch(pictures, arm)(items)
    regions = (batch["input_ids"] == stage0.config.region_token_id).sum(1).tolist()
    text = stage0.processor.tokenizer.batch_decode(batch["input_ids"])
    assert ("pixel_values" in batch) == (name != "text only")
    assert all(("at [" in each) == (name == "text coordinates") for each in text)
    if arm.present == "regions":
        assert [len(each) for each in batch["boxes"]] == regions and min(regions) > 0
        wanted = [torch.tensor(boxes) / scene.size for _, scene, (_, boxes, _) in items]
        same = [torch.equal(got, boxes) for got, boxes in zip(batch["boxes"], wanted)]
        assert all(same) == (arm.order == "asked")
        if arm.order == "swapped":
            for got, boxes in zip(batch["boxes"], wanted):
                assert torch.equal(got[:2].flip(0), boxes[:2]) and torch.equal(got[2:], boxes[2:])
        for got, boxes in zip(batch["boxes"], wanted):
            torch.testing.assert_close(got.sort(0).values, boxes.sort(0).values)
    else:
        assert regions == [0] * len(items) and "boxes" not in batch
    if "pixel_values" in batch:
        plain = pictures.pixels([index for index, _, _ in items])
        away = (batch["pixel_values"] - plain).abs().mean()
        assert (away > 0.02) == (name in ("drawn marks", "crop only"))
    model = arms.build(stage0, arm, 0)
    assert model(**batch).loss.isfinite()


def test_by_place_what_is_said_is_of_regions_numbered_from_left_to_right(stage0, pictures):
    data, arm = (
        dialogues.SceneDialogues(COUNT, 1, ("left_of", "leftmost"), any_order=1.0),
        arms.DEFECTS["ignores order"],
    )
    torch.manual_seed(0)
    read, answers, firsts = stage0.processor.tokenizer.decode, set(), set()
    for i in range(24):
        item = data[i % COUNT]
        batch = arms.ArmBatch(pictures, arm)([item])
        _, scene, (turns, regions, _) = item
        said = read(batch["input_ids"][0])
        truth = re.search(r"region(\d+)", turns[1]["content"])
        if truth and "right" not in said and "left" in said and len(regions) > 1:
            answers.add(re.findall(r"region(\d+)", said)[-1])
            left = min(box[0] + box[2] for box in regions) / scene.size
            firsts.add(round((batch["boxes"][0][0, 0::2].sum() - left).item(), 3) == 0)
    assert answers == {"1"}  # the leftmost, wherever its box is
    assert firsts == {True, False}


def test_arms_differ_in_what_they_lack_and_share_stage_0(stage0):
    models = {name: arms.build(stage0, arm, 0) for name, arm in arms.ARMS.items() if arm.present == "regions"}
    for model in models.values():
        for part in ("vision", "projector", "language_model"):
            states = model.get_submodule(part).state_dict(), stage0.get_submodule(part).state_dict()
            assert states[0].keys() == states[1].keys() and all(
                torch.equal(states[0][k], states[1][k]) for k in states[0]
            )
    assert len(models["one level"].region_encoder.cells.convs) == 1
    assert models["one level"].config.feature_layers == stage0.config.feature_layers[-1:]
    assert len(models["no fusion"].region_encoder.fusion.rounds) == 0
    assert models["RoIAlign 14"].region_encoder.content.in_features == 4 * stage0.region_encoder.content.in_features
    boxes = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.1, 0.9, 0.8]])
    assert not models["no box embedding"].region_encoder.position(boxes).any()
    one, two = models["region token"].region_encoder.position(boxes)
    assert not torch.equal(one, two)
    again, other = arms.build(stage0, arms.ARMS["region token"], 0), arms.build(stage0, arms.ARMS["region token"], 1)
    fresh = models["region token"].region_encoder.content.weight
    assert torch.equal(again.region_encoder.content.weight, fresh) and not torch.equal(
        other.region_encoder.content.weight, fresh
    )


def test_a_region_encoder_is_kept_on_its_way(stage0, pictures, tmp_path):
    arm = arms.ARMS["region token"]
    model, collate = arms.build(stage0, arm, 0), arms.ArmBatch(pictures, arm)
    data = dialogues.SceneDialogues(COUNT, 1, ("colour",))
    fresh = model.region_encoder.content.weight.detach().half()
    for stage, steps in (("stage1", 5), ("stage2", 1)):
        training.set_trainable(model, stage)
        kept = keeping.Snapshots(model.region_encoder, tmp_path / "kept", stage)
        training.run(model, data, collate, tmp_path / stage, steps=steps, batch=2, lr=1e-3, callbacks=[kept])
    found = {path.stem: load_file(path) for path in sorted((tmp_path / "kept").iterdir())}
    assert list(found) == ["stage1-0000", "stage1-0001", "stage1-0004", "stage1-0005", "stage2-0001"]
    assert torch.equal(found["stage1-0000"]["content.weight"], fresh)
    weights = [each["content.weight"] for each in found.values()]
    assert not any(torch.equal(one, other) for one, other in zip(weights, weights[1:]))
    last = model.region_encoder.state_dict()
    assert found["stage2-0001"].keys() == last.keys()
    for name, value in last.items():
        assert torch.equal(found["stage2-0001"][name], value.half()), name
    filters = found["stage1-0004"]["cells.convs.0.weight"].float()
    assert filters.mean((1, 2, 3)).abs().max() < 1e-4 * filters.abs().max()


def _result(arm, seed, share):
    families = {family: {"accuracy": share, "n": 50} for family in language.FAMILIES if family != "vcr"}
    vcr = {"q_a": share, "qa_r": share, "q_ar": share / 2, "n": 40}
    return {"arm": arm, "training_seed": seed, "families": families, "vcr": vcr, "minutes_with_evaluation": 2 + seed}


def test_the_table_pools_seeds_and_says_how_far_they_are_apart():
    results = [_result("text only", 0, 0.2), _result("region token", 0, 0.6), _result("region token", 1, 0.8)]
    rows = ablation_table.summary(results)
    assert list(rows) == ["region token", "text only"]
    token = rows["region token"]["attributes"]
    assert token["accuracy"] == pytest.approx(0.7) and token["n"] == 2 * 8 * 50
    assert token["seeds"] == pytest.approx([0.6, 0.8])
    low, high = token["interval"]
    assert low < 0.7 < high and high - low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 800) ** 0.5, rel=0.02)
    lines = ablation_table.table(results).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| region token | 2 | 70.0 ± 3.2 [60.0, 80.0] |")
    assert lines[2].endswith("| 3.0 |") and "[" not in lines[3] and "| 10.0 ±" in lines[3]
    panels = ablation_table.figure(results).axes
    assert [each.get_label() for each in panels] == [t for t in ablation_table.COLUMNS.values() if "all" not in t]
    points = {line.get_gid(): line.get_xydata().tolist() for line in panels[0].lines if line.get_gid()}
    assert points["mean of 8 attributes region token"] == [pytest.approx([70, 0])]
    assert points["mean of 8 attributes text only"] == [pytest.approx([20, 1])]


def test_without_a_finished_run_of_the_tiny_model_it_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="vision.pt and no .*drilling.pt: run `roilab train tiny --out"):
        ablation.prepare(train.TinyRecipe(), ablation.AblationRecipe(), tmp_path / "run", tmp_path / "out")
    with pytest.raises(ValueError, match="run holds no run of `roilab train tiny`"):
        ablation.main(["ablation", "--source", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "name, lacks", [("only positions", "what the picture shows"), ("only text", "boxes and picture")]
)
def test_models_with_a_planted_defect_cannot_see_what_they_lack(stage0, pictures, items, name, lacks):
    """Not as taught but by their weights: other pictures change nothing; other boxes nothing either, if only the text is read."""
    model, batch = arms.build(stage0, arms.DEFECTS[name], 0).eval(), arms.ArmBatch(pictures, arms.DEFECTS[name])(items)
    with torch.inference_mode():
        plain = model(**batch).logits
        assert torch.equal(model(**(batch | dict(pixel_values=batch["pixel_values"].flip(0)))).logits, plain)
        moved = model(**(batch | dict(boxes=[each * 0.5 for each in batch["boxes"]]))).logits
    assert torch.equal(moved, plain) == (lacks == "boxes and picture")


def test_a_worker_ends_with_the_process_that_began_it():
    """A second start after a kill must not find the first one's workers still writing to the same folders."""
    code = (
        "import multiprocessing, os, time\n"
        "from roilab.tiny.workers import end_with\n"
        "if os.fork():\n    print('begun', flush=True), time.sleep(2), os._exit(0)\n"
        "end_with(os.getppid()), time.sleep(600)\n"
    )
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=True
    )  # ends when all have closed the pipe
    assert time.monotonic() - begun < 100


def _runs(out, change="language_model.model.norm.weight"):
    """What `keep` looks for: every run's model is the tiny one with one tensor changed, and a region encoder on its way."""
    tiny = load_file(weights.ASSETS / "tiny" / "model.safetensors")
    names = [f"{name}-0/model" for name in weights.VARIANTS if not name.startswith("ablation")]
    for number, folder in enumerate(["stage0", *names]):
        (out / folder).mkdir(parents=True)
        save_file(tiny | {change: tiny[change] + number + 1}, out / folder / "model.safetensors")
    for log in ("reading", "only-text-0/stage2"):
        (out / log).mkdir()
        (out / log / "log.jsonl").write_text(log)
    encoder = {k.split(".", 1)[1]: each for k, each in tiny.items() if k.startswith("region_encoder.")}
    (out / "region-token-0" / "snapshots").mkdir()
    for step in (0, 1):
        kept = {key: each + step + 1 for key, each in encoder.items()}
        save_file(kept, out / "region-token-0" / "snapshots" / f"stage1-000{step}.safetensors")
    return encoder


def test_what_is_kept_loads_as_variants_of_the_tiny_model(tmp_path, monkeypatch):
    encoder = _runs(tmp_path / "out")
    tiny = roilab.load("tiny", device="cpu")
    keeping.keep(tmp_path / "out", tmp_path / "assets" / "tiny-variants")
    logs = {path.name: path.read_text() for path in (tmp_path / "assets" / "tiny-variants").glob("log_*")}
    assert logs == {
        "log_ablation-stage0_reading.jsonl": "reading",
        "log_only-text_stage2.jsonl": "only-text-0/stage2",
    }
    (tmp_path / "assets" / "tiny").symlink_to(weights.ASSETS / "tiny")
    monkeypatch.setattr(weights.loading, "ASSETS", tmp_path / "assets")
    assert list(weights.snapshots()) == ["stage1-0000", "stage1-0001"]
    for number, name in enumerate(weights.VARIANTS):
        model = roilab.load(f"tiny-{name}", device="cpu")
        changed = {key for key, each in model.state_dict().items() if not torch.equal(each, tiny.state_dict()[key])}
        before = {f"region_encoder.{key}" for key in encoder} if name == "ablation-stage0" else set()
        assert changed == {"language_model.model.norm.weight"} | before
        away = model.language_model.model.norm.weight - tiny.language_model.model.norm.weight
        assert away.mean().item() == pytest.approx(number + 1, abs=0.01)
        assert model.processor.tokenizer.get_vocab() == tiny.processor.tokenizer.get_vocab()
    (tmp_path / "assets" / "tiny-variants" / "only-text.safetensors").unlink()
    with pytest.raises(ValueError, match="'tiny-only-text' is not in this installation .*train ablation --keep"):
        roilab.load("tiny-only-text")


def test_what_is_kept_has_the_vision_tower_of_the_tiny_model(tmp_path):
    _runs(tmp_path / "out", "vision.model.encoder.layers.0.layer_norm1.weight")
    with pytest.raises(ValueError, match="vision.* is not that of the tiny model"):
        keeping.keep(tmp_path / "out", tmp_path / "kept")
    (tmp_path / "out" / "only-text-0" / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no model in .*only-text-0/model: let `roilab train ablation` end"):
        keeping.keep(tmp_path / "out", tmp_path / "kept")
