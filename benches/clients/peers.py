"""Wake-up and drain of one Python system: peers.py SYSTEM URL. Prints a line of JSON.

wake: lone messages, each published when the one before was handled and the consumer was idle for a moment; from the call
that publishes until its handler begins. drain: messages that are there before the consumer starts, handlers that do
nothing, 50 at a time; from the first handler to the last.
"""

import asyncio
import json
import random
import sys
import time

WAKE, DRAIN, CONCURRENCY = 200, 5000, 50


class Bench:
    def __init__(self):
        self.began, self.times, self.all = asyncio.Event(), [], asyncio.Event()

    async def handle(self):
        self.times.append(time.perf_counter())
        self.began.set()
        if len(self.times) == DRAIN:
            self.all.set()

    async def drained(self):
        await asyncio.wait_for(self.all.wait(), 300)
        return round((DRAIN - 1) / (self.times[-1] - self.times[0]))

    async def woken(self, publish):
        self.times, taken = [], []
        for n in range(WAKE + 10):
            await asyncio.sleep(random.uniform(0.02, 0.06))
            self.began.clear()
            before = time.perf_counter()
            await publish()
            await asyncio.wait_for(self.began.wait(), 60)
            # The first ones open connections and plan.
            taken += [self.times[-1] - before] if n >= 10 else []
        taken.sort()
        return {"p50_ms": round(taken[WAKE // 2] * 1000, 2), "p99_ms": round(taken[WAKE * 99 // 100] * 1000, 2)}


async def doorbell(url, bench):
    import psycopg

    from doorbell_pg import Consumer, publish_async

    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    sql = "select integration.publish_many('shop', array_fill('billing'::text, array[%s]), array_fill('n'::text, array[%s]), \
        array_fill('1'::text, array[%s]))"
    await connection.execute(sql, (DRAIN, DRAIN, DRAIN))
    consumer = Consumer(url, "billing", concurrency=CONCURRENCY)
    consumer.on()(lambda_of(bench))
    running = asyncio.create_task(consumer.run(signals=False))
    drain = await bench.drained()
    wake = await bench.woken(lambda: publish_async(connection, "shop", "billing", "n", 1))
    consumer.stop()
    await running
    return wake, drain


def lambda_of(bench):
    async def handle(_):
        await bench.handle()

    return handle


async def procrastinate(url, bench):
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="n")
    async def task(n):
        await bench.handle()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await task.batch_defer_async(*[{"n": n} for n in range(DRAIN)])
        worker = app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False, listen_notify=True)
        running = asyncio.create_task(worker)
        drain = await bench.drained()
        wake = await bench.woken(lambda: task.defer_async(n=1))
        running.cancel()
        await asyncio.wait([running])
    return wake, drain


async def pgqueuer(url, bench):
    import asyncpg
    from pgqueuer import AsyncpgDriver, PgQueuer, Queries

    connection, publisher = await asyncpg.connect(url), await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(publisher))
    await queries.install()
    await queries.enqueue(["n"] * DRAIN, [b"1"] * DRAIN, [0] * DRAIN)
    pgq = PgQueuer(AsyncpgDriver(connection))
    pgq.entrypoint("n")(lambda_of(bench))
    running = asyncio.create_task(pgq.run(batch_size=CONCURRENCY))
    drain = await bench.drained()
    wake = await bench.woken(lambda: queries.enqueue("n", b"1"))
    pgq.shutdown.set()
    await asyncio.wait([running], timeout=10)
    return wake, drain


async def main():
    wake, drain = await globals()[sys.argv[1]](sys.argv[2], Bench())
    print(json.dumps({"system": sys.argv[1], "language": "python", "drain_per_s": drain, **wake}), flush=True)


asyncio.run(main())
