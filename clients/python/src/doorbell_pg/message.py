"""A message that was taken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Message:
    """One attempt at one message. id, attempt and created_at, with the owner, are the fence of all that settles it."""

    id: int
    attempt: int
    created_at: str
    source: str
    target: str
    record_type: str
    data: Any
    headers: dict[str, str]
    priority: int
    retry_count: int
    redrive_count: int
    ordering_key: str | None
    canary: bool
    owner: str = field(repr=False)
    schema: str = field(repr=False, default="integration")

    def completion(self, reply: Any = None) -> tuple[str, tuple[Any, ...]]:
        """A statement and its parameters that complete the message, for a transaction of the handler's own; with a reply,
        anything json.dumps takes, for who asked, where the message is a request.

        Its effects then count once: it fails with SQLSTATE MQ001, and so does the transaction, when the message belongs
        to somebody else by now. Commit, then return Settled().
        """
        fence = (self.id, self.attempt, self.owner, self.created_at)
        if reply is None:
            return f"select {self.schema}.complete(%s, %s, %s, %s::text::timestamptz)", fence
        sql = f"select {self.schema}.reply(%s, %s, %s, p_created_at => %s::text::timestamptz, p_reply => %s::text::jsonb)"
        return sql, (*fence, json.dumps(reply))

    @property
    def fence(self) -> dict[str, Any]:
        return {"id": self.id, "attempt": self.attempt, "created_at": self.created_at, "canary": self.canary}


def of(taken: dict[str, Any], target: str, owner: str, schema: str) -> Message:
    """Of what take answers; what is newer than this client is left out."""
    known = {field.name: taken[field.name] for field in fields(Message) if field.name in taken}
    known["headers"] = known["headers"] or {}
    return Message(source=taken["source_app"], target=target, owner=owner, schema=schema, **known)
