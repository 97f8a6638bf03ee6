"""What the kernel refused while a body ran, told with the error that came of it.

Under `sentinel run` a connect that no open door lets through fails with `EPERM`, often deep inside a library. Whoever reads the traceback
learns here what was tried and which line of the policy would allow it.

Invariant: explaining never changes which error is raised, and never keeps it from being raised.
"""

from __future__ import annotations

import errno
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from . import _native
from ._runtime import runtime

# A question takes some time to reach the agent, which counts back from then.
_ON_ITS_WAY = 0.05
# Errors wrap each other; one that wraps itself isn't followed for ever.
_MOST_DEPTH = 20


class KernelDenial(NamedTuple):
    """What was refused."""

    # For `sentinel why`.
    id: str
    # What was tried, and what became of it.
    attempt: str
    fate: str
    # The policy text that would allow it.
    would_allow: Optional[str]

    def __str__(self) -> str:
        why = f"; `sentinel why {self.id}` tells more" if self.id else ""
        allow = f"; the policy would allow it with\n{textwrap.indent(self.would_allow, '  ')}" if self.would_allow else ""
        return f"sentinel: {self.attempt} was {self.fate}{why}{allow}"


def explain(error: BaseException, since: _native.Guard) -> list[KernelDenial]:
    """What was refused since that action began, where that may be the error's cause. Notes it on the error as `kernel_denials`, and in
    its traceback."""
    agent = runtime.agent()
    if agent is None or not any(_is_refusal(one) for one in _chain(error)):
        return []
    try:
        found = agent.kernel_denials(since.seconds() + _ON_ITS_WAY)
    except _native.Refused:
        return []
    denials = [KernelDenial(*denial) for denial in found]
    try:
        error.kernel_denials = denials  # type: ignore[attr-defined]
        for denial in denials:
            # From Python 3.11 on.
            getattr(error, "add_note", _nowhere)(str(denial))
    except Exception:  # an error with slots, or one that forbids it
        pass
    return denials


def _nowhere(_note: str) -> None:
    """Older exceptions take no notes."""


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPERM


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, those that it came of, and those that it was made of: libraries do all three."""
    waiting: list[Any] = [error]
    for _ in range(_MOST_DEPTH):
        if not waiting:
            return
        one = waiting.pop(0)
        yield one
        made_of = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting.extend(inner for inner in made_of if isinstance(inner, BaseException))
