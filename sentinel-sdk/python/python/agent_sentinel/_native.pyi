from typing import Optional

__version__: str

class Refused(Exception):
    """`(code, message, details)`, the details as JSON."""

class Guard:
    """An action that was let start. Forgotten without a word, it counts as cancelled."""

    @property
    def id(self) -> str: ...
    def seconds(self) -> float:
        """How long ago it began."""
    def end(
        self,
        outcome: str,
        outputs: str,
        actual_cost_usd: Optional[float] = None,
        annotations: Optional[str] = None,
    ) -> bool: ...
    def succeed(self, result: object) -> bool: ...
    def end_at_once(self, outcome: str, outputs: str, annotations: Optional[str] = None) -> bool: ...
    def abort(self, cause: str) -> None: ...

class Declared:
    """What a decorator was told of its action."""

    def __init__(
        self,
        action: str,
        cost_usd: float,
        tags: list[str],
        risk_level: Optional[str],
        approval_seconds: Optional[float],
        needs_approval: bool,
    ) -> None: ...

class Client:
    """A way to whoever decides."""

    @staticmethod
    def host(socket: str) -> Client: ...
    @staticmethod
    def embedded(home: str) -> Client: ...
    @property
    def mode(self) -> str: ...
    @property
    def place(self) -> str: ...
    def begin(
        self,
        declared: Declared,
        inputs: str,
        annotations: Optional[str] = None,
        agent: Optional[Client] = None,
    ) -> Guard: ...
    def agree(
        self,
        own: Guard,
        declared: Declared,
        inputs: str,
        annotations: Optional[str] = None,
    ) -> Guard: ...
    def begin_at_once(
        self,
        declared: Declared,
        inputs: str,
        annotations: Optional[str] = None,
    ) -> Optional[Guard]: ...
    def begin_call(
        self,
        declared: Declared,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        annotations: Optional[str] = None,
        agent: Optional[Client] = None,
    ) -> Optional[Guard]: ...
    def begin_call_at_once(
        self,
        declared: Declared,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        annotations: Optional[str] = None,
    ) -> Optional[Guard]: ...
    def totals(self) -> tuple[float, float, Optional[float], Optional[float]]: ...
    def reset_run(self) -> tuple[float, float, Optional[float], Optional[float]]: ...
    def set_policy(self, name: str, text: Optional[str]) -> None: ...
    def fail_policy(self, cause: str) -> None: ...
    def policy_summary(self) -> str: ...
    def snapshot(self) -> tuple[float, float, dict[str, tuple[int, float]]]: ...
    def record(
        self,
        action: str,
        cost_usd: float,
        outcome: str,
        tags: list[str],
        duration_ms: float,
        inputs: str,
        outputs: str,
        annotations: Optional[str] = None,
    ) -> str: ...
    def decide_approval(self, approval: str, approved: bool, note: Optional[str] = None) -> None: ...
    def reset_session(self) -> None: ...
    def kernel_denials(self, seconds: float) -> list[tuple[str, str, str, Optional[str]]]: ...

class Diverged(Exception):
    """`(message, divergence)`, the divergence as JSON."""

class Recording:
    """What was recorded of a program, and how far its replay is."""

    @staticmethod
    def read(path: str, run: Optional[str] = None) -> Recording: ...
    @staticmethod
    def of_lines(lines: list[str], run: Optional[str] = None) -> Recording: ...
    def replay(self, action: str, inputs: str, strict: bool) -> tuple[str, str, Optional[str]]: ...
    @property
    def progress(self) -> tuple[int, int]: ...
    @property
    def divergences(self) -> str: ...

def intervention(line: bytes) -> Optional[str]: ...
def json(value: object) -> Optional[str]: ...
def json_of_call(args: tuple[object, ...], kwargs: dict[str, object]) -> Optional[str]: ...
