// The list of events: what came in, newest first, at most so many rows.
//
// Rows are made once per frame of the screen from what has arrived since. Text of events only ever
// becomes text nodes. An event's data is shown as its text, if it has one, and as named fields.

import { clockText, delayText } from "/page/chart.js";
import { LANES } from "/page/meter.js";

const ROWS_MAX = 120; // older ones leave the page, not the log
const FIELDS_MAX = 8;
const FIELDS_BESIDE_TEXT_MAX = 4;
const VALUE_MAX_CHARS = 160;
const TEXTS = ["text", "title", "message", "response"];
const COLUMNS = 5;

/** The lane of an event, by the number in its frame: 3 is critical, the highest. */
export const laneOf = (priority) => LANES[LANES.length - 1 - priority] ?? String(priority);

export class EventList {
  #rows;
  #empty;
  #pause;
  #waiting;
  #pending = [];
  #skipped = 0; // while paused, beyond what is kept
  #paused = false;

  constructor({ rows, empty, pause, waiting, lanes }) {
    this.#rows = rows;
    this.#empty = empty;
    this.#pause = pause;
    this.#waiting = waiting;
    pause.addEventListener("click", () => this.#togglePause());
    for (const lane of LANES) lanes.append(this.#choice(lane));
    this.#draw();
  }

  event({ frame, delay, missed }) {
    this.#add({ frame, delay, missed });
  }

  note(words) {
    this.#add({ words });
  }

  #add(item) {
    this.#pending.push(item);
    if (this.#pending.length > ROWS_MAX) {
      this.#pending.shift();
      this.#skipped += 1;
    }
  }

  #togglePause() {
    this.#paused = !this.#paused;
    this.#pause.textContent = this.#paused ? "Resume the list" : "Pause the list";
    this.#waiting.textContent = "";
  }

  #countWaiting() {
    const words = `${this.#pending.length + this.#skipped} waiting`;
    if (this.#waiting.textContent !== words) this.#waiting.textContent = words;
  }

  #choice(lane) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      this.#rows.parentElement.classList.toggle(`without-${lane}`, !box.checked);
    });
    label.append(box, chip(lane));
    return label;
  }

  #draw() {
    requestAnimationFrame(() => this.#draw());
    if (this.#paused) return this.#countWaiting();
    if (this.#pending.length === 0) return;
    const rows = document.createDocumentFragment();
    for (const item of this.#pending.reverse()) rows.append(rowOf(item));
    this.#pending = [];
    this.#skipped = 0;
    this.#rows.prepend(rows);
    while (this.#rows.rows.length > ROWS_MAX) this.#rows.deleteRow(-1);
    this.#empty.hidden = true;
  }
}

function rowOf({ frame, delay, missed, words }) {
  const row = document.createElement("tr");
  row.setAttribute("role", "row");
  if (words) {
    row.className = "note";
    cell(row, "note", words).colSpan = COLUMNS;
    return row;
  }
  const lane = laneOf(frame.priority);
  row.className = `of-${lane}`;
  const time = new Date(frame.timestamp);
  const millis = String(time.getMilliseconds()).padStart(3, "0");
  cell(row, "time", `${clockText(time)}.${millis}`);
  cell(row, "lane", chip(lane));
  cell(row, "type", part("name", frame.type), " ", part("channel", frame.channel));
  cell(row, "data", ...contentOf(frame.data ?? {}));
  cell(row, "number", delay === null ? (missed ? "caught up" : "earlier") : delayText(delay));
  return row;
}

function cell(row, kind, ...content) {
  const td = row.insertCell();
  td.className = kind;
  td.setAttribute("role", "cell");
  td.append(...content);
  return td;
}

export function chip(lane) {
  const span = document.createElement("span");
  span.className = `chip lane-${lane}`;
  span.textContent = lane;
  return span;
}

function contentOf(data) {
  const text = TEXTS.find((name) => typeof data[name] === "string" && data[name] !== "");
  const fields = fieldsOf(data).filter(([name]) => name !== text);
  const most = text ? FIELDS_BESIDE_TEXT_MAX : FIELDS_MAX;
  const content = fields.slice(0, most).map(([name, value]) => field(name, value));
  if (fields.length > most) content.push(part("hint", `and ${fields.length - most} more`));
  if (text) content.unshift(part("text", shorten(data[text])));
  if (content.length === 0) content.push(part("hint", "no fields"));
  return content.flatMap((of) => [of, " "]); // spaces, for a copy and a screen reader
}

/** Name and value of every field; those of an object within are called `outer.inner`. */
function fieldsOf(data, prefix = "") {
  return Object.entries(data).flatMap(([name, value]) => {
    const path = prefix + name;
    const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
    return isObject ? fieldsOf(value, `${path}.`) : [[path, valueText(value)]];
  });
}

function valueText(value) {
  if (value === null) return "none";
  if (!Array.isArray(value)) return shorten(String(value));
  const flat = value.every((entry) => entry === null || typeof entry !== "object");
  if (!flat) return `${value.length} ${value.length === 1 ? "entry" : "entries"}`;
  return value.length ? shorten(value.join(", ")) : "none";
}

function shorten(text) {
  const characters = [...text];
  if (characters.length <= VALUE_MAX_CHARS) return text;
  return `${characters.slice(0, VALUE_MAX_CHARS).join("")}…`;
}

function field(name, value) {
  const span = part("field", "");
  span.append(part("name", name), " ", part("value", value));
  return span;
}

function part(kind, text) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}
