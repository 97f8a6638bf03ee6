"""Who decides in this process: the host agent, where `sentinel run` named its socket, or the authority in the process itself.

In host mode the process keeps an account of its own beside the agent's, in its own folder: it is what the program can read, and what
`configure()` narrows the operator's policy with. The agent's word holds.

Invariant: whatever keeps an answer from coming is an exception; none of them is taken for an *allow*.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import _native
from ._home import home_folder
from .errors import (
    AgentSentinelError,
    BudgetExceededError,
    ConfigurationError,
    PolicyNotConfiguredError,
    PolicyViolationError,
    TimeoutError,
)

if TYPE_CHECKING:
    # With much of the standard library behind it: imported when a file is first named.
    from pathlib import Path

logger = logging.getLogger("agent_sentinel")

SOCKET = "AGENT_SENTINEL_SOCKET"
# The policy of `sentinel run --advisory`.
POLICY = "AGENT_SENTINEL_POLICY"


class Request(NamedTuple):
    """What is asked for."""

    action: str
    declared: _native.Declared
    # What it is called with, as JSON.
    inputs: str
    # What else is to be recorded, as JSON.
    annotations: Optional[str] = None


class Runtime:
    """The clients of this process, made when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: Optional[_native.Client] = None
        self._agent: Optional[_native.Client] = None
        self._policy: Optional[tuple[str, str]] = None
        self._failed: Optional[str] = None
        self._warned = False
        self._has_read_environment = False
        self._instead: Optional[Path] = None
        # Once something was asked of it, and no agent was there: nobody else is looked for again.
        self._is_alone = False
        # Who is asked, without anything to look up or to check first: the authority in this process, and the agent where there is one. None where
        # they have not decided before, or no policy holds. Kept, as it is asked for with every call.
        self.deciders: tuple[Optional[_native.Client], Optional[_native.Client]] = (None, None)

    def own(self) -> _native.Client:
        """The authority in this process. `$AGENT_SENTINEL_HOME` is read once, when it is first needed."""
        client = self._own
        if client is None:
            self._read_environment()
            with self._lock:
                if self._own is None:
                    made = _native.Client.embedded(str(self.home()))
                    if self._failed is not None:
                        made.fail_policy(self._failed)
                    elif self._policy is not None:
                        made.set_policy(*self._policy)
                    self._is_alone = self.agent() is None
                    self._own = made
                    self._note_deciders()
                client = self._own
        return client

    def _note_deciders(self) -> None:
        """Whatever they depend on has changed."""
        holds = self._failed is None and not (self._is_alone and self._policy is None)
        self.deciders = (self._own, self._agent) if holds else (None, None)

    def home(self) -> Path:
        """The folder of this process's own account.

        A session's user often can't write where the program is. There the account is for the program alone, as the agent has its
        own: so it goes where it can, rather than keep every action from running.
        """
        home = home_folder()
        if self.agent() is None or _can_be_written(home):
            return home
        if self._instead is None:
            import tempfile
            from pathlib import Path

            self._instead = Path(tempfile.mkdtemp(prefix="agent-sentinel-"))
            # The agent's ledger is the one that stays.
            atexit.register(_removed, self._instead, os.getpid())
            logger.warning(
                "`%s` can't be written by this user; this program's own ledger is in `%s` until it ends", home, self._instead
            )
        return self._instead

    def agent(self) -> Optional[_native.Client]:
        """The host agent, where there is one."""
        if self._agent is None and not self._is_alone:
            socket = os.environ.get(SOCKET)
            if not socket:
                return None
            self._agent = _native.Client.host(socket)
            self._note_deciders()
        return self._agent

    def set_policy(self, name: str, text: Optional[str]) -> None:
        """Decides by this policy from now on; without a text by none. Raises `ConfigurationError`; then nothing may start."""
        with self._lock:
            # Checked where it can't have an effect, also before there is a ledger.
            try:
                (self._own or _native.Client.embedded(str(self.home()))).set_policy(name, text)
            except _native.Refused as refused:
                self._fail(_message(refused))
                raise ConfigurationError(_message(refused)) from None
            self._policy = None if text is None else (name, text)
            self._failed = None
            self._note_deciders()

    def summary_of(self, name: str, text: str) -> str:
        """What a policy says, as JSON, without putting it in force. Raises `ConfigurationError`."""
        try:
            apart = _native.Client.embedded(str(self.home()))
            apart.set_policy(name, text)
            return apart.policy_summary()
        except _native.Refused as refused:
            raise ConfigurationError(_message(refused)) from None

    def failure(self) -> Optional[str]:
        """Why nothing may start, where a policy could not be read."""
        self._read_environment()
        return self._failed

    def fail_policy(self, cause: str) -> None:
        """Lets nothing start from now on: there is a policy, but nobody knows what it says."""
        with self._lock:
            self._fail(cause)

    def _fail(self, cause: str) -> None:
        self._failed, self._policy = cause, None
        self._note_deciders()
        if self._own is not None:
            self._own.fail_policy(cause)

    def _read_environment(self) -> None:
        """Takes the policy that the environment names, where the program has none of its own and nobody else decides."""
        if self._has_read_environment:
            return
        self._has_read_environment = True
        path = os.environ.get(POLICY)
        if not path or self._policy is not None or self._failed is not None or self.agent() is not None:
            return
        try:
            from pathlib import Path

            self.set_policy(path, Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            self.fail_policy(f"the policy `{path}`, which `${POLICY}` names, can't be read: {error}")
        except ConfigurationError as error:
            # Nothing may start; each action says why.
            logger.error("%s", error)

    def is_configured(self) -> bool:
        """Whether a policy of this process decides."""
        self._read_environment()
        return self._policy is not None

    def warn_once(self) -> None:
        """Says that nothing is decided where nobody has said what may run."""
        if self._warned or not self.is_unconfigured():
            return
        self._warned = True
        logger.warning(
            "no policy: every action is allowed and recorded; call `PolicyEngine.configure(...)` or "
            "`PolicyEngine.load_from_yaml(...)`, or start the program with `sentinel run`"
        )

    def is_unconfigured(self) -> bool:
        """Whether nobody has said what may run."""
        self._read_environment()
        return self._policy is None and self._failed is None and self.agent() is None

    def begin(self, request: Request, check: Optional[Callable[[], object]] = None) -> _native.Guard:
        """Lets an action start, or raises what keeps it from that. `check` comes last, and may still raise: then it is recorded as one
        that never ran."""
        self.warn_once()
        agent = self.agent()
        if self._failed is not None:
            self._record_refusal(request)
            raise PolicyNotConfiguredError(
                f"action `{request.action}` denied: no policy holds, so nothing may start: {self._failed}; "
                "configure one that is right, or correct its file and load it again"
            )
        declared, inputs, annotations = request.declared, request.inputs, request.annotations
        try:
            own = self.own().begin(declared, inputs, annotations)
            if check is not None:
                _checked(own, check)
            return own if agent is None else agent.agree(own, declared, inputs, annotations)
        except _native.Refused as refused:
            raise told(refused) from None

    def _record_refusal(self, request: Request) -> None:
        """Where nobody knows what the policy says, the authority in this process lets nothing start, and says so in the ledger, if it can."""
        try:
            begun = self.own().begin(request.declared, request.inputs, request.annotations)
        except _native.Refused:
            return
        # Another thread has set a policy that is right, a moment ago.
        begun.abort("no policy held when it was asked for")


def _checked(own: _native.Guard, check: Callable[[], object]) -> None:
    try:
        check()
    except BaseException as error:
        own.abort(str(error) or type(error).__name__)
        raise


def _removed(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # and not a child that it has forked
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _message(refused: _native.Refused) -> str:
    return str(refused.args[1])


def told(refused: _native.Refused) -> AgentSentinelError:
    """The exception that a program knows, for a refusal."""
    code, message, text = refused.args
    details: dict[str, Any] = json.loads(text)
    remediation = details.pop("remediation", None)
    if code == "BUDGET_EXCEEDED":
        return BudgetExceededError(
            message,
            spent=details.get("spent"),
            limit=details.get("limit"),
            budget_type=details.get("budget_type"),
            details=details,
            remediation=remediation,
        )
    if code == "APPROVAL_EXPIRED":
        return TimeoutError(message, details={**details, "remediation": remediation})
    return PolicyViolationError(message, details=details, remediation=remediation, reason_code=code)


runtime = Runtime()


def _renew_lock() -> None:
    """In a forked child: it may be held by a thread that isn't there."""
    runtime._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
