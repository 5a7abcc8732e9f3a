// The last five minutes: rates as they were measured, delays in steps, and when the page was
// disconnected. Bounded: one sample a second, and a fixed number of delays per step.

export const SPAN_MS = 300_000;
const SPAN_MIN_MS = 30_000;
export const STEP_MS = 5_000; // of delays
const DELAYS_MAX = 512; // of one step; more are sampled evenly
const RECENT_MS = 30_000; // what the figures are computed from
const SAMPLES_MAX = 400;

export class History {
  rates = []; // { at, from, lanes } oldest first; lanes is null where nothing is known
  steps = []; // { at, seen, delays } oldest first
  breaks = []; // { from, to } disconnected; `to` is null while it lasts
  startedAt = Date.now();

  /** Adds the rate of each lane since the sample before; `null` where they are not known. */
  addRates(at, lanes) {
    const before = this.rates.at(-1);
    const known = lanes !== null && Object.values(lanes).every(Number.isFinite);
    this.rates.push({ from: before?.at ?? at, at, lanes: known ? lanes : null });
    this.#forget(at);
  }

  addDelay(at, delay) {
    const begin = at - (at % STEP_MS);
    if (this.steps.at(-1)?.at !== begin) this.steps.push({ at: begin, seen: 0, delays: [] });
    const step = this.steps.at(-1);
    step.seen += 1;
    if (step.delays.length < DELAYS_MAX) step.delays.push(delay);
    else {
      const place = Math.floor(Math.random() * step.seen);
      if (place < DELAYS_MAX) step.delays[place] = delay;
    }
    this.#forget(at);
  }

  disconnected(at) {
    if (this.breaks.at(-1)?.to !== null) this.breaks.push({ from: at, to: null });
  }

  connected(at) {
    const last = this.breaks.at(-1);
    if (last && last.to === null) last.to = at;
  }

  /** The rates as means over at least so long; a step ends where nothing is known. */
  means(atLeast) {
    const means = [];
    const step = (at) => Math.floor(at / atLeast);
    for (const { from, at, lanes } of this.rates) {
      const last = means.at(-1);
      const joins = last?.lanes && lanes && step(last.at) === step(at);
      if (!joins) means.push({ from, at, lanes });
      else means[means.length - 1] = joined(last, { at, lanes });
    }
    return means;
  }

  /** `{ at, p50, p99 }` of every step that has delays. */
  delays() {
    return this.steps.map(({ at, delays }) => ({ at, ...percentiles(delays) }));
  }

  /** `{ p50, p99 }` of the newest events. */
  recent(now) {
    const steps = this.steps.filter(({ at }) => at > now - RECENT_MS);
    return percentiles(steps.flatMap(({ delays }) => delays));
  }

  /** The span to show: it grows with the page's age to five minutes. */
  span(now) {
    return Math.min(SPAN_MS, Math.max(SPAN_MIN_MS, now - this.startedAt));
  }

  #forget(now) {
    const oldest = now - SPAN_MS - STEP_MS;
    while (this.rates.length > SAMPLES_MAX || this.rates[0]?.at < oldest) this.rates.shift();
    while (this.steps[0]?.at < oldest) this.steps.shift();
    while (this.breaks[0]?.to && this.breaks[0].to < oldest) this.breaks.shift();
  }
}

function joined(a, b) {
  const [before, more] = [a.at - a.from, b.at - a.at];
  const mean = ([lane, rate]) => [lane, (rate * before + b.lanes[lane] * more) / (before + more)];
  return { from: a.from, at: b.at, lanes: Object.fromEntries(Object.entries(a.lanes).map(mean)) };
}

/** p50 and p99 by nearest rank; `null` of nothing. */
export function percentiles(values) {
  if (values.length === 0) return { p50: null, p99: null };
  const sorted = Float64Array.from(values).sort();
  const rank = (share) => sorted[Math.ceil(share * sorted.length) - 1];
  return { p50: rank(0.5), p99: rank(0.99) };
}
