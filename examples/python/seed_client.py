"""A service that knows nothing of Doorbell but its table.

    DATABASE_URL=... python seed_client.py produce 3
    DATABASE_URL=... python seed_client.py consume 3

Between the two rulers is the client of "Database Integration", the document from which Doorbell grew, word for word:
what such applications already do keeps working beside Doorbell's own consumers. Needs psycopg2.
"""

import logging
import os
import sys
import time

# --------------------------------------------------------------------------------------------------------------------
import psycopg2
import json
from datetime import datetime


class DataProducer:
    def __init__(self, db_conn, source_app):
        self.conn = db_conn
        self.source_app = source_app

    def publish_data(self, target_app, record_type, data, priority=0):
        """Publish data to staging table"""

        with self.conn.cursor() as cur:
            cur.execute("""
                INSERT INTO integration.data_staging
                (source_app, target_app, record_type, data, priority)
                VALUES (%s, %s, %s, %s, %s)
                RETURNING id
            """, (
                self.source_app,
                target_app,
                record_type,
                json.dumps(data),
                priority
            ))

            staging_id = cur.fetchone()[0]
            self.conn.commit()

            return staging_id


class DataConsumer:
    def __init__(self, db_conn, target_app):
        self.conn = db_conn
        self.target_app = target_app

    def consume_batch(self, batch_size=100):
        """Consume batch of pending records"""

        with self.conn.cursor() as cur:
            # Lock and fetch records
            cur.execute("""
                UPDATE integration.data_staging
                SET status = 'processing',
                    updated_at = NOW()
                WHERE id IN (
                    SELECT id
                    FROM integration.data_staging
                    WHERE target_app = %s
                    AND status = 'pending'
                    ORDER BY priority DESC, created_at
                    LIMIT %s
                    FOR UPDATE SKIP LOCKED
                )
                RETURNING id, source_app, record_type, data
            """, (self.target_app, batch_size))

            records = cur.fetchall()
            self.conn.commit()

            return records

    def mark_completed(self, record_id):
        """Mark record as completed"""

        with self.conn.cursor() as cur:
            cur.execute("""
                UPDATE integration.data_staging
                SET status = 'completed',
                    processed_at = NOW(),
                    updated_at = NOW()
                WHERE id = %s
            """, (record_id,))
            self.conn.commit()

    def mark_failed(self, record_id, error_message):
        """Mark record as failed"""

        with self.conn.cursor() as cur:
            cur.execute("""
                UPDATE integration.data_staging
                SET status = CASE
                    WHEN retry_count >= 3 THEN 'failed'
                    ELSE 'pending'
                END,
                retry_count = retry_count + 1,
                error_message = %s,
                updated_at = NOW()
                WHERE id = %s
            """, (error_message, record_id))
            self.conn.commit()


def process_loop(consumer, process_func):
    """Main processing loop"""

    while True:
        records = consumer.consume_batch(batch_size=100)

        if not records:
            time.sleep(5)  # No records, wait
            continue

        for record_id, source_app, record_type, data in records:
            try:
                # Process the record
                result = process_func(json.loads(data))

                # Mark as completed
                consumer.mark_completed(record_id)

            except Exception as e:
                # Mark as failed
                consumer.mark_failed(record_id, str(e))
                logging.error(f"Failed to process {record_id}: {e}")

# --------------------------------------------------------------------------------------------------------------------

import psycopg2.extras


class Enough(Exception):
    """Ends process_loop, which has no end of its own."""


class CountingConsumer(DataConsumer):
    """Takes `count` records and then stops."""

    def __init__(self, db_conn, target_app, count):
        super().__init__(db_conn, target_app)
        self.left = count

    def consume_batch(self, batch_size=100):
        if self.left == 0:
            raise Enough
        records = super().consume_batch(min(batch_size, self.left))
        self.left -= len(records)
        return records


def connect():
    conn = psycopg2.connect(os.environ["DATABASE_URL"])
    # process_loop calls json.loads on what it fetched. psycopg2 would have decoded a JSONB column already, and
    # json.loads fails on a dict; told to "decode" into the text itself, it leaves that to process_loop.
    psycopg2.extras.register_default_jsonb(conn, globally=False, loads=lambda text: text)
    return conn


def show(data):
    print(f"reading {data['n']}: {data['text']}")


def main():
    verb, count = sys.argv[1], int(sys.argv[2])
    if verb == "produce":
        producer = DataProducer(connect(), "python-app")
        for n in range(1, count + 1):
            data = {"n": n, "text": "from Python: 'grüße'"}
            print(f"published message {producer.publish_data('rust-app', 'reading', data)} for rust-app")
    elif verb == "consume":
        try:
            process_loop(CountingConsumer(connect(), "python-app", count), show)
        except Enough:
            pass
    else:
        sys.exit("usage: seed_client.py produce|consume COUNT")


if __name__ == "__main__":
    main()
