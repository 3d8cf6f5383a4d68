"""What a handler says about a message; None: it is done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Union


@dataclass(frozen=True)
class Retry:
    """Failed for now; costs a retry. An exception says the same, with its text as reason.

    after: not before so long; None: the backoff of the target's policy.
    """

    reason: str
    after: timedelta | None = None


@dataclass(frozen=True)
class Snooze:
    """Not now, at no cost."""

    after: timedelta


@dataclass(frozen=True)
class Reject:
    """Failed for good: no retry can help."""

    reason: str


@dataclass(frozen=True)
class Unavailable:
    """What the target's messages need is down: given back at no cost, and the target's breaker opens for the fleet."""

    reason: str


@dataclass(frozen=True)
class Settled:
    """The handler has completed the message itself, in its own transaction (see Message.completion)."""


Outcome = Union[Retry, Snooze, Reject, Unavailable, Settled]


def verdict(outcome: object) -> dict[str, Any]:
    """What settle_many is told. Raises TypeError for what is no outcome."""
    if outcome is None:
        return {"outcome": "complete"}
    if not isinstance(outcome, (Retry, Snooze, Reject, Unavailable)):
        raise TypeError(f"a handler returned {type(outcome).__name__}, which is no outcome; return None when it is done")
    reason, after = getattr(outcome, "reason", None), getattr(outcome, "after", None)
    said = {"outcome": type(outcome).__name__.lower(), "delay_ms": milliseconds(after)}
    return said if reason is None else said | {"reason": storable(reason)}


def milliseconds(delay: timedelta | None) -> int | None:
    return None if delay is None else round(delay.total_seconds() * 1000)


def storable(reason: str) -> str:
    """The server cannot receive a NUL, nor half a surrogate pair; it keeps 8,000 characters."""
    return reason[:8000].replace("\0", "").encode("utf-8", "replace").decode()
