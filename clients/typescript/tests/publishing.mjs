// Publishes through every kind of query function that the README names, a message each, and one more in a transaction that is
// rolled back; then completes each message in a transaction of the same kind. What begins with "tx" was committed together with
// an effect, and completed together with another. Prints the record types.

import { drizzle } from "drizzle-orm/node-postgres";
import { sql as drizzled } from "drizzle-orm";
import { CompiledQuery, Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import postgres from "postgres";

import { Consumer, publish, settled } from "../src/index.js";

const words = Object.fromEntries(process.env.DATABASE_URL.split(/\s+/).map((word) => word.split("=")));
const connection = { host: words.host, port: Number(words.port), user: words.user, database: words.dbname };
const regret = new Error("rolled back");

async function through(recordType, query) {
  const data = { grüße: 'it\'s "quoted"', "%s": ":message $1 ?" };
  const id = await publish(query, { source: "shop", target: "billing", recordType, data, headers: { a: "b" } });
  if (!(id > 0)) throw new Error(`${recordType} has the id ${id}`);
}

// How what has this record type is completed.
const transactions = {};

// Both ends of a transaction: what is committed is there, what is rolled back is not.
async function both(recordType, transaction) {
  transactions[recordType] = transaction;
  await transaction(async (query) => {
    await query("insert into effects values ($1)", [recordType]);
    await through(recordType, query);
  });
  const rolledBack = transaction(async (query) => {
    await through("rolled back", query);
    throw regret;
  });
  await rolledBack.then(() => { throw new Error(`${recordType}: it was committed`); }, (error) => {
    if (error !== regret) throw error;
  });
  console.log(recordType);
}

const pool = new pg.Pool(connection);
await pool.query("create table effects (record_type text)");

await through("pool", pool.query.bind(pool));
console.log("pool");

await both("tx pg", async (work) => {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await work(client.query.bind(client));
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
});

const sql = postgres({ ...connection, path: `${words.host}/.s.PGSQL.${words.port}`, onnotice() {} });
await both("tx postgres.js", (work) => sql.begin((tx) => work(tx.unsafe)));

const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) });
await both("tx kysely", (work) =>
  kysely.transaction().execute((tx) => work((text, params) => tx.executeQuery(CompiledQuery.raw(text, params)))),
);

const db = drizzle(pool);
await both("tx drizzle", (work) =>
  db.transaction((tx) =>
    work((text, params) => {
      const parts = text.split(/\$\d+/).map((part) => drizzled.raw(part));
      return tx.execute(drizzled.join(parts.flatMap((part, at) => (at < params.length ? [part, drizzled`${params[at]}`] : part))));
    }),
  ),
);

const consumer = new Consumer(connection, "billing");
let left = Object.keys(transactions).length;
consumer.on([], async (message) => {
  const transaction = transactions[message.recordType];
  if (!transaction) return;
  await transaction(async (query) => {
    await query("insert into effects values ($1)", [message.recordType]);
    await query(...message.completion());
  });
  if (--left === 0) consumer.stop();
  return settled();
});
await consumer.run();
await sql.end();
await pool.end();
