"""Damaged files of all kinds, read by a process of their own: accepted or refused in words, nothing else."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd_t2v.tools.fuzzing.run import table
from sd_t2v.tools.fuzzing.seeds import Seed, seeds
from sd_t2v.tools.fuzzing.supervisor import GOOD, Supervisor

SEEDS = seeds()
READERS = list(dict.fromkeys(seed.reader for seed in SEEDS))
EXAMPLES = {"infotext": 60, "configuration": 25}
"""Where ffmpeg is asked, or whole models are looked at."""


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as one:
        yield one


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.reader}: {seed.place}")
def test_what_is_damaged_was_sound(seed: Seed, supervisor: Supervisor) -> None:
    """Else all would be refused for another reason."""
    verdict = supervisor.judge(seed.reader, seed.place, seed.data)
    lists = seed.reader == "LoRA" and seed.data[:1] == b"\x80"
    assert verdict.outcome == ("refused" if lists else "accepted"), verdict


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused_in_words(reader: str, supervisor: Supervisor) -> None:
    mine = [seed for seed in SEEDS if seed.reader == reader]

    # The same files each time: it is tools/fuzz.py that looks for new ones.
    @settings(max_examples=EXAMPLES.get(reader, 150), deadline=None, database=None, derandomize=True)
    @given(number=st.integers(0, 2**32 - 1), seed=st.sampled_from(mine))
    def tried(number: int, seed: Seed) -> None:
        verdict = supervisor.judge(seed.reader, seed.place, seed.mutant(Random(number)))
        assert verdict.outcome in GOOD, verdict

    tried()


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[Supervisor]:
    with Supervisor("sd_t2v.tests.helpers.fuzz_subject", longest=2) as one:
        yield one


@pytest.mark.parametrize("outcome", ["traceback", "code", "hang", "crash", "memory", "accepted"])
def test_the_fuzzer_sees_what_it_looks_for(outcome: str, misbehaving: Supervisor) -> None:
    if outcome == "memory" and sys.platform != "linux":
        pytest.skip("counts memory as Linux does")
    assert misbehaving.judge(outcome, "files/x", b"x").outcome == outcome
    assert misbehaving.judge("accepted", "files/x", b"x").outcome == "accepted"


def test_the_table_has_a_line_for_each_reader() -> None:
    lines = table(Counter({("zip", "refused"): 3, ("zip", "hang"): 1, ("LoRA", "accepted"): 2})).splitlines()
    assert lines[2:] == [
        "| zip | 4 | 0 | 3 | 0 | 0 | 1 | 0 | 0 |", "| LoRA | 2 | 2 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| all | 6 | 2 | 3 | 0 | 0 | 1 | 0 | 0 |",
    ]  # fmt: skip


def test_the_command_finds_the_package_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, Path(__file__).parents[1] / "tools" / "fuzz.py", "--mutants", "3", "--reader", "index"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "| index | 3 | " in done.stdout
    assert not list(tmp_path.iterdir())
