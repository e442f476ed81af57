"""What is kept of the ablation: small weights of the models that interpretability needs, and a region encoder on its way."""

import copy
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ..training.centring import take_out_means
from ..weights import ASSETS, VARIANTS
from ..weights.loading import OF_ALL_VARIANTS, STAGE0
from .align import RegionReading, alignment_batches, fit_content


class Snapshots(TrainerCallback):
    """Keeps a region encoder as it is before a stage, after 1, 4, 16, ... steps, and at its end: `folder`/STAGE-STEP.safetensors, float16."""

    def __init__(self, region_encoder, folder: Path, stage: str):
        self.region_encoder, self.folder, self.stage = region_encoder, folder, stage

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and not self.folder.exists():  # a later stage begins where the one before has ended
            self._keep(0)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step == state.max_steps or step in (4**k for k in range(10)):
            self._keep(step)

    def fit(self, recipe, model, collate, fitted: int = 300):
        """Gives every encoder kept of this stage its own map to the language model's words (`align.fit_content`), which training leaves for the end."""
        now = copy.deepcopy(self.region_encoder.state_dict())
        for path in sorted(self.folder.glob(f"{self.stage}-*.safetensors")):
            self.region_encoder.load_state_dict(load_file(path))
            batches = alignment_batches(recipe, collate, fitted)
            fit_content(RegionReading(model, collate.bag), batches)
            self._keep(int(path.stem.split("-")[1]))
        self.region_encoder.load_state_dict(now)

    def _keep(self, step: int):
        take_out_means(self.region_encoder)
        tensors = {name: each.half().contiguous() for name, each in self.region_encoder.state_dict().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, self.folder / f"{self.stage}-{step:04}.safetensors")


def keep(out: Path, folder: Path):
    """Writes the variants of `roilab.load` and the snapshots, from the runs of an ablation in `out`, to `folder`.

    A variant is what differs from the tiny model: one safetensors file, float16, without vision tower and familiarity; the logs of its run
    go with it. The model before stage 1 is stage 0 with the first of the snapshots.

    Raises:
        ValueError: a run has not ended, or its vision tower is not that of the shipped tiny model.
    """
    runs = {name: out / f"{name}-0" / "model" for name in VARIANTS if name != STAGE0} | {STAGE0: out / "stage0"}
    missing = [str(run) for run in runs.values() if not (run / "model.safetensors").exists()]
    if missing:
        raise ValueError(f"no model in {', '.join(missing)}: let `roilab train ablation` end first")
    snapshots = sorted((out / "region-token-0" / "snapshots").glob("*.safetensors"))
    tiny = load_file(ASSETS / "tiny" / "model.safetensors")
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        tensors = load_file(run / "model.safetensors")
        if name == STAGE0:
            tensors |= {f"region_encoder.{key}": each for key, each in load_file(snapshots[0]).items()}
        changed = [k for k, each in tensors.items() if k.startswith("vision.") and not torch.equal(each, tiny[k])]
        if changed:
            raise ValueError(f"{run}: {changed[0]} is not that of the tiny model")
        own = {key: each for key, each in tensors.items() if not key.startswith(OF_ALL_VARIANTS)}
        save_file(own, folder / f"{name}.safetensors")
        for log in run.parent.glob("*/log.jsonl"):  # of stage 0, that of the text in which regions are coordinates
            shutil.copyfile(log, folder / f"log_{name}_{log.parent.name}.jsonl")
    for each in snapshots:
        shutil.copyfile(each, folder / "snapshots" / each.name)
