import type { EventEmitter } from "node:events";
import type { ClientConfig } from "pg";

/** One attempt at one message. id, attempt and createdAt, with the owner, are the fence of all that settles it. */
export interface Message<Data = any> {
  readonly id: number;
  readonly attempt: number;
  /** As the server wrote it, to the microsecond: part of the fence, so it is no Date. */
  readonly createdAt: string;
  readonly source: string;
  readonly target: string;
  readonly recordType: string;
  readonly data: Data;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly retryCount: number;
  readonly redriveCount: number;
  readonly orderingKey: string | null;
  readonly canary: boolean;
  readonly owner: string;
  /** Aborted when the result is not wanted any more: the message belongs to others, took too long, or is given back. */
  readonly signal: AbortSignal;
  /**
   * A statement and its parameters that complete the message, for a transaction of the handler's own, so that its effects
   * count once; with a reply for who asked, where the message is a request. It fails with SQLSTATE MQ001 when the message belongs to somebody else by now. Commit, then return
   * `settled()`.
   */
  completion(reply?: unknown): [sql: string, params: unknown[]];
}

/** What a handler says about a message; made by the functions below. Nothing: it is done. */
export interface Outcome {
  readonly outcome: string;
}

/** Failed for now; costs a retry. An error that is thrown says the same. Without afterMs: the policy's backoff. */
export function retry(reason: string, options?: { afterMs?: number }): Outcome;
/** Not now, at no cost. */
export function snooze(afterMs: number): Outcome;
/** Failed for good: no retry can help. */
export function reject(reason: string): Outcome;
/** What the target's messages need is down: given back at no cost, and the target's breaker opens for the fleet. */
export function unavailable(reason: string): Outcome;
/** The handler has completed the message in its own transaction. */
export function settled(): Outcome;

export type Handler<Data = any> = (message: Message<Data>) => Promise<Outcome | void> | Outcome | void;

export interface ConsumerOptions {
  /** Handlers that run at the same time. Default 8. */
  concurrency?: number;
  /** Messages taken ahead of free handlers; nobody else can handle them meanwhile. Default 0. */
  prefetch?: number;
  /** How often to look without having been rung. Default 5,000. */
  sweepMs?: number;
  /** A handler that takes longer is aborted, and its message failed for now. Default 60,000; null: no limit. */
  handlerTimeoutMs?: number | null;
  /** How long stopping waits for handlers before it aborts them and gives their messages back. Default 30,000. */
  drainTimeoutMs?: number;
  /** How long after the last sign of this process its messages are given to others, at most. Default 15,000. */
  leaseMs?: number;
  /** How often it gives a sign. Default 1,000. */
  beatMs?: number;
  /** As `doorbell processes` names it. */
  application?: string;
  /** Default "integration". */
  schema?: string;
}

/**
 * Handles the messages of one target. `connection` is pg's: a connection string or an object. It should be direct: behind
 * a transaction pooler no notification comes, and only the sweep is left.
 *
 * Emits "warning" with an Error once for each change of state: an outage, its end, a lost lease. None of these ends it.
 */
export class Consumer extends EventEmitter {
  constructor(connection: string | ClientConfig, target: string, options?: ConsumerOptions);
  /** The handler of these record types; without any, of all others. Without one of all others, only these are taken. */
  on<Data>(recordTypes: string[], handler: Handler<Data>): this;
  on(event: "warning", listener: (error: Error) => void): this;
  /** Runs until `stop`, or until the signal is aborted; what was taken has come to its end then. */
  run(options?: { signal?: AbortSignal }): Promise<void>;
  /** Takes nothing any more. */
  stop(): void;
}

export interface NewMessage {
  source: string;
  target: string;
  recordType: string;
  data: unknown;
  priority?: number;
  /** It is pending after so long. */
  delayMs?: number;
  headers?: Record<string, string>;
  orderingKey?: string;
  /** Within the window, a second message of the source under this key is the first one. */
  dedupKey?: string;
  maxRetries?: number;
  /** It is cancelled if it still waits after so long. */
  expiresAfterMs?: number;
  /** It replaces what the message under this key says that waits, whose delay begins anew. */
  coalesceKey?: string;
  /** How long after the first publish later ones may put it off. */
  maxWaitMs?: number;
  /** Default "integration". */
  schema?: string;
}

/** A statement with $1, and its parameter, for any query function. Its one row has the id as `id`. */
export function publishing(message: NewMessage): [sql: string, params: [string]];

/**
 * Publishes a message in whatever transaction the query function is in, and returns its id: it is there when that commits.
 * The function gets SQL with $1 and an array of parameters, and answers with rows or with an object that has them: a pg
 * Client or Pool (`client.query.bind(client)`), `tx.unsafe` of postgres.js; the README has those of Kysely, Drizzle and Prisma.
 */
export function publish(
  query: (sql: string, params: any[]) => PromiseLike<any>,
  message: NewMessage,
): Promise<number>;
