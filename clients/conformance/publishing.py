"""Publishes through every kind of connection that the Python client promises to take, one message each; those of
transactions that are rolled back leave none. Prints the record types of what must be there.
"""

import asyncio
import os

import asyncpg
import django
import pg8000.dbapi
import psycopg
import psycopg2
from django.conf import settings
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from doorbell_pg import publish, publish_async

url = os.environ["DATABASE_URL"]
words = psycopg.conninfo.conninfo_to_dict(url)
engine_url = URL.create(
    "postgresql+psycopg", words["user"], host=words["host"], port=int(words["port"]), database=words["dbname"]
)


class Regret(Exception):
    pass


def through(kind, connection):
    publish(connection, "shop", "billing", kind, {"grüße": 'it\'s "quoted"', "%s": ":message $1"}, headers={"a": "b"})
    print(kind)


def dbapi():
    socket = f"{words['host']}/.s.PGSQL.{words['port']}"
    pg8000_words = {"user": words["user"], "unix_sock": socket, "database": words["dbname"]}
    connections = [("psycopg", psycopg.connect(url)), ("psycopg2", psycopg2.connect(url))]
    for kind, connection in [*connections, ("pg8000", pg8000.dbapi.connect(**pg8000_words))]:
        through(kind, connection)
        connection.commit()
        publish(connection, "shop", "billing", "rolled back", 1)
        connection.rollback()
        connection.close()


def of_django():
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": words["dbname"], "USER": words["user"]}
    settings.configure(DATABASES={"default": database | {"HOST": words["host"], "PORT": words["port"]}})
    django.setup()
    from django.db import connection, transaction

    with transaction.atomic():
        through("django", connection)
    try:
        with transaction.atomic():
            publish(connection, "shop", "billing", "rolled back", 1)
            raise Regret
    except Regret:
        connection.close()


def of_sqlalchemy():
    engine = create_engine(engine_url)
    with Session(engine) as session, session.begin():
        through("session", session)
    with engine.begin() as connection:
        through("connection", connection)
    with Session(engine) as session:
        publish(session, "shop", "billing", "rolled back", 1)


async def asynchronous():
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await publish_async(connection, "shop", "billing", "async psycopg", 1)
    print("async psycopg")
    async with AsyncSession(create_async_engine(engine_url)) as session, session.begin():
        await publish_async(session, "shop", "billing", "async session", 1)
    print("async session")
    connection = await asyncpg.connect(
        user=words["user"], host=words["host"], port=int(words["port"]), database=words["dbname"]
    )
    try:
        async with connection.transaction():
            await publish_async(connection, "shop", "billing", "rolled back", 1)
            raise Regret
    except Regret:
        pass
    async with connection.transaction():
        await publish_async(connection, "shop", "billing", "asyncpg", 1)
    await connection.close()
    print("asyncpg")


dbapi()
of_django()
of_sqlalchemy()
asyncio.run(asynchronous())
