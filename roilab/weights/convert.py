"""The published GPT4RoI weights -> a folder that `roilab.load` reads.

Published (arXiv 2307.03601) is a difference: what training changed in LLaMA, to which LLaMA itself has to be added, tensor by tensor, and
beside it the region module and the projector as they are. The vision tower is CLIP's and comes from its own folder. Everything is
checked by names and shapes before anything is written; then one tensor at a time is read, added and passed on.

    ours                          published                             its base
    vision.model.*                -                                     CLIP's vision_model.*
    projector.*                   model.mm_projector.*                  -
    region_encoder.*              model.spi_module.* (see `official`)   -
    language_model.model.*        model.*                               + model.*
    language_model.lm_head.*      lm_head.*                             + lm_head.*
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tqdm.auto import tqdm

from ..files import atomic_folder
from .checkpoint import in_shards
from .plan import Plan

VISION = "openai/clip-vit-large-patch14"
SHARD = 1_000_000_000  # bytes; a shard stands in memory twice while it is written


def convert(official, out, base=None, vision=VISION, dry_run: bool = False, progress: bool = True) -> dict:
    """Converts published GPT4RoI weights (7B or 13B: every size is read off the files).

    Args:
        official: folder or hub id of the published files: config.json, tokenizer, shards.
        out: folder to write; it appears whole or not at all.
        base: folder or hub id of the LLaMA that the published weights are a difference to; None: they are whole already.
        vision: folder or hub id of CLIP ViT-L/14.
        dry_run: check names, shapes, dtypes, tokens and sizes, and write nothing. No values are read but the final norm's.
        progress: show a bar.
    Returns:
        What was found: `parameters`, `bytes` of the weights written, `rows` (in words, how vocabulary and weights fit),
        `ignored` keys, and `sources`: for official, base and vision the folder and the SHA-256 of each file of weights (not with `dry_run`).
    Raises:
        ValueError: keys are missing, unknown or misshapen (they are named), a file is unreadable, sizes do not fit, values are not
            finite, or the weights look like a difference and no base is given (or the other way round).
        OSError: not enough space on the disk.
    """
    plan = Plan(official, base, vision)
    total = sum(plan.bytes(name) for name in plan.expected)
    found = {
        "parameters": sum(shape.numel() for shape in plan.expected.values()),
        "bytes": total,
        "rows": plan.rows.told,
        "ignored": plan.ignored,
    }
    if dry_run:
        return found
    parent = Path(out).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < total:
        raise OSError(f"{parent} has {free / 1e9:.1f} GB free, the weights take {total / 1e9:.1f} GB")
    with atomic_folder(out) as folder:
        _write(folder, plan, progress)
        found["sources"] = {
            name: {"folder": str(each.folder.name), "sha256": each.hashes()} for name, each in plan.checkpoints.items()
        }
        plan.config.converted_from = found["sources"]
        plan.config.save_pretrained(folder)
        plan.generation_config.save_pretrained(folder)
        plan.processor.save_pretrained(folder)
    return found


def _write(folder: Path, plan: Plan, progress: bool):
    from safetensors.torch import save_file

    sizes = {name: plan.bytes(name) for name in plan.expected}
    shards, where = in_shards(sizes, SHARD), {}
    bar = tqdm(total=len(plan.expected), desc="tensors", disable=not progress)
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        values = {}
        for name in names:
            values[name] = plan.read(name)
            bar.update()
        save_file(values, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
        del values
    bar.close()
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
