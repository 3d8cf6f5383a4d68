// Wake-up and drain of one system in Node: peers.mjs SYSTEM URL. Prints a line of JSON; see peers.py for what is measured.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [WAKE, DRAIN, CONCURRENCY] = [200, 5000, 50];
const [system, url] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let times = [];
let began = () => {};
let all;
const drained = new Promise((resolve) => (all = resolve));
function handle() {
  times.push(performance.now());
  began();
  if (times.length === DRAIN) all();
}

async function drain() {
  await drained;
  return Math.round(((DRAIN - 1) * 1000) / (times.at(-1) - times[0]));
}

async function wake(publish) {
  const taken = [];
  for (let n = 0; n < WAKE + 10; n += 1) {
    await sleep(20 + Math.random() * 40);
    const begun = new Promise((resolve) => (began = resolve));
    const before = performance.now();
    await publish();
    await begun;
    // The first ones open connections and plan.
    if (n >= 10) taken.push(times.at(-1) - before);
  }
  taken.sort((a, b) => a - b);
  return { p50_ms: Number(taken[WAKE / 2].toFixed(2)), p99_ms: Number(taken[(WAKE * 99) / 100].toFixed(2)) };
}

const systems = {
  async doorbell() {
    const { Consumer, publish } = await import(new URL("../../clients/typescript/src/index.js", import.meta.url));
    const client = await query();
    await client.query(
      `select integration.publish_many('shop', array_fill('billing'::text, array[$1::integer]), array_fill('n'::text, array[$1::integer]),
         array_fill('1'::text, array[$1::integer]))`, [DRAIN]);
    const consumer = new Consumer(url, "billing", { concurrency: CONCURRENCY }).on([], handle);
    const running = consumer.run();
    const message = { source: "shop", target: "billing", recordType: "n", data: 1 };
    const found = [await drain(), await wake(() => publish(client.query.bind(client), message))];
    consumer.stop();
    await running;
    await client.end();
    return found;
  },

  async "graphile-worker"() {
    const { run, makeWorkerUtils, Logger } = require("graphile-worker");
    const logger = new Logger(() => () => {});
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    await utils.migrate();
    const client = await query();
    await client.query("select graphile_worker.add_job('n', '1') from generate_series(1, $1::integer)", [DRAIN]);
    const runner = await run({
      connectionString: url, concurrency: CONCURRENCY, noHandleSignals: true, logger, taskList: { n: async () => handle() },
      maxPoolSize: 10,
    });
    const found = [await drain(), await wake(() => client.query("select graphile_worker.add_job('n', '1')"))];
    await runner.stop();
    await utils.release();
    await client.end();
    return found;
  },

  async "pg-boss"() {
    const PgBoss = require("pg-boss");
    const boss = new PgBoss(url);
    boss.on("error", console.error);
    await boss.start();
    await boss.createQueue("n");
    await boss.insert(Array.from({ length: DRAIN }, () => ({ name: "n", data: { n: 1 } })));
    // Its shortest pause between two looks; it has no notifications.
    const options = { batchSize: CONCURRENCY, pollingIntervalSeconds: 0.5 };
    await boss.work("n", options, async (jobs) => jobs.forEach(handle));
    const found = [await drain(), await wake(() => boss.send("n", { n: 1 }))];
    await boss.stop({ graceful: false });
    return found;
  },
};

async function query() {
  const { Client } = require("pg");
  const client = new Client(url);
  await client.connect();
  return client;
}

const [drainPerS, woken] = await systems[system]();
console.log(JSON.stringify({ system, language: "node", drain_per_s: drainPerS, ...woken }));
process.exit(0);
