"""The driver of the Python client: see README.md."""

import asyncio
import json
import os
import sys
from datetime import timedelta

import psycopg

from doorbell_pg import Consumer, Reject, Retry, Snooze, Unavailable, publish_async

waiting = {}


def tell(**line):
    print(json.dumps(line), flush=True)


async def handle(message):
    waiting[message.data] = end = asyncio.get_running_loop().create_future()
    tell(began=message.data, attempt=message.attempt)
    try:
        said = await end
    except asyncio.CancelledError:
        tell(cancelled=message.data)
        raise
    reason, after = said.get("reason", ""), said.get("after_ms")
    after = None if after is None else timedelta(milliseconds=after)
    if said["outcome"] == "throw":
        raise RuntimeError(reason)
    outcomes = {"retry": lambda: Retry(reason, after), "snooze": lambda: Snooze(after)}
    outcomes |= {"reject": lambda: Reject(reason), "unavailable": lambda: Unavailable(reason), "complete": lambda: None}
    return outcomes[said["outcome"]]()


async def publish(url, message):
    if "delay_ms" in message:
        message["delay"] = timedelta(milliseconds=message.pop("delay_ms"))
    async with await psycopg.AsyncConnection.connect(url) as connection:
        published = await publish_async(connection, "shop", "billing", "n", **message)
    # Committed by now, so that whoever hears it can look.
    tell(published=published)


async def main():
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    config, url = json.loads(await lines.readline()), os.environ["DATABASE_URL"]
    consumer = Consumer(
        url,
        "billing",
        concurrency=config["concurrency"],
        beat=timedelta(milliseconds=config["beat_ms"]),
        drain_timeout=timedelta(milliseconds=config["drain_ms"]),
        sweep=timedelta(milliseconds=config["sweep_ms"]),
    )
    consumer.on()(handle)

    async def listen():
        while line := await lines.readline():
            said = json.loads(line)
            if "publish" in said:
                await publish(url, said["publish"])
            elif "end" in said:
                end = waiting.pop(said["end"])
                if not end.done():
                    end.set_result(said)
            else:
                consumer.stop()

    listening = asyncio.create_task(listen())
    await consumer.run()
    tell(stopped=True)
    listening.cancel()


asyncio.run(main())
