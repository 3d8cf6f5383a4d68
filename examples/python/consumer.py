"""A consumer without a library: one claiming verb and the settles.

    DATABASE_URL=... python consumer.py billing [LEASE]

claim with a lease also promotes what is due, returns what dead consumers left, and hands out by itself what may have
killed one: any number of these processes, started and killed at any time, come to the end of everything. The work and
its completion are one transaction, so the work counts once. Ends when nothing is left to claim; needs psycopg2.
"""

import os
import socket
import sys

import psycopg2

CLAIM = "select id, attempt, created_at, data from integration.claim(%s, %s, p_lease => %s::interval)"


def charge(cursor, message, order):
    """The work. It may raise."""
    cursor.execute("insert into ledger values (%s, %s)", (message, order["cents"]))


def handle_one(connection, target, owner, lease):
    """Claims a message and handles it; false: there is none."""
    with connection, connection.cursor() as cursor:
        cursor.execute(CLAIM, (target, owner, lease))
        claimed = cursor.fetchone()
    if claimed is None:
        return False
    message, attempt, created_at, order = claimed
    try:
        with connection, connection.cursor() as cursor:
            charge(cursor, message, order)
            cursor.execute("select integration.complete(%s, %s, %s, %s)", (message, attempt, owner, created_at))
    except psycopg2.Error as error:
        if error.pgcode == "MQ001":
            return True  # It took longer than the lease: somebody else has it, and nothing of ours stays.
        fail(connection, message, attempt, owner, created_at, str(error))
    except Exception as error:
        fail(connection, message, attempt, owner, created_at, str(error))
    return True


def fail(connection, message, attempt, owner, created_at, reason):
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select integration.fail(%s, %s, %s, %s, p_created_at => %s)", (message, attempt, owner, reason, created_at)
        )


def main():
    target, lease = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "1 min"
    owner = "{}-{}".format(socket.gethostname(), os.getpid())
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    handled = 0
    while handle_one(connection, target, owner, lease):
        handled += 1
    print("handled", handled)


if __name__ == "__main__":
    main()
