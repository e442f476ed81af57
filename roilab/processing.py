"""Pictures, dialogues and boxes -> model inputs: the processor, its preprocessing of pictures and its batches.

Axes: B batch, T sequence, P image patches, N regions of one picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from .dialogues import DialogueEncoder, DialogueIds
from .pictures import read_picture
from .regions import normalise_boxes
from .templates import TEMPLATES
from .tokens import SPECIAL_TOKENS

MAX_PIXELS = 20_000_000  # of a picture whose shortest side has the model's size


class GPT4RoIProcessor(DialogueEncoder, ProcessorMixin):
    """Pictures, dialogues and boxes -> model inputs.

    Args:
        image_processor: a transformers image processor; its mean, std and resampling are used, see `preprocess`.
        tokenizer: a fast tokenizer that knows the special tokens of `SPECIAL_TOKENS`.
        template: `vicuna_v0`, `chatml` or `tiny`.
        num_image_tokens: P, patches of a picture.
        image_size: (height, width) in pixels that the vision tower reads; None: the image processor's shortest edge, square.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        template="vicuna_v0",
        num_image_tokens=256,
        image_size=None,
        chat_template=None,
    ):
        if template not in TEMPLATES:
            raise ValueError(f"template {template!r} is unknown, there are {', '.join(TEMPLATES)}")
        missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
        if missing:
            raise ValueError(f"the tokenizer lacks {', '.join(missing)}: add them with add_special_tokens(tokenizer)")
        if image_size is None:
            side = image_processor.size["shortest_edge"]
            image_size = (side, side)
        self.template = template
        self.num_image_tokens = num_image_tokens
        self.image_size = list(image_size)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self._prepare(template)

    def to_dict(self):
        return {key: value for key, value in super().to_dict().items() if not key.startswith("_")}

    # Pictures

    def preprocess(self, images) -> Tensor:
        """Pictures -> [B, 3, H, W] float32.

        No crop, aspect not kept: the shortest side to the model's size, normalised, then bilinear (align_corners=False, no
        antialias) to exactly H x W; as in GPT4RoI's published demo.

        Args:
            images: one picture (whatever `read_picture` reads) or a list.
        Raises:
            ValueError: unreadable, or so elongated that its longest side would grow beyond all bounds.
        """
        images = images if isinstance(images, (list, tuple)) else [images]
        side = min(self.image_size)
        size = {"shortest_edge": side}
        pixels = []
        for image in map(read_picture, images):
            longest = side * max(image.size) / min(image.size)
            if longest * side > MAX_PIXELS:
                raise ValueError(
                    f"the picture has {image.width} x {image.height} pixels; with its shortest side at {side} its longest would have "
                    f"{longest:,.0f}, more than the {MAX_PIXELS // side:,} that are read: cut it"
                )
            each = self.image_processor(image, do_center_crop=False, size=size, return_tensors="pt")["pixel_values"]
            pixels.append(
                F.interpolate(each.float(), size=tuple(self.image_size), mode="bilinear", align_corners=False)
            )
        return torch.cat(pixels)

    # Batches

    def collate(
        self, examples: list[dict], padding_side: str = "right", add_generation_prompt: bool = False
    ) -> BatchFeature:
        """Examples -> one batch, padded to its longest.

        Args:
            examples: dicts of `turns`; `image` (whatever `read_picture` reads) or `pixel_values` [3, H, W], or neither in all of them; `boxes` (pixels, xyxy) and, unless
                there is an image, `width` and `height`; or `num_regions` instead of boxes.
            padding_side: "right" for training, "left" for generation.
        Returns:
            `input_ids`, `attention_mask`, `labels` [B, T]; `pixel_values` [B, 3, H, W] if there are pictures; `boxes`: B tensors [N, 4],
            normalised xyxy in the order of the `<bbox>` positions, if there are boxes; `regions`: B lists, which region each position shows.
        """
        examples = [_read(example) for example in examples]
        encoded, boxes = [], []
        for example in examples:
            given = example.get("boxes")
            count = example.get("num_regions", 0) if given is None else len(given)
            ids = self.encode_dialogue(example["turns"], count, add_generation_prompt)
            encoded.append(ids)
            if "boxes" in example:
                boxes.append(
                    normalise_boxes(given, _picture_size(example))[ids.regions] if count else torch.zeros(0, 4)
                )
        batch = self.pad(encoded, padding_side)
        pictures = [_has_picture(example) for example in examples]
        if any(pictures):
            if not all(pictures):
                raise ValueError(
                    f"{sum(pictures)} of {len(pictures)} examples have a picture: give one to all of them or to none"
                )
            batch["pixel_values"] = torch.stack([self._pixels(example) for example in examples])
        if boxes:
            if len(boxes) != len(examples):
                raise ValueError(f"{len(boxes)} of {len(examples)} examples have boxes: give them to all or to none")
            batch["boxes"] = boxes
        return batch

    def pad(self, encoded: list[DialogueIds], padding_side: str = "right") -> BatchFeature:
        """Encoded dialogues -> `input_ids`, `attention_mask`, `labels` [B, T] and `regions`."""
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}, expected 'left' or 'right'")
        length = max(len(each.input_ids) for each in encoded)
        pad_id = self.tokenizer.pad_token_id
        pad_id = self.tokenizer.eos_token_id if pad_id is None else pad_id

        def stack(rows, filler):
            gaps = [[filler] * (length - len(row)) for row in rows]
            rows = [row + gap if padding_side == "right" else gap + row for row, gap in zip(rows, gaps, strict=True)]
            return torch.tensor(rows, dtype=torch.long)

        return BatchFeature(
            {
                "input_ids": stack([each.input_ids for each in encoded], pad_id),
                "attention_mask": stack([[1] * len(each.input_ids) for each in encoded], 0),
                "labels": stack([each.labels for each in encoded], -100),
                "regions": [each.regions for each in encoded],
            }
        )

    def _pixels(self, example: dict) -> Tensor:
        if example.get("pixel_values") is not None:
            return torch.as_tensor(example["pixel_values"])
        return self.preprocess(example["image"])[0]

    def __call__(
        self, images=None, text=None, turns=None, boxes=None, return_tensors="pt", padding_side="left"
    ) -> BatchFeature:
        """Inputs of `model.generate` for one question or many.

        Args:
            images: one picture (whatever `read_picture` reads) or a list.
            text: one question or a list; or
            turns: one dialogue (list of dicts) or a list of dialogues, each ending with the user's turn.
            boxes: the regions of the one picture ([N, 4] pixels, xyxy), or a list of those.
        Returns:
            `input_ids`, `attention_mask` [B, T], `pixel_values` [B, 3, H, W] and `boxes` (see `collate`), ready for `generate(**inputs)`.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {return_tensors!r}; only 'pt' is supported")
        if (text is None) == (turns is None):
            raise ValueError(
                "pass text or turns, one of them" + (" (both given)" if text is not None else " (none given)")
            )
        if images is None:
            raise ValueError("pass images: this model answers questions about pictures")
        given = text if turns is None else turns
        if not isinstance(given, (str, list, tuple) if turns is None else (list, tuple)):
            raise ValueError(f"{'text' if turns is None else 'turns'} is a {type(given).__name__}, expected a list")
        single = isinstance(text, str) if turns is None else bool(turns) and isinstance(turns[0], dict)
        if turns is None:
            turns = [[{"role": "user", "content": each}] for each in ([text] if single else text)]
        elif single:
            turns = [turns]
        several = hasattr(images, "__iter__") and not isinstance(images, (str, bytes))
        images = list(images) if several and (isinstance(images, (list, tuple)) or not single) else [images]
        boxes = [boxes] if single else (boxes if boxes is not None else [None] * len(turns))
        if not turns:
            raise ValueError(f"{len(images)} images, but no question")
        if not len(images) == len(turns) == len(boxes):
            raise ValueError(f"{len(images)} images, {len(turns)} dialogues, {len(boxes)} lists of boxes")
        examples = [
            {"image": image, "turns": dialogue, "boxes": each}
            for image, dialogue, each in zip(images, turns, boxes, strict=True)
        ]
        batch = self.collate(examples, padding_side, add_generation_prompt=True)
        return BatchFeature({key: value for key, value in batch.items() if key not in ("labels", "regions")})


def _read(example: dict) -> dict:
    return example if example.get("image") is None else example | {"image": read_picture(example["image"])}


def _has_picture(example: dict) -> bool:
    return example.get("image") is not None or example.get("pixel_values") is not None


def _picture_size(example: dict) -> tuple[int, int]:
    if "width" in example:
        return example["width"], example["height"]
    if example.get("image") is not None:
        return example["image"].size
    raise ValueError("boxes in pixels need the size of their picture: give image, or width and height")
