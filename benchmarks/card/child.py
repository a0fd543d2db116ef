"""The process of one network: reads rows from stdin, measures them, and writes an outcome for each to stdout."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from .children import Outcome
from .rows import CARD, OURS, Row
from .stand_ins import CRYPTOGRAPHY, OMEGACONF, provide

Measure = Callable[[Row], Outcome]


def main(network: str, device: str, size: str, extension: str) -> None:
    """Answer rows until there are no more."""
    answers = _take_stdout()
    measure = prepare(network, device, small=size == "small", extension=Path(extension))
    for line in sys.stdin:
        answers.write(json.dumps(measure(Row(*json.loads(line)))) + "\n")
        answers.flush()


def _take_stdout() -> TextIO:
    """Return stdout for our own use, and redirect what libraries print to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def prepare(network: str, device: str, *, small: bool, extension: Path) -> Measure:
    """Return a function that measures this network's rows. For a rival that cannot be used it only says so."""
    provide(OMEGACONF)
    import torch

    from .sizes import choose_sizes

    if device == "cpu" and small:
        # For so little work, waiting for other threads takes longer than the work itself.
        torch.set_num_threads(1)

    sizes = choose_sizes(device, small=small)
    if network == CARD:
        from .hardware import measure_limits

        return lambda row: measure_limits(row, sizes)
    if network == OURS:
        from .ours import Ours

        return Ours(sizes).measure
    provide(CRYPTOGRAPHY)
    try:
        from .rival import Rival

        return Rival(network, sizes, extension).measure
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing others' code may raise anything
        text = f"{_kind(error)}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return lambda _: {"failure": text}


def _kind(error: BaseException) -> str:
    """Return the reason why a rival cannot take part."""
    missing = isinstance(error, ImportError) or "import" in str(error) or isinstance(error, SystemExit)
    return "not installed" if missing else "cannot be used"


if __name__ == "__main__":
    main(*sys.argv[1:])
