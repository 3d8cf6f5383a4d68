"""Connections that outlast the server: opened when needed, dropped at the first error."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Sequence

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.AsyncConnection[dict[str, Any]]

# How long one call may take, here and on the server.
WITHIN_S = 30
SETTINGS = (
    f"set statement_timeout = '{WITHIN_S}s'; set idle_in_transaction_session_timeout = 0; "
    "set idle_session_timeout = 0; set default_transaction_isolation = 'read committed'"
)
# A network that goes silent is noticed in 25 s.
SOCKET: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
SOCKET |= {"tcp_user_timeout": 20000, "connect_timeout": 10}


async def connect(conninfo: str, application: str) -> Connection:
    """A connection with autocommit. Settings are made only in a session that is ours alone."""
    words = SOCKET | {"application_name": application} | psycopg.conninfo.conninfo_to_dict(conninfo)
    connection: Connection = await psycopg.AsyncConnection.connect(
        **words, autocommit=True, row_factory=dict_row, prepare_threshold=None
    )
    try:
        # A pooler names a process of its own, and hands the session on between two statements.
        rows = await call(connection, "select pg_catalog.pg_backend_pid() as pid", ())
        if rows[0]["pid"] == connection.info.backend_pid:
            connection.prepare_threshold = 1
            await call(connection, SETTINGS, None)
    except BaseException:
        await connection.close()
        raise
    return connection


async def call(connection: Connection, sql: str, params: Sequence[Any] | None) -> list[dict[str, Any]]:
    async with asyncio.timeout(WITHIN_S):
        cursor = await connection.execute(sql, params)
        return await cursor.fetchall() if cursor.description else []


def pause_s(failures: int) -> float:
    """After so many failures in a row: up to 0.1 s, doubled up to 2 s, spread so that a fleet does not come at once."""
    return float(min(2.0, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1))


class Work:
    """The connection for settling and being alive: one call at a time; an error drops it, and the next opens one."""

    def __init__(self, conninfo: str, application: str) -> None:
        self._conninfo, self._application = conninfo, application
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def call(self, sql: str, params: Sequence[Any]) -> list[dict[str, Any]]:
        async with self._turn:
            try:
                if self._connection is None:
                    self._connection = await connect(self._conninfo, self._application)
                return await call(self._connection, sql, params)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
