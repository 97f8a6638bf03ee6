"""What a type checker makes of the installed package in a user's program."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import unittest
from pathlib import Path

from _venv import Environment

PROGRAM = Path(__file__).resolve().parent / "data" / "user_program.py"

# Each line is wrong in its own way.
WRONG = """
from agent_sentinel import CostTracker, guarded_action

@guarded_action(cost_usd="1")
def priced() -> int:
    return 1

@guarded_action(name="search", tags=["web"])
def search(query: str) -> list[str]:
    return [query]

search(1)
number: int = search("word")
CostTracker.get_totals()
"""


class Stubs(unittest.TestCase):
    environment: Environment

    @classmethod
    def setUpClass(cls) -> None:
        cls.environment = Environment()
        cls.addClassCleanup(cls.environment.close)

    def checked(self, program: Path) -> subprocess.CompletedProcess[str]:
        tools = os.environ["SENTINEL_PYTHON_TOOLS"]
        mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--python-version", "3.9", "--cache-dir"]
        cache, python = os.path.join(tools, "cache-of-stubs"), str(self.environment.python)
        return subprocess.run(
            [*mypy, cache, "--python-executable", python, str(program)],
            cwd=self.environment.work,
            env={**os.environ, "PYTHONPATH": tools},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def test_a_program_that_uses_all_of_it_is_strictly_typed(self) -> None:
        checked = self.checked(PROGRAM)
        self.assertEqual((checked.returncode, checked.stdout), (0, ""))

    def test_a_program_that_uses_it_wrongly_is_told_each_line(self) -> None:
        program = self.environment.work / "wrong.py"
        program.write_text(WRONG, encoding="utf-8")
        told = [line.split(":")[1] for line in self.checked(program).stdout.splitlines() if ": error:" in line]
        self.assertEqual(told, ["4", "12", "13", "14"])

    def test_that_program_uses_every_public_name(self) -> None:
        public = self.environment.run("-c", "import agent_sentinel; print(*agent_sentinel.__all__)").stdout.split()
        self.assertGreater(len(public), 30)
        used = {node.id for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
        self.assertEqual(set(public) - used, set())
