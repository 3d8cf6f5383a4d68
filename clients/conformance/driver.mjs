// The driver of the TypeScript client: see README.md.

import { createInterface } from "node:readline";

import { Consumer, publish, reject, retry, snooze, unavailable } from "../typescript/src/index.js";
import pg from "../typescript/node_modules/pg/esm/index.mjs";

const words = Object.fromEntries(process.env.DATABASE_URL.split(/\s+/).map((word) => word.split("=")));
const connection = { host: words.host, port: Number(words.port), user: words.user, database: words.dbname };
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const waiting = new Map();

async function handle(message) {
  tell({ began: message.data, attempt: message.attempt });
  const { outcome, reason, after_ms: afterMs } = await new Promise((resolve, fail) => {
    waiting.set(message.data, resolve);
    message.signal.addEventListener("abort", () => {
      tell({ cancelled: message.data });
      fail(message.signal.reason);
    });
  });
  switch (outcome) {
    case "throw": throw new Error(reason);
    case "retry": return retry(reason, { afterMs });
    case "snooze": return snooze(afterMs);
    case "reject": return reject(reason);
    case "unavailable": return unavailable(reason);
  }
}

async function tellPublished({ data, dedup_key, coalesce_key, delay_ms, priority, ordering_key, max_retries, headers }) {
  const client = new pg.Client(connection);
  await client.connect();
  const id = await publish(client.query.bind(client), {
    source: "shop", target: "billing", recordType: "n", data, dedupKey: dedup_key, delayMs: delay_ms, priority,
    orderingKey: ordering_key, maxRetries: max_retries, headers, coalesceKey: coalesce_key,
  });
  tell({ published: id });
  await client.end();
}

let consumer;
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const said = JSON.parse(line);
  if (consumer === undefined) {
    const { concurrency, beat_ms: beatMs, drain_ms: drainTimeoutMs, sweep_ms: sweepMs } = said;
    consumer = new Consumer(connection, "billing", { concurrency, beatMs, drainTimeoutMs, sweepMs });
    consumer.on([], handle);
    consumer.on("warning", (error) => console.error(error.message));
    consumer.run().then(() => {
      tell({ stopped: true });
      lines.close();
    });
  } else if (said.publish) tellPublished(said.publish);
  else if (said.end !== undefined) waiting.get(said.end)(said);
  else consumer.stop();
});
