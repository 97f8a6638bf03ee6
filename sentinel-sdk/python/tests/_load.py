"""Makes the package's pure modules importable where its compiled one isn't built: import this first.

The package's `__init__` imports `agent_sentinel._native`. Where that fails, a bare package stands in, which has the path alone.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "python"


def load() -> None:
    """After this, `import agent_sentinel.sync` works."""
    try:
        importlib.import_module("agent_sentinel")
        return
    except ImportError:
        pass
    if str(SOURCE) not in sys.path:
        sys.path.insert(0, str(SOURCE))
    for name in [name for name in sys.modules if name.split(".")[0] == "agent_sentinel"]:
        del sys.modules[name]
    package = types.ModuleType("agent_sentinel")
    package.__path__ = [str(SOURCE / "agent_sentinel")]
    sys.modules["agent_sentinel"] = package


load()
