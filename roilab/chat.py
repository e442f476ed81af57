"""A conversation about the regions of one picture.

`Chat` keeps what does not change between questions: the vision features, the fused pyramid, the embedding of every box, and the keys and
values that the language model computed for the prompt so far. A new question, a new region or a moved region recomputes only what comes
after the first changed position:

    sent before   <s> picture  What is region1 <bbox A> doing?  Running.  And region2 <bbox B>?  Standing.
    region 2 moved, sent again ----------------- same ---------------------------- <bbox B'>?
                  |<-------------- kept -------------------------------------->||<-- new -->|

Ids sent and received are kept as they are: live history is never tokenised again.
"""

from __future__ import annotations

import contextlib
import copy
import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from transformers import StoppingCriteriaList

from .dialogues import DialogueIds, check_turns, escape_regions
from .memory import CACHE, Memory, frozen
from .pictures import read_picture
from .regions import normalise_regions, validate_regions
from .regions.boxes import listed
from .streaming import StopEvent, TextPieces, token_texts

STOPPING = 60  # seconds that an answer may take to end after stop()
ANSWER_ROOM = 16  # tokens that must be free for an answer; more are used if they are there
JSON_FORMAT = "roilab.chat.1"
_BUSY = "this chat is still answering: read the stream to its end or close() it, or stop() the answer"


@dataclass
class Answer:
    """What the model said.

    Attributes:
        text: the answer's words.
        tokens: the same as the pieces that were generated, without the stop marker.
        logprobs: log-probability of each token, before any sampling temperature.
        question: what was asked.
        note: a remark to show beside the answer (for example that the picture is unlike the training pictures), or None.
        finished: False if the answer was cut short, by `stop` or by its length.
        ids: token ids of the answer as the history keeps them, with the stop marker.
    """

    text: str
    tokens: list[str] = field(repr=False, default_factory=list)
    logprobs: list[float] = field(repr=False, default_factory=list)
    question: str = ""
    note: str | None = None
    finished: bool = True
    ids: list[int] = field(repr=False, default_factory=list)

    def __str__(self) -> str:
        return self.text


class Chat:
    """Ask about a picture and regions of it, round after round.

    Args:
        model: a `GPT4RoI` with its `.processor`.
        image: path, bytes, PIL, numpy or torch; boxes refer to its pixels after EXIF rotation.
        caches: False computes everything anew for each answer (for measurements).
        generate_kwargs: for every answer's `generate`, e.g. `max_new_tokens`, `do_sample`, `temperature`.
    """

    def __init__(self, model, image, caches: bool = True, **generate_kwargs):
        if getattr(model, "processor", None) is None:
            raise ValueError("the model has no processor: load it with roilab.load, or set model.processor")
        self.model = model
        self.processor = model.processor
        self.image = read_picture(image)
        self._memory = Memory(model, self.image, caches)
        self.generate_kwargs = generate_kwargs
        self.answer: Answer | None = None
        self._boxes: list[list[float]] = []  # removed ones stay: earlier turns may show them
        self._removed: set[int] = set()
        self._turns: list[dict] = []
        self._ids: list[DialogueIds] = []  # one per turn
        self._lock = threading.Lock()
        self._stop = threading.Event()

    # What is there

    @property
    def regions(self) -> list[list[float] | None]:
        """Boxes (x1, y1, x2, y2) or outlines in pixels by number; None for a removed region. Numbers never shift."""
        return [None if i in self._removed else copy.deepcopy(box) for i, box in enumerate(self._boxes)]

    @property
    def history(self) -> list[dict]:
        """The turns so far: dicts of `role` and `content`."""
        return [dict(turn) for turn in self._turns]

    @property
    def note(self) -> str | None:
        """A remark about the picture, or None; see `picture_note`."""
        with torch.no_grad():
            self._memory.check()
            note = self._memory.note()
            self._memory.stamp()
            return note

    # Asking

    def ask(self, question: str, regions=None, **generate_kwargs) -> Answer:
        """The answer to a question about the picture.

        Args:
            question: mentions regions as `<region1>`, `<region2>`, ...
            regions: boxes (x1, y1, x2, y2), or outlines of three or more points (x, y), in pixels; they are added first and get the next
                numbers. The weights were not trained on outlines (see `roilab.regions.outlines`).
            generate_kwargs: for this answer only.
        Raises:
            ValueError: a mention without a region, a bad box, an empty question, or one longer than the context; options of
                `generate` that make no sense. Nothing changes then.
        """
        for _ in self.stream(question, regions, **generate_kwargs):
            pass
        return self.answer

    def stream(self, question: str, regions=None, **generate_kwargs) -> Iterator[str]:
        """Like `ask`, but yields the answer's text in pieces as they come; afterwards `chat.answer` holds all of it.

        A consumer that breaks off stops the answer; what was said until then stays in the history.
        """
        self._asked(question, regions)  # mistakes show here, not at the first piece
        return self._run(lambda: self._asked(question, regions), generate_kwargs)

    def stop(self):
        """End the answer that is being generated, from any thread; its words so far are kept."""
        self._stop.set()

    def inputs(self, question: str, regions=None) -> dict:
        """Arguments of `model(...)` for the prompt that `ask` would send, from pixels on, so that gradients can flow.

        Nothing is remembered and no cache is used. Keys: input_ids and attention_mask [1, T], pixel_values [1, 3, H, W], boxes,
        and masks if there is an outline.
        """
        prompt = self._asked(question, regions)
        ids, boxes = prompt.input_ids, prompt.shown
        input_ids = torch.tensor([ids], device=self.model.device)
        boxes, masks = normalise_regions(boxes, self.image.size, self.model.config.region_config.roi_size)
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": self.processor.preprocess(self.image).to(self.model.device),
            "boxes": [boxes.to(self.model.device)],
        } | ({} if masks is None else {"masks": [masks.to(self.model.device)]})

    def prompt(self, question: str | None = None, regions=None) -> Prompt:
        """What `ask` would send; nothing is remembered. Without a question, what was sent for the last answer.

        Raises:
            ValueError: what `ask` refuses; no question was answered yet.
        """
        if question is None:
            if self.answer is None or regions is not None:
                raise ValueError(
                    f"no question given, {len(self._turns) // 2} answered so far: regions belong to a question"
                )
            return Prompt(self._turns[:-1], self._ids[:-1], self._boxes)
        return self._asked(question, regions)

    # Regions

    def add_region(self, box) -> int:
        """Add a box (x1, y1, x2, y2), or an outline, in pixels; returns its number, counted from 1.

        Raises:
            RuntimeError: an answer is being generated; so do `move`, `remove` and `clear`.
        """
        with self._idle():
            self._boxes = self._with_boxes([box])
            return len(self._boxes)

    def move(self, number: int, box, **generate_kwargs) -> Answer | None:
        """Give a region another box and answer the last question anew; None if nothing was asked yet."""
        with self._idle():
            boxes = self._moved(number, box)
            if not self._turns:
                self._boxes = boxes
                return None
        for _ in self._run(lambda: Prompt(self._turns[:-1], self._ids[:-1], self._moved(number, box)), generate_kwargs):
            pass
        return self.answer

    def remove(self, number: int):
        """Take a region away: it cannot be mentioned again. Earlier turns still show it to the model."""
        with self._idle():
            self._removed.add(self._index(number))

    def revise(self, boxes, answers: list[Answer] = ()):
        """Put these boxes and rounds in the place of all there are. Nothing is answered, and what is known about the picture stays.

        Args:
            boxes: by number, (x1, y1, x2, y2) or an outline in pixels, or None where there is no such region.
            answers: the rounds that stay, in order: answers of chats about this picture with this model.
        Raises:
            RuntimeError: an answer is being generated.
            ValueError: a bad box, or a round that names a region without a box. Nothing changes then.
        """
        with self._idle():
            removed = {i for i, box in enumerate(boxes) if box is None}
            somewhere = [0, 0, *self.image.size]  # keeps the number; it is never shown to the model
            whole = validate_regions([somewhere if box is None else box for box in boxes], self.image.size)
            turns, encoded, named = [], [], set()
            for answer in answers:
                turns.append({"role": "user", "content": answer.question})
                encoded.append(self.processor.encode_question(turns, len(whole), named))
                self._check_removed(self.processor.mentions(answer.question), removed, len(whole))
                turns.append(_assistant(answer.text))
                ids = list(answer.ids)
                encoded.append(
                    DialogueIds(ids, ids, []) if ids else self.processor.encode_answer(turns, len(whole), named)
                )
            self._boxes, self._removed, self._turns, self._ids = whole, removed, turns, encoded
            self.answer = answers[-1] if answers else None

    # Keeping

    def to_json(self) -> str:
        """The conversation as JSON text, without the picture."""
        record = {
            "format": JSON_FORMAT,
            "image_size": list(self.image.size),
            "boxes": self._boxes,
            "removed": sorted(each + 1 for each in self._removed),
            "turns": self._turns,
        }
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, model, image, text: str, **kwargs) -> Chat:
        """A conversation that `to_json` wrote, about the same picture.

        Raises:
            ValueError: not such a text, or the picture has another size.
        """
        try:
            record = json.loads(text)
            found = record["format"]
            size, boxes, removed, turns = (record[key] for key in ("image_size", "boxes", "removed", "turns"))
            removed = {int(each) - 1 for each in removed}
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
            width, height = map(int, size)
            boxes = list(boxes)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a saved conversation: {type(error).__name__}: {error}") from error
        if found != JSON_FORMAT:
            raise ValueError(f"the conversation has the format {found!r}, expected {JSON_FORMAT!r}")
        chat = cls(model, image, **kwargs)
        if (width, height) != chat.image.size:
            raise ValueError(
                f"the conversation is about a picture of {width} x {height} pixels, this one has {chat.image.width} x {chat.image.height}"
            )
        chat._boxes = validate_regions(boxes, chat.image.size)
        if not removed <= set(range(len(boxes))):
            raise ValueError(
                f"removed regions {sorted(each + 1 for each in removed)}, but there are {len(boxes)} boxes"
            )
        chat._removed = removed
        if turns:
            check_turns(turns, ends_with_user=False)
        named: set[int] = set()
        for i in range(len(turns)):
            encode = chat.processor.encode_answer if i % 2 else chat.processor.encode_question
            chat._ids.append(encode(turns[: i + 1], len(boxes), named))
        chat._turns = turns
        return chat

    def clear(self):
        """Forget the turns and the regions; what is known about the picture stays."""
        with self._idle():
            self._turns, self._ids, self._boxes, self._removed, self.answer = [], [], [], set(), None

    def clear_caches(self):
        """Forget everything computed.

        Changed weights are noticed by themselves, except when written through `.data`; so are hooks, except when their number stays.
        """
        self._memory.forget()

    # Inside

    def _asked(self, question: str, regions) -> Prompt:
        """The state with this question asked; nothing is changed yet."""
        if not isinstance(question, str):
            raise ValueError(f"the question is a {type(question).__name__}, expected a str")
        if not question.strip():
            raise ValueError(f"the question is empty ({len(question)} characters, none of them a word)")
        boxes = self._with_boxes([] if regions is None else regions)
        turns = [*self._turns, {"role": "user", "content": question}]
        named = {region for ids in self._ids for region in ids.regions}
        before = set(named)
        ids = self.processor.encode_question(turns, len(boxes), named)
        self._check_removed((named - before) | self.processor.mentions(question), self._removed, len(boxes))
        plan = Prompt(turns, [*self._ids, ids], boxes)
        self._room(plan)
        return plan

    def _room(self, plan: Prompt) -> int | None:
        """Tokens that are left for the answer (None: no limit known)."""
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if limit is None:
            return None
        lengths = [len(ids.input_ids) for ids in plan.ids]
        if sum(lengths) + ANSWER_ROOM > limit:
            raise ValueError(
                f"the prompt has {sum(lengths)} tokens ({lengths[-1]} of them new) and an answer needs {ANSWER_ROOM}, "
                f"but the model reads at most {limit}: ask shorter, or clear() the conversation"
            )
        return limit - sum(lengths)

    @staticmethod
    def _check_removed(mentioned: set[int], removed: set[int], count: int):
        for region in sorted(mentioned & removed):
            left = ", ".join(f"<region{i + 1}>" for i in range(count) if i not in removed) or "none"
            raise ValueError(f"<region{region + 1}> is mentioned, but it was removed; the regions left: {left}")

    def _with_boxes(self, new) -> list[list[float]]:
        return validate_regions([*self._boxes, *listed(new)], self.image.size)

    def _acquire(self):
        """Nothing else is answered or changed until the lock is released; an answer that was stopped is waited for.

        Raises:
            RuntimeError: an answer is being generated.
        """
        if not self._lock.acquire(timeout=STOPPING if self._stop.is_set() else 0):
            raise RuntimeError(_BUSY)

    @contextlib.contextmanager
    def _idle(self):
        self._acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _moved(self, number: int, box) -> list[list[float]]:
        boxes = list(self._boxes)
        boxes[self._index(number)] = box
        return validate_regions(boxes, self.image.size)

    def _index(self, number: int) -> int:
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or not 1 <= number <= len(self._boxes) or number - 1 in self._removed:
            left = ", ".join(str(i + 1) for i in range(len(self._boxes)) if i not in self._removed) or "none"
            raise ValueError(f"there is no region {number!r}; the regions: {left}")
        return number - 1

    def _run(self, plan_now, generate_kwargs) -> Iterator[str]:
        """Generate and remember in a second thread, yield the text here: whether or not anybody reads it, the answer ends."""
        self._acquire()
        stop = self._stop = threading.Event()
        pieces: queue.Queue = queue.Queue()
        result: dict = {}

        def work():
            try:
                plan = plan_now()
                output = self._generate(plan, TextPieces(self.processor, pieces.put), StopEvent(stop), generate_kwargs)
                result["answer"] = self._remember(plan, *output)
            except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer's thread
                result["error"] = error
            finally:
                self._lock.release()
                pieces.put(None)

        worker = threading.Thread(target=work, name="roilab-chat", daemon=True)
        worker.start()
        said = ""
        try:
            while (piece := pieces.get()) is not None:
                said += piece
                yield piece
        finally:
            stop.set()  # whoever reads no further wants no more
            worker.join()
        if "error" in result:
            raise result["error"]
        if rest := result["answer"].text[len(said) :]:
            yield rest

    def _remember(self, plan: Prompt, new_ids: list[int], logprobs: list[float]) -> Answer:
        """Put the question and its answer into the history."""
        text = self.processor.decode_answer(new_ids)
        stop_ids = self.processor.stop_ids()
        raw = self.processor.tokenizer.decode(new_ids, skip_special_tokens=False)
        closed = any(stop in raw for stop in self.processor.stop_strings) or new_ids[-len(stop_ids) :] == stop_ids
        places = (self.model.config.image_token_id, self.model.config.region_token_id)
        kept = [each for each in new_ids if each not in places]  # only a user can show the model something
        if not closed:
            eos = self.model.generation_config.eos_token_id
            if kept and kept[-1] in (eos if isinstance(eos, list) else [eos]):
                kept.pop()  # ended by another end token than the one this template writes
                closed = True
            kept += stop_ids
        tokens = token_texts(self.processor.tokenizer, new_ids, text)
        self.answer = Answer(
            text=text,
            question=plan.turns[-1]["content"],
            note=self._memory.note(),
            finished=closed,
            tokens=tokens,
            logprobs=logprobs[: len(tokens)],
            ids=kept,
        )
        self._turns = [*plan.turns, _assistant(text)]
        self._ids = [*plan.ids, DialogueIds(kept, kept, [])]
        self._boxes = plan.boxes
        return self.answer

    @torch.no_grad()
    def _generate(self, plan: Prompt, streamer, stop, generate_kwargs) -> tuple[list[int], list[float]]:
        """New ids and their log-probabilities."""
        self._memory.check()
        ids, boxes = plan.input_ids, plan.shown
        embeds = self._memory.embed(ids, boxes)
        self._memory.note()
        options = {**self.generate_kwargs, **generate_kwargs}
        keys = _keys(ids, boxes, self.model.config.region_token_id)
        past = self._memory.past(keys, options)
        room = self._room(plan)
        wanted = options.pop("max_new_tokens", None)
        if wanted is None:
            wanted = (options.get("generation_config") or self.model.generation_config).max_new_tokens or 256
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise ValueError(f"max_new_tokens is {wanted!r}, expected a whole number from 1")
        criteria = StoppingCriteriaList([stop, *options.pop("stopping_criteria", [])])
        output = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
            max_new_tokens=wanted if room is None else min(wanted, room),
            streamer=streamer,
            stopping_criteria=criteria,
            return_dict_in_generate=True,
            output_logits=True,
            **{CACHE: past},
            **options,
        )
        new = output.sequences[0].tolist()
        logprobs = [
            torch.log_softmax(logits[0].float(), -1)[token].item()
            for token, logits in zip(new, output.logits, strict=False)
        ]
        self._memory.keep_past(past, keys + new)
        self._memory.stamp()
        return new, logprobs


@dataclass
class Prompt:
    """Turns that end with a question.

    Attributes:
        turns: dicts of `role` and `content`.
        ids: one per turn.
        boxes: those of all regions, by number, xyxy in pixels, or outlines.
    """

    turns: list[dict]
    ids: list[DialogueIds]
    boxes: list[list[float]]

    @property
    def input_ids(self) -> list[int]:
        return [each for ids in self.ids for each in ids.input_ids]

    @property
    def regions(self) -> list[int]:
        """Numbers of the regions, from 1, in the order of the `<bbox>` positions."""
        return [region + 1 for ids in self.ids for region in ids.regions]

    @property
    def shown(self) -> list[list[float]]:
        """The boxes of `regions`."""
        return [self.boxes[number - 1] for number in self.regions]


def _assistant(text: str) -> dict:
    return {"role": "assistant", "content": escape_regions(text)}


def _keys(ids: list[int], boxes: list, region_token_id: int) -> list:
    """What each position of a prompt depends on, beside the positions before it: the id, or the box shown there."""
    shown = iter(boxes)
    return [frozen(next(shown)) if each == region_token_id else each for each in ids]
