"""Answers, one after the other, in a thread of their own: nothing waits for the model but the next question."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

from roilab.chat import Answer, Chat
from roilab.dialogues import EscapedMarker

from .conversation import ANSWERING, DROPPED, Conversation, Round, mentioned
from .parts import in_words


class Answering:
    """Answers the rounds of a conversation in the order in which they were asked.

    Args:
        chat: who answers.
        conversation: where the rounds are.
        lock: held while rounds change.
        show: `show(round_)` is called with the lock held when a round has more words, `show(None)` when states have changed.
        say: `say(text)` shows a remark.
    """

    def __init__(self, chat: Chat, conversation: Conversation, lock, show: Callable, say: Callable):
        self.chat, self.conversation, self.lock, self._show, self._say = chat, conversation, lock, show, say
        self._queue: list[Round] = []
        self._running: Round | None = None
        self._worker: threading.Thread | None = None

    def add(self, round_: Round):
        """Answer a waiting round when those before it are done."""
        with self.lock:
            self._queue.append(round_)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="roilab-region-chat", daemon=True)
                self._worker.start()
            self._show(None)

    def stop(self):
        """End the answer that is being made, keep its words, and drop what waits."""
        with self.lock:
            for round_ in self._queue:
                round_.state = DROPPED
            self._queue.clear()
            if self._running is not None:
                self._running.stopping = True
                self.chat.stop()
            self._show(None)

    def wait(self, timeout: float | None = None):
        """Until nothing waits; `timeout` in seconds."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout)

    def result(self, round_: Round) -> Answer | None:
        """Wait for a round; None if it was dropped.

        Raises:
            ValueError: what went wrong with it.
        """
        while round_.is_open and (worker := self._worker) is not None:
            worker.join(0.05)  # not until its end: it may have more to do
        if round_.error:
            raise ValueError(round_.error)
        return None if round_.state == DROPPED else round_.answer

    def _work(self):
        while True:
            with self.lock:
                if not self._queue:
                    self._running = self._worker = None
                    self._show(None)
                    return
                round_ = self._running = self._queue.pop(0)
                round_.state = ANSWERING
                self._show(None)
            try:
                self._answer(round_)
            except Exception as error:  # noqa: BLE001 - it is shown where the answer would have been
                with self.lock:
                    self.conversation.fail(round_, in_words(error))

    def _answer(self, round_: Round):
        with self.lock:
            there = [number for number, box in enumerate(round_.boxes, 1) if box is not None]
            for number in mentioned(round_.question):
                if number not in there:
                    raise ValueError(
                        f"there is no region {number} on the picture; the regions: {', '.join(map(str, there)) or 'none'}"
                    )
            earlier = self.conversation.answers_before(round_)
        self.chat.revise(round_.boxes, earlier)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EscapedMarker)
            pieces = self.chat.stream(round_.question)
        for warning in caught:
            self._say(str(warning.message))
        for piece in pieces:
            with self.lock:
                if round_.stopping:
                    break
                round_.said += piece
                self._show(round_)
        pieces.close()
        with self.lock:
            self.conversation.finish(round_, self.chat.answer)
