"""Text <-> ids: templates, the picture's place, `<regionN>` mentions, label masks, collation; and the picture's preprocessing.

A user writes `<region1>`; the first mention becomes `region1 <bbox>`, later ones `region1` (GPT4RoI, arXiv 2307.03601, section 3.2). Whatever
stands in a turn is plain text: a literal `<bbox>` or `</s>` in it never becomes a special token. Backslashes quote a mention:
`\\<region1>` is the text `<region1>` (`escape_regions` writes them).

Axes: B batch, T sequence, P image patches, N regions of one picture.
"""

import re
import warnings
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from .regions import normalise_boxes
from .templates import TEMPLATES, Content, Image, Plain, Special

IMAGE_START, IMAGE_PATCH, IMAGE_END, REGION = "<im_start>", "<im_patch>", "<im_end>", "<bbox>"
SPECIAL_TOKENS = (IMAGE_START, IMAGE_PATCH, IMAGE_END, REGION)
TINY_TOKENS = ("<user>", "<assistant>")
_MENTION = re.compile(r"(\\*)<region([0-9]+)>")


@dataclass
class DialogueIds:
    """A dialogue as ids.

    Attributes:
        input_ids: token ids.
        labels: the same ids, -100 where nothing is learned (all but the assistant's words and the stop marker).
        regions: 0-based region of each `<bbox>` position, in order.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)

    def extend(self, other: "DialogueIds"):
        self.input_ids += other.input_ids
        self.labels += other.labels
        self.regions += other.regions


class GPT4RoIProcessor(ProcessorMixin):
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
        self._template = TEMPLATES[template](tokenizer)
        self._prefix = _Prefix(tokenizer)

    def to_dict(self):
        return {key: value for key, value in super().to_dict().items() if not key.startswith("_")}

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE_PATCH)

    @property
    def region_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(REGION)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer, beside the EOS token."""
        return self._template.stop_strings

    # Pictures

    def preprocess(self, images) -> Tensor:
        """Pictures -> [B, 3, H, W] float32.

        No crop, aspect not kept: the shortest side to the model's size, normalised, then bilinear (align_corners=False, no
        antialias) to exactly H x W; as in GPT4RoI's published demo.

        Args:
            images: one PIL picture or a list.
        """
        images = images if isinstance(images, (list, tuple)) else [images]
        size = {"shortest_edge": min(self.image_size)}
        pixels = []
        for image in images:
            each = self.image_processor(image.convert("RGB"), do_center_crop=False, size=size, return_tensors="pt")[
                "pixel_values"
            ]
            pixels.append(
                F.interpolate(each.float(), size=tuple(self.image_size), mode="bilinear", align_corners=False)
            )
        return torch.cat(pixels)

    # Text

    def encode_dialogue(
        self, turns: list[dict], num_regions: int = 0, add_generation_prompt: bool = False, image: bool = True
    ) -> DialogueIds:
        """Turns -> ids, labels and the regions to send.

        Args:
            turns: dicts of `role` ("user", "assistant", alternating, the user first) and `content` with `<region1>` ... mentions.
            num_regions: how many boxes there are.
            add_generation_prompt: end after the opening of the assistant's turn; the last turn must be the user's.
            image: put the picture's tokens into the first user turn.
        Raises:
            ValueError: a mention without a region, `<region0>`, a region first named by the assistant, turns out of order.
        """
        result, named = DialogueIds(), set()
        check_turns(turns, add_generation_prompt)
        for turn in range(1, len(turns) + 1, 2):
            result.extend(self.encode_question(turns[:turn], num_regions, named, image))
            if turn < len(turns):
                result.extend(self.encode_answer(turns[: turn + 1], num_regions, named))
        if not add_generation_prompt:
            roles = _roles(turns)
            follows = self._template.answer(roles, len(turns) - 1)
            result.extend(self._encode(self._template.after_last(roles), follows, turns, num_regions, named))
        return result

    def encode_question(self, turns: list[dict], num_regions: int, named: set[int], image: bool = True) -> DialogueIds:
        """The ids between the answer before and the answer to come, for turns that end with a question.

        Args:
            named: 0-based regions mentioned so far; updated. The rest as in `encode_dialogue`.
        """
        roles, turn = _roles(turns), len(turns)
        follows = self._template.answer(roles[:-1], turn - 2) if turn > 1 else None
        return self._encode(self._template.before_answer(roles, turn), follows, turns, num_regions, named, image=image)

    def encode_answer(self, turns: list[dict], num_regions: int, named: set[int]) -> DialogueIds:
        """The ids of the last turn, an answer: its words and the stop marker, all in the labels."""
        roles, turn = _roles(turns), len(turns) - 1
        follows = self._template.before_answer(roles[:-1], turn)
        return self._encode(self._template.answer(roles, turn), follows, turns, num_regions, named, learned=True)

    def stop_ids(self) -> list[int]:
        """The ids of the stop marker alone, to close an answer that was cut short."""
        turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
        pieces = self._template.answer(_roles(turns), 1)
        pieces = pieces[next(i for i, each in enumerate(pieces) if isinstance(each, Content)) + 1 :]
        return self._encode(pieces, [Plain("")], turns, 0, set()).input_ids

    def decode_answer(self, ids) -> str:
        """Generated ids -> the answer's words, without stop marker, special tokens and outer blanks."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for stop in self.stop_strings:
            text = text.split(stop)[0]
        return text.strip()

    def mentions(self, text: str) -> set[int]:
        """0-based regions that a text mentions."""
        return {int(each.group(2)) - 1 for each in _MENTION.finditer(text) if len(each.group(1)) % 2 == 0}

    def _encode(self, pieces, follows, turns, num_regions, named, learned=False, image=False) -> DialogueIds:
        """Pieces -> ids; `follows` are the pieces they follow in the prompt (None at its start)."""
        result, run = DialogueIds(), ""
        flat = []
        for piece in pieces:
            if isinstance(piece, Content):
                if piece.turn == 0 and turns[0]["role"] == "user" and image:
                    flat += self._template.opening()
                flat += self._content(turns[piece.turn], num_regions, named)
            else:
                flat.append(piece)
        after_text = bool(follows) and not isinstance(follows[-1], Special)

        def flush():
            nonlocal run, after_text
            if run:
                result.input_ids += self._prefix.encode(run, after_text)
                run = ""

        for piece in flat:
            if isinstance(piece, Plain):
                run += piece.text
                continue
            flush()
            after_text = False
            if isinstance(piece, Image):
                tokens = [IMAGE_START, *[IMAGE_PATCH] * self.num_image_tokens, IMAGE_END]
                result.input_ids += self.tokenizer.convert_tokens_to_ids(tokens)
            elif isinstance(piece, Special):
                result.input_ids.append(self.tokenizer.convert_tokens_to_ids(piece.token))
            else:
                result.input_ids.append(self.region_token_id)
                result.regions.append(piece)
        flush()
        result.labels = list(result.input_ids) if learned else [-100] * len(result.input_ids)
        return result

    def _content(self, turn: dict, num_regions: int, named: set[int]) -> list:
        """The words of a turn as `Plain` pieces and, at first mentions, the 0-based region (an int)."""
        pieces, position = [], 0
        text = turn["content"].encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded
        if self._template.marker:
            text = _escape_marker(text, self._template.marker)
        total = sum(1 for each in _MENTION.finditer(text) if len(each.group(1)) % 2 == 0)
        for match in _MENTION.finditer(text):
            slashes, number = match.group(1), int(match.group(2))
            pieces.append(Plain(text[position : match.start()] + slashes[: len(slashes) // 2]))
            position = match.end()
            if len(slashes) % 2:
                pieces.append(Plain(match.group()[len(slashes) :]))
                continue
            if number == 0:
                raise ValueError(f"<region0> is mentioned, but regions are counted from 1 ({num_regions} boxes given)")
            if number > num_regions:
                raise ValueError(
                    f"<region{number}> is mentioned ({total} <region> mentions in this turn), but there are {num_regions} boxes"
                )
            region = number - 1
            if region in named:
                pieces.append(Plain(f"region{number}"))
            elif turn["role"] == "assistant":
                seen = ", ".join(f"<region{each + 1}>" for each in sorted(named)) or "none"
                raise ValueError(f"<region{number}> is first named by the assistant; the user named {seen}")
            else:
                named.add(region)
                pieces += [Plain(f"region{number} "), region]
        return [*pieces, Plain(text[position:])]

    # Batches

    def collate(
        self, examples: list[dict], padding_side: str = "right", add_generation_prompt: bool = False
    ) -> BatchFeature:
        """Examples -> one batch, padded to its longest.

        Args:
            examples: dicts of `turns`; `image` (PIL) or `pixel_values` [3, H, W], or neither in all of them; `boxes` (pixels, xyxy) and, unless
                there is an image, `width` and `height`; or `num_regions` instead of boxes.
            padding_side: "right" for training, "left" for generation.
        Returns:
            `input_ids`, `attention_mask`, `labels` [B, T]; `pixel_values` [B, 3, H, W] if there are pictures; `boxes`: B tensors [N, 4],
            normalised xyxy in the order of the `<bbox>` positions, if there are boxes; `regions`: B lists, which region each position shows.
        """
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
            images: one PIL picture or a list.
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
        single = isinstance(text, str) if turns is None else isinstance(turns[0], dict)
        if turns is None:
            turns = [[{"role": "user", "content": each}] for each in ([text] if single else text)]
        elif single:
            turns = [turns]
        images = [images] if single and not isinstance(images, (list, tuple)) else list(images)
        boxes = [boxes] if single else (boxes if boxes is not None else [None] * len(turns))
        if not len(images) == len(turns) == len(boxes):
            raise ValueError(f"{len(images)} images, {len(turns)} dialogues, {len(boxes)} lists of boxes")
        examples = [
            {"image": image, "turns": dialogue, "boxes": each}
            for image, dialogue, each in zip(images, turns, boxes, strict=True)
        ]
        batch = self.collate(examples, padding_side, add_generation_prompt=True)
        return BatchFeature({key: value for key, value in batch.items() if key not in ("labels", "regions")})


class _Prefix:
    """Encodes text in the middle of a prompt as it would be encoded there.

    Sentencepiece-like tokenizers put a blank in front of a text, some only at the very start of a prompt and some after each special
    token too. A run that follows other text never gets one. Whether this tokenizer does is measured once.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self._sentinel = self._raw("\n")
        alone = self._raw("x")
        self._adds = alone != self._raw("\nx")[len(self._sentinel) :]
        special = tokenizer(REGION + "x", add_special_tokens=False)["input_ids"]
        self._adds_after_special = self._adds and special[1:] == alone

    def encode(self, text: str, after_text: bool) -> list[int]:
        """Ids of plain text that follows other text or a special token."""
        if self._adds and (after_text or not self._adds_after_special):
            # A newline is its own token in such tokenizers: put it in front, then drop it with the blank before it.
            return self._raw("\n" + text)[len(self._sentinel) :]
        return self._raw(text)

    def _raw(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def escape_regions(text: str) -> str:
    """Quote every `<regionN>` in raw text, so that it stays text: `encode_dialogue` gives back exactly `text`."""
    return _MENTION.sub(lambda match: match.group(1) * 2 + "\\" + match.group()[len(match.group(1)) :], text)


def check_turns(turns: list[dict], ends_with_user: bool):
    """Raises ValueError unless the roles alternate from the user on and end as wanted."""
    for i, turn in enumerate(turns):
        wanted = "assistant" if i % 2 else "user"
        if turn["role"] != wanted:
            raise ValueError(
                f"turn {i + 1} is by {turn['role']!r}, expected {wanted!r}: user and assistant alternate, the user first"
            )
    if not turns or (len(turns) % 2 == 1) != ends_with_user:
        wanted = "user's" if ends_with_user else "assistant's"
        raise ValueError(f"{len(turns)} turns given, but the last one must be the {wanted}")


def add_special_tokens(tokenizer, template: str) -> int:
    """Add the tokens of the picture and the regions (and a pad token) to a tokenizer; returns how many were new."""
    from tokenizers import AddedToken

    names = SPECIAL_TOKENS + (TINY_TOKENS if template == "tiny" else ())
    known = tokenizer.get_vocab()
    if tokenizer.pad_token is None:
        # EOS stays what it is: as a pad it would be masked out of the attention and the loss.
        names = ("<pad>", *names)
        tokenizer.pad_token = "<pad>"
    new = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_tokens(new, special_tokens=True)
    return len(set(names) - set(known))


def train_tokenizer(texts, vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with single digits and the tokens of the `tiny` template; any Unicode text survives it.

    Args:
        texts: iterable of strings to learn the words from.
        vocab_size: rows in all; at least 256 bytes + 9 special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<pad>", "<s>", "</s>", *SPECIAL_TOKENS, *TINY_TOKENS]
    if vocab_size < 256 + len(specials):
        raise ValueError(f"vocab_size is {vocab_size}, but bytes and special tokens need {256 + len(specials)}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=[*SPECIAL_TOKENS, *TINY_TOKENS],
        clean_up_tokenization_spaces=False,
    )


def _escape_marker(text: str, marker: str) -> str:
    if marker not in text:
        return text
    # A longer row of the marker's character would still contain the marker after one replacement.
    escaped = re.sub(re.escape(marker[0]) + f"{{{len(marker)},}}", lambda match: " ".join(match.group()), text)
    warnings.warn(
        f"{marker!r} ends a turn in this template; in the text {text!r} it is sent as {' '.join(marker)!r}",
        stacklevel=5,
    )
    return escaped


def _roles(turns: list[dict]) -> list[str]:
    return [turn["role"] for turn in turns]


def _has_picture(example: dict) -> bool:
    return example.get("image") is not None or example.get("pixel_values") is not None


def _picture_size(example: dict) -> tuple[int, int]:
    if "width" in example:
        return example["width"], example["height"]
    if example.get("image") is not None:
        return example["image"].size
    raise ValueError("boxes in pixels need the size of their picture: give image, or width and height")
