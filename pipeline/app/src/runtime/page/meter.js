// Rates of the pipeline, from the server's own counters: asked once a second while the page is
// visible, at most one request at a time.
//
// A process with the whole pipeline counts everything in /metrics. A gateway on its own does not
// see the lanes there, so it counts by the offsets of the lanes' topics in /v1/stats, which asks
// the log, and therefore less often.

export const LANES = ["critical", "high", "normal", "low"];

const EVERY_MS = 1_000;
const OFFSETS_EVERY_MS = 5_000;
const REQUEST_LIMIT_MS = 4_000;
const LONGEST_STEP_MS = 12_000; // after a longer pause there is no rate, only a new start
const SERIES = /^tidewire_(\w+)(?:\{(.*)\})? (\S+)$/;

/** Dispatches `rates` with what it found, and `away` when the server does not answer. */
export class Meter extends EventTarget {
  server = null; // { version, role } once known
  #last = null;
  #timer = 0;
  #asking = false;

  start() {
    document.addEventListener("visibilitychange", () => this.#poll());
    this.#poll();
  }

  async #poll() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#asking) return;
    this.#asking = true;
    try {
      const stats = this.server ? null : await this.#identify();
      this.#take(this.#hasLanes() ? await counters() : await offsets(stats));
    } catch (error) {
      this.#last = null;
      this.server = null; // it may come back as another version
      this.dispatchEvent(new CustomEvent("away", { detail: reasonOf(error) }));
    }
    this.#asking = false;
    this.#timer = setTimeout(() => this.#poll(), this.#hasLanes() ? EVERY_MS : OFFSETS_EVERY_MS);
  }

  #hasLanes() {
    return !this.server || this.server.role === "dev";
  }

  async #identify() {
    const stats = await (await ask("/v1/stats")).json();
    this.server = { version: stats.version, role: stats.role };
    return stats;
  }

  #take(counts) {
    const at = Date.now();
    const last = this.#last;
    this.#last = { at, counts };
    const seconds = last ? (at - last.at) / 1_000 : 0;
    const restarted = last && LANES.some((lane) => counts.lanes[lane] < last.counts.lanes[lane]);
    const usable = last && seconds * 1_000 <= LONGEST_STEP_MS && !restarted;
    const rate = (of) => (usable ? (of(counts) - of(last.counts)) / seconds : null);
    const rates = {
      lanes: Object.fromEntries(LANES.map((lane) => [lane, rate((all) => all.lanes[lane])])),
      written: rate((all) => all.written),
      admitted: rate((all) => all.admitted),
      derived: rate((all) => all.derived),
      sent: rate((all) => all.sent),
      demo: rate((all) => all.demo),
    };
    this.dispatchEvent(new CustomEvent("rates", { detail: { at, rates, counts } }));
  }
}

async function ask(path) {
  const signal = AbortSignal.timeout(REQUEST_LIMIT_MS);
  const response = await fetch(path, { cache: "no-store", signal });
  if (!response.ok) throw new Error(`${path} answers ${response.status}`);
  return response;
}

function reasonOf(error) {
  if (error.name === "TimeoutError") return "the server does not answer in time";
  return error instanceof TypeError ? "the server can't be reached" : error.message;
}

/** The counters of /metrics; a series that is not there yet has counted nothing. */
async function counters() {
  const sums = new Map();
  for (const line of (await (await ask("/metrics")).text()).split("\n")) {
    const found = SERIES.exec(line);
    if (!found) continue;
    const [, name, labels, value] = found;
    for (const key of labels ? [name, `${name} ${labels}`] : [name]) {
      sums.set(key, (sums.get(key) ?? 0) + Number(value));
    }
  }
  const sum = (name) => sums.get(name) ?? 0;
  const byLane = (lane) => [lane, sum(`derive_events_total lane="${lane}"`)];
  return {
    lanes: Object.fromEntries(LANES.map(byLane)),
    written: sum("admit_records_total"),
    admitted: sum("admit_events_total"),
    derived: sum("derive_events_total"),
    sent: sum("fanout_deliveries_total"),
    demo: sum("demo_events_total"),
    rejected: sum("admit_rejected_total") + sum('ingest_events_total result="refused"'),
    duplicates: sum("derive_duplicates_total"),
    connections: sum("socket_connections"),
    stopped: sum("admit_stopped") > 0,
  };
}

/** The same as far as the ends of topics tell it; `null` for what only other processes know. */
async function offsets(known) {
  const stats = known ?? (await (await ask("/v1/stats")).json());
  if (!stats.topics) throw new Error(stats.error ?? "the log does not answer");
  const ends = ({ offsets }) => offsets.reduce((sum, [, end]) => sum + end, 0);
  const end = (name) => {
    const named = stats.topics.filter(({ topic }) => `.${topic}`.endsWith(`.${name}`));
    return named.reduce((sum, topic) => sum + ends(topic), 0);
  };
  const lanes = Object.fromEntries(LANES.map((lane) => [lane, end(`lane.${lane}`)]));
  const admitted = LANES.reduce((sum, lane) => sum + lanes[lane], 0);
  return {
    lanes,
    written: end("in") + end("in.urgent") + end("in.internal"),
    admitted,
    derived: NaN,
    sent: stats.deliveries,
    demo: NaN,
    rejected: end("dead-letters"),
    duplicates: null,
    connections: stats.websockets + stats.sse_streams,
    stopped: false,
  };
}
