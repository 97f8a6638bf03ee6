"""A virtual environment with the built wheel in it, made as a user makes one, and without anything else of this machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional


def wheel() -> Path:
    """The wheel that `cargo xtask test` has built."""
    (found,) = Path(os.environ["SENTINEL_PYTHON_WHEELS"]).glob("*.whl")
    return found


class Environment:
    """An environment, an empty home and an empty folder to work in. To be closed."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sentinel-fresh-venv-"))
        self.work = self.folder / "work"
        for empty in (self.work, self.folder / "home"):
            empty.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(self.folder / "venv")], check=True, env=self._environment())
        self.python = self.folder / "venv" / "bin" / "python"
        self.run("-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", str(wheel())).check_returncode()
        (self.packages,) = (self.folder / "venv" / "lib").glob("python3*/site-packages")

    def _environment(self) -> dict[str, str]:
        # Not even /usr/bin: a distribution's own compilers are there.
        return {"PATH": str(self.folder / "venv" / "bin"), "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Its interpreter with these arguments, in the folder to work in."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.work,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def which(self, program: str) -> Optional[str]:
        """Where its programs would find another one."""
        return shutil.which(program, path=self._environment()["PATH"])

    def close(self) -> None:
        shutil.rmtree(self.folder)
