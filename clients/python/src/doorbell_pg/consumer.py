"""The consumer: takes, handles, settles, and waits for bells.

Four tasks on two connections. On the first, `_take_all` says hello, takes, and waits for notifications. On the second
`_settle_all` settles what came to its end and `_keep_alive` beats. Handlers are tasks of their own. All that concerns
messages is decided by the database: see the comments of hello, take, settle_many and keep_alive there.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import signal
import socket
from collections import deque
from datetime import timedelta
from typing import Any, Awaitable, Callable, Union

import psycopg
from psycopg.types.json import Jsonb

from . import message as messages
from .connection import Connection, Work, call, connect, pause_s
from .message import Message
from .outcome import Outcome, Settled, storable, verdict
from .publish import schema_name

Handler = Callable[[Message], Union[Awaitable[Union[Outcome, None]], Outcome, None]]

log = logging.getLogger("doorbell_pg")

FAILURES = (psycopg.Error, OSError)
# Verdicts of one call. More wait for the next.
SETTLE_MAX = 1000


class Consumer:
    """Handles the messages of one target, up to `concurrency` at a time.

    conninfo: as psycopg.connect takes it; a direct connection, because behind a transaction pooler no notification
    comes and only the sweep is left. prefetch: messages taken ahead of free handlers; nobody else can handle them
    meanwhile. sweep: how often it looks without having been rung. handler_timeout: a handler that takes longer is
    cancelled and its message failed for now; None: no limit. drain_timeout: how long stopping waits for handlers before
    it cancels them and gives their messages back. lease: how long after the last sign of this process its messages are
    given to others, at most; a process that ends is noticed at once.
    """

    def __init__(
        self, conninfo: str, target: str, *, concurrency: int = 8, prefetch: int = 0,
        sweep: timedelta = timedelta(seconds=5), handler_timeout: timedelta | None = timedelta(seconds=60),
        drain_timeout: timedelta = timedelta(seconds=30), lease: timedelta = timedelta(seconds=15),
        beat: timedelta = timedelta(seconds=1), application: str = "", schema: str = "integration",
    ) -> None:
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency is at least 1, and prefetch at least 0")
        self.target, self.schema, self.concurrency = target, schema_name(schema), concurrency
        self._conninfo, self._application = conninfo, application or "doorbell-pg (Python)"
        self._work = Work(conninfo, self._application)
        self._wake, self._settle, self._slots = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(concurrency)
        self._capacity = concurrency + prefetch
        self._sweep_s, self._drain_s = sweep.total_seconds(), drain_timeout.total_seconds()
        self._beat_s, self._lease_ms = beat.total_seconds(), round(lease.total_seconds() * 1000)
        self._timeout_s = handler_timeout.total_seconds() if handler_timeout else None
        self._handlers: dict[str, Handler] = {}
        self._fallback: Handler | None = None
        self._owner: str | None = None
        # What was taken and not settled yet, with its handler; what is to be settled.
        self._in_hand: dict[tuple[int, int], tuple[Message, asyncio.Task[None]]] = {}
        self._verdicts: deque[tuple[Message, dict[str, Any]]] = deque()
        # Runs that ended well since the breaker was told how runs went; whether who takes waits for the end of a run.
        self._ok, self._stopping, self._awaits_ends = 0, False, False

    def on(self, *record_types: str) -> Callable[[Handler], Handler]:
        """Decorates the handler of these record types; without any, of all others. It gets a Message and returns an
        Outcome, or None when it is done. One that is no coroutine runs in a thread, and cannot be cancelled there.
        Without a handler of all others, only these types are taken.
        """

        def register(handler: Handler) -> Handler:
            for record_type in record_types:
                self._handlers[record_type] = handler
            if not record_types:
                self._fallback = handler
            return handler

        return register

    def stop(self) -> None:
        """Takes nothing any more; `run` returns when what was taken has come to its end. From the thread of `run`."""
        self._stopping = True
        self._wake.set()

    async def run(self, *, signals: bool = True) -> None:
        """Runs until `stop`, or, with signals, SIGTERM or SIGINT. Outages of the database do not end it. Cancelling it
        leaves what is in hand to other processes, which have it a moment later.
        """
        if not self._handlers and self._fallback is None:
            raise ValueError("there is no handler: decorate one with consumer.on()")
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
        background = [asyncio.create_task(self._settle_all()), asyncio.create_task(self._keep_alive())]
        try:
            await self._take_all()
        finally:
            for task in background + [task for _, task in self._in_hand.values()]:
                task.cancel()
            await self._work.close()

    async def _take_all(self) -> None:
        failures = 0
        while not self._stopping:
            bell: Connection | None = None
            try:
                bell = await connect(self._conninfo, self._application)
                bell.add_notify_handler(lambda _: self._wake.set())
                await self._hello(bell)
                if failures > 0:
                    log.info("%s: the database is back", self.target)
                failures = 0
                # The session lock of `bell` says that this process is alive, so draining comes before closing it.
                barrier = await self._take_until_stopped(bell)
                if barrier is not None:
                    await self._take(bell, 0, barrier)
                return await self._drain()
            except FAILURES as error:
                if getattr(error, "sqlstate", None) == "MQ001":
                    self._let_go()
                    continue
                if failures == 0:
                    log.warning("%s: no taking, trying again until it works: %s", self.target, error)
                failures += 1
                await asyncio.sleep(pause_s(failures))
            finally:
                if bell is not None:
                    await bell.close()
        await self._drain()

    def _types(self) -> list[str] | None:
        return None if self._fallback else list(self._handlers)

    def _fences(self) -> Jsonb:
        return Jsonb([message.fence for message, _ in self._in_hand.values()])

    async def _hello(self, bell: Connection) -> None:
        in_hand, accepts = list(self._in_hand.values()), (self.target, self._owner, self._types(), self.concurrency)
        process = (self._lease_ms, socket.gethostname(), os.getpid(), self._application, "python")
        of = (*accepts, bell.info.backend_pid, self._fences(), *process)
        said = (await call(bell, f"select * from {self.schema}.hello({', '.join(['%s'] * len(of))})", of))[0]
        if self._owner not in (None, said["owner"]):
            self._let_go()
        self._owner = said["owner"]
        self._drop(in_hand, said["lost"])
        if not said["direct"]:
            log.warning("%s: a pooler is in between, so only sweeps find messages", self.target)

    async def _take_until_stopped(self, bell: Connection) -> int | None:
        barrier, idle_looks = None, 0
        while not self._stopping:
            self._wake.clear()
            # What only waits to be settled needs no handler.
            room = min(self._capacity, self._capacity - len(self._in_hand) + len(self._verdicts))
            self._awaits_ends = room <= 0 or len(self._verdicts) > SETTLE_MAX
            if self._awaits_ends:
                await self._wake.wait()
                continue
            took = await self._take(bell, room, barrier)
            barrier = took["barrier"]
            if took["may_wait"]:
                due_s = self._sweep_s if took["due_in_ms"] is None else took["due_in_ms"] / 1000
                # So soon only where something waits for somebody's settle: see take.
                self._awaits_ends = due_s <= 0.1
                await self._wait(bell, min(due_s, self._sweep_s * random.uniform(0.9, 1.1)))
            idle_looks = 0 if took["may_wait"] or took["messages"] else idle_looks + 1
            if idle_looks > 1:
                # Somebody may be committing silently: see take.
                await asyncio.sleep(min(0.1, 0.001 * 2**idle_looks) if idle_looks < 30 else 1)
        return barrier

    async def _take(self, bell: Connection, room: int, barrier: int | None) -> dict[str, Any]:
        sql = f"select * from {self.schema}.take(%s, %s, %s, %s, %s, %s)"
        who = (self.target, self._owner, room, self._types(), barrier, bell.info.backend_pid)
        took = (await call(bell, sql, who))[0]
        for taken in took["messages"]:
            message = messages.of(taken, self.target, self._owner or "", self.schema)
            task = asyncio.create_task(self._handle(message))
            self._in_hand[message.id, message.attempt] = (message, task)
        return took

    async def _wait(self, bell: Connection, seconds: float) -> None:
        """Until a notification, stop, or so many seconds have passed."""
        # One that came with the last answer is in the driver's buffer already, and the socket says nothing of it.
        if any(list(iter(bell.pgconn.notifies, None))):
            return
        loop, descriptor = asyncio.get_running_loop(), bell.fileno()
        loop.add_reader(descriptor, self._wake.set)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
            bell.pgconn.consume_input()
            list(iter(bell.pgconn.notifies, None))
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)

    async def _handle(self, message: Message) -> None:
        # Only types with handlers are taken.
        handler: Any = self._handlers.get(message.record_type, self._fallback)
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                is_async = inspect.iscoroutinefunction(handler)
                outcome = await (handler(message) if is_async else asyncio.to_thread(handler, message))
            if isinstance(outcome, Settled):
                return self._forget(message)
            settled = verdict(outcome)
        except asyncio.CancelledError:
            # Draining gives it back; whoever let go of it has forgotten it already.
            settled = {"outcome": "release"}
        except TimeoutError:
            settled = {"outcome": "retry", "reason": f"timed out after {self._timeout_s} s"}
        except Exception as error:
            log.debug("message %s failed", message.id, exc_info=True)
            settled = {"outcome": "retry", "reason": storable(f"{type(error).__name__}: {error}")}
        if (message.id, message.attempt) in self._in_hand:
            self._verdicts.append((message, settled))
            self._settle.set()
            self._ended()

    def _ended(self) -> None:
        """There is room again; or what waited for a settle is free. A look for nothing costs the next message time."""
        if self._awaits_ends:
            self._wake.set()

    def _forget(self, message: Message) -> None:
        self._in_hand.pop((message.id, message.attempt), None)
        self._ended()

    def _drop(self, in_hand: list[tuple[Message, asyncio.Task[None]]], lost: list[int] | None = None) -> None:
        """Of what was in hand when it was asked for: others have it, or it is not there any more. None: all of it."""
        for message, task in in_hand:
            if (lost is None or message.id in lost) and (message.id, message.attempt) in self._in_hand:
                self._forget(message)
                task.cancel()

    def _let_go(self) -> None:
        """This process was taken for dead: what it has in hand belongs to others."""
        log.warning("%s: the lease of %s was lost, and %d messages", self.target, self._owner, len(self._in_hand))
        self._owner = None
        self._drop(list(self._in_hand.values()))

    async def _settle_all(self) -> None:
        failures = 0
        while True:
            await self._settle.wait()
            self._settle.clear()
            while batch := list(self._verdicts)[:SETTLE_MAX]:
                try:
                    await self._settle_many(batch)
                    failures = 0
                except FAILURES as error:
                    # Whether it was done or not: done again, it does nothing.
                    if failures == 0:
                        log.warning("%s: no settling, trying again until it works: %s", self.target, error)
                    failures += 1
                    await asyncio.sleep(pause_s(failures))
                    continue
                for message, settled in batch:
                    self._verdicts.popleft()
                    self._forget(message)
                    # It comes again, and where the target's bell is off nobody says when.
                    if settled["outcome"] != "complete":
                        self._wake.set()

    async def _settle_many(self, batch: list[tuple[Message, dict[str, Any]]]) -> None:
        for owner in {message.owner for message, _ in batch}:
            own = [(message, settled) for message, settled in batch if message.owner == owner]
            verdicts = Jsonb([message.fence | settled for message, settled in own])
            sql = f"select id from {self.schema}.settle_many(%s, %s, %s, %s)"
            await self._work.call(sql, (self.target, owner, verdicts, self._ok))
            told = any(m.canary or settled["outcome"] in ("retry", "unavailable") for m, settled in own)
            self._ok = 0 if told else self._ok + sum(settled["outcome"] == "complete" for _, settled in own)

    async def _keep_alive(self) -> None:
        sql, beats = f"select * from {self.schema}.keep_alive(%s, %s, %s, %s)", 0
        while True:
            await asyncio.sleep(self._beat_s * random.uniform(0.9, 1.1))
            if (owner := self._owner) is None:
                continue
            in_hand = list(self._in_hand.values())
            try:
                kept = (await self._work.call(sql, (owner, self._fences(), self._lease_ms, beats % 5 == 0)))[0]
            except FAILURES:
                # The next beat comes soon, and whoever takes or settles says what is wrong.
                continue
            beats += 1
            # That it was not renewed the next take says, too.
            if not kept["renewed"]:
                self._wake.set()
            self._drop(in_hand, kept["lost"])

    async def _drain(self) -> None:
        """Until all that was taken is settled, or given back."""
        self._awaits_ends = True
        pending = [task for _, task in self._in_hand.values()]
        if pending:
            _, late = await asyncio.wait(pending, timeout=self._drain_s)
            for task in late:
                task.cancel()
        try:
            async with asyncio.timeout(max(self._drain_s, 1)):
                while self._in_hand:
                    self._wake.clear()
                    await self._wake.wait()
                if self._owner is not None:
                    await self._work.call(f"select {self.schema}.deregister(%s)", (self._owner,))
        except FAILURES as error:
            log.warning("%s: %d messages are left to others: %s", self.target, len(self._in_hand), error)
