// Publishing, in whatever transaction the caller is.

/** @param {import("./index.d.ts").NewMessage} message @returns {[string, [string]]} */
export function publishing(message) {
  const text = JSON.stringify({
    source_app: message.source,
    target_app: message.target,
    record_type: message.recordType,
    data: message.data ?? null,
    priority: message.priority ?? 0,
    delay_ms: message.delayMs && Math.round(message.delayMs),
    headers: message.headers,
    ordering_key: message.orderingKey,
    dedup_key: message.dedupKey,
    max_retries: message.maxRetries,
    expires_ms: message.expiresAfterMs && Math.round(message.expiresAfterMs),
    coalesce_key: message.coalesceKey,
    max_wait_ms: message.maxWaitMs && Math.round(message.maxWaitMs),
  });
  // Bound as text: some drivers would write it as JSON a second time.
  return [`select ${schemaName(message.schema)}.publish($1::text::jsonb) as id`, [text]];
}

/**
 * @param {(sql: string, params: any[]) => PromiseLike<any>} query
 * @param {import("./index.d.ts").NewMessage} message
 */
export async function publish(query, message) {
  const answer = await query(...publishing(message));
  return Number((answer.rows ?? answer)[0].id);
}

/** @param {string} [schema] */
export function schemaName(schema = "integration") {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(schema)) throw new RangeError(`no name of a schema that needs no quotes: ${schema}`);
  return schema;
}
