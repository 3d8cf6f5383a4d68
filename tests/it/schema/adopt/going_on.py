"""Publishes and consumes through an adoption with the classes of the document, until its input ends.

    DATABASE_URL=... going_on.py produce|consume psycopg2|psycopg    prints each id that was acknowledged
"""

import os
import sys
import threading

import seed_client
from seed_client import DataConsumer, DataProducer, Enough, process_loop

over = threading.Event()


class Consumer(DataConsumer):
    def consume_batch(self, batch_size=100):
        try:
            records = super().consume_batch(2)
        except Exception as error:
            # psycopg 3 had prepared it, for columns of other types; after a rollback it prepares anew.
            if sys.argv[2] == "psycopg2" or error.sqlstate != "0A000":
                raise
            self.conn.rollback()
            records = super().consume_batch(2)
        if not records and over.is_set():
            raise Enough
        return records

    def mark_completed(self, record_id):
        super().mark_completed(record_id)
        print(record_id, flush=True)


def connect():
    if sys.argv[2] == "psycopg2":
        return seed_client.connect()
    import psycopg

    connection = psycopg.connect(os.environ["DATABASE_URL"])
    # As there: the document decodes by itself.
    psycopg.types.json.set_json_loads(lambda text: text, connection)
    return connection


def produce():
    producer = DataProducer(connect(), "old-shop")
    n = 0
    while not over.is_set():
        n += 1
        print(producer.publish_data("old-billing", "order.placed", {"n": n}), flush=True)


def consume():
    # What waits five seconds in the document is short here.
    seed_client.time.sleep = lambda _: over.wait(0.01)
    try:
        process_loop(Consumer(connect(), "old-billing"), lambda data: data["n"])
    except Enough:
        pass


threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
{"produce": produce, "consume": consume}[sys.argv[1]]()
