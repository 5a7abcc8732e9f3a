// Connects the parts of the page with each other, and puts the state of the connection and of the
// pipeline into words.

import { Chart, clockText, delayText, rateText } from "/page/chart.js";
import { ChannelForm } from "/page/channels.js";
import { History } from "/page/history.js";
import { EventList } from "/page/list.js";
import { LANES, Meter } from "/page/meter.js";
import { Sender } from "/page/send.js";
import { Stream } from "/page/stream.js";

const START_CHANNELS = ["account:demo", "timeline:demo"];
const DRAW_EVERY_MS = 1_000;
const RATE_WINDOW_MS = 5_000;
const PIPELINE_FIGURES = [
  "written", "producers", "admitted", "rejected", "derived", "duplicates", "sent", "subscribers",
];

const at = (id) => document.getElementById(id);
const stream = new Stream();
const meter = new Meter();
const history = new History();
const chart = new Chart(at("chart"), at("readout"), history);
const list = new EventList({
  rows: at("rows"), empty: at("empty"), pause: at("pause"), waiting: at("waiting"),
  lanes: at("lanes"),
});
const channels = new ChannelForm({
  form: at("subscribe"), input: at("channel"), error: at("channel-error"),
  subscribed: at("channels"), none: at("no-channels"), suggestions: at("suggestions"),
}, stream);
new Sender({
  form: at("send"), type: at("send-type"), author: at("send-author"), text: at("send-text"),
  again: at("send-again"), result: at("sent"),
  command: at("curl"), copy: at("copy"), copied: at("copied"),
}, stream);

let processed = null; // events in the lanes so far
let processedBefore = null; // the same at the disconnect
let totals = []; // [time, events received], one a second

function show(name, words) {
  const element = document.querySelector(`[data-show="${name}"]`);
  if (element.textContent !== words) element.textContent = words;
}

function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function drawState() {
  const words = {
    connecting: "Connecting…",
    live: "Connected",
    disconnected: "Disconnected by you",
    lost: `Connection lost${stream.reason ? ` (${stream.reason})` : ""}; trying again`,
    ended: `Connection ended (${stream.reason}); not trying again`,
  }[stream.state];
  at("state").dataset.state = stream.state;
  if (at("state").textContent !== words) at("state").textContent = words;
  const live = stream.state === "live";
  at("connection").textContent = live ? "Disconnect" : "Reconnect";
  at("this-page").dataset.connected = at("last-link").dataset.connected = live;
}

function stateChanged() {
  const now = Date.now();
  if (stream.state === "live") {
    history.connected(now);
    at("away").hidden = true;
  } else if (stream.missed) {
    history.disconnected(now);
  }
  if (stream.state !== "live" && stream.missed && !at("away").dataset.since) {
    processedBefore = processed;
    at("away").dataset.since = now;
    at("resumed").hidden = true;
    list.note(`Disconnected at ${clockText(now)}`);
  }
  drawState();
}

function resumed({ since, until, count, repeated, gaps }) {
  const missed = `${counted(count, "event")} published meanwhile`;
  const gapText = gaps ? `${counted(gaps, "gap")} announced` : "no gap";
  const words = `Reconnected after ${delayText(until - since)}: received ${missed}, ` +
    `${repeated || "none"} of them twice, ${gapText}.`;
  delete at("away").dataset.since;
  at("resumed").textContent = words;
  at("resumed").hidden = false;
  list.note(words);
}

function drawAway(now) {
  const since = Number(at("away").dataset.since);
  if (!since || stream.state === "live") return;
  const words = [`Disconnected for ${Math.round((now - since) / 1_000)} s.`];
  if (processedBefore !== null && processed > processedBefore) {
    words.push(`The pipeline goes on: ${counted(processed - processedBefore, "event")} since.`);
  }
  if (stream.state === "lost") words.push("The page tries again by itself.");
  if (stream.state === "ended") words.push("The page does not try again by itself.");
  at("away").textContent = words.join(" ");
  at("away").hidden = false;
}

function drawStages({ rates, counts }) {
  const rate = (of) => (Number.isFinite(of) ? rateText(of) : "–");
  show("written", rate(rates.written));
  show("admitted", rate(rates.admitted));
  show("derived", rate(rates.derived));
  show("sent", rate(rates.sent));
  show("producers", !Number.isFinite(counts.demo) ? "Kafka and HTTP"
    : counts.demo > 0 ? `demo generator: ${rate(rates.demo)}/s` : "no demo generator");
  show("rejected", counts.stopped ? "stopped: too much invalid input, see /readyz"
    : `${counts.rejected.toLocaleString("en")} rejected`);
  show("duplicates", counts.duplicates === null ? "runs in another process"
    : `${counted(counts.duplicates, "duplicate")} dropped`);
  show("subscribers", counted(counts.connections, "subscriber"));
}

function drawReceived(now) {
  totals.push([now, stream.total]);
  totals = totals.filter(([time]) => time >= now - RATE_WINDOW_MS);
  const [[since, before]] = totals;
  const rate = now > since ? (stream.total - before) * 1_000 / (now - since) : 0;
  show("received", stream.state === "live" ? rateText(rate) : "0");
  show("total", `${stream.total.toLocaleString("en")} so far`);
  at("total").textContent = stream.total.toLocaleString("en");
}

function drawFigures(now) {
  const last = history.rates.at(-1);
  const known = last?.lanes && now - last.at < RATE_WINDOW_MS * 2;
  at("rate").textContent = known
    ? rateText(LANES.reduce((sum, lane) => sum + last.lanes[lane], 0)) : "–";
  const { p50, p99 } = history.recent(now);
  at("median").textContent = p50 === null ? "–" : delayText(p50);
  at("high").textContent = p99 === null ? "–" : delayText(p99);
}

function drawPositions() {
  const entries = [...stream.channels].flatMap(([name, { position }]) => {
    const [term, value] = ["dt", "dd"].map((kind) => document.createElement(kind));
    term.textContent = name;
    value.textContent = position ?? "none yet";
    return [term, value];
  });
  at("positions").replaceChildren(...entries);
}

function drawServer() {
  if (!meter.server) return;
  const { version, role } = meter.server;
  at("server").textContent = `This server: Tidewire ${version}, role ${role}.`;
}

function draw() {
  const now = Date.now();
  drawReceived(now); // counted while the page is hidden too
  if (document.hidden) return;
  drawFigures(now);
  drawAway(now);
  channels.count();
  chart.draw();
  if (at("as-table").open) chart.fillTable(at("values"));
  if (at("positions").parentElement.open) drawPositions();
}

function drawTheme() {
  at("theme").textContent = isDark() ? "Light theme" : "Dark theme";
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

stream.addEventListener("state", stateChanged);
stream.addEventListener("event", ({ detail }) => {
  list.event(detail);
  if (detail.delay !== null) history.addDelay(Date.now(), detail.delay);
});
stream.addEventListener("gap", ({ detail: { channel, reason } }) => {
  list.note(`Some events of ${channel ?? "a channel"} are gone (${reason}); it goes on after them`);
});
stream.addEventListener("moving", () => list.note("The server is about to stop"));
stream.addEventListener("resumed", ({ detail }) => resumed(detail));
meter.addEventListener("rates", ({ detail }) => {
  history.addRates(detail.at, detail.rates.lanes);
  processed = detail.counts.admitted;
  drawStages(detail);
  drawServer();
});
meter.addEventListener("away", ({ detail: reason }) => {
  at("server").textContent = `No figures of the pipeline now: ${reason}.`;
  history.addRates(Date.now(), null);
  for (const name of PIPELINE_FIGURES) show(name, "–");
});
at("connection").addEventListener("click", () => {
  if (stream.state === "live") stream.disconnect();
  else stream.connect();
});
at("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  drawTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);
for (const [details, fill] of [
  [at("as-table"), () => chart.fillTable(at("values"))],
  [at("positions").parentElement, drawPositions],
]) {
  details.addEventListener("toggle", () => details.open && fill());
}

at("curl-receive").textContent =
  `curl -N '${location.origin}/v1/sse?channels=timeline:demo'`;
window.tidewire = stream; // for the console: tidewire.addEventListener("event", console.log)
for (const name of START_CHANNELS) stream.add(name);
at("as-curl").open = matchMedia("(min-width: 641px)").matches;
drawTheme();
drawState();
stream.connect();
meter.start();
setInterval(draw, DRAW_EVERY_MS);
