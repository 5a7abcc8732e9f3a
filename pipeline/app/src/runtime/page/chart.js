// The chart: one row per lane with its events per second, and one row with the delay, over the
// same span of time. Each lane has a scale of its own, since rare critical events would be
// invisible beside the many low ones; a row says its highest value. The scale of the delay is
// logarithmic, for the same reason.
//
// It draws SVG and nothing else. A moment can be read by pointer, and by the arrow keys as a
// slider; the table below the chart has the same values in words.

import { STEP_MS } from "/page/history.js";
import { LANES } from "/page/meter.js";

const LABEL_PX = 19;
const LANE_PX = 34;
const DELAY_PX = 64;
const GAP_PX = 7;
const AXIS_PX = 20;
const TICKS_MS = [5_000, 10_000, 15_000, 30_000, 60_000];
const TICKS_MAX = 5;
const NARROW_PX = 400;
const BREAK_NAME_PX = 84;
const DECADE_NAME_PX = 50;
const BAR_PX = 3; // a narrower step of a lane could not be seen
const KEY_STEP_MS = 5_000;
const TABLE_STEP_MS = 30_000;
const TABLE_EVERY_MS = 10_000; // a table that changes while it is read is of no use
const HINT = "Point at the chart, or focus it and press the arrow keys, to read a moment.";

export class Chart {
  #frame;
  #svg;
  #readout;
  #history;
  #ago = null; // milliseconds before now of the moment that is read
  #width = 0;
  #tableAt = 0;

  constructor(frame, readout, history) {
    this.#frame = frame;
    this.#svg = frame.querySelector("svg");
    this.#readout = readout;
    this.#history = history;
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = Math.floor(contentRect.width);
      this.draw();
    }).observe(frame);
    frame.addEventListener("pointermove", (event) => this.#point(event));
    frame.addEventListener("pointerleave", () => this.#read(null));
    frame.addEventListener("keydown", (event) => this.#key(event));
    frame.addEventListener("blur", () => this.#read(null));
  }

  draw() {
    if (this.#width === 0) return;
    const now = Date.now();
    const span = this.#history.span(now);
    const scene = { now, span, x: (at) => this.#width * (1 - (now - at) / span) };
    const shapes = [];
    let top = 0;
    for (const lane of LANES) {
      top += LABEL_PX;
      shapes.push(...this.#laneRow(scene, lane, top));
      top += LANE_PX + GAP_PX;
    }
    top += LABEL_PX;
    shapes.push(...this.#delayRow(scene, top));
    top += DELAY_PX;
    shapes.push(...this.#axis(scene, top), ...this.#cursor(scene, top));
    this.#svg.setAttribute("width", this.#width);
    this.#svg.setAttribute("height", top + AXIS_PX);
    this.#svg.replaceChildren(...shapes);
    this.#frame.setAttribute("aria-valuemin", -Math.round(span / 1_000));
    if (this.#ago === null) this.#readout.textContent = HINT;
    else this.#readout.textContent = this.#wordsAt(now - this.#ago);
  }

  #laneRow({ now, span, x }, lane, top) {
    const narrowest = Math.ceil(span * BAR_PX / this.#width / 1_000) * 1_000;
    const inSpan = this.#history.means(narrowest).filter(({ at }) => at > now - span);
    const known = inSpan.filter(({ lanes }) => lanes);
    const highest = Math.max(0, ...known.map(({ lanes }) => lanes[lane]));
    const scale = LANE_PX / niceAbove(highest);
    const bottom = top + LANE_PX;
    let line = "";
    let area = "";
    let open = false;
    for (const { from, at, lanes } of inSpan) {
      if (!lanes) { open = false; continue; }
      const y = round(bottom - lanes[lane] * scale);
      const [left, right] = [round(Math.max(0, x(from))), round(x(at))];
      line += `${open ? "L" : "M"}${left} ${y}H${right}`;
      area += `M${left} ${bottom}V${y}H${right}V${bottom}Z`;
      open = true;
    }
    const last = known.at(-1);
    const words = last ? `${rateText(meanOfLast(known, lane))}/s, highest ${rateText(highest)}/s`
      : "no data yet";
    return [
      ...this.#row(top, LANE_PX, lane, words, `swatch lane-${lane}`),
      this.#shape("path", { d: area, class: `area lane-${lane}` }),
      this.#shape("path", { d: line, class: `line lane-${lane}` }),
    ];
  }

  #delayRow({ now, span, x }, top) {
    const steps = this.#history.delays().filter(({ at }) => at > now - span - STEP_MS);
    const highest = Math.max(0, ...steps.map(({ p99 }) => p99));
    const bottom = top + DELAY_PX;
    const decades = Math.max(1, Math.ceil(Math.log10(Math.max(1, highest))));
    const height = (ms) => Math.log10(Math.max(1, ms)) * DELAY_PX / decades;
    const path = (name) => {
      let before = -Infinity;
      return steps.map((step) => {
        const begins = step.at - before > STEP_MS;
        before = step.at;
        const y = round(bottom - height(step[name]));
        const [left, right] = [step.at, Math.min(now, step.at + STEP_MS)].map((at) => x(at));
        return `${begins ? "M" : "L"}${round(Math.max(0, left))} ${y}H${round(right)}`;
      }).join("");
    };
    const { p50, p99 } = this.#history.recent(now);
    const words = p50 === null ? "no live event yet"
      : this.#width < NARROW_PX ? "" : `highest ${delayText(highest)}`;
    const breaks = this.#history.breaks.filter(({ to }) => to === null || to > now - span);
    return [
      ...this.#row(top, DELAY_PX, "delay", words),
      ...breaks.map(({ from, to }) => this.#break({ x, top }, from, to ?? now)),
      this.#shape("path", { d: path("p99"), class: "line p99" }),
      this.#shape("path", { d: path("p50"), class: "line p50" }),
      ...this.#decades(bottom, decades),
      ...this.#legend(top, p50, p99),
      ...this.#nameBreak({ now, x, top }, breaks.at(-1)),
    ];
  }

  #decades(bottom, count) {
    const shapes = [];
    for (let decade = 1; decade < count; decade += 1) {
      const y = round(bottom - decade * DELAY_PX / count);
      shapes.push(this.#shape("path", { d: `M0 ${y}H${this.#width}`, class: "grid" }));
      shapes.push(this.#text(delayText(10 ** decade), { x: 0, y: y - 3, class: "small" }));
    }
    return shapes;
  }

  #legend(top, p50, p99) {
    const y = top - 9;
    const key = (name, ms, left) => [
      this.#shape("path", { d: `M${left} ${y}h20`, class: `line ${name}` }),
      this.#text(ms === null ? name : `${name} ${delayText(ms)}`, { x: left + 25, y: y + 4 }),
    ];
    return [...key("p50", p50, 46), ...key("p99", p99, 158)];
  }

  #break({ x, top }, from, to) {
    const left = Math.max(0, x(from));
    const width = Math.max(2, x(to) - left);
    const area = { x: round(left), y: top, width: round(width), height: DELAY_PX };
    return this.#shape("rect", { ...area, class: "break" });
  }

  #nameBreak({ now, x, top }, last) {
    if (!last) return [];
    const middle = (Math.max(0, x(last.from)) + x(last.to ?? now)) / 2;
    const half = BREAK_NAME_PX / 2;
    const inside = Math.min(this.#width - half, Math.max(DECADE_NAME_PX + half, middle));
    const place = { x: round(inside), y: top + 15, "text-anchor": "middle" };
    return [this.#text("disconnected", place)];
  }

  #row(top, height, name, words, swatch) {
    const y = top - 5;
    const bottom = top + height + 0.5;
    const shapes = [
      this.#shape("path", { d: `M0 ${top + 0.5}H${this.#width}`, class: "grid" }),
      this.#shape("path", { d: `M0 ${bottom}H${this.#width}`, class: "base" }),
      this.#text(name, { x: swatch ? 15 : 0, y, class: "name" }),
      this.#text(words, { x: this.#width, y, "text-anchor": "end" }),
    ];
    if (swatch) {
      shapes.push(this.#shape("rect", { y: y - 9, width: 9, height: 9, class: swatch }));
    }
    return shapes;
  }

  #axis({ now, span, x }, top) {
    const every = TICKS_MS.find((step) => span <= step * TICKS_MAX) ?? TICKS_MS.at(-1);
    const shapes = [];
    for (let ago = 0; ago < span - every / 4; ago += every) {
      const at = round(x(now - ago));
      const minutes = every === 60_000;
      const words = ago === 0 ? "now" : minutes ? `−${ago / 60_000} min` : `−${ago / 1_000} s`;
      const anchor = ago === 0 ? "end" : "middle";
      shapes.push(this.#shape("path", { d: `M${at} 0V${top}`, class: "grid" }));
      shapes.push(this.#text(words, { x: at, y: top + 15, "text-anchor": anchor }));
    }
    return shapes;
  }

  #cursor({ now, x }, top) {
    if (this.#ago === null) return [];
    return [this.#shape("path", { d: `M${round(x(now - this.#ago))} 0V${top}`, class: "cursor" })];
  }

  #point({ clientX }) {
    const { left, width } = this.#svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (clientX - left) / width));
    this.#read((1 - share) * this.#history.span(Date.now()));
  }

  #key(event) {
    const span = this.#history.span(Date.now());
    const ago = this.#ago ?? 0;
    const next = {
      ArrowLeft: ago + KEY_STEP_MS, ArrowDown: ago + KEY_STEP_MS,
      ArrowRight: ago - KEY_STEP_MS, ArrowUp: ago - KEY_STEP_MS,
      PageUp: ago - 6 * KEY_STEP_MS, PageDown: ago + 6 * KEY_STEP_MS,
      Home: span, End: 0,
    }[event.key];
    if (event.key === "Escape") this.#read(null);
    if (next === undefined) return;
    event.preventDefault();
    this.#read(Math.min(span, Math.max(0, next)));
    this.#frame.setAttribute("aria-valuenow", -Math.round(this.#ago / 1_000));
    this.#frame.setAttribute("aria-valuetext", this.#readout.textContent);
  }

  #read(ago) {
    this.#ago = ago;
    this.draw();
  }

  #wordsAt(at) {
    const sample = this.#history.rates.find((rate) => rate.from < at && at <= rate.at)
      ?? this.#history.rates.find((rate) => rate.at >= at) ?? this.#history.rates.at(-1);
    const step = this.#history.delays().findLast((of) => of.at <= at && at < of.at + STEP_MS);
    const rates = sample?.lanes
      ? LANES.map((lane) => `${lane} ${rateText(sample.lanes[lane])}/s`).join(", ")
      : "no rates";
    const delay = step ? `delay p50 ${delayText(step.p50)}, p99 ${delayText(step.p99)}`
      : "no live event";
    return `${clockText(at)}: ${rates}; ${delay}`;
  }

  /** Fills the table with means of half a minute, newest first. */
  fillTable(body) {
    const now = Date.now();
    if (now - this.#tableAt < TABLE_EVERY_MS) return;
    this.#tableAt = now;
    const rows = [];
    for (let until = now; until > now - this.#history.span(now); until -= TABLE_STEP_MS) {
      const inside = ({ at }) => at > until - TABLE_STEP_MS && at <= until;
      const rates = this.#history.rates.filter((rate) => inside(rate) && rate.lanes);
      const mean = (lane) => rates.reduce((sum, { lanes }) => sum + lanes[lane], 0) / rates.length;
      const steps = this.#history.delays().filter(inside);
      const highest = (name) => Math.max(...steps.map((step) => step[name]));
      const row = document.createElement("tr");
      const cell = (words) => { row.insertCell().textContent = words; };
      cell(clockText(until));
      for (const lane of LANES) cell(rates.length ? rateText(mean(lane)) : "–");
      for (const name of ["p50", "p99"]) cell(steps.length ? delayText(highest(name)) : "–");
      rows.push(row);
    }
    body.replaceChildren(...rows);
  }

  #shape(kind, attributes) {
    const shape = document.createElementNS(this.#svg.namespaceURI, kind);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    return shape;
  }

  #text(words, attributes) {
    const shape = this.#shape("text", attributes);
    shape.textContent = words;
    return shape;
  }
}

function meanOfLast(samples, lane) {
  const last = samples.slice(-5);
  return last.reduce((sum, { lanes }) => sum + lanes[lane], 0) / last.length;
}

const round = (number) => Math.round(number * 10) / 10;

/** The next of 1, 2, 5, 10, … that is not below `number`. */
function niceAbove(number) {
  if (number <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= number);
}

export function rateText(rate) {
  if (rate >= 1_000) return Math.round(rate).toLocaleString("en");
  return rate >= 9.95 || rate === 0 ? String(Math.round(rate)) : rate.toFixed(1);
}

export function delayText(ms) {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  return ms < 100_000 ? `${(ms / 1_000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

export function clockText(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}
