"""`roilab.tiny`: the truth that stage 0 learns from is the scenes' truth, and the whole run starts, stops and continues."""

import random

import numpy as np
import pytest
import torch

from roilab import scenes
from roilab.scenes import language
from roilab.tiny import sight, words


def test_average_pool_by_hand():
    level = torch.arange(16.0).reshape(1, 1, 4, 4)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15
    whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5], [0.125, 0.0, 0.375, 0.25]]])
    got = sight.average_pool(level, whole, 1)[0, :, 0, 0]
    # all: 7.5; upper right quarter: (2 + 3 + 6 + 7) / 4; half of column 0 and half of column 1 of row 0: 0.5
    torch.testing.assert_close(got, torch.tensor([7.5, 4.5, 0.5]))
    quarters = sight.average_pool(level, whole[:, :1], 2)[0, 0, :, 0]
    torch.testing.assert_close(quarters, torch.tensor([2.5, 4.5, 10.5, 12.5]))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return sight.Pool(tmp_path_factory.mktemp("pool"), 24, 64, workers=1)


def test_pool_rows_are_the_training_scenes(pool):
    for index in range(len(pool)):
        scene = scenes.sample(index, held_out=False)
        boxes, labels = pool.boxes[index], pool.labels[index]
        used = (labels >= 0).any(-1)
        whole = [row for row in range(sight.SLOTS) if used[row] and labels[row, -1] == 0]
        assert len(whole) == len(scene.objects)
        for row, item in zip(whole, scene.objects):
            np.testing.assert_allclose(boxes[row] * scene.size, item.box, rtol=1e-5)
            for name, value in item.attributes.items():
                if name in sight.FACTS:
                    assert sight.FACTS[name][labels[row, list(sight.FACTS).index(name)]] == value
        assert scenes.SETTINGS[pool.settings[index]] == scene.setting
    reopened = sight.Pool(_folder(pool), 24, 64)
    assert np.array_equal(reopened.images, pool.images)


def _folder(pool):
    from pathlib import Path

    return Path(pool.images.filename).parent


def test_training_batches_move_boxes_with_the_pixels(pool):
    """A white block painted over a box before collation lies under the box after flips and shifts."""

    class Marked:
        boxes, labels, settings = pool.boxes, pool.labels, pool.settings
        images = np.zeros_like(pool.images)

    for row in range(len(pool)):
        x1, y1, x2, y2 = (pool.boxes[row, 0] * 64).round().astype(int)
        Marked.images[row, y1:y2, x1:x2] = 255
    torch.manual_seed(0)
    batch = sight.VisionBatch(Marked, [0.0] * 3, [1.0] * 3, grid=8, shift=3)(list(range(len(pool))))
    flipped = 0
    for row in range(len(pool)):
        x1, y1, x2, y2 = (batch["boxes"][row, 0] * 64).tolist()
        lit = batch["pixel_values"][row, 0].nonzero()
        found = [lit[:, 1].min().item(), lit[:, 0].min().item(), lit[:, 1].max().item() + 1, lit[:, 0].max().item() + 1]
        side = max(x2 - x1, y2 - y1)
        assert np.abs(np.subtract(found, [x1, y1, x2, y2])).max() <= 1.5 + 0.07 * side, (row, found, (x1, y1, x2, y2))
        facing = list(sight.FACTS).index("facing")
        flipped += bool((batch["labels"][row, :, facing] != torch.from_numpy(pool.labels[row, :, facing]).long()).any())
    assert 0 < flipped < len(pool)


def test_word_bags_hold_the_truth(model):
    bag = words.WordBag(48, model.processor.tokenizer)

    def read(ids):
        return model.processor.tokenizer.decode(ids)

    for seed in range(20):
        scene = scenes.sample(seed)
        rng = random.Random(seed)
        for question in language.questions(scene, rng, ["kind", "granularity"], 6):
            for slot in question.slots:
                first, second, role = bag.ids(scene, slot)
                things = sorted((scene.object(i) for i in slot.objects), key=lambda o: o.centre[0])
                if slot.part:
                    assert role == 1 and slot.part in read(first)
                elif len(things) > 2:
                    people = sum(o.is_person for o in things)
                    text = read(first) + read(second)
                    assert (
                        role == 3
                        and ("people" in text) == (people > 0)
                        and ("things" in text) == (people < len(things))
                    )
                else:
                    assert role == (2 if len(things) == 2 else 0)
                    for item, ids in zip(things, (first, second)):
                        assert all(value in read(ids) for value in (item.kind, item.colour))


@pytest.mark.slow
def test_the_whole_run_from_nothing_and_again(tmp_path, capsys, monkeypatch):
    import roilab
    from roilab.cli import main

    options = [
        "train",
        "tiny",
        "--out",
        str(tmp_path / "run"),
        "--scenes",
        "150",
        "--vision-batch",
        "8",
        "--batch",
        "4",
    ]
    parts = ["vision", *words.CURRICULUM, "alignment", "stage1", "stage2"]
    for name in parts:
        options += [f"--{name}-steps", "2"]
    assert main(options) == 0
    model = roilab.load(tmp_path / "run" / "model", device="cpu")
    logs = sorted(p.name for p in (tmp_path / "run" / "model").glob("log_*.jsonl"))
    assert logs == sorted(f"log_{'text_' if name in words.CURRICULUM else ''}{name}.jsonl" for name in parts)
    scene = scenes.sample(1)
    chat = roilab.Chat(model, scene.image, max_new_tokens=4)
    first = chat.ask("What is <region1>?", regions=[scene.objects[0].box])
    monkeypatch.setattr("roilab.training.run", lambda *a, **k: pytest.fail("a finished stage was trained again"))
    assert main(options) == 0
    again = roilab.load(tmp_path / "run" / "model", device="cpu")
    assert (
        roilab.Chat(again, scene.image, max_new_tokens=4).ask("What is <region1>?", regions=[scene.objects[0].box]).text
        == first.text
    )
