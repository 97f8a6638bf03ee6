"""Why an action was done, with which data and by which model: the metadata that EU AI Act Article 14 asks for.

Each guarded action has its own. Invariant: what is said inside an action's body stands on that action's line and on no other, under threads,
tasks and nesting.
"""

from __future__ import annotations

import datetime
import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Optional

from . import _native
from ._carry import carried

logger = logging.getLogger("agent_sentinel")


@dataclass
class ComplianceMetadata:
    """What stands under `compliance_metadata`, with these keys."""

    requires_human_approval: bool = False
    # `not_required`, `pending`, `approved`, `rejected` or `timeout`.
    approval_status: str = "not_required"
    human_in_the_loop_id: Optional[str] = None
    human_in_the_loop_email: Optional[str] = None
    approval_timestamp: Optional[datetime.datetime] = None
    approval_notes: Optional[str] = None
    decision_rationale: Optional[str] = None
    confidence_score: Optional[float] = None
    alternative_actions_considered: list[str] = field(default_factory=list)
    input_data_sources: list[dict[str, Any]] = field(default_factory=list)
    model_card: Optional[dict[str, Any]] = None
    policy_violations_checked: list[str] = field(default_factory=list)
    override_reason: Optional[str] = None

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        told = dict(vars(self))
        if self.approval_timestamp is not None:
            told["approval_timestamp"] = self.approval_timestamp.isoformat()
        return told


class Body:
    """The body of an action while it runs: a context of its own, for what is said inside."""

    __slots__ = ("action", "around", "metadata")

    def __init__(self, action: _native.Guard, metadata: Optional[ComplianceMetadata] = None) -> None:
        self.action = action
        # None until something is said.
        self.metadata = metadata
        self.around: Optional[Body] = None

    def enter(self) -> None:
        """From here on it is this action that is spoken of."""
        if not _is_carried:
            _carry()
        self.around = current_body()
        _speak_of(self)

    def leave(self) -> None:
        """The one around it is spoken of again."""
        _speak_of(self.around)


_current: ContextVar[Optional[Body]] = ContextVar("agent_sentinel_body", default=None)
_speak_of = _current.set
# The action whose body this is; none outside. Not a function of its own: it is asked for with every call.
current_body = _current.get
_is_carried = False


def _carry() -> None:
    global _is_carried
    carried(_current)
    _is_carried = True


def get_compliance_metadata() -> Optional[ComplianceMetadata]:
    """What was said of the action whose body this is; none outside."""
    return None if _current.get() is None else _own("get_compliance_metadata")


def set_compliance_metadata(metadata: ComplianceMetadata) -> None:
    """Says all of it at once."""
    if (own := _own("set_compliance_metadata")) is not None:
        vars(own).update(vars(metadata))


def set_decision_rationale(
    rationale: str,
    confidence: Optional[float] = None,
    alternatives: Optional[list[str]] = None,
    *,
    confidence_score: Optional[float] = None,
) -> None:
    """Why this action is done."""
    own = _own("set_decision_rationale")
    if own is None:
        return
    own.decision_rationale = rationale
    said = confidence if confidence is not None else confidence_score
    if said is not None:
        own.confidence_score = said
    if alternatives is not None:
        own.alternative_actions_considered = list(alternatives)


def add_data_lineage(source: str, version: str, **more: Any) -> None:
    """Which data it uses. More than one may be said."""
    if (own := _own("add_data_lineage")) is not None:
        own.input_data_sources.append({"source": source, "version": version, **more})


def set_model_card(model_name: str, version: str, provider: str, **more: Any) -> None:
    """Which model decided."""
    if (own := _own("set_model_card")) is not None:
        own.model_card = {"name": model_name, "version": version, "provider": provider, **more}


def _own(caller: str) -> Optional[ComplianceMetadata]:
    body = _current.get()
    if body is None:
        logger.warning("`%s` was called outside every guarded action, so it stands on no line; call it in an action's body", caller)
        return None
    if body.metadata is None:
        body.metadata = ComplianceMetadata()
    return body.metadata
