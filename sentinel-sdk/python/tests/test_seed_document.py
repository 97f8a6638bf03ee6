"""Every block of code in the seed's document runs unchanged, and does what the document says of it."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import _load  # noqa: F401
from _document import DOCUMENT, Block, blocks, looks_like_code
from _document_blocks import SETTINGS
from run_document_block import keyed

from agent_sentinel import guarded_action

RUNNER = Path(__file__).resolve().parent / "run_document_block.py"
TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = keyed(blocks(TEXT))

# A heading that shows a signature.
SIGNATURE = "@guarded_action(name=None, cost_usd=0.0, tags=None)"


def _open_names(block: Block) -> set[str]:
    """The names that a block of Python uses and neither defines nor finds among the built-in ones."""
    module = compile(block.text, "<document>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    used, defined = set(), set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    return used - defined - set(vars(builtins))


class Document(unittest.TestCase):
    def test_every_block_of_the_document_has_a_setting_and_no_setting_is_without_a_block(self) -> None:
        self.assertEqual([setting.first_line for setting in SETTINGS], list(BLOCKS))

    def test_no_line_that_looks_like_code_is_outside_of_all_blocks(self) -> None:
        self.assertEqual(looks_like_code(TEXT), [SIGNATURE])

    def test_each_block_is_given_the_names_that_it_leaves_open_and_no_others(self) -> None:
        for setting in SETTINGS:
            block = BLOCKS[setting.first_line]
            names = _open_names(block) if block.language == "python" else set()
            self.assertEqual(set(setting.fillers), names, setting.first_line)

    def test_the_decorator_has_the_documented_parameters(self) -> None:
        parameters = inspect.signature(guarded_action).parameters
        documented = [f"{name}={parameters[name].default}" for name in list(parameters)[:3]]
        self.assertEqual(SIGNATURE, f"@guarded_action({', '.join(documented)})")

    def test_blocks_that_are_not_run_are_those_of_the_installation_alone(self) -> None:
        self.assertEqual([setting.first_line for setting in SETTINGS if setting.not_run], ["# Basic installation"])

    def test_every_block_does_what_the_document_says(self) -> None:
        for number, first_line in enumerate(BLOCKS, 1):
            with self.subTest(first_line), tempfile.TemporaryDirectory(prefix="sentinel-document-") as folder:
                self._run(number, first_line, folder)

    def _run(self, number: int, first_line: str, folder: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_SENTINEL_")}
        finished = subprocess.run(
            [sys.executable, str(RUNNER), str(number)], cwd=folder, env=environment, capture_output=True, text=True
        )
        self.assertEqual(finished.returncode, 0, f"{finished.stdout}{finished.stderr}")
        self.assertEqual(finished.stdout.splitlines()[0], first_line)


if __name__ == "__main__":
    unittest.main()
