"""From two trained backbones to an answer about a photograph, every step of it: fetch, build, stage 1, save, load, ask.

    pip install -e '.[photo,train]'
    python examples/photographs.py COCO --split train --out photographs

COCO is a folder with annotations/instances_train2017.json and train2017/ (`roilab data check COCO` says what is there). EfficientNet-Lite2 is
frozen and its natural pyramid gives the levels; SmolLM2-135M-Instruct is frozen too; the region encoder between them begins at random and learns
for one epoch. On all of COCO that is the first half of the recipe. On a handful of pictures it only shows that every part works:
nothing is learned from 25 pictures, and the answers say so.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import torch

import roilab
from roilab import data, fetch, training

REGION = {"width": 128, "fusion_rounds": 3, "norm_groups": 16, "roi_size": 7, "hidden_size": 512, "position_hidden_size": 128}  # fmt: skip
ENOUGH = 10_000  # pictures; with fewer nobody should expect answers that are right


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("coco", type=Path, metavar="COCO", help="folder of COCO's files")
    parser.add_argument("--split", default="train", help="train or val (default: %(default)s)")
    parser.add_argument("--backbones", type=Path, default=Path("backbones"), metavar="DIR", help="where the backbones are or go (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("photographs"), metavar="DIR", help="the run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="of a side; a multiple of 32 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=4, help="records per step (default: %(default)s)")
    arguments = parser.parse_args()
    clock = Clock()

    folders = fetch.fetch(arguments.backbones)
    records = data.read("coco", arguments.coco, arguments.split)
    print(records)
    clock("backbones and records")

    torch.manual_seed(0)
    model = roilab.build(
        folders["efficientnet-lite2"], folders["smollm2-135m-instruct"], REGION, image_size=arguments.image_size
    )
    tower = model.vision
    for name in ("vision", "projector", "region_encoder", "language_model"):
        print(f"{name}: {sum(each.numel() for each in getattr(model, name).parameters()):,} parameters")
    print(
        f"levels: {', '.join(f'{width} channels' for width in tower.level_widths)}; image tokens: {tower.num_patches}"
    )
    clock("build")

    recipe = training.stage1(
        mixture={"coco": 1.0}, epochs=1, batch_size=arguments.batch_size, lr=3e-4, warmup_ratio=0.1, centred_cells=True, workers=0,
        precision="bf16" if torch.cuda.is_available() else "float32", log_every=1,
    )  # fmt: skip
    result = training.train(model, recipe, {"coco": records}, arguments.out)
    if not result.losses or result.interrupted:
        return 130
    print(
        f"{result.steps} steps, loss {result.losses[0]['loss']:.2f} at first, {result.losses[-1]['loss']:.2f} at last"
    )
    clock("one epoch of stage 1, saved")

    del model
    model = roilab.load(arguments.out / "model")
    clock("load")
    record = records[0]
    chat = roilab.Chat(model, records.picture(0), max_new_tokens=8)
    for box, label in zip(record.boxes[:3], record.labels):
        answer = chat.ask(f"What is <region{len(chat.regions) + 1}>?", [box])
        print(f"{record.image}, {[round(side) for side in box]}: {answer.text!r} (COCO says {label!r})")
    clock("three answers")
    if len(records) < ENOUGH:
        print(f"{len(records)} records teach nothing: the answers above show that every part works, no more.")
    return 0


class Clock:
    """Prints seconds since it was last asked, and the peak of the process's memory."""

    def __init__(self):
        self.last = time.perf_counter()

    def __call__(self, what: str):
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(f"-- {what}: {now - self.last:.1f} s, peak memory so far {peak / 1e9:.2f} GB")
        self.last = now


if __name__ == "__main__":
    sys.exit(main())
