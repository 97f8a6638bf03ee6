"""Runs one block of the seed's document in this interpreter and folder, and checks that what it says happens.

    run_document_block.py            prints how many blocks there are
    run_document_block.py NUMBER     runs that one, counted from 1; prints its first line, and why where it isn't run

`test_seed_document.py` runs it in embedded mode, `tests/tests/python.rs` under `sentinel run`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import subprocess
import sys
from collections import Counter
from typing import Any

from _document import DOCUMENT, Block, blocks
from _document_blocks import SETTINGS, Setting
from _document_checks import Ran


def keyed(found: list[Block]) -> dict[str, Block]:
    """Each block by its first line, and the second of that line by `…(2)` behind it."""
    seen: Counter[str] = Counter()
    named = {}
    for block in found:
        seen[block.first_line] += 1
        count = seen[block.first_line]
        named[block.first_line if count == 1 else f"{block.first_line}…({count})"] = block
    return named


def run(block: Block, setting: Setting) -> None:
    if setting.not_run:
        print(f"not run, as {setting.not_run}")
        return
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = Ran(block, names)
    for source in setting.fillers.values():
        exec(source, names)
    setting.before(ran)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if block.language == "python":
            _run_python(block.text, names)
        elif block.language == "shell":
            subprocess.run(["/bin/sh", "-ec", block.text], check=True)
    ran.printed = printed.getvalue()
    setting.after(ran)


def _run_python(source: str, names: dict[str, Any]) -> None:
    """As a program does; one that awaits outside of any function, as a notebook does."""
    code = compile(source, "<document>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    started = eval(code, names)
    if started is not None:
        asyncio.run(started)


def main(arguments: list[str]) -> None:
    found = keyed(blocks(DOCUMENT.read_text(encoding="utf-8")))
    if not arguments:
        print(len(found))
        return
    first_line, block = list(found.items())[int(arguments[0]) - 1]
    settings = {setting.first_line: setting for setting in SETTINGS}
    print(first_line, flush=True)
    run(block, settings[first_line])


if __name__ == "__main__":
    main(sys.argv[1:])
