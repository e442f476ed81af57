"""Vision features on disk, for stages in which the vision tower is frozen: the same picture passes through it once, not once per epoch.

One safetensors file per picture, whose name is a digest of all that decides what is in it: the picture's own bytes, how the processor
prepares pictures, and the tower's weights and layers. So nothing has to be declared out of date: what is changed has another name.

It saves the tower's time and the preprocessing, for 2 MB of disk per picture at the paper's size in 16 bits (four hidden states of
256 x 1024; the last level and the image tokens are the same one). Beside a language model of 7 B parameters on a GPU that is hardly worth
the disk; on a CPU, or beside a small language model, it is. Pictures that are augmented anew in every epoch gain nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import get_worker_info
from tqdm.auto import tqdm

from .. import __version__
from ..files import write_whole
from ..pictures import read_picture
from ..vision import VisionFeatures

BLANK = Image.new("RGB", (1, 1))
LAYOUT = 2  # of the files; another one has other names
PICTURE = "picture"
States = dict[str, Tensor]
"""States [H, W, C] of one picture, as the vision tower counts them from the front ("23"), each once; its pixels as `PICTURE` [3, H, W] for a
region encoder that looks at crops."""


class FeatureCache:
    """Features of pictures, computed by the model's vision tower when first asked for, and read from disk ever after.

    The tower runs in the main process alone. Loader processes only read: a batch with a picture that is not stored yet leaves them as pixels,
    and is not stored. So with loader processes call `fill` before the first epoch.

    Args:
        folder: where the files go; it may serve many models and runs. It can be deleted, whole or in part, at any time.
        model: a `GPT4RoI` with its `.processor`; nothing in its vision tower requires gradients.
        dtype: of the files; by default the tower's own, so that nothing is rounded. `torch.float16` halves the files of a float32 tower.
        limit: bytes in the folder from which on nothing more is stored; what is there is still read.
    Raises:
        ValueError: the vision tower learns (so do all methods; and they notice changed weights, unless written through `.data`).
    """

    def __init__(self, folder, model, dtype: torch.dtype | None = None, limit: int | None = None):
        self.folder, self.model, self.dtype, self.limit = Path(folder), model, dtype, limit
        self._full, self._used, self._stamp = False, None, None
        self._check()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"model": None}  # loader processes that start from nothing read without a tower

    def size(self) -> int:
        """Bytes of all features in the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))

    def wrap(self, collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
        """A collator that puts `features`, the `VisionFeatures` of every row, in the place of `pixel_values`.

        `picture_ids`, which `prefix_loss` reads, become the names of the files: equal exactly where the pictures are.

        Args:
            collate: makes batches of items with `image` (whatever `read_picture` reads, already augmented) or `pixel_values`. It is given
                the items without their pictures, and with empty `pixel_values`.
        """
        return functools.partial(self._collate, collate)

    def fill(self, items: Sequence[dict]) -> int:
        """Compute and store what these items lack; may be interrupted and called again.

        Returns:
            How many pictures were computed.
        """
        computed = 0
        self._check()
        for i in tqdm(range(len(items)), desc="vision features", unit=" pictures"):
            item = items[i]
            if _has_picture(item) and self._load(name := self._name(item)) is None:
                self._compute(name, item)
                computed += 1
            if self._full:
                break
        return computed

    # Batches

    def _collate(self, collate, items: list[dict]) -> dict:
        if not all(map(_has_picture, items)):
            return collate(items)
        self._check()
        names = [self._name(item) for item in items]
        found = {name: states for name in set(names) if (states := self._load(name)) is not None}
        missing = {name: item for name, item in zip(names, items) if name not in found}
        if missing and get_worker_info() is not None:
            warnings.warn(
                f"{len(missing)} pictures of a batch are not in {self.folder}, and loader processes do not compute features: it goes "
                "through the vision tower; call FeatureCache.fill before (pictures that are augmented anew cannot be stored)",
                stacklevel=2,
            )
            return collate(items)
        found |= {name: self._compute(name, item) for name, item in missing.items()}
        batch = dict(collate([_without_picture(item) for item in items]))
        batch.pop("pixel_values", None)
        return batch | {"features": self._features([found[name] for name in names]), "picture_ids": names}

    def _features(self, rows: list[States]) -> VisionFeatures:
        image, levels = self._layers
        states = {key: torch.stack([row[key] for row in rows]).to(self._tower_dtype) for key in {image, *levels}}
        maps = [states[key].permute(0, 3, 1, 2) for key in levels]
        picture = torch.stack([row[PICTURE] for row in rows]).to(self._tower_dtype) if self._focal else None
        return VisionFeatures(states[image].flatten(1, 2), maps, tuple(states[image].shape[1:3]), picture)

    @torch.no_grad()
    def _compute(self, name: str, item: dict) -> States:
        """Features of a picture, by the tower, and stored.

        Alone, since rounding differs with the size of a batch: so they are the same bits in whatever company a picture first comes.
        """
        vision, pixels = self.model.vision, item.get("pixel_values")
        pixels = self.model.processor.preprocess(item["image"]) if pixels is None else torch.as_tensor(pixels)[None]
        training = vision.training
        vision.eval()  # features that are read again and again hold no dropout
        try:
            features = self.model.encode_image(pixels)
        finally:
            vision.train(training)
        image, levels = self._layers
        states = {key: maps[0].permute(1, 2, 0) for key, maps in zip(levels, features.levels)}
        states[image] = features.patches[0].unflatten(0, features.grid)
        if self._focal:
            states[PICTURE] = features.picture[0]
        states = {key: each.to("cpu", self.dtype or self._tower_dtype).contiguous() for key, each in states.items()}
        for key, each in states.items():
            if not each.isfinite().all():
                raise ValueError(
                    f"hidden state {key} has values that are not finite in {each.dtype}: use another dtype"
                )
        if self._name(item) == name:  # else the file was written to meanwhile
            self._store(name, states)
        return states

    # Files

    def _path(self, name: str) -> Path:
        return self.folder / self._home / name[:2] / f"{name}.safetensors"

    def _load(self, name: str) -> States | None:
        try:
            return load_file(self._path(name))
        except (OSError, SafetensorError):  # none, or cut short
            return None

    def _store(self, name: str, states: States):
        content = save(states)
        if self.limit is not None and not self._full:
            self._used = self.size() if self._used is None else self._used
            self._full = self._used + len(content) > self.limit
            self._used += len(content)
        if self._full:
            return
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:  # a full disk should not end a training run
            self._full = True
            warnings.warn(f"no more features are stored in {self.folder}: {error}", stacklevel=2)

    # Names

    def _check(self):
        """Notice a changed tower or processor, and refuse a tower that learns."""
        if self.model is None:
            return
        vision, processor = self.model.vision, self.model.processor
        for name, each in vision.named_parameters():
            if each.requires_grad:
                raise ValueError(f"vision.{name} requires gradients: features on disk are for a frozen vision tower")
        tensors = [*vision.parameters(), *vision.buffers()]
        versions = tuple((each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors)
        stamp = versions, tuple(vision.feature_layers), vision.image_layer
        if stamp != self._stamp:
            self._tower, self._stamp = tower_fingerprint(vision), stamp
            self._tower_dtype = next(vision.parameters()).dtype
            count = vision.num_states
            self._layers = str(vision.image_layer % count), [str(layer % count) for layer in vision.feature_layers]
        self._focal = bool(self.model.config.region_config.focal_size)
        settings = [type(processor).__name__, processor.image_processor.to_dict(), list(processor.image_size)]
        told = [
            __version__,
            LAYOUT,
            self._tower,
            settings,
            str(self.dtype or self._tower_dtype),
            *[PICTURE] * self._focal,
        ]
        self._home = _digest([json.dumps(told, sort_keys=True, default=str).encode()])[:16]

    def _name(self, item: dict) -> str:
        """Digest of an item's picture: of its file if it is one, else of its pixels."""
        image, pixels = item.get("image"), item.get("pixel_values")
        if pixels is not None:
            pixels = torch.as_tensor(pixels)
            return _digest([f"tensor {pixels.dtype} {list(pixels.shape)}".encode(), _bytes(pixels)])
        if isinstance(image, (str, os.PathLike)) and Path(image).is_file():
            return _digest([b"file", Path(image).read_bytes()])
        picture = read_picture(image)
        return _digest([f"picture {picture.size}".encode(), picture.tobytes()])


def tower_fingerprint(vision) -> str:
    """Digest of what decides a vision tower's features: weights, buffers, architecture, and the layers that are read."""
    known = {
        key: value
        for key, value in vision.model.config.to_dict().items()
        if not key.startswith("_") and key not in ("transformers_version", "dtype")
    }
    layers = [type(vision.model).__name__, known, list(vision.feature_layers), vision.image_layer]

    def parts():
        yield json.dumps(layers, sort_keys=True, default=str).encode()
        for name, each in vision.state_dict().items():
            yield f"{name} {each.dtype} {list(each.shape)}".encode()
            yield _bytes(each)

    return _digest(parts())


def _bytes(tensor: Tensor):
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _digest(parts: Iterable) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))  # so that no two lists of parts give the same bytes
        digest.update(part)
    return digest.hexdigest()


def _has_picture(item: dict) -> bool:
    return item.get("image") is not None or item.get("pixel_values") is not None


def _without_picture(item: dict) -> dict:
    # With its size told elsewhere, the picture need not even be read.
    image = BLANK if "width" in item and item.get("image") is not None else item.get("image")
    return item | {"image": image, "pixel_values": torch.empty(0)}
