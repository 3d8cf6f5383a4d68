// The consumer: takes, handles, settles, and waits for bells.
//
// Two connections. On the first it says hello, takes, and waits for notifications; on the second it settles what came to
// its end, and beats. All that concerns messages is decided by the database: see the comments of hello, take,
// settle_many and keep_alive there.

import { EventEmitter, once } from "node:events";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

import { Work, close, connect, pauseMs } from "./connection.js";
import { retry, verdict } from "./outcome.js";
import { schemaName } from "./publish.js";

/**
 * @typedef {import("./connection.js").Connection} Connection
 * @typedef {import("./index.d.ts").Handler} Handler
 * @typedef {import("./index.d.ts").Message} Message
 * @typedef {{ message: Message, abort: AbortController, verdict?: any }} InHand
 */

// Verdicts of one call. More wait for the next.
const SETTLE_MAX = 1000;
const THOROUGH_EVERY = 5;

export class Consumer extends EventEmitter {
  /** @type {Map<string, Handler>} */
  #handlers = new Map();
  /** @type {Handler | undefined} */
  #fallback;
  /** @type {string | null} */
  #owner = null;
  /** What was taken and not settled yet. @type {Set<InHand>} */
  #inHand = new Set();
  /** Those of them that wait for a free handler, and those that are to be settled. @type {InHand[]} */
  #waiting = [];
  /** @type {InHand[]} */
  #verdicts = [];
  #running = 0;
  /** Runs that ended well since the breaker was told how runs went. */
  #ok = 0;
  #stopping = false;
  #rung = false;
  /** Whether who takes waits for the end of a run. */
  #awaitsEnds = false;
  /** Emits "wake" for who takes, "settle" for who settles, "empty" when nothing is in hand. */
  #inner = new EventEmitter();

  /**
   * @param {string | import("pg").ClientConfig} connection
   * @param {string} target
   * @param {import("./index.d.ts").ConsumerOptions} [options]
   */
  constructor(connection, target, options = {}) {
    super();
    this.connection = connection;
    this.target = target;
    this.options = {
      concurrency: 8, prefetch: 0, sweepMs: 5_000, drainTimeoutMs: 30_000, leaseMs: 15_000, beatMs: 1_000,
      application: "doorbell-pg (Node)", ...options,
      handlerTimeoutMs: options.handlerTimeoutMs === undefined ? 60_000 : options.handlerTimeoutMs,
    };
    if (!(this.options.concurrency >= 1 && this.options.prefetch >= 0)) {
      throw new RangeError("concurrency is at least 1, and prefetch at least 0");
    }
    this.schema = schemaName(options.schema);
    this.work = new Work(connection, this.options.application);
  }

  /** @param {any} recordTypes @param {any} handler */
  on(recordTypes, handler) {
    if (!Array.isArray(recordTypes)) return super.on(recordTypes, handler);
    for (const recordType of recordTypes) this.#handlers.set(recordType, handler);
    if (recordTypes.length === 0) this.#fallback = handler;
    return this;
  }

  stop() {
    this.#stopping = true;
    this.#wake();
  }

  /** @param {{ signal?: AbortSignal }} [options] */
  async run({ signal } = {}) {
    if (this.#handlers.size === 0 && !this.#fallback) {
      throw new Error("there is no handler: give one to consumer.on([...], handler)");
    }
    signal?.addEventListener("abort", () => this.stop(), { once: true });
    if (signal?.aborted) this.stop();
    const over = new AbortController();
    const background = [this.#settleAll(over.signal), this.#keepAlive(over.signal)];
    try {
      await this.#takeAll();
    } finally {
      over.abort();
      for (const one of this.#inHand) one.abort.abort();
      this.work.close();
      await Promise.allSettled(background);
    }
  }

  async #takeAll() {
    for (let failures = 0; !this.#stopping; ) {
      /** @type {Connection | undefined} */
      let bell;
      try {
        bell = await connect(this.connection, this.options.application);
        bell.on("notification", () => this.#wake());
        bell.lost.then(() => this.#wake());
        await this.#hello(bell);
        if (failures > 0) this.#warn("the database is back");
        failures = 0;
        // The session lock of `bell` says that this process is alive, so draining comes before closing it.
        const barrier = await this.#takeUntilStopped(bell);
        if (barrier !== null) await this.#take(bell, 0, barrier);
        await this.#drain();
        return;
      } catch (/** @type {any} */ error) {
        if (error.code === "MQ001") {
          this.#letGo();
          continue;
        }
        if (failures++ === 0) this.#warn("no taking, trying again until it works", error);
        await sleep(pauseMs(failures));
      } finally {
        close(bell);
      }
    }
    await this.#drain();
  }

  get #types() {
    return this.#fallback ? null : [...this.#handlers.keys()];
  }

  /** @param {Connection} bell */
  async #hello(bell) {
    const sql = `select owner, direct, lost::text[] from ${this.schema}.hello($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`;
    const { concurrency, leaseMs, application } = this.options;
    const inHand = new Set(this.#inHand);
    const { rows } = await bell.query(sql, [
      this.target, this.#owner, this.#types, concurrency, bell.processID, fences(inHand), leaseMs,
      hostname(), process.pid, application, "node",
    ]);
    if (rows[0].owner !== this.#owner) {
      if (this.#owner !== null) this.#letGo();
      this.#owner = rows[0].owner;
    }
    this.#dropLost(inHand, rows[0].lost);
    if (!rows[0].direct) this.#warn("a pooler is in between, so only sweeps find messages");
  }

  /** @param {Connection} bell @returns {Promise<string | null>} the barrier */
  async #takeUntilStopped(bell) {
    const { concurrency, prefetch, sweepMs } = this.options;
    /** @type {string | null} */
    let barrier = null;
    for (let idleLooks = 0; !this.#stopping; ) {
      this.#rung = false;
      // What only waits to be settled needs no handler.
      const room = concurrency + prefetch - this.#running - this.#waiting.length;
      this.#awaitsEnds = room <= 0 || this.#verdicts.length > SETTLE_MAX;
      if (this.#awaitsEnds) {
        await this.#rings(2 ** 30);
        continue;
      }
      const took = await this.#take(bell, room, barrier);
      barrier = took.barrier;
      if (took.may_wait) {
        const swept = sweepMs * (0.9 + Math.random() / 5);
        const dueMs = Number(took.due_in_ms ?? swept);
        // So soon only where something waits for somebody's settle: see take.
        this.#awaitsEnds = dueMs <= 100;
        await this.#rings(Math.ceil(Math.min(dueMs, swept)));
      }
      idleLooks = took.may_wait || took.messages.length > 0 ? 0 : idleLooks + 1;
      // Somebody may be committing silently: see take.
      if (idleLooks > 1) await sleep(idleLooks < 30 ? Math.min(100, 2 ** idleLooks) : 1000);
    }
    return barrier;
  }

  /** @param {Connection} bell @param {number} room @param {string | null} barrier */
  async #take(bell, room, barrier) {
    const sql = `select * from ${this.schema}.take($1, $2, $3, $4, $5, $6)`;
    const owner = this.#owner ?? "";
    const { rows } = await bell.query(sql, [this.target, owner, room, this.#types, barrier, bell.processID]);
    for (const taken of rows[0].messages) {
      const abort = new AbortController();
      const one = { message: messageOf(taken, this.target, owner, this.schema, abort.signal), abort };
      this.#inHand.add(one);
      this.#waiting.push(one);
    }
    this.#start();
    return rows[0];
  }

  #start() {
    while (this.#running < this.options.concurrency && this.#waiting.length > 0) {
      const one = /** @type {InHand} */ (this.#waiting.shift());
      this.#running += 1;
      this.#handle(one).then((settled) => {
        this.#running -= 1;
        this.#end(one, settled);
        this.#start();
      });
    }
  }

  /** @param {InHand} one @returns {Promise<{ outcome: string }>} */
  async #handle({ message, abort }) {
    const handler = /** @type {Handler} */ (this.#handlers.get(message.recordType) ?? this.#fallback);
    const { handlerTimeoutMs: limit } = this.options;
    const timer = limit === null ? undefined : setTimeout(() => abort.abort(new Error(`timed out after ${limit} ms`)), limit);
    // A handler that does not listen is left behind: what it does then is no one's.
    const aborted = once(abort.signal, "abort").then(() => Promise.reject(abort.signal.reason));
    try {
      return verdict(await Promise.race([(async () => handler(message))(), aborted]));
    } catch (/** @type {any} */ error) {
      return error === RELEASED ? { outcome: "release" } : retry(error?.message ?? String(error));
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {InHand} one @param {{ outcome: string }} settled */
  #end(one, settled) {
    if (!this.#inHand.has(one)) return;
    if (settled.outcome === "settled") return this.#forget(one);
    one.verdict = settled;
    this.#verdicts.push(one);
    this.#inner.emit("settle");
    this.#ended();
  }

  /** There is room again; or what waited for a settle is free. A look for nothing costs the next message time. */
  #ended() {
    if (this.#awaitsEnds) this.#wake();
  }

  /** @param {InHand} one */
  #forget(one) {
    this.#inHand.delete(one);
    if (this.#inHand.size === 0) this.#inner.emit("empty");
    this.#ended();
  }

  /** Of what belongs to others, or did not begin. @param {InHand} one */
  #drop(one) {
    this.#waiting = this.#waiting.filter((other) => other !== one);
    this.#forget(one);
    one.abort.abort(RELEASED);
  }

  /** Of what was in hand when it was asked for. @param {Set<InHand>} inHand @param {string[]} lost ids */
  #dropLost(inHand, lost) {
    for (const one of inHand) {
      if (lost.includes(String(one.message.id)) && this.#inHand.has(one)) this.#drop(one);
    }
  }

  #letGo() {
    this.#warn(`the lease of ${this.#owner} was lost, and ${this.#inHand.size} messages`);
    this.#owner = null;
    for (const one of [...this.#inHand]) this.#drop(one);
  }

  /** @param {AbortSignal} over */
  async #settleAll(over) {
    for (let failures = 0; !over.aborted; ) {
      if (this.#verdicts.length === 0) await once(this.#inner, "settle", { signal: over }).catch(() => {});
      const owner = this.#verdicts[0]?.message.owner;
      const batch = this.#verdicts.slice(0, SETTLE_MAX).filter((one) => one.message.owner === owner);
      if (batch.length === 0) continue;
      try {
        await this.#settleMany(/** @type {string} */ (owner), batch);
        failures = 0;
      } catch (/** @type {any} */ error) {
        // Whether it was done or not: done again, it does nothing.
        if (failures++ === 0) this.#warn("no settling, trying again until it works", error);
        await sleep(pauseMs(failures));
        continue;
      }
      const done = new Set(batch);
      this.#verdicts = this.#verdicts.filter((one) => !done.has(one));
      for (const one of batch) this.#forget(one);
      // It comes again, and where the target's bell is off nobody says when.
      if (batch.some((one) => one.verdict.outcome !== "complete")) this.#wake();
    }
  }

  /** @param {string} owner @param {InHand[]} batch */
  async #settleMany(owner, batch) {
    const verdicts = JSON.stringify(batch.map((one) => ({ ...fence(one), ...one.verdict })));
    const sql = `select id from ${this.schema}.settle_many($1, $2, $3, $4)`;
    await this.work.call(sql, [this.target, owner, verdicts, this.#ok]);
    const told = batch.some((one) => one.message.canary || ["retry", "unavailable"].includes(one.verdict.outcome));
    this.#ok = told ? 0 : this.#ok + batch.filter((one) => one.verdict.outcome === "complete").length;
  }

  /** @param {AbortSignal} over */
  async #keepAlive(over) {
    const { beatMs, leaseMs } = this.options;
    const sql = `select renewed, lost::text[] from ${this.schema}.keep_alive($1, $2, $3, $4)`;
    for (let beats = 0; ; ) {
      await sleep(beatMs * (0.9 + Math.random() / 5), undefined, { signal: over }).catch(() => {});
      if (over.aborted) return;
      const owner = this.#owner;
      if (owner === null) continue;
      const inHand = new Set(this.#inHand);
      try {
        const [kept] = await this.work.call(sql, [owner, fences(inHand), leaseMs, beats % THOROUGH_EVERY === 0]);
        beats += 1;
        // The next take says so, too.
        if (!kept.renewed) this.#wake();
        this.#dropLost(inHand, kept.lost);
      } catch {
        // The next beat comes soon, and whoever settles says what is wrong.
      }
    }
  }

  /** Until all that was taken is settled, or given back. */
  async #drain() {
    for (const one of this.#waiting.splice(0)) this.#end(one, { outcome: "release" });
    const { drainTimeoutMs } = this.options;
    if (!(await this.#empty(drainTimeoutMs))) {
      for (const one of this.#inHand) one.abort.abort(RELEASED);
      await this.#empty(Math.max(drainTimeoutMs, 1000));
    }
    try {
      if (this.#owner !== null) await this.work.call(`select ${this.schema}.deregister($1)`, [this.#owner]);
    } catch (/** @type {any} */ error) {
      this.#warn(`${this.#inHand.size} messages are left to others`, error);
    }
  }

  /** @param {number} ms */
  async #empty(ms) {
    const signal = AbortSignal.timeout(ms);
    if (this.#inHand.size > 0) await once(this.#inner, "empty", { signal }).catch(() => {});
    return this.#inHand.size === 0;
  }

  #wake() {
    this.#rung = true;
    this.#inner.emit("wake");
  }

  /** Until a notification, stop, or so many milliseconds have passed. @param {number} ms */
  async #rings(ms) {
    if (!this.#rung) await once(this.#inner, "wake", { signal: AbortSignal.timeout(ms) }).catch(() => {});
  }

  /** @param {string} what @param {Error} [cause] */
  #warn(what, cause) {
    this.emit("warning", new Error(`${this.target}: ${what}${cause ? `: ${cause.message}` : ""}`, { cause }));
  }
}

const RELEASED = new Error("given back, or taken by others");

/** @param {InHand} one */
const fence = ({ message: { id, attempt, createdAt, canary } }) => ({ id, attempt, created_at: createdAt, canary });

/** @param {Iterable<InHand>} inHand */
const fences = (inHand) => JSON.stringify([...inHand].map(fence));

/** @param {any} taken @param {string} target @param {string} owner @param {string} schema @param {AbortSignal} signal */
function messageOf(taken, target, owner, schema, signal) {
  const { id, attempt, created_at: createdAt, data, priority, canary } = taken;
  const fence = [id, attempt, owner, createdAt];
  /** @param {unknown} [reply] @returns {[string, unknown[]]} */
  const completion = (reply) =>
    reply === undefined
      ? [`select ${schema}.complete($1, $2, $3, $4::text::timestamptz)`, fence]
      : [`select ${schema}.reply($1, $2, $3, $5::text::jsonb, $4::text::timestamptz)`, [...fence, JSON.stringify(reply)]];
  return {
    id, attempt, createdAt, data, priority, canary, owner, target, signal, completion, source: taken.source_app,
    recordType: taken.record_type, headers: taken.headers ?? {}, retryCount: taken.retry_count,
    redriveCount: taken.redrive_count, orderingKey: taken.ordering_key,
  };
}
