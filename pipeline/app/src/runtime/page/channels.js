// The channels: a form to subscribe, those subscribed, and those that the demo sends to.

// Channels that carry events of the demo, and what is in them.
const SUGGESTIONS = [
  ["account:demo", "what happens in the account"],
  ["timeline:demo", "posts of every author"],
  ["posts:u0", "posts of one author"],
  ["inbox:demo", "messages of the account"],
  ["thread:t0", "one chat"],
  ["emails:demo", "what became of e-mails"],
  ["leads:demo", "new leads"],
  ["scrapers:demo", "progress of scrapers"],
];

export class ChannelForm {
  #parts;
  #stream;
  #shown = new Map(); // name -> its count, as an element

  constructor(parts, stream) {
    this.#parts = parts;
    this.#stream = stream;
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#subscribe(parts.input.value.trim());
    });
    stream.addEventListener("channels", () => this.#draw());
    stream.addEventListener("refused", ({ detail }) => this.#refused(detail));
    this.#draw();
  }

  /** Shows how many events each channel has received. */
  count() {
    for (const [name, element] of this.#shown) {
      const words = countText(this.#stream.channels.get(name));
      if (element.textContent !== words) element.textContent = words;
    }
  }

  #subscribe(name) {
    this.#error("");
    if (!name) return;
    if (this.#stream.channels.has(name)) return this.#error(`${name} is subscribed already.`);
    this.#parts.input.value = "";
    this.#stream.add(name);
  }

  #refused({ name, message }) {
    this.#error(name ? `${name} was refused: ${message}.` : `The server refused: ${message}.`);
    if (name) this.#parts.input.value = name;
  }

  #error(words) {
    this.#parts.error.textContent = words;
    this.#parts.error.hidden = !words;
    this.#parts.input.setAttribute("aria-invalid", Boolean(words));
  }

  #draw() {
    const { channels } = this.#stream;
    const focused = document.activeElement?.dataset?.channel;
    this.#shown.clear();
    this.#parts.subscribed.replaceChildren(...[...channels.keys()].map((name) => this.#item(name)));
    this.#parts.none.hidden = channels.size > 0;
    const rest = SUGGESTIONS.filter(([name]) => !channels.has(name));
    this.#parts.suggestions.replaceChildren(...rest.map((entry) => this.#suggestion(entry)));
    if (focused) this.#focus(focused);
  }

  // A press of a button moves its channel to the other list; the focus goes along.
  #focus(name) {
    const buttons = [...document.querySelectorAll("button[data-channel]")];
    const button = buttons.find(({ dataset }) => dataset.channel === name);
    (button ?? this.#parts.input).focus();
  }

  #item(name) {
    const channel = this.#stream.channels.get(name);
    const item = document.createElement("li");
    item.dataset.state = channel.state;
    const code = document.createElement("code");
    code.textContent = name;
    const count = document.createElement("span");
    count.className = "hint";
    count.textContent = countText(channel);
    this.#shown.set(name, count);
    const button = this.#button("Unsubscribe", name, () => this.#stream.remove(name));
    button.setAttribute("aria-label", `Unsubscribe from ${name}`);
    item.append(code, count, button);
    return item;
  }

  #suggestion([name, carries]) {
    const item = document.createElement("li");
    const code = document.createElement("code");
    code.textContent = name;
    const words = document.createElement("span");
    words.className = "hint";
    words.textContent = carries;
    const button = this.#button("Subscribe", name, () => this.#subscribe(name));
    button.setAttribute("aria-label", `Subscribe to ${name}`);
    item.append(code, words, button);
    return item;
  }

  #button(words, name, press) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.dataset.channel = name;
    button.addEventListener("click", press);
    return button;
  }
}

function countText(channel) {
  if (!channel) return "";
  if (channel.state === "asked") return "subscribing…";
  const { received } = channel;
  return received === 1 ? "1 event" : `${received.toLocaleString("en")} events`;
}
