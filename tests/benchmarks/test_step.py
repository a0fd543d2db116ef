"""The benchmark of a processor: what it counts, and that each network computes the same."""

from pathlib import Path

import pytest
import torch

from sd_t2v.benchmarks import step
from sd_t2v.benchmarks.cases import CASES, DRAFT, OURS, Case
from sd_t2v.benchmarks.flops import count_flops
from sd_t2v.benchmarks.step import make_table, run_networks
from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.memory.estimate import Clip
from sd_t2v.modelscope.network.attention import FeedForward
from sd_t2v.modelscope.network.linear import Linear

# modelscope's decoder takes only contexts of width 1024.
SMALL = UNetConfig(dim=32, head_dim=16, num_res_blocks=1)


@torch.inference_mode()
def test_linear_layers_are_counted_whoever_computes_them() -> None:
    x = torch.ones(2, 3, 16)
    # The first product of a process tries whether oneDNN's can be used.
    Linear(16, 5)(x)
    assert count_flops(lambda: Linear(16, 5)(x))[1] == 2 * 6 * 16 * 5
    assert count_flops(lambda: Linear(16, 5).double()(x.double()))[1] == 2 * 6 * 16 * 5
    # The first layer is eight times as wide as its input, the second takes four times as much.
    q, k = torch.ones(2, 3, 40, 8), torch.ones(2, 3, 50, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attention(q, k, k))[1] == 2 * 2 * (2 * 3 * 40 * 50 * 8)
    assert count_flops(lambda: FeedForward(16)(x))[1] == 2 * 6 * 16 * (8 * 16) + 2 * 6 * (4 * 16) * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", [False, True])
def test_all_networks_compute_the_same_and_take_part(
    dtype: torch.dtype, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "MID", SMALL)
    monkeypatch.setattr(step, "MANY", Clip(2, 16, 8))
    case = Case(SMALL, Clip(2, 8, 8), dtype, used)
    networks = [OURS, DRAFT, "diffusers", *(["modelscope"] if dtype == torch.float32 else [])]
    figures = run_networks(case, 1, networks, None, tmp_path)
    outputs = [torch.load(tmp_path / f"{index}.pt") for index in range(len(networks))]
    table = make_table(case, networks, [figures, figures], outputs)
    assert [row[0] for row in table.rows] == networks
    differences = {row[0]: float(row[-1]) for row in table.rows}
    assert differences["diffusers"] < (1e-3 if dtype == torch.float32 else 0.5)
    operations = {row[0]: float(row[-3]) for row in table.rows}
    assert operations[DRAFT] < operations[OURS] < operations["diffusers"]
    assert "GB/s" in table.limits


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
    assert str(CASES[1]) == "mid-size, 16 frames of 32 x 32 latents, float32, used process"
