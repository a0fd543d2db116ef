"""Questions that come faster than they can be answered: only each page's latest one is."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MOST_PAGES = 1000
"""Pages that are remembered; one that was forgotten gets an answer to each question."""


class Latest:
    """Answers one question at a time, in a thread."""

    def __init__(self, answer: Callable[..., Any], overtaken: Any) -> None:
        """Ask `answer`; a question that its page has overtaken gets `overtaken`."""
        self._answer, self._overtaken = answer, overtaken
        self._asked: OrderedDict[str, object] = OrderedDict()
        self._turn = asyncio.Lock()

    async def ask(self, page: str, *values: Any) -> Any:
        """Answer a page's question."""
        question = self._asked[page] = object()
        self._asked.move_to_end(page)
        if len(self._asked) > MOST_PAGES:
            self._asked.popitem(last=False)
        async with self._turn:
            if self._asked.get(page, question) is not question:
                return self._overtaken
            return await asyncio.to_thread(self._answer, *values)
