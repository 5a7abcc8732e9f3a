// The subscriber: one WebSocket of the native protocol, its channels and the position of each.
//
// Every event frame carries the position after it. The newest position of each channel is kept and
// sent as `from` after a reconnect, so the gateway sends what was missed before it goes on live.
// A lost connection is opened again with back-off; one that the user closed stays closed, and so
// does one that ended with a close code after which the next would end in the same way.

const LOOK_BACK_MS = 60_000; // a new channel starts with the last minute
const RETRY_FIRST_MS = 500;
const RETRY_LONGEST_MS = 8_000;
const RETRY_DELAYED_MS = 5_000; // at least, after a close code that is not in the next list
const JITTER = 0.3; // of a delay: pages must not all come back at the same time
// The server is stopping, the client was too slow, or no code was received.
const RETRY_SOON_CODES = [1001, 1005, 1006, 4008];
const FINAL_CODES = [1002, 1007, 1009, 4009]; // "no" in the protocol's table of close codes
const SILENCE_MS = 70_000; // the server sends something every 30 s
const CHECK_EVERY_MS = 250;
const CAUGHT_UP_AFTER_MS = 700; // without another missed event
const CHANNELS_MAX = 40; // all are subscribed at once after a reconnect; the server allows bursts
const RECENT_MAX = 4_000; // deliveries remembered to count repeated ones

/**
 * Dispatches `state`, `channels`, `event`, `gap`, `refused`, `resumed` and `moving`.
 * `state` is connecting, live, disconnected (by the user), lost, or ended (by a final close code).
 */
export class Stream extends EventTarget {
  channels = new Map(); // name -> { position, state: "asked" | "live", received }
  state = "connecting";
  reason = "";
  retryAt = 0;
  total = 0;
  missed = null; // { since, until, count, repeated, gaps } from a disconnect until it is caught up

  #socket = null;
  #isWelcome = false; // the server has sent `welcome` on this socket
  #asked = new Map(); // request id -> channel
  #nextId = 1;
  #retry = RETRY_FIRST_MS;
  #timer = 0;
  #lastFrameAt = 0;
  #lastMissedAt = 0;
  #liveSince = Infinity; // an event that is older than the connection has no delay
  #recent = new Set();

  constructor() {
    super();
    setInterval(() => this.#check(), CHECK_EVERY_MS);
  }

  connect() {
    clearTimeout(this.#timer);
    const before = this.#socket;
    this.#socket = null;
    this.#isWelcome = false;
    this.#lastFrameAt = Date.now();
    before?.close();
    this.#setState("connecting", "");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/ws?user=page`, "tidewire.v1");
    const current = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onmessage = current(({ data }) => this.#received(JSON.parse(data)));
    socket.onclose = current(({ code, reason }) => this.#closed(code, reason));
    this.#socket = socket;
  }

  /** Closes the socket and stays closed until `connect`. */
  disconnect() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null; // frames that still arrive are not counted: they come again
    socket?.close(1000, "closed by the user");
    this.#retry = RETRY_FIRST_MS;
    this.#leave();
    this.#setState("disconnected", "");
  }

  add(name) {
    if (this.channels.has(name)) return;
    if (this.channels.size >= CHANNELS_MAX) {
      const message = `this page subscribes to at most ${CHANNELS_MAX} channels`;
      this.#dispatch("refused", { name, message });
      return;
    }
    this.channels.set(name, { position: null, state: "asked", received: 0 });
    this.#subscribe(name);
    this.#dispatch("channels");
  }

  remove(name) {
    this.channels.delete(name);
    this.#send({ op: "unsubscribe", id: this.#nextId++, channel: name });
    this.#dispatch("channels");
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #setState(state, reason) {
    this.state = state;
    this.reason = reason;
    this.#dispatch("state");
  }

  #send(message) {
    const isOpen = this.#isWelcome && this.#socket?.readyState === WebSocket.OPEN;
    if (isOpen) this.#socket.send(JSON.stringify(message));
  }

  #subscribe(name) {
    const channel = this.channels.get(name);
    channel.state = "asked";
    const from = channel.position ?? new Date(Date.now() - LOOK_BACK_MS).toISOString();
    const id = this.#nextId++;
    this.#asked.set(id, name);
    this.#send({ op: "subscribe", id, channel: name, from });
  }

  // A server that is starting or at a limit accepts the socket and closes it without a `welcome`.
  #welcomed() {
    this.#isWelcome = true;
    this.#retry = RETRY_FIRST_MS;
    this.#lastMissedAt = this.#liveSince = Date.now();
    if (this.missed) this.missed.until = this.#liveSince;
    this.#asked.clear();
    for (const name of this.channels.keys()) this.#subscribe(name);
    this.#setState("live", "");
    this.#dispatch("channels");
  }

  #closed(code, reason) {
    this.#leave();
    if (FINAL_CODES.includes(code)) {
      this.#setState("ended", reason || `close code ${code}`);
      return;
    }
    const least = RETRY_SOON_CODES.includes(code) ? 0 : RETRY_DELAYED_MS;
    const delay = Math.max(this.#retry, least) * (1 + JITTER * Math.random());
    this.retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.connect(), delay);
    this.#retry = Math.min(this.#retry * 2, RETRY_LONGEST_MS);
    this.#setState("lost", reason);
  }

  // What is received from now on, up to the next live event, was missed.
  #leave() {
    if (this.#liveSince === Infinity) return; // never connected
    this.missed ??= { since: Date.now(), until: 0, count: 0, repeated: 0, gaps: 0 };
    this.missed.until = 0;
  }

  #received(frame) {
    this.#lastFrameAt = Date.now();
    switch (frame.op) {
      case "welcome": this.#welcomed(); break;
      case "ok": this.#subscribed(frame); break;
      case "error": this.#refused(frame); break;
      case "event": this.#event(frame); break;
      case "gap": this.#gap(frame); break;
      case "position": this.#position(frame.position); break;
      case "move": this.#dispatch("moving"); break;
    }
  }

  #subscribed({ id, channel: name, position }) {
    const asked = this.#asked.get(id);
    const channel = this.channels.get(asked);
    this.#asked.delete(id);
    if (!channel) return;
    if (name !== asked) { // frames carry the canonical name: `posts:%61nn` is `posts:ann`
      this.channels.delete(asked);
      this.channels.set(name, channel);
    }
    channel.state = "live";
    channel.position ??= position ?? null;
    this.#dispatch("channels");
  }

  #refused({ id, code, message }) {
    const name = this.#asked.get(id) ?? "";
    this.#asked.delete(id);
    const channel = this.channels.get(name);
    if (channel && code === "invalid_position" && channel.position) {
      channel.position = null; // the log does not know it any more: start with the last minute
      this.#subscribe(name);
      return;
    }
    // A name that is live was asked for twice, in two spellings: the first subscription stays.
    if (channel?.state === "asked") this.channels.delete(name);
    this.#dispatch("channels");
    this.#dispatch("refused", { name, message });
  }

  #event(frame) {
    const now = Date.now();
    const channel = this.channels.get(frame.channel);
    if (!channel) return; // unsubscribed meanwhile
    channel.position = frame.position ?? channel.position;
    channel.received += 1;
    this.total += 1;
    const time = Date.parse(frame.timestamp);
    const repeated = this.#isRepeated(`${frame.channel} ${frame.event_id}`);
    const missed = this.missed !== null && time < this.#liveSince;
    if (missed) {
      this.#lastMissedAt = now;
      this.missed.count += 1;
      if (repeated) this.missed.repeated += 1;
    }
    const delay = time < this.#liveSince ? null : Math.max(0, now - time);
    this.#dispatch("event", { frame, delay, missed });
  }

  // The subscription continues at `to`: with the older position the gap would come again.
  #gap(frame) {
    const channel = this.channels.get(frame.channel);
    if (channel) channel.position = frame.to;
    if (this.missed) this.missed.gaps += 1;
    this.#dispatch("gap", frame);
  }

  #isRepeated(delivery) {
    if (this.#recent.has(delivery)) return true;
    this.#recent.add(delivery);
    if (this.#recent.size > RECENT_MAX) this.#recent.delete(this.#recent.values().next().value);
    return false;
  }

  // Sent on a quiet connection once all its channels are live: it covers each of them.
  #position(position) {
    for (const channel of this.channels.values()) {
      if (channel.state === "live") channel.position = position;
    }
    this.#dispatch("channels");
  }

  #check() {
    const now = Date.now();
    const isOpen = this.state === "live" || this.state === "connecting";
    if (isOpen && now - this.#lastFrameAt > SILENCE_MS) this.#socket?.close();
    if (this.state !== "live") return;
    const quiet = now - this.#lastMissedAt > CAUGHT_UP_AFTER_MS;
    if (this.missed && quiet && this.#asked.size === 0) {
      const resumed = this.missed;
      this.missed = null;
      this.#dispatch("resumed", resumed);
    }
  }
}
