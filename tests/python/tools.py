"""A program's tools, for the tests of `tests/tests/python.rs`. `SERVER` names the server that actions have doors to."""

from __future__ import annotations

import os
import socket

from agent_sentinel import AgentSentinelError, ApprovalResponse, ApprovalStatus, guarded_action

HOST, PORT = os.environ["SERVER"].rsplit(":", 1)

# What a human was asked.
asked = []


def connect():
    """What becomes of a connect."""
    try:
        socket.create_connection((HOST, int(PORT)), 5).close()
        return "connected"
    except OSError as error:
        return f"refused {error.errno}"


def told(function):
    """What it returns, or why it was not let run."""
    try:
        return function()
    except AgentSentinelError as error:
        return getattr(error, "reason_code", None) or error.error_code


def yes(request):
    """A human who approves of everything."""
    asked.append(request.action_name)
    return ApprovalResponse(request.request_id, ApprovalStatus.APPROVED)


fetch = guarded_action(name="fetch")(connect)
paid = guarded_action(name="paid", cost_usd=0.6)(connect)
leak = guarded_action(name="leak")(connect)
