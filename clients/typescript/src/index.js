export { Consumer } from "./consumer.js";
export { reject, retry, settled, snooze, unavailable } from "./outcome.js";
export { publish, publishing } from "./publish.js";
