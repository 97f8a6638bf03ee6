"""Finds the code in the seed's document, which is plain text: nothing there marks where code begins and ends.

Invariant: a block is what stands there, byte for byte, and a line that looks like code and is in no block is found by `looks_like_code`.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

DOCUMENT = Path(__file__).resolve().parent / "data" / "seed-document.txt"

# No block of the document has more paragraphs.
MOST_PARAGRAPHS = 12

_COMMANDS = ("pip", "git", "cd", "uv", "mv", "gzip")
_YAML = re.compile(r"\s*(- \w+|\w+:( \S+)?)")
_CODE = re.compile(r"\s*(#|@\w|import |from \S+ import |def |async def |class |print\(|[\w.]+ ?= |[\w.]+\(|[\w.]+ -|[{}\[\]]|- \w+$)|.*[:=] ?[\[{(]$")


@dataclass(frozen=True)
class Block:
    """A piece of code, and in which language it is."""

    language: str
    text: str
    # Counted from 1, as editors do.
    line: int

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]


def blocks(document: str) -> list[Block]:
    """All blocks, in the document's order."""
    return [part for part in _parts(document) if part.language != "prose"]


def looks_like_code(document: str) -> list[str]:
    """Lines outside of every block that look like some."""
    prose = [part for part in _parts(document) if part.language == "prose"]
    return [line for part in prose for line in part.text.splitlines() if _CODE.match(line)]


def _parts(document: str) -> list[Block]:
    paragraphs = _paragraphs(document)
    parts = []
    index = 0
    while index < len(paragraphs):
        # The longest that is one language: a function goes on behind an empty line.
        for count in range(min(MOST_PARAGRAPHS, len(paragraphs) - index), 0, -1):
            text = "\n\n".join(paragraph for _, paragraph in paragraphs[index : index + count])
            language = _language(text)
            if language is not None:
                break
        else:
            count, language = 1, "prose"
            text = paragraphs[index][1]
        parts.append(Block(language, text, paragraphs[index][0]))
        index += count
    return parts


def _paragraphs(document: str) -> list[tuple[int, str]]:
    """What stands between empty lines, with the line that it begins in."""
    found: list[tuple[int, list[str]]] = []
    is_open = False
    for number, line in enumerate(document.splitlines(), 1):
        if not line.strip():
            is_open = False
        elif is_open:
            found[-1][1].append(line)
        else:
            found.append((number, [line]))
            is_open = True
    return [(number, "\n".join(lines)) for number, lines in found]


def _language(text: str) -> Optional[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines[0] == "{":
        return "json" if _is_json(text) else None
    commands = [line for line in lines if not line.startswith("#")]
    if commands and all(line.split()[0] in _COMMANDS for line in commands):
        return "shell"
    if all(_YAML.fullmatch(line) for line in lines):
        # A heading like `Parameters:` has nothing below it.
        return "yaml" if len(lines) > 1 or ": " in text else None
    return "python" if _is_python(text) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_python(text: str) -> bool:
    """Whether it is a program. A heading of one word would be one too, so an expression has to do something."""
    try:
        module = compile(text, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return False
    if not isinstance(module, ast.Module) or not module.body:
        return False
    return all(isinstance(one.value, (ast.Call, ast.Await)) for one in module.body if isinstance(one, ast.Expr))
