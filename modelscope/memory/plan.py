"""How a run uses the device's memory. All plans compute the same; they differ in what is held at once."""

from dataclasses import dataclass, replace

from ..network.slices import ChunkBudget


@dataclass(frozen=True)
class Plan:
    """One way to run.

    chunk_budget: what a layer may hold; batch_cfg: both passes of guidance are one batch; streamed: weights wait in
    main memory, and each part's come to the device when it runs. eight_bits: they wait there, or on the device, in
    half the size, which is the one thing here that changes the result a little.
    """

    name: str
    chunk_budget: ChunkBudget
    batch_cfg: bool
    streamed: bool
    eight_bits: bool = False


FAST = Plan("fast", ChunkBudget(32_000_000), batch_cfg=True, streamed=False)
BALANCED = Plan("balanced", ChunkBudget(8_000_000), batch_cfg=False, streamed=False)
SMALL = Plan("small", ChunkBudget(8_000_000), batch_cfg=True, streamed=True)
SMALLEST = Plan("smallest", ChunkBudget(2_000_000), batch_cfg=False, streamed=True)
LADDER = (FAST, BALANCED, SMALL, SMALLEST)
"""From the quickest to the smallest."""


def next_below(plan: Plan) -> Plan | None:
    """The plan to try where this one does not fit; None after the smallest."""
    below = LADDER[[one.name for one in LADDER].index(plan.name) + 1 :]
    return replace(below[0], eight_bits=plan.eight_bits) if below else None
