"""The folder that holds an agent's ledger, and how a small file in it is written so that it is never half there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    # With much of the standard library behind it: imported when a file is first named.
    from pathlib import Path

PathLike = Union[str, "os.PathLike[str]"]


def home_folder(given: Optional[PathLike] = None) -> Path:
    """The one that is given, else `$AGENT_SENTINEL_HOME`, else `.agent-sentinel`. Absolute: the program may change its folder."""
    from pathlib import Path

    chosen = given if given is not None else os.environ.get("AGENT_SENTINEL_HOME") or ".agent-sentinel"
    return Path(chosen).absolute()


def write_durably(path: Path, content: bytes) -> None:
    """Replaces the file. Whoever reads it, even after a power cut, finds the old content or the new, whole.

    Only its owner can read it. Raises `OSError`; then the file is as it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    import tempfile

    descriptor, unready = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unready, path)
    except BaseException:
        try:
            os.unlink(unready)
        except FileNotFoundError:
            pass  # it is renamed already: what failed comes later
        raise
    _sync_folder(path.parent)


def append_durably(path: Path, line: bytes) -> None:
    """Adds a line to a file that only its owner can read. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
