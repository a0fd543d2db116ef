"""Reads weights for frames as the 2023 extension and Deforum write them: `0:(t/max_i_f), "max_i_f":(1)`.

Each entry is a frame and, in parentheses, a value. Between plain numbers values are interpolated; an expression holds
until the next entry. The last value is held. Expressions know `t` (the frame's number), `max_f` (the last frame's),
`max_i_f` (the last held frame's) and `s` (the seed). They are parsed, never executed.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping

from ..errors import RequestError

LONGEST = 1000
"""Maximum length of a text in characters."""
DEEPEST = 50
"""Maximum depth of an expression."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_OPERATIONS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else math.inf,
    ast.Mod: lambda a, b: math.fmod(a, b) if b else math.nan,
    ast.Pow: math.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "abs": abs, "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "sin": math.sin, "cos": math.cos, "tan": math.tan,
    "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan, "tanh": math.tanh, "floor": math.floor,
    "ceil": math.ceil,
}  # fmt: skip
Values = Mapping[str, float]


def read_weights(text: str, frames: int, held: int, seed: int) -> list[float]:
    """Return a weight for each frame. Raises RequestError, which says what is wrong with the text.

    Args:
        text: The weights, as above.
        frames: Number of frames.
        held: Number of frames that may be held; `max_i_f` is one less.
        seed: The video's seed.
    """
    if len(text) > LONGEST:
        raise RequestError(f"The weights are longer than {LONGEST} characters.")
    known = {"max_f": frames - 1.0, "max_i_f": held - 1.0, "s": float(seed)}
    entries = {_frame(frame, known): value for frame, value in _split(text)}
    if 0 not in entries:
        raise RequestError(f"The weights {text!r} do not begin with frame 0. Begin them with 0:(...).")
    return _fill(entries, frames, known)


def _frame(text: str, known: Values) -> int:
    number = _evaluate(text, known)
    if not math.isfinite(number):
        raise RequestError(f"The frame {text!r} in the weights is no number of a frame.")
    return int(number)


def _split(text: str) -> list[tuple[str, str]]:
    """Return the entries of a text, as frame and value."""
    entries, rest = [], text.strip()
    while rest:
        frame, colon, after = rest.partition(":")
        end = _find_end(after.lstrip()) if colon else 0
        if not end:
            raise RequestError(f"The weights {text!r} cannot be read at {rest[:40]!r}. Write them like 0:(0), 8:(1).")
        after = after.lstrip()
        entries.append((frame.strip().strip("\"'"), after[1 : end - 1]))
        rest, comma, more = after[end:].strip().partition(",")
        if rest or (comma and not more.strip()):
            raise RequestError(f"The weights {text!r} have something wrong after {after[:end]!r}.")
        rest = more.strip()
    return entries


def _find_end(text: str) -> int:
    """Return where the parenthesis that a text begins with is closed, exclusive; 0 if it does not or is not."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return place + 1 if place else 0
    return 0


def _fill(entries: Mapping[int, str], frames: int, known: Values) -> list[float]:
    """Return a value for each frame from those of the entries, by frame."""
    found: dict[int, float] = {}
    value = ""
    for frame in range(frames):
        value = entries.get(frame, value)
        if frame in entries or not _NUMBER.fullmatch(value.strip()):
            found[frame] = _evaluate(value, {**known, "t": float(frame)})
    if any(math.isnan(value) for value in found.values()):
        raise RequestError(f"The expression {value!r} in the weights has no value in some frame.")
    given = sorted(found)
    return [_interpolate(found, given, frame) for frame in range(frames)]


def _interpolate(found: Mapping[int, float], given: list[int], frame: int) -> float:
    before = max(one for one in given if one <= frame)
    after = min((one for one in given if one >= frame), default=before)
    share = (frame - before) / (after - before) if after > before else 0.0
    return found[before] + share * (found[after] - found[before]) if share else found[before]


def _evaluate(text: str, known: Values) -> float:
    try:
        return _compute(ast.parse(text.strip(), mode="eval").body, known, 0)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError, TypeError) as error:
        raise RequestError(f"The expression {text!r} in the weights cannot be computed: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return "it is no formula" if isinstance(error, SyntaxError) else str(error)


def _compute(node: ast.AST, known: Values, depth: int) -> float:
    """Return the value of a parsed expression. Raises ValueError for anything but arithmetic with known names."""
    if depth > DEEPEST:
        raise ValueError("it is too deep")
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_compute(left, known, depth + 1), _compute(right, known, depth + 1))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_compute(operand, known, depth + 1))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](_compute(argument, known, depth + 1)))
    names = ", ".join([*known, *_FUNCTIONS])
    raise ValueError(f"only numbers, + - * / % **, and these names may be in it: {names}")
