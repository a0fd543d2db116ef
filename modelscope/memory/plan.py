"""How a run uses the device's memory. All plans compute the same; they differ in what is held at once."""

from dataclasses import dataclass, replace

from ..errors import RequestError
from ..network.chunks import Chunks


@dataclass(frozen=True)
class Plan:
    """One way to run.

    chunks: what a layer may hold; together: both halves of guidance are one batch; streamed: weights wait in main
    memory, and each part's come to the device when it runs. eight_bits: they wait there, or on the device, in half the
    size, which is the one thing here that changes the result a little.
    """

    name: str
    chunks: Chunks
    together: bool
    streamed: bool
    eight_bits: bool = False


FAST = Plan("fast", Chunks(32_000_000), together=True, streamed=False)
BALANCED = Plan("balanced", Chunks(8_000_000), together=False, streamed=False)
SMALL = Plan("small", Chunks(8_000_000), together=True, streamed=True)
SMALLEST = Plan("smallest", Chunks(2_000_000), together=False, streamed=True)
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
    below = LADDER[LADDER.index(plan_named(plan.name)) + 1 :]
    return replace(below[0], eight_bits=plan.eight_bits) if below else None
