// Connections that outlast the server: opened when needed, dropped at the first error.

import pg from "pg";

// How long one call may take, here and on the server.
const WITHIN_MS = 30_000;
const SETTINGS =
  `set statement_timeout = ${WITHIN_MS}; set lock_timeout = ${WITHIN_MS / 2}; set idle_session_timeout = 0; ` +
  "set idle_in_transaction_session_timeout = 0; set default_transaction_isolation = 'read committed'";

/** @typedef {pg.Client & { processID: number, lost: Promise<Error> }} Connection */

/**
 * @param {string | pg.ClientConfig} given
 * @param {string} application
 * @returns {Promise<Connection>} with the process that the server named, and a promise of its end
 */
export async function connect(given, application) {
  const client = /** @type {Connection} */ (
    new pg.Client({
      application_name: application,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: 10_000,
      query_timeout: WITHIN_MS,
      ...(typeof given === "string" ? { connectionString: given } : given),
    })
  );
  client.lost = new Promise((resolve) => {
    client.on("error", resolve);
    client.on("end", () => resolve(new Error("the connection has ended")));
  });
  try {
    await client.connect();
    // A pooler names a process of its own, and hands the session on between two statements.
    const { rows } = await client.query("select pg_catalog.pg_backend_pid() as pid");
    if (rows[0].pid === client.processID) await client.query(SETTINGS);
  } catch (error) {
    close(client);
    throw error;
  }
  return client;
}

/** Does not wait: the server may be gone. @param {pg.Client | undefined} client */
export function close(client) {
  client?.end().catch(() => {});
}

/** After so many failures in a row: up to 0.1 s, doubled up to 2 s, spread so that a fleet does not come at once. */
/** @param {number} failures */
export const pauseMs = (failures) => Math.min(2000, 100 * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2);

/** The connection for settling and for being alive; an error drops it, and the next call opens one. */
export class Work {
  /** @type {Promise<Connection> | undefined} */
  #client;
  #given;
  #application;

  /** @param {string | pg.ClientConfig} given @param {string} application */
  constructor(given, application) {
    this.#given = given;
    this.#application = application;
  }

  /** @param {string} sql @param {unknown[]} params @returns {Promise<any[]>} */
  async call(sql, params) {
    const client = (this.#client ??= connect(this.#given, this.#application));
    try {
      return (await (await client).query(sql, params)).rows;
    } catch (error) {
      if (this.#client === client) this.#client = undefined;
      client.then(close, () => {});
      throw error;
    }
  }

  close() {
    this.#client?.then(close, () => {});
  }
}
