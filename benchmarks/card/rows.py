"""The rows to measure on a graphics card, the most important first. Without torch: the parent imports this, too."""

from collections.abc import Sequence
from typing import NamedTuple

CARD, OURS = "card", "this project"
RIVALS = ("diffusers", "modelscope")
EXTENSION = "the 2023 extension"
LIMITS, STEP, RUN, WITHIN, KERNELS = (
    "limits of the card", "guided step", "whole run", "within a limit", "where the time goes",
)  # fmt: skip
PARTS = (LIMITS, STEP, RUN, WITHIN, KERNELS)
PLANS = ("fast", "balanced", "small", "smallest")
EIGHT_BITS = "smallest, 8 bits"
KEPT, FEW_STEPS = "fast, kept", "fast, kept, 4 steps without guidance"
PRODUCT, COPY, PINNED, PAGEABLE = (
    "matrix product, float16", "copy on the card", "copy to the card, pinned", "copy to the card, pageable",
)  # fmt: skip


class Case(NamedTuple):
    """Size of latents [1, 4, frames, height, width], and the memory that the smallest plan may use."""

    frames: int
    height: int
    width: int
    limit_gib: float


CASES = {
    "24 of 256 x 256": Case(24, 32, 32, 1.0),
    "125 of 256 x 256": Case(125, 32, 32, 1.5),
    "30 of 1024 x 576": Case(30, 72, 128, 2.25),
    "250 of 256 x 256": Case(250, 32, 32, 2.25),
}
SMALL_CASES = dict(zip(CASES, (Case(3, 8, 8, 1), Case(5, 8, 8, 1), Case(2, 8, 16, 1), Case(7, 8, 8, 1)), strict=True))
"""Cases for a rehearsal, under the names of those that they replace."""
FIRST, LONG, LARGE, LONGEST = CASES
RUNS = {
    FIRST: (KEPT, *PLANS, FEW_STEPS),
    LONG: ("fast", "smallest"),
    LARGE: ("fast",),
    LONGEST: ("fast",),
}


class Row(NamedTuple):
    """One measurement: its part of the benchmark, its clip, its way to run, and the network whose process makes it."""

    part: str
    case: str
    way: str
    network: str


def list_rows(*, extension: bool) -> list[Row]:
    """Return all rows in the order in which they are measured. extension: whether the 2023 extension takes part."""
    rows = [Row(LIMITS, "", way, CARD) for way in (PRODUCT, COPY, PINNED, PAGEABLE)]
    rivals = (*RIVALS, EXTENSION) if extension else RIVALS
    for case in (FIRST, LONG):
        rows += _list_steps(case, rivals)
    rows += [Row(RUN, FIRST, way, OURS) for way in RUNS[FIRST]]
    rows += [Row(WITHIN, case, "smallest", OURS) for case in CASES]
    for case in (LARGE, LONGEST):
        rows += _list_steps(case, rivals)
    rows += [Row(STEP, case, EIGHT_BITS, OURS) for case in CASES]
    rows.append(Row(KERNELS, FIRST, "fast", OURS))
    rows += [Row(RUN, case, way, OURS) for case in (LONG, LARGE, LONGEST) for way in RUNS[case]]
    return rows


def _list_steps(case: str, rivals: Sequence[str]) -> list[Row]:
    return [*(Row(STEP, case, way, OURS) for way in PLANS), *(Row(STEP, case, rival, rival) for rival in rivals)]
