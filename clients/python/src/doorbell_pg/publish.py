"""Publishing, in whatever transaction the caller is."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import timedelta
from typing import Any, Mapping

from .outcome import milliseconds


def publish(connection: Any, source: str, target: str, record_type: str, data: Any, **options: Any) -> int:
    """Publishes a message and returns its id. It is there when the caller's transaction commits.

    connection: a DB-API connection (psycopg, psycopg2, pg8000, django.db.connection), or a Session or Connection of
    SQLAlchemy. Nothing is committed here. data: anything json.dumps takes. options: see `message`. With a dedup_key or
    a coalesce_key the id may be that of the message that was published under it before.
    """
    sql, text = _statement(options), message(source, target, record_type, data, **options)
    if hasattr(connection, "cursor"):
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql, (text,))
            return int(cursor.fetchone()[0])
    return int(connection.execute(*_sqlalchemy(sql, text)).scalar_one())


async def publish_async(connection: Any, source: str, target: str, record_type: str, data: Any, **options: Any) -> int:
    """The same for psycopg's AsyncConnection, SQLAlchemy's AsyncSession and AsyncConnection, asyncpg's Connection."""
    sql, text = _statement(options), message(source, target, record_type, data, **options)
    if hasattr(connection, "fetchval"):
        return int(await connection.fetchval(sql.replace("%s", "$1"), text))
    if hasattr(connection, "cursor"):
        return int((await (await connection.execute(sql, (text,))).fetchone())[0])
    return int((await connection.execute(*_sqlalchemy(sql, text))).scalar_one())


def message(
    source: str, target: str, record_type: str, data: Any, *, priority: int = 0, delay: timedelta | None = None,
    headers: Mapping[str, str] | None = None, ordering_key: str | None = None, dedup_key: str | None = None,
    max_retries: int | None = None, expires_after: timedelta | None = None, coalesce_key: str | None = None,
    max_wait: timedelta | None = None, schema: str = "integration",
) -> str:
    """The message as `integration.publish(jsonb)` takes it, for any other driver. delay: pending after so long.

    expires_after: cancelled if it still waits then. coalesce_key: replaces what the message under it says that waits,
    whose delay begins anew, until max_wait after it was published.
    """
    columns = {"source_app": source, "target_app": target, "record_type": record_type, "data": data}
    columns |= {"priority": priority, "delay_ms": milliseconds(delay), "headers": dict(headers) if headers else None}
    columns |= {"ordering_key": ordering_key, "dedup_key": dedup_key, "max_retries": max_retries}
    columns |= {"expires_ms": milliseconds(expires_after), "coalesce_key": coalesce_key}
    columns |= {"max_wait_ms": milliseconds(max_wait)}
    return json.dumps(columns)


def schema_name(schema: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise ValueError(f"no name of a schema that needs no quotes: {schema!r}")
    return schema


def _statement(options: Mapping[str, Any]) -> str:
    return f"select {schema_name(options.get('schema', 'integration'))}.publish(%s::text::jsonb)"


def _sqlalchemy(sql: str, text: str) -> tuple[Any, dict[str, str]]:
    from sqlalchemy import text as statement

    return statement(sql.replace("%s::text::jsonb", "cast(cast(:message as text) as jsonb)")), {"message": text}
