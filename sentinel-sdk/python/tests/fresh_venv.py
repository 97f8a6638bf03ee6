"""The built wheel in a fresh virtual environment: without Rust, without an index, without anything else installed."""

from __future__ import annotations

import json
import shutil
import unittest

from _document import DOCUMENT, blocks
from _venv import Environment, wheel


class FreshEnvironment(unittest.TestCase):
    environment: Environment

    @classmethod
    def setUpClass(cls) -> None:
        cls.environment = Environment()
        cls.addClassCleanup(cls.environment.close)

    def printed(self, *arguments: str) -> str:
        finished = self.environment.run(*arguments)
        self.assertEqual(finished.returncode, 0, finished.stdout + finished.stderr)
        return finished.stdout

    def test_one_wheel_serves_every_python_from_3_9_on(self) -> None:
        self.assertRegex(wheel().name, r"^sentinel_agent_sdk-[0-9.]+-cp39-abi3-(many)?linux_.*x86_64\.whl$")

    def test_the_documents_quick_start_runs_and_is_on_the_ledger(self) -> None:
        quick_start = next(block for block in blocks(DOCUMENT.read_text(encoding="utf-8")) if block.first_line == "from agent_sentinel import guarded_action")
        self.assertIn("search_web(", quick_start.text)
        program = self.environment.work / "quick_start.py"
        program.write_text(f"def call_search_api(query): return ['a', 'b']\n\n{quick_start.text}\nprint(response)\n", encoding="utf-8")
        for compiler in ("cargo", "rustc", "cc", "gcc", "maturin"):
            self.assertIsNone(self.environment.which(compiler))

        self.assertEqual(self.printed("quick_start.py"), "{'results': ['a', 'b'], 'count': 2}\n")

        ledger = (self.environment.work / ".agent-sentinel" / "ledger.jsonl").read_text(encoding="utf-8")
        lines = [line for line in map(json.loads, ledger.splitlines()) if line["action"] == "search_tool"]
        self.assertEqual([line["outcome"] for line in lines], ["started", "success"])
        keys = ["id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload"]
        self.assertEqual(list(lines[1])[: len(keys)], keys)
        self.assertEqual((lines[1]["cost_usd"], lines[1]["tags"]), (0.01, ["search", "api"]))
        self.assertEqual(lines[1]["payload"]["outputs"], {"results": ["a", "b"], "count": 2})

    def test_pip_shows_it_under_its_name_with_licence_and_no_dependencies(self) -> None:
        shown = dict(line.split(": ", 1) for line in self.printed("-m", "pip", "show", "sentinel-agent-sdk").splitlines() if ": " in line)
        version = self.printed("-c", "import agent_sentinel; print(agent_sentinel.__version__)").strip()
        self.assertEqual((shown["Name"], shown["Version"], shown["License"]), ("sentinel-agent-sdk", version, "MIT"))
        self.assertEqual(shown["Requires"], "")

    def test_type_checkers_are_told_that_it_is_typed(self) -> None:
        self.assertTrue((self.environment.packages / "agent_sentinel" / "py.typed").is_file())
        self.assertTrue((self.environment.packages / "agent_sentinel" / "_native.pyi").is_file())

    def test_beside_agentsentinels_own_package_it_says_what_to_do(self) -> None:
        other = self.environment.packages / "agentsentinel_sdk-0.4.0.dist-info"
        other.mkdir()
        self.addCleanup(shutil.rmtree, other, ignore_errors=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: agentsentinel-sdk\nVersion: 0.4.0\n", encoding="utf-8")
        refused = self.environment.run("-c", "import agent_sentinel")
        self.assertEqual(refused.returncode, 1)
        self.assertRegex(refused.stderr, r"ImportError: `agentsentinel-sdk` 0\.4\.0 is installed beside .*`pip uninstall agentsentinel-sdk`, then `pip install ")
        shutil.rmtree(other)
        self.printed("-c", "import agent_sentinel")
