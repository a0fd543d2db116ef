"""The 2023 extension's weights for frames: its own values for its own strings, and nothing in them is executed."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd_t2v.modelscope.conditioning.weights import LONGEST, read_weights
from sd_t2v.modelscope.errors import RequestError
from sd_t2v.tests.helpers.support import golden_json

CASES = golden_json("keyframes_A")["keyframes"]
RIGHT = [case for case in CASES if "values" in case]
WRONG = [case for case in CASES if "error" in case]


def read(case: dict[str, Any]) -> list[float]:
    return read_weights(case["text"], case["frames"], case["inpainting_frames"], case["seed"])


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: f"{case['text']} {case['frames']} {case['inpainting_frames']}")
def test_values_are_those_of_the_2023_extension(case: dict[str, Any]) -> None:
    assert len(read(case)) == case["frames"]
    for found, expected in zip(read(case), map(float, case["values"]), strict=True):
        assert found == expected or abs(found - expected) < 1e-6


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case["text"] or "empty")
def test_what_it_could_not_read_has_a_sentence(case: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="weights"):
        read(case)


@pytest.mark.parametrize(
    "text",
    [
        '0:(__import__("os").getcwd())', "0:(t.real)", "0:(lambda: 1)", "0:([1][0])", "0:('a' * 9)", "0:(9**9**9**9)",
        "0:(1", "0:((((1)))", "0:(1) 8:(2)", "0:(unknown)", "0:(sqrt(-1))", "0:(log(0))", "1e999:(1)", '"t":(1)',
        "0:(True)", "0:(1 if t else 2)", "0:(" + "(" * 300 + "1" + ")" * 300 + ")", "0:(" + "-" * 900 + "1)",
        "0:(" + "1" * LONGEST + ")", "0:(1/0 - 1/0)", "0:(f'{t}')", "0:(t := 1)", "0:()", ":(1)", "0(1)",
    ],
)  # fmt: skip
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="weights"):
        read_weights(text, 8, 8, 1)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789tsmax_fi()+-*/%.,:\"' ", max_size=60))
def test_any_text_gives_numbers_or_a_sentence(text: str) -> None:
    try:
        found = read_weights(text, 6, 4, 3)
    except RequestError:
        return
    assert len(found) == 6 and not any(map(math.isnan, found))
