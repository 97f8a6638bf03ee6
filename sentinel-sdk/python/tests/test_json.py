"""The compiled half makes the very text that `json.dumps` makes, of plain values, and leaves all others to the package."""

from __future__ import annotations

import enum
import json
import math
import random
import unittest
from typing import Any

from agent_sentinel import _native
from agent_sentinel._json import encoded, encoded_call


def dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


class Word(str):
    pass


class Level(enum.IntEnum):
    HIGH = 3


class Json(unittest.TestCase):
    def test_plain_values_have_the_text_of_json_dumps(self) -> None:
        characters = "".join(map(chr, [*range(0x100), 0x2028, 0x20AC, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF]))
        numbers = [0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, 0.1, 1e16, 1e22, -2.5e-7, 5e-324, 1.7976931348623157e308, 123456789.125]
        for value in [None, True, False, "", characters, [], {}, (), [[]], {"": {}}, (1, (2,)), *characters, *numbers]:
            self.assertEqual(_native.json(value), dumped(value), repr(value))

    def test_values_made_at_random_have_the_text_of_json_dumps(self) -> None:
        chance = random.Random(7)

        def made(depth: int) -> Any:
            kind = chance.randrange(9 if depth < 4 else 6)
            if kind == 0:
                return chance.choice([None, True, False])
            if kind < 3:
                return chance.randrange(-(2**63), 2**63)
            if kind == 3:
                return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-30, 30)
            if kind < 6:
                return "".join(chr(chance.choice([chance.randrange(0xD800), chance.randrange(0x80)])) for _ in range(chance.randrange(9)))
            items = [made(depth + 1) for _ in range(chance.randrange(5))]
            if kind == 6:
                return items
            return tuple(items) if kind == 7 else {f"{chance.random()}": item for item in items}

        for _ in range(2_000):
            value = made(0)
            self.assertEqual(_native.json(value), dumped(value), repr(value))

    def test_a_call_has_the_text_of_its_arguments(self) -> None:
        for args, kwargs in [((), {}), ((1, "ä"), {"key": [None], "other": {"a": 1.5}})]:
            self.assertEqual(_native.json_of_call(args, kwargs), dumped({"args": args, "kwargs": kwargs}))
            self.assertEqual(encoded_call(args, kwargs), dumped({"args": args, "kwargs": kwargs}))

    def test_what_isnt_plain_is_left_to_the_package_and_still_has_a_text(self) -> None:
        deep: Any = "end"
        for _ in range(50):
            deep = [deep]
        itself: list[Any] = []
        itself.append(itself)
        strange = [Word("word"), Level.HIGH, 2**63, math.nan, math.inf, "\ud800", {1: 2}, {Word("key"): 1}, {1, 2}, b"bytes", object(), deep, itself]
        for value in strange:
            for around in (value, [value], (value,), {"key": value}):
                self.assertIsNone(_native.json(around), repr(value))
                self.assertIsNone(_native.json_of_call((around,), {}))
                json.loads(encoded(around))
                json.loads(encoded_call((), {"key": around}))

    def test_a_subclass_is_written_as_json_dumps_writes_it(self) -> None:
        for value in (Word("word"), Level.HIGH, {Word("key"): Level.HIGH}, 2**80):
            self.assertEqual(encoded(value), dumped(value))


if __name__ == "__main__":
    unittest.main()
