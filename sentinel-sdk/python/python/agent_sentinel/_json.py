"""What goes to the ledger as JSON text: never an exception, whatever a program is called with.

Invariant: a value that JSON has no form for leaves a text in its place; nothing else is lost with it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any

from . import _native

# Deeper nesting is cut: the ledger's readers have a limit too.
MOST_DEPTH = 100
# A text that stands for a value is no longer than this.
MOST_TEXT = 8192
# A whole number beyond is written as a text: Python may have no digits for it, and readers no room.
MOST_BITS = 1024

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")
# Half a character, as in the name of a file that is no UTF-8. Only Python reads it back.
_HALF = re.compile("[\ud800-\udfff]")


def encoded(value: Any) -> str:
    """The JSON text of a value."""
    text = _native.json(value)
    return _encoded(value) if text is None else text


def encoded_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The JSON text of what a function is called with."""
    text = _native.json_of_call(args, kwargs)
    return _encoded({"args": args, "kwargs": kwargs}) if text is None else text


def _encoded(value: Any) -> str:
    """The same, for what isn't plain."""
    try:
        text = _ENCODER.encode(value)
    except Exception:  # a cycle, a key that is no text, NaN, a property that raises: one value at a time, then
        text = _ENCODER.encode(_plain(value, 0, ()))
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def _other(value: Any) -> Any:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return _in_order(value)
    return _text(value)


def _in_order(items: Any) -> list[Any]:
    """The same for the same items, whatever order this process hashes them in: a replay compares them."""
    return sorted(items, key=lambda item: (type(item).__name__, _text(item)))


def _text(value: Any) -> str:
    try:
        text = str(value)
    except BaseException as error:  # even a `KeyboardInterrupt` from a broken `__str__` is that value's doing
        text = f"<{type(value).__name__}: its text can't be made: {type(error).__name__}>"
    # Where an object is says nothing of it, and a replay would find it elsewhere.
    text = _ADDRESS.sub(">", text)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def _plain(value: Any, depth: int, around: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MOST_BITS else _text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if id(value) in around:
        return "<it holds itself>"
    if depth >= MOST_DEPTH:
        return "<too deep>"
    inside = (*around, id(value))
    try:
        if isinstance(value, dict):
            return {
                key if isinstance(key, str) else _text(key): _plain(item, depth + 1, inside)
                for key, item in value.items()
            }
        if isinstance(value, (set, frozenset)):
            value = _in_order(value)
        if isinstance(value, (list, tuple)):
            return [_plain(item, depth + 1, inside) for item in value]
        return _other(value)
    except Exception as error:
        return f"<{type(value).__name__}: it can't be read: {type(error).__name__}>"


# Made once: `json.dumps` makes one for each call that isn't the simplest.
_ENCODER = json.JSONEncoder(default=_other, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
