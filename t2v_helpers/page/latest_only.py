"""Answers only the latest question of each page, if questions arrive faster than they can be answered."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MOST_PAGES = 1000
"""Maximum number of pages that are remembered; a forgotten page gets an answer to every question."""


class Latest:
    """A queue of questions that are answered one at a time, in a thread.

    answer: the function that answers a question; overtaken: the result for a question that is no longer the latest.
    """

    def __init__(self, answer: Callable[..., Any], overtaken: Any) -> None:
        self._answer, self._overtaken = answer, overtaken
        self._asked: OrderedDict[str, object] = OrderedDict()
        self._turn = asyncio.Lock()

    async def answer(self, page: str, *values: Any) -> Any:
        """Return the answer to a page's question."""
        question = self._asked[page] = object()
        self._asked.move_to_end(page)
        if len(self._asked) > MOST_PAGES:
            self._asked.popitem(last=False)
        async with self._turn:
            if self._asked.get(page, question) is not question:
                return self._overtaken
            return await asyncio.to_thread(self._answer, *values)
