"""Numbers on a command line: what they may be is said where they are read."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """Return a positive whole number, or refuse the text."""
    return _at_least(1, text, "a positive whole number")


def whole(text: str) -> int:
    """Return a whole number from 0 on, as seeds are, or refuse the text."""
    return _at_least(0, text, "a whole number from 0 on")


def duration(text: str) -> float:
    """Return a time [s] that takes some, or refuse the text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _at_least(least: int, text: str, what: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
