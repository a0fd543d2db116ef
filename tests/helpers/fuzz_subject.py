"""A subject for the fuzzer that does all that no reader may do."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from ...tools.fuzzing.worker import Subject, main


class Misbehaving(Subject):
    """Does what the reader is called."""

    def __init__(self) -> None:
        self.readers: dict[str, Callable[[Path], object]] = {
            "traceback": lambda path: path.read_text().index("y"),
            "code": lambda _: os.system("true"),
            "hang": lambda _: time.sleep(60),
            "crash": lambda _: os._exit(7),
            "memory": lambda _: len(bytearray(b"x") * 400_000_000),
            "accepted": lambda path: path.read_bytes(),
        }


if __name__ == "__main__":
    main(Misbehaving())
