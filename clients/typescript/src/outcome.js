// What a handler says about a message, as settle_many takes it.

/** @param {string} reason @param {{ afterMs?: number }} [options] */
export const retry = (reason, { afterMs } = {}) => ({ outcome: "retry", reason: storable(reason), delay_ms: afterMs });
/** @param {number} afterMs */
export const snooze = (afterMs) => ({ outcome: "snooze", delay_ms: Math.round(afterMs) });
/** @param {string} reason */
export const reject = (reason) => ({ outcome: "reject", reason: storable(reason) });
/** @param {string} reason */
export const unavailable = (reason) => ({ outcome: "unavailable", reason: storable(reason) });
export const settled = () => ({ outcome: "settled" });

const OUTCOMES = ["complete", "retry", "snooze", "reject", "unavailable", "settled"];

/** @param {any} result @returns {{ outcome: string }} */
export function verdict(result) {
  if (result === undefined || result === null) return { outcome: "complete" };
  if (OUTCOMES.includes(result.outcome)) return result;
  throw new TypeError("a handler returned what is no outcome; return nothing when it is done");
}

/** The server cannot receive a NUL, nor half a surrogate pair; it keeps 8,000 characters. @param {string} reason */
export function storable(reason) {
  return String(reason).slice(0, 8000).replaceAll("\0", "").replace(/\p{Surrogate}/gu, "\ufffd");
}
