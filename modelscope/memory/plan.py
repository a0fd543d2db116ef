"""How a run uses the device's memory. All plans compute the same; they differ in what is held at once."""

from dataclasses import dataclass, replace

import torch

from ..errors import RequestError
from ..network.slices import ChunkBudget


@dataclass(frozen=True)
class Plan:
    """One way to run.

    Args:
        name: As people choose it.
        chunk_budget: How much a layer may hold on a card; see `budget_on`.
        batch_cfg: Whether both passes of guidance are one batch.
        streamed: Whether weights are stored in main memory, and each part's come to the device when it runs.
        eight_bits: Whether weights are stored in 8 bits, there or on the device. The only one of these that changes
            the result, a little.
    """

    name: str
    chunk_budget: ChunkBudget
    batch_cfg: bool
    streamed: bool
    eight_bits: bool = False

    @property
    def is_resident(self) -> bool:
        """Whether all weights are on the device for the whole run, ready for use."""
        return not self.streamed and not self.eight_bits

    def budget_on(self, device: torch.device) -> ChunkBudget:
        """Return how much a layer may hold there."""
        if device.type != "cpu":
            return self.chunk_budget
        return ChunkBudget(min(self.chunk_budget.values or CPU_VALUES, CPU_VALUES))


CPU_VALUES = 8_000_000
"""CPUs are quickest with slices of about this many numbers. Cards want large ones: each takes as long to launch."""
# What one more slice saves in memory is little beside what every plan holds; what it costs is not.
FAST = Plan("fast", ChunkBudget(400_000_000), batch_cfg=True, streamed=False)
BALANCED = Plan("balanced", ChunkBudget(32_000_000), batch_cfg=False, streamed=False)
SMALL = Plan("small", ChunkBudget(128_000_000), batch_cfg=True, streamed=True)
SMALLEST = Plan("smallest", ChunkBudget(64_000_000), batch_cfg=False, streamed=True)
LADDER = (FAST, BALANCED, SMALL, SMALLEST)
"""From the quickest to the smallest."""
PLANS = {plan.name: plan for plan in LADDER}


def plan_named(name: str) -> Plan:
    """Return the plan of that name. Raises RequestError that lists the names."""
    if name not in PLANS:
        raise RequestError(f"The plan {name!r} is not known. Known are: {', '.join(PLANS)}.")
    return PLANS[name]


def next_below(plan: Plan) -> Plan | None:
    """The plan to try where this one does not fit; None after the smallest."""
    below = LADDER[[one.name for one in LADDER].index(plan.name) + 1 :]
    return replace(below[0], eight_bits=plan.eight_bits) if below else None
