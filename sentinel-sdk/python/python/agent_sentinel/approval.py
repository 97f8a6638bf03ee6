"""A human's word on single actions, where a program asks for it itself.

The operator's word on a host is `sentinel approvals`. This is for programs that ask their own user: a handler says yes or no.

Invariant: no handler, a handler that fails, or any answer but *approved* keeps the action from running.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _native
from ._runtime import Request, runtime, told
from .errors import AgentSentinelError, PolicyViolationError

if TYPE_CHECKING:
    # Only programs that use it have to wait for its import.
    import asyncio


class ApprovalStatus(str, enum.Enum):
    """What became of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


def _new_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@dataclass
class ApprovalRequest:
    """What a human is asked."""

    action_name: str
    action_description: str
    inputs: dict[str, Any]
    estimated_cost: float
    risk_level: str = "minimal"
    timeout_seconds: float = 300
    request_id: str = field(default_factory=_new_id)
    created_at: datetime.datetime = field(default_factory=_now)


@dataclass
class ApprovalResponse:
    """What the human says."""

    request_id: str
    status: ApprovalStatus
    approver_id: Optional[str] = None
    approver_email: Optional[str] = None
    notes: Optional[str] = None
    approved_at: Optional[datetime.datetime] = None


Handler = Callable[[ApprovalRequest], ApprovalResponse]
AsyncHandler = Callable[[ApprovalRequest], Awaitable[ApprovalResponse]]

# Where an async action asks: its handler runs on that loop, while the action waits in a thread.
_loop: ContextVar[Optional[asyncio.AbstractEventLoop]] = ContextVar("agent_sentinel_loop", default=None)


@contextmanager
def handlers_run_on(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """What is begun inside asks an async handler on this loop."""
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)


class HumanApprovalHandler:
    """Who is asked in this process. An async action asks the async handler, if there is one; any other the plain one."""

    _handler: Optional[Handler] = None
    _async_handler: Optional[AsyncHandler] = None

    @classmethod
    def set_approval_handler(cls, handler: Optional[Handler]) -> None:
        """Asks this function from now on; none: nobody."""
        cls._handler = handler

    @classmethod
    def set_async_approval_handler(cls, handler: Optional[AsyncHandler]) -> None:
        """Asks this coroutine function from now on, for async actions; none: the plain handler."""
        cls._async_handler = handler

    @classmethod
    def ask(cls, request: ApprovalRequest) -> ApprovalResponse:
        """The human's word. Raises `PolicyViolationError` where there is nobody, or the word is no *approved*."""
        loop = _loop.get()
        if loop is not None and cls._async_handler is not None:
            import asyncio

            response = asyncio.run_coroutine_threadsafe(_awaited(cls._async_handler, request), loop).result()
        elif cls._handler is not None:
            response = cls._handler(request)
        else:
            raise PolicyViolationError(
                f"`{request.action_name}` needs a human's word, and nobody is there to give it; "
                "set one with `HumanApprovalHandler.set_approval_handler(...)`",
                reason_code="NO_APPROVER",
            )
        if not isinstance(response, ApprovalResponse):
            raise PolicyViolationError(
                f"`{request.action_name}` needs a human's word, and the approval handler answered `{type(response).__name__}`; "
                "let it return an `ApprovalResponse`",
                reason_code="APPROVAL_REJECTED",
            )
        if response.status is not ApprovalStatus.APPROVED:
            raise PolicyViolationError(
                f"Human approval required but status is: {response.status}",
                details={"asked": True, "notes": response.notes, "approver_email": response.approver_email},
                reason_code="APPROVAL_REJECTED",
            )
        return response


async def _awaited(handler: AsyncHandler, request: ApprovalRequest) -> ApprovalResponse:
    return await handler(request)


def asked(
    request: Request,
    shown: ApprovalRequest,
    waits_for_others: bool,
    check: Optional[Callable[[], object]],
) -> tuple[_native.Guard, Optional[ApprovalResponse]]:
    """Lets an action start, with a human's word where the policy or the program wants one; answers that word.

    The policy is asked first: nobody is asked about what it denies anyway. Where nobody outside is waited for, it is this process's handler that is
    asked.
    """
    try:
        return runtime.begin(request, check), None
    except PolicyViolationError as error:
        approval = error.details.get("approval")
        is_ours = error.reason_code == "APPROVAL_NEEDED" and error.details.get("decided_by") != "host"
        if waits_for_others or not is_ours or approval is None:
            raise
    response = _decide(str(approval), shown)
    return runtime.begin(request, check), response


def _decide(approval: str, request: ApprovalRequest) -> ApprovalResponse:
    """Asks the human, and records the word."""
    own = runtime.own()
    try:
        response = HumanApprovalHandler.ask(request)
    except AgentSentinelError as error:
        # Where nobody was asked it goes on waiting: another process may ask somebody.
        if error.details.get("asked"):
            _say(own, approval, False, error.details.get("notes"))
        raise
    _say(own, approval, True, response.notes)
    return response


def _say(own: _native.Client, approval: str, approved: bool, note: Optional[str]) -> None:
    try:
        own.decide_approval(approval, approved, note)
    except _native.Refused as refused:
        raise told(refused) from None
