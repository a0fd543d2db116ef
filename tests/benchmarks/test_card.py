"""The benchmark of a graphics card: what is measured again, what a crash leaves, and the tables."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sd_t2v.benchmarks import bench
from sd_t2v.benchmarks.card.children import MAX_CRASHES, Children
from sd_t2v.benchmarks.card.measure import measure_rows
from sd_t2v.benchmarks.card.results import Results
from sd_t2v.benchmarks.card.rows import CASES, KERNELS, LIMITS, OURS, RIVALS, STEP, WITHIN, Row, list_rows
from sd_t2v.benchmarks.card.stand_ins import provide

MACHINE, OTHER = {"card": "one", "torch": "torch 2"}, {"card": "another", "torch": "torch 2"}
FAST, SMALL, RIVAL = (
    Row(STEP, "24", "fast", OURS), Row(STEP, "24", "small", OURS), Row(STEP, "24", "diffusers", "diffusers")
)  # fmt: skip
CHILD = """
import json, sys
for line in sys.stdin:
    part, case, way, network = json.loads(line)
    if way == "small":
        sys.exit("first\\nlast words")
    print(json.dumps({"figures": {"seconds a step": 2.0 if way == "fast" else 3.0}}), flush=True)
"""


@pytest.fixture
def children() -> Iterator[Children]:
    with Children(lambda _: [sys.executable, "-c", CHILD]) as made:
        yield made


def entries(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


def test_rows_that_are_there_are_not_measured_again(tmp_path: Path, children: Children) -> None:
    path = tmp_path / "card.json"
    Results(path, MACHINE).add(FAST, {"figures": {"seconds a step": 1.0}}, 0)
    measure_rows([FAST, RIVAL], children, Results(path, MACHINE))
    assert [entry["figures"] for entry in entries(path)] == [{"seconds a step": 1.0}, {"seconds a step": 3.0}]


def test_rows_of_another_machine_are_measured_and_stay(tmp_path: Path, children: Children) -> None:
    path = tmp_path / "card.json"
    Results(path, OTHER).add(FAST, {"figures": {"seconds a step": 1.0}}, 0)
    measure_rows([FAST], children, Results(path, MACHINE))
    assert [entry["machine"] for entry in entries(path)] == [OTHER, MACHINE]


def test_a_crash_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.json"
    measure_rows([SMALL, FAST], children, Results(path, MACHINE))
    crashed, measured = entries(path)
    assert crashed["failure"] == "last words"
    assert measured["figures"] == {"seconds a step": 2.0}
    assert "2/2 guided step, 24, fast: seconds a step 2" in capsys.readouterr().err


def test_a_network_that_always_crashes_is_given_up(children: Children) -> None:
    failures = [children.ask(SMALL)["failure"] for _ in range(MAX_CRASHES + 1)]
    assert failures[-2] == "last words"
    assert failures[-1].startswith("not tried")
    assert "figures" in children.ask(RIVAL)


def test_failures_are_tried_again_unless_memory_ran_out(tmp_path: Path) -> None:
    results = Results(tmp_path / "card.json", MACHINE)
    results.add(SMALL, {"failure": "last words"}, 0)
    results.add(RIVAL, {"failure": "out of memory"}, 0)
    assert [results.has(row) for row in (FAST, SMALL, RIVAL)] == [False, False, True]


def test_the_tables(tmp_path: Path) -> None:
    results = Results(tmp_path / "card.json", MACHINE)
    results.add(FAST, {"figures": {"seconds a step": 0.5, "GiB reserved": 3.0, "steps": 4}}, 0)
    results.add(RIVAL, {"figures": {"seconds a step": 0.75}}, 0)
    results.add(SMALL, {"failure": "a | b"}, 0)
    results.add(Row(KERNELS, "24", "fast", OURS), {"figures": {"ms a step": 9.0, "kernels": [["f<1|2>", 2, 3]]}}, 0)
    text = (tmp_path / "card.md").read_text()
    assert text == results.tables()
    lines = text.splitlines()
    assert lines[:3] == ["one, torch 2", "", "## Guided step"]
    assert "| 24 | fast | 0.5000 | 1.00 | 3.00 |  |  |  | 4 |  |" in lines
    assert "| 24 | diffusers | 0.7500 | 1.50 |  |  |  |  |  |  |" in lines
    assert "| 24 | small |  |  |  |  |  |  |  | a \\| b |" in lines
    assert "| f<1\\|2> | 2.000 | 3 |" in lines


def test_the_rows_come_in_the_order_of_the_cases() -> None:
    rows = list_rows(extension=False)
    assert list(dict.fromkeys(row.case for row in rows if row.part != LIMITS)) == list(CASES)
    assert len(set(rows)) == len(rows)
    assert {row.network for row in rows if row.part == STEP} == {OURS, *RIVALS}
    assert sum(row.part == WITHIN for row in rows) == len(CASES)


def test_without_a_card_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA card"):
        bench.main(["--card", "--results", str(tmp_path / "card.json")])


def test_a_stand_in_takes_the_place_of_what_is_missing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    provide({"no_such_package": {"a": 1}, "no_such_package.inner": {"b": 2}})
    provide({"json.decoder": {}})
    from no_such_package import a  # type: ignore[import-not-found]
    from no_such_package.inner import b  # type: ignore[import-not-found]

    assert (a, b) == (1, 2)
    assert sys.modules["json.decoder"].JSONDecoder is json.JSONDecoder
