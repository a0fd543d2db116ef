"""Tokens and features against open_clip's own, and the full-size keys."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sd_t2v.modelscope.checkpoints.parts import TEXT, select_part
from sd_t2v.modelscope.config import ModelConfig, TextConfig
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.network.text_encoder import TextEncoder
from sd_t2v.modelscope.prompts.encode import encode_prompts
from sd_t2v.modelscope.prompts.tokenizer import load_tokenizer
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
        features = encode_prompts(small_model().text_encoder, [PROMPTS[index]])[0]
        # Of a prompt beyond 75 tokens the original keeps the first chunk.
        assert max_error(features[0, :77], expected[INDICES.index(index)]) < 1e-5


def test_full_size_keys_and_shapes() -> None:
    keys = golden_json("keys_text_original")
    assert len(keys) == 294
    with torch.device("meta"):
        state = TextEncoder(TextConfig()).state_dict()
        used = select_part(TEXT, {key: torch.empty(shape) for key, shape in keys.items()}, state, ModelConfig())
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in used.items()}


@torch.inference_mode()
def test_features_equal_open_clips_own_tower() -> None:
    from open_clip.transformer import Transformer

    encoder = small_model().text_encoder
    config = encoder.config
    tower = Transformer(config.width, config.layers - 1, config.heads).eval()
    tower.load_state_dict(encoder.transformer.state_dict())
    tokens = tokenize(["a red ball", "something longer, with commas"])
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    future = torch.full((77, 77), float("-inf")).triu(1)
    assert max_error(encoder(tokens), encoder.ln_final(tower(x, attn_mask=future))) < 1e-6


TOKENIZE = """
import sys
from sd_t2v.modelscope.network.text_encoder import TextEncoder
from sd_t2v.modelscope.prompts.tokenizer import load_tokenizer
from sd_t2v.modelscope.prompts.tokens import tokenize
tokenize(["a red ball"])
print(sorted({"open_clip", "torchvision", "transformers", "sympy"} & sys.modules.keys()))
"""


def test_prompts_need_no_more_of_open_clip_than_its_tokenizer() -> None:
    """Its import takes two seconds."""
    done = subprocess.run([sys.executable, "-c", TOKENIZE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tokenizer_that_a_webui_has_loaded_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = SimpleNamespace(SimpleTokenizer=lambda: "the WebUI's")
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", loaded)
    load_tokenizer.cache_clear()
    assert load_tokenizer() == "the WebUI's"
    load_tokenizer.cache_clear()


@pytest.mark.parametrize("problem", ["missing", "broken"])
def test_a_missing_or_broken_open_clip_is_an_error_that_says_what_helps(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    monkeypatch.delitem(sys.modules, "open_clip.tokenizer", raising=False)
    if problem == "broken":
        (tmp_path / "open_clip").mkdir()
        for name in ("__init__.py", "tokenizer.py"):
            (tmp_path / "open_clip" / name).write_text("import a_package_that_nobody_has")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    load_tokenizer.cache_clear()
    with pytest.raises(ModelError, match=r"needs the package open_clip_torch.*pip install open_clip_torch"):
        load_tokenizer()
