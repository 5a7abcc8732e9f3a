// The demo page: one WebSocket, its channels, and the events that arrive.
//
// Every event carries the position after it. The page keeps the newest position of each channel and
// subscribes from there after a reconnect, so it misses nothing. Text of events becomes text nodes
// only, never HTML.
"use strict";

const LANES = ["low", "normal", "high", "critical"];
const ROWS_MAX = 120; // more than a screen shows; older rows are removed from the page only
const RATE_WINDOW_MS = 5000; // long enough to smooth bursts, short enough to show a change
const DELAYS_MAX = 500; // the newest delays, for the median
const LOOK_BACK_MS = 60000; // a new page starts with the last minute
const WAIT_FIRST_MS = 500;
const WAIT_LONGEST_MS = 8000;
const CUT_MS = 3000;
const SILENCE_MS = 70000; // the server sends something at least every 30 s

const at = (id) => document.getElementById(id);
const channels = new Map(); // name -> {position, state}
const hidden = new Set();
const arrivals = []; // [time, lane] of the last seconds
const delays = [];
let socket = null;
let wait = WAIT_FIRST_MS;
let nextId = 1;
const asked = new Map(); // request id -> channel
let total = 0;
let lastHeard = 0;
let liveSince = Infinity; // events older than the connection have no delay worth showing
let lostAt = 0;
let resumed = null; // {since, count, told} while catching up after a reconnect
let paused = false;
let pending = [];

function setState(state, text) {
  at("state").dataset.state = state;
  at("state").textContent = text;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/v1/ws?user=page`, "tidewire.v1");
  socket.onopen = opened;
  socket.onmessage = (message) => heard(JSON.parse(message.data));
  socket.onclose = lost;
}

function opened() {
  wait = WAIT_FIRST_MS;
  lastHeard = Date.now();
  liveSince = lastHeard;
  asked.clear();
  if (lostAt) resumed = { since: lostAt, count: 0, told: false };
  for (const name of channels.keys()) subscribe(name);
  setState("live", lostAt ? "live again, catching up" : "live");
}

function lost(event) {
  lostAt = lostAt || Date.now();
  resumed = null;
  const why = event.reason ? ` (${event.reason})` : "";
  setState("lost", `connection lost${why}; resuming in ${Math.ceil(wait / 1000)} s`);
  setTimeout(connect, wait);
  wait = Math.min(wait * 2, WAIT_LONGEST_MS);
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function subscribe(name) {
  const known = channels.get(name);
  const id = nextId++;
  asked.set(id, name);
  known.state = "asked";
  const from = known.position || new Date(Date.now() - LOOK_BACK_MS).toISOString();
  send({ op: "subscribe", id, channel: name, from });
}

function add(name) {
  if (channels.has(name)) return;
  channels.set(name, { position: null, state: "asked" });
  subscribe(name);
  drawChannels();
}

function remove(name) {
  channels.delete(name);
  send({ op: "unsubscribe", id: nextId++, channel: name });
  drawChannels();
}

function heard(frame) {
  lastHeard = Date.now();
  switch (frame.op) {
    case "ok": answered(frame); break;
    case "error": refused(frame); break;
    case "event": arrived(frame); break;
    case "gap": note(`some events of ${frame.channel || "a channel"} are no longer available (${frame.reason}); the channel continues after them`); break;
    case "position": showPosition(frame.position); break;
    case "move": note("the server is about to stop; the page reconnects and resumes"); break;
  }
}

function answered(frame) {
  const name = asked.get(frame.id);
  asked.delete(frame.id);
  const known = channels.get(name);
  if (!known) return;
  known.state = "live";
  if (!known.position && frame.position) known.position = frame.position;
  drawChannels();
}

function refused(frame) {
  const name = asked.get(frame.id);
  asked.delete(frame.id);
  if (name && channels.has(name)) {
    if (frame.code === "invalid_position") {
      channels.get(name).position = null;
      subscribe(name);
      return;
    }
    channels.delete(name);
    drawChannels();
  }
  notice(`${name ? name + ": " : ""}${frame.message}`);
}

function arrived(frame) {
  const now = Date.now();
  const known = channels.get(frame.channel);
  if (known) known.position = frame.position;
  total += 1;
  const time = Date.parse(frame.timestamp);
  const delay = time < liveSince ? null : now - time;
  if (delay !== null) {
    arrivals.push([now, frame.priority]);
    delays.push(delay);
    if (delays.length > DELAYS_MAX) delays.shift();
  } else if (resumed && time >= resumed.since) resumed.count += 1;
  if (!hidden.has(frame.priority)) {
    pending.push({ frame, delay });
    if (pending.length > ROWS_MAX) pending.shift();
  }
}

function note(text) {
  pending.push({ note: text });
}

function cell(row, text, className) {
  const td = row.insertCell();
  td.textContent = text;
  td.title = text;
  if (className) td.className = className;
  return td;
}

function gist(data) {
  for (const name of ["text", "title", "message", "status", "error"]) {
    if (typeof data[name] === "string") return data[name];
  }
  const parts = ["reaction_type", "post_id", "user_id", "target_id", "campaign_id", "email_id", "metric", "value"];
  const said = parts.filter((name) => data[name] !== undefined).map((name) => `${name} ${data[name]}`);
  return said.length ? said.join(", ") : JSON.stringify(data);
}

function delayText(ms) {
  if (ms === null) return "earlier";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 100000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60000)} min`;
}

function rowOf({ frame, delay, note: text }) {
  const row = document.createElement("tr");
  if (text) {
    row.className = "note";
    const td = cell(row, text);
    td.colSpan = 6;
    return row;
  }
  const time = new Date(frame.timestamp);
  cell(row, `${time.toLocaleTimeString("en-GB")}.${String(time.getMilliseconds()).padStart(3, "0")}`);
  const lane = cell(row, "");
  const chip = document.createElement("span");
  chip.className = "chip";
  chip.dataset.lane = frame.priority;
  chip.textContent = LANES[frame.priority];
  lane.append(chip);
  lane.removeAttribute("title");
  cell(row, frame.channel);
  cell(row, frame.type);
  cell(row, gist(frame.data || {}));
  cell(row, delayText(delay), "number");
  return row;
}

function draw() {
  requestAnimationFrame(draw);
  if (paused || pending.length === 0) return;
  const rows = at("rows");
  const fragment = document.createDocumentFragment();
  for (const item of pending.reverse()) fragment.append(rowOf(item));
  pending = [];
  rows.prepend(fragment);
  while (rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
  at("empty").hidden = true;
}

function showPosition(position) {
  if (position) at("position").textContent = position;
}

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function tally() {
  const now = Date.now();
  while (arrivals.length && arrivals[0][0] < now - RATE_WINDOW_MS) arrivals.shift();
  const perSecond = (count) => count * 1000 / RATE_WINDOW_MS;
  const show = (rate) => (rate >= 10 || rate === 0 ? Math.round(rate) : rate.toFixed(1));
  at("rate").textContent = show(perSecond(arrivals.length));
  at("total").textContent = total.toLocaleString("en");
  const most = Math.max(1, arrivals.length);
  for (const lane of document.querySelectorAll(".lane")) {
    const count = arrivals.filter(([, priority]) => priority === Number(lane.dataset.lane)).length;
    lane.querySelector("b").textContent = show(perSecond(count));
    lane.querySelector("i").style.transform = `scaleX(${Math.max(0.01, count / most)})`;
  }
  const sorted = [...delays].sort((a, b) => a - b);
  at("median").textContent = sorted.length ? delayText(percentile(sorted, 0.5)) : "–";
  at("high").textContent = sorted.length ? delayText(percentile(sorted, 0.99)) : "–";
  for (const { position } of channels.values()) showPosition(position);
  tellResumed(now);
  if (socket && socket.readyState === WebSocket.OPEN && now - lastHeard > SILENCE_MS) socket.close();
}

// Adds a row that shows how long the connection was lost and how many events came meanwhile.
function tellResumed(now) {
  if (!resumed || resumed.told || asked.size > 0) return;
  resumed.told = true;
  setTimeout(() => {
    if (!resumed) return;
    const seconds = ((now - resumed.since) / 1000).toFixed(1);
    note(`resumed by position after ${seconds} s: ${resumed.count} events came in the meantime and are shown`);
    setState("live", "live, nothing missed");
    resumed = null;
    lostAt = 0;
  }, 1000);
}

function drawChannels() {
  const items = [...channels].map(([name, { state }]) => {
    const item = document.createElement("li");
    item.dataset.state = state;
    item.append(name);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.setAttribute("aria-label", `Unsubscribe from ${name}`);
    button.onclick = () => remove(name);
    item.append(button);
    return item;
  });
  at("channels").replaceChildren(...items);
}

at("subscribe").onsubmit = (event) => {
  event.preventDefault();
  notice("");
  const name = at("channel").value.trim();
  at("channel").value = "";
  if (name) add(name);
};
at("pause").onclick = () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  at("pause").textContent = paused ? "Continue" : "Pause";
};
at("cut").onclick = () => {
  wait = CUT_MS;
  if (socket) socket.close(1000, "closed by the user");
};
at("theme").onclick = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
};
for (const lane of document.querySelectorAll(".lane")) {
  lane.onclick = () => {
    const number = Number(lane.dataset.lane);
    const shown = hidden.delete(number) || !hidden.add(number);
    lane.setAttribute("aria-pressed", shown);
  };
}

at("origin").textContent = location.origin;
for (const name of ["account:demo", "timeline:demo"]) channels.set(name, { position: null, state: "asked" });
drawChannels();
connect();
setInterval(tally, 500);
requestAnimationFrame(draw);
