"""Plans for using the device's memory. All compute the same; they differ in what is held at once."""

from dataclasses import dataclass, replace

import torch

from ..errors import RequestError
from ..network.slices import ChunkBudget


@dataclass(frozen=True)
class Plan:
    """One way to use the device's memory in a run.

    Args:
        name: The name by which people choose the plan.
        chunk_budget: How much a layer may hold on a card; see `budget_on`.
        batch_cfg: Whether both guidance passes run as one batch.
        streamed: Whether weights are stored in main memory, and each part's are copied to the device when it runs.
        eight_bits: Whether weights are stored in 8 bits, in main memory or on the device. This is the only option that
            changes the result, slightly.
    """

    name: str
    chunk_budget: ChunkBudget
    batch_cfg: bool
    streamed: bool
    eight_bits: bool = False

    @property
    def is_resident(self) -> bool:
        """True if all weights are on the device for the whole run, ready for use."""
        return not self.streamed and not self.eight_bits

    def budget_on(self, device: torch.device) -> ChunkBudget:
        """Return how much a layer may hold on a device."""
        if device.type != "cpu":
            return self.chunk_budget
        return ChunkBudget(min(self.chunk_budget.values or CPU_VALUES, CPU_VALUES))


CPU_VALUES = 8_000_000
"""Numbers in a slice at which CPUs are quickest. Cards need larger slices: launching one takes as long at any size."""
# Smaller slices would save little memory compared with what every plan holds anyway, but would cost much time.
FAST = Plan("fast", ChunkBudget(400_000_000), batch_cfg=True, streamed=False)
BALANCED = Plan("balanced", ChunkBudget(32_000_000), batch_cfg=False, streamed=False)
SMALL = Plan("small", ChunkBudget(128_000_000), batch_cfg=True, streamed=True)
SMALLEST = Plan("smallest", ChunkBudget(64_000_000), batch_cfg=False, streamed=True)
LADDER = (FAST, BALANCED, SMALL, SMALLEST)
"""All plans, from the quickest to the one that takes the least memory."""
PLANS = {plan.name: plan for plan in LADDER}


def plan_named(name: str) -> Plan:
    """Return the plan with this name. Raises RequestError, which lists the names, if there is none."""
    if name not in PLANS:
        raise RequestError(f"The plan {name!r} is unknown. Choose one of: {', '.join(PLANS)}.")
    return PLANS[name]


def next_below(plan: Plan) -> Plan | None:
    """Return the plan to try if this one does not fit, or None after the smallest."""
    below = LADDER[[one.name for one in LADDER].index(plan.name) + 1 :]
    return replace(below[0], eight_bits=plan.eight_bits) if below else None
