"""Emphasis, BREAK and long prompts."""

import pytest
import torch

from sd_t2v.modelscope.prompts.emphasis import Fragment, parse_emphasis
from sd_t2v.modelscope.prompts.encode import encode_prompts
from sd_t2v.modelscope.prompts.tokens import BEGIN, END, split_into_chunks, tokenize
from sd_t2v.tests.helpers.support import max_error, small_model


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("plain", [("plain", 1)]),
        ("", []),
        ("a (red:1.3) ball", [("a ", 1), ("red", 1.3), (" ball", 1)]),
        ("(a (red) ball)", [("a ", 1.1), ("red", 1.21), (" ball", 1.1)]),
        ("[x] y", [("x", 1 / 1.1), (" y", 1)]),
        ("([x])", [("x", 1)]),
        ("((x:2))", [("x", 2.2)]),
        (r"\(kept\) \[too\] \\", [("(kept) [too] \\", 1)]),
        (r"a\b", [(r"a\b", 1)]),
        ("open (until the end", [("open ", 1), ("until the end", 1.1)]),
        ("never opened) or]", [("never opened) or]", 1)]),
        ("at 10:30 (sharp)", [("at 10:30 ", 1), ("sharp", 1.1)]),
        ("at 10:30) x", [("at 10:30) x", 1)]),
        ("(x:-1)", [("x", -1)]),
        ("(x: .5 )", [("x", 0.5)]),
        ("(x:abc)", [("x:abc", 1.1)]),
    ],
)
def test_emphasis(prompt: str, expected: list[tuple[str, float]]) -> None:
    found = parse_emphasis(prompt)
    fragments = [fragment for fragment in found if fragment]
    assert [fragment.text for fragment in fragments] == [text for text, _ in expected]
    assert [fragment.weight for fragment in fragments] == pytest.approx([weight for _, weight in expected])


def test_a_plain_prompt_is_one_chunk_with_the_originals_ids() -> None:
    (chunk,) = split_into_chunks("a red ball")
    assert list(chunk.ids) == tokenize(["a red ball"])[0].tolist()
    assert set(chunk.weights) == {1.0}


def test_weights_lie_on_the_words() -> None:
    (chunk,) = split_into_chunks("a (red:1.5) ball")
    assert list(chunk.ids) == tokenize(["a red ball"])[0].tolist()
    assert list(chunk.weights[:6]) == [1, 1, 1.5, 1, 1, 1]


def test_long_prompts_continue_in_more_chunks() -> None:
    words = " ".join(["word"] * 200)
    chunks = split_into_chunks(words)
    assert [chunk.ids.index(END) for chunk in chunks] == [76, 76, 51]
    assert all(chunk.ids[0] == BEGIN and len(chunk.ids) == 77 for chunk in chunks)
    assert encode_prompts(small_model().text_encoder, [words])[0].shape == (1, 3 * 77, 32)


def test_a_chunk_ends_at_a_near_comma() -> None:
    chunks = split_into_chunks(" ".join(["word"] * 69) + ", " + " ".join(["more"] * 20))
    assert [chunk.ids.index(END) for chunk in chunks] == [71, 21]


def test_break_starts_a_chunk() -> None:
    first, second = split_into_chunks("a red BREAK ball")
    assert list(first.ids) == tokenize(["a red"])[0].tolist()
    assert list(second.ids) == tokenize(["ball"])[0].tolist()
    assert len(split_into_chunks("BREAKFAST")) == 1
    assert parse_emphasis("(a BREAK b:1.3)") == [Fragment("a ", 1.3), None, Fragment(" b", 1.3)]
    assert len(split_into_chunks("BREAK")) == 1


def test_emphasis_changes_features_but_not_their_mean() -> None:
    encoder = small_model().text_encoder
    words = ["a red ball", "a (red:1.5) ball", "a (red:1.0) ball"]
    plain, strong, same = encode_prompts(encoder, words)
    assert max_error(plain, strong) > 1e-3
    assert float(strong.mean()) == pytest.approx(float(plain.mean()), rel=1e-3)
    assert max_error(same, plain) == 0


@pytest.mark.parametrize(
    "prompt",
    [
        "(" * 9999 + "x",
        "(" * 5000 + ")" * 5000,
        ":" + "1" * 9999,
        "((x:" + "9" * 400 + "):0)",
        "🎈" * 500,
        "x" * 10_000,
        "(x:99999999999999999999)",
        "\0\n\t",
        "(x:0)",
    ],
)
def test_odd_prompts_encode_to_finite_features(prompt: str) -> None:
    assert torch.isfinite(encode_prompts(small_model().text_encoder, [prompt])[0]).all()
