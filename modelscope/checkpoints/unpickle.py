"""Reads the pickles that torch writes, with a small machine that knows a closed list of opcodes and calls nothing.

It builds text, numbers, lists, tuples and dictionaries, tensors from their descriptions, and one inert object for
everything else.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from .pickle_names import (
    INERT,
    MAX_KEY,
    MAX_TENSORS,
    Build,
    Function,
    Inert,
    StoredNumbers,
    fill,
    function_named,
    parse_storage,
)

MAX_STEPS = 1_000_000
"""Maximum number of opcodes in a pickle. A model of thousands of tensors takes a tenth of it."""
_LENGTHS = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_NEWEST = 5
_METHODS = set(dir(OrderedDict))
"""Attributes that only an attempt to run code would set on a dictionary."""


class PickleDamage(ValueError):
    """The error for a file that is no pickle, or one that does what torch's pickles never do."""


class Unpickled(NamedTuple):
    """The content of a pickle.

    value: the object; end: the position after the pickle; storages: the storages that it names, by their keys.
    """

    value: Any
    end: int
    storages: dict[str, StoredNumbers]


def unpickle(data: bytes, start: int, build: Build) -> Unpickled:
    """Read one object.

    Args:
        data: The bytes of a file.
        start: The position at which the pickle begins.
        build: Builds a tensor from its description.

    Raises:
        PickleDamage: The bytes are no pickle, or a damaged one.
        ForeignCode: The pickle names code.
        UnusableTensor: The pickle holds a tensor of a kind that cannot be used.
    """
    machine = _Machine(data, start, build)
    try:
        value = machine.run()
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise PickleDamage("it is not a valid pickle") from error
    return Unpickled(value, machine.at, machine.storages)


class _Machine:
    """The pickle machine: a stack with marks, and a memo."""

    def __init__(self, data: bytes, at: int, build: Build) -> None:
        self.at = at
        self.storages: dict[str, StoredNumbers] = {}
        self._data, self._build = data, build
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._tensors = 0

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self._data[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                return self._stack.pop()
            _STEPS[code](self)
        raise PickleDamage(f"it takes more than {MAX_STEPS:,} steps to read")

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise PickleDamage("it ends too soon")
        taken, self.at = self._data[self.at : end], end
        return taken

    def number(self, size: int) -> int:
        return int(_LENGTHS[size].unpack(self.take(size))[0])

    def line(self) -> str:
        end = self._data.find(b"\n", self.at, self.at + MAX_KEY)
        if end < 0:
            raise PickleDamage("a name in it is too long or has no end")
        text = self._data[self.at : end].decode()
        self.at = end + 1
        return text

    def text(self, size: int) -> None:
        """Read a text. Lone surrogates are accepted, as Python accepts them. size: bytes of its length."""
        self._stack.append(self.take(self.number(size)).decode("utf-8", "surrogatepass"))

    def old_text(self, size: int) -> None:
        """Read a string of Python 2, which may be text or bytes. size: bytes of its length."""
        self._stack.append(self.take(self.number(size)).decode("utf-8", "replace"))

    def skip_bytes(self, size: int) -> None:
        self.take(self.number(size))
        self._stack.append(INERT)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop_one(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_to_mark()

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def remember_next(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Inert):
            raise PickleDamage("it adds an entry to something that is not a dictionary")
        if isinstance(target, dict):
            fill(target, zip(items[::2], items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, Inert):
            raise PickleDamage("it adds an item to something that is not a list")

    def find(self, module: str, name: str) -> None:
        self._stack.append(function_named(module, name))

    def find_named(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_KEY:
            raise PickleDamage("it refers to something by an invalid name")
        self.find(module, name)

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(function, Function | Inert):
            raise PickleDamage("it calls something that is not a function")
        self._stack.append(function.result(arguments, self.build) if isinstance(function, Function) else INERT)

    def build(self, description: Any) -> Any:
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise PickleDamage(f"it has more than {MAX_TENSORS} tensors")
        return self._build(description)

    def set_state(self) -> None:
        """Ignore attributes that torch and trainers add to an object, such as a state dict's `_metadata`.

        A tensor's state could change its shape, and is refused: torch never writes one.
        """
        state, target = self._stack.pop(), self._stack[-1]
        harmless = isinstance(target, dict) and isinstance(state, dict) and not any(name in state for name in _METHODS)
        if not harmless and not isinstance(target, Inert):
            raise PickleDamage("it changes an object after creating it")

    def find_storage(self) -> None:
        stored = parse_storage(self._stack.pop())
        self.storages.setdefault(stored.key, stored)
        self._stack.append(stored)


def _protocol(machine: _Machine) -> None:
    if machine.number(1) > _NEWEST:
        raise PickleDamage("it uses a newer pickle protocol than torch does")


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_STEPS: dict[int, Callable[[_Machine], object]] = {
    code[0]: step
    for code, step in (
        (pickle.PROTO, _protocol),
        (pickle.FRAME, lambda m: m.take(8)),
        (pickle.MARK, _Machine.mark),
        (pickle.POP, _Machine.pop_one),
        (pickle.POP_MARK, _Machine.pop_to_mark),
        (pickle.NONE, lambda m: m.push(None)),
        (pickle.NEWTRUE, lambda m: m.push(True)),
        (pickle.NEWFALSE, lambda m: m.push(False)),
        (pickle.BININT, lambda m: m.push(_integer(m.take(4)))),
        (pickle.BININT1, lambda m: m.push(m.number(1))),
        (pickle.BININT2, lambda m: m.push(_integer(m.take(2) + b"\0"))),
        (pickle.LONG1, lambda m: m.push(_integer(m.take(m.number(1))))),
        (pickle.BINFLOAT, lambda m: m.push(struct.unpack(">d", m.take(8))[0])),
        (pickle.SHORT_BINUNICODE, lambda m: m.text(1)),
        (pickle.BINUNICODE, lambda m: m.text(4)),
        (pickle.BINUNICODE8, lambda m: m.text(8)),
        (pickle.SHORT_BINSTRING, lambda m: m.old_text(1)),
        (pickle.BINSTRING, lambda m: m.old_text(4)),
        (pickle.SHORT_BINBYTES, lambda m: m.skip_bytes(1)),
        (pickle.BINBYTES, lambda m: m.skip_bytes(4)),
        (pickle.BINBYTES8, lambda m: m.skip_bytes(8)),
        (pickle.BYTEARRAY8, lambda m: m.skip_bytes(8)),
        (pickle.EMPTY_TUPLE, lambda m: m.push(())),
        (pickle.TUPLE1, lambda m: m.tuple_of(1)),
        (pickle.TUPLE2, lambda m: m.tuple_of(2)),
        (pickle.TUPLE3, lambda m: m.tuple_of(3)),
        (pickle.TUPLE, lambda m: m.push(tuple(m.pop_to_mark()))),
        (pickle.EMPTY_LIST, lambda m: m.push([])),
        (pickle.APPEND, lambda m: m.append([m.pop()])),
        (pickle.APPENDS, lambda m: m.append(m.pop_to_mark())),
        (pickle.EMPTY_DICT, lambda m: m.push({})),
        (pickle.SETITEM, lambda m: m.set_items([m.pop(), m.pop()][::-1])),
        (pickle.SETITEMS, lambda m: m.set_items(m.pop_to_mark())),
        (pickle.EMPTY_SET, lambda m: m.push(INERT)),
        (pickle.ADDITEMS, lambda m: m.append(m.pop_to_mark())),
        (pickle.FROZENSET, lambda m: (m.pop_to_mark(), m.push(INERT))),
        (pickle.GLOBAL, lambda m: m.find(m.line(), m.line())),
        (pickle.STACK_GLOBAL, _Machine.find_named),
        (pickle.REDUCE, _Machine.call),
        (pickle.NEWOBJ, _Machine.call),
        (pickle.NEWOBJ_EX, lambda m: (m.pop(), m.call())),
        (pickle.BUILD, _Machine.set_state),
        (pickle.BINPERSID, _Machine.find_storage),
        (pickle.BINPUT, lambda m: m.remember(m.number(1))),
        (pickle.LONG_BINPUT, lambda m: m.remember(m.number(4))),
        (pickle.MEMOIZE, _Machine.remember_next),
        (pickle.BINGET, lambda m: m.recall(m.number(1))),
        (pickle.LONG_BINGET, lambda m: m.recall(m.number(4))),
    )
}
"""The opcodes with which protocols 2 to 5 write plain data and what torch saves, except those that claim memory."""
