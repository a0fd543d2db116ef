"""Frees the memory that caught errors hold: their frames would keep the model and its activations alive."""

import traceback


def forget_frames(error: BaseException) -> None:
    """Clear the variables in the frames of an error and of its causes; the traceback can still be printed."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            left += [before for before in (one.__cause__, one.__context__) if before]
