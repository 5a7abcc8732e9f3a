// The form that sends an event with POST /v1/events, and the curl command that does the same.
//
// An event keeps its id when it is sent again, so the second one is dropped as a duplicate. The
// form says when the event came back to this page, or why it could not.

import { delayText } from "/page/chart.js";

const ACCOUNT = "demo";
const ARRIVAL_LIMIT_MS = 3_000;
const REPEATABLE_STATUSES = [408, 429, 503]; // the same event may be accepted later

// By type: its lane, its channels besides the account's, and its data.
const TYPES = {
  "post.created": {
    lane: "normal",
    channels: ({ author }) => ["timeline:demo", `posts:${author}`],
    data: ({ id, author, text }) => ({ post_id: id, author_id: author, text }),
  },
  "mention.created": {
    lane: "high",
    channels: () => [],
    data: ({ author, text }) => ({ author_id: author, text }),
  },
  "account.health_alert": {
    lane: "critical",
    channels: () => [],
    data: ({ text }) => ({ alert_type: "test", severity: "high", message: text }),
    withoutAuthor: true,
  },
  "post.liked": {
    lane: "low",
    channels: () => [],
    data: ({ author }) => ({ post_id: "p1", user_id: author }),
    withoutText: true,
  },
};

export class Sender {
  #parts;
  #stream;
  #id = newId();
  #last = null; // the event that was sent last, and its channels
  #waiting = null; // { id, sentAt, arrived } until it is here or too late

  constructor(parts, stream) {
    this.#parts = parts;
    this.#stream = stream;
    for (const [type, { lane }] of Object.entries(TYPES)) {
      parts.type.append(new Option(`${type} – ${lane}`, type));
    }
    for (const input of [parts.type, parts.author, parts.text]) {
      input.addEventListener("input", () => this.#drawCommand());
    }
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    parts.again.addEventListener("click", () => this.#sendAgain());
    parts.copy.addEventListener("click", () => this.#copy());
    stream.addEventListener("event", ({ detail }) => this.#arrived(detail.frame));
    this.#drawCommand();
  }

  #event() {
    const { type, author, text } = this.#parts;
    const input = { id: this.#id, author: author.value.trim(), text: text.value };
    const of = TYPES[type.value];
    const body = {
      event_id: this.#id, event_type: type.value, account_id: ACCOUNT, data: of.data(input),
    };
    return { body, channels: [`account:${ACCOUNT}`, ...of.channels(input)] };
  }

  #drawCommand() {
    const { type, author, text, command } = this.#parts;
    author.disabled = Boolean(TYPES[type.value].withoutAuthor);
    text.disabled = Boolean(TYPES[type.value].withoutText);
    // One line with spaces, so that it wraps; line ends within a text are escaped in JSON.
    const json = JSON.stringify(this.#event().body, null, 1).replaceAll(/\n */g, " ");
    command.textContent = `curl ${location.origin}/v1/events \\\n` +
      `-H 'content-type: application/json' \\\n-d '${json.replaceAll("'", "'\\''")}'`;
  }

  async #send() {
    const event = this.#event();
    this.#id = newId();
    this.#drawCommand();
    this.#last = event;
    const accepted = await this.#post(event);
    if (!accepted) return;
    const { sentAt, answeredAt, position } = accepted;
    const stored = `Stored in the log at ${position} after ${delayText(answeredAt - sentAt)}.`;
    this.#say(stored);
    const arrived = await this.#arrival();
    if (arrived) {
      const took = delayText(arrived.at - sentAt);
      this.#say(`${stored} Arrived here on ${arrived.channel}, ${took} after sending.`);
    } else {
      this.#say(`${stored} ${this.#whyNotHere(event)}`);
    }
  }

  async #sendAgain() {
    const accepted = await this.#post(this.#last);
    if (!accepted) return;
    const { body: { event_id: id } } = this.#last;
    this.#say(`Stored in the log again, with the same event_id ${id}.`);
    const arrived = await this.#arrival();
    if (this.#stream.state !== "live") return this.#say(this.#whyNotHere(this.#last));
    this.#say(arrived
      ? `It arrived on ${arrived.channel}: the event had not arrived before.`
      : `Sent again with the same event_id, ${id}: no second copy arrived. ` +
        "DERIVE drops an event whose id it has processed before.");
  }

  /**
   * Posts the event; returns where it is stored, or says what went wrong. It can be sent again
   * unless that would be refused for the same reason.
   */
  async #post({ body }) {
    const sentAt = performance.now();
    this.#waiting = { id: body.event_id, arrived: null, resolve: null };
    const request = {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    };
    const { again } = this.#parts;
    try {
      const response = await fetch("/v1/events", request);
      const answer = await response.json();
      const error = answer.error ?? answer.events?.[0]?.error;
      if (!error) {
        const position = answer.events[0].log_position;
        again.disabled = false;
        return { sentAt, answeredAt: performance.now(), position };
      }
      again.disabled = !REPEATABLE_STATUSES.includes(response.status);
      this.#say(again.disabled ? `Refused: ${error.message}.`
        : `Not confirmed: ${error.message}. Send the same again.`, "bad");
    } catch {
      again.disabled = false; // its id makes a second copy harmless
      this.#say("No answer: it may be stored. Send the same again.", "bad");
    }
    return null;
  }

  #arrived({ event_id: id, channel }) {
    const waiting = this.#waiting;
    if (waiting?.id !== id || waiting.arrived) return;
    waiting.arrived = { at: performance.now(), channel };
    waiting.resolve?.(waiting.arrived);
  }

  #arrival() {
    const waiting = this.#waiting;
    if (waiting.arrived) return waiting.arrived;
    return new Promise((resolve) => {
      waiting.resolve = resolve;
      setTimeout(() => resolve(null), ARRIVAL_LIMIT_MS);
    });
  }

  #whyNotHere({ channels }) {
    if (this.#stream.state !== "live") return "This page is disconnected: reconnect to receive it.";
    if (channels.some((name) => this.#stream.channels.has(name))) {
      return `It has not arrived here within ${ARRIVAL_LIMIT_MS / 1_000} s.`;
    }
    return `This page subscribes to none of its channels: ${channels.join(", ")}.`;
  }

  #say(words, kind = "good") {
    const { result } = this.#parts;
    result.textContent = words;
    result.dataset.kind = kind;
    result.hidden = false;
  }

  async #copy() {
    const { command, copied } = this.#parts;
    try {
      await navigator.clipboard.writeText(command.textContent);
      copied.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(command);
      copied.textContent = "Selected; copy it with the keyboard.";
    }
    setTimeout(() => { copied.textContent = ""; }, ARRIVAL_LIMIT_MS);
  }
}

function newId() {
  const random = Math.floor(Math.random() * 36 ** 6).toString(36);
  return `page-${Date.now().toString(36)}-${random}`;
}
