"""Tokens and features against open_clip's own, and the full-size keys."""

from types import SimpleNamespace

import pytest
import torch

from sd_t2v.modelscope.checkpoints.parts import TEXT, select_part
from sd_t2v.modelscope.config import ModelConfig, TextConfig
from sd_t2v.modelscope.network import text_encoder
from sd_t2v.modelscope.network.open_clip_import import open_clip_module
from sd_t2v.modelscope.network.text_encoder import TextEncoder
from sd_t2v.modelscope.prompts.encode import encode_prompt
from sd_t2v.modelscope.prompts.tokens import tokenize
from sd_t2v.tests.helpers.support import golden, golden_json, max_error, small_model

PROMPTS = golden_json("text_small_A")["prompts"]
INDICES = golden_json("text_small_A")["idx"]
PLAIN = [i for i in INDICES if not any(mark in PROMPTS[i] for mark in "()[]")]


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_tokens_equal_the_original(index: int) -> None:
    assert tokenize([PROMPTS[index]])[0].tolist() == golden_json("text_small_A")["tokens"][str(index)]


def test_features_equal_the_original() -> None:
    tokens = tokenize([PROMPTS[i] for i in INDICES])
    features = small_model().text_encoder(tokens)
    assert max_error(features, golden("text_small_A.io")["penultimate_ln_final"]) < 1e-5


def test_a_plain_prompt_is_encoded_as_the_original_does() -> None:
    expected = golden("text_small_A.io")["penultimate_ln_final"]
    for index in PLAIN:
        features = encode_prompt(small_model().text_encoder, PROMPTS[index])
        # Of a prompt beyond 75 tokens the original keeps the first chunk.
        assert max_error(features[0, :77], expected[INDICES.index(index)]) < 1e-5


def test_full_size_keys_and_shapes() -> None:
    keys = golden_json("keys_text_original")
    assert len(keys) == 294
    with torch.device("meta"):
        state = TextEncoder(TextConfig()).state_dict()
        used = select_part(TEXT, {key: torch.empty(shape) for key, shape in keys.items()}, state, ModelConfig())
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in used.items()}


class LengthFirst(torch.nn.Module):
    """open_clip's tower as it was before 2.26: blocks take [length, n, d], and no attribute says so."""

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        tower = open_clip_module("transformer").Transformer(width, layers, heads)
        self.resblocks = tower.resblocks
        for block in self.resblocks:
            inner = block.forward
            block.forward = lambda x, inner=inner, **kw: inner(x.transpose(0, 1), **kw).transpose(0, 1)


def test_blocks_of_older_open_clip_take_length_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "open_clip_module", lambda _: SimpleNamespace(Transformer=LengthFirst))
    encoder = TextEncoder(small_model().config.text).eval().requires_grad_(False)
    encoder.load_state_dict(small_model().text_encoder.state_dict())
    tokens = tokenize(["a red ball", "something longer, with commas"])
    assert max_error(encoder(tokens), small_model().text_encoder(tokens)) == 0
