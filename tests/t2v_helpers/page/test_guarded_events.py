"""Who a visitor is, whatever a request's body says of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from sd_t2v.t2v_helpers.access import Visit
from sd_t2v.t2v_helpers.page import guarded_events, real_headers

HERE = {"host": "localhost:7860"}
SAYS_IT_IS_HERE: Any = SimpleNamespace(headers=HERE, client=SimpleNamespace(host="127.0.0.1"))


@pytest.mark.parametrize(
    ("outer", "local"),
    [(Visit(HERE, "192.0.2.2"), False), (Visit(HERE, "127.0.0.1"), True), (None, False)],
    ids=["from elsewhere", "from here", "unknown"],
)
def test_with_gradio_3_the_request_itself_has_to_come_from_here(
    outer: Visit | None, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_events, "GRADIO_3", True)
    token = real_headers._VISIT.set(outer)
    try:
        assert guarded_events._surest_visit(SAYS_IT_IS_HERE).is_local is local
    finally:
        real_headers._VISIT.reset(token)
