// Prints the messages of a stream with @microsoft/fetch-event-source, which reconnects after an
// error. It is written for browsers and here gets the three globals that it uses.
"use strict";

globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = require("@microsoft/fetch-event-source");

fetchEventSource(process.argv[2], {
  openWhenHidden: true,
  onmessage: ({ event, id, data }) => console.log(JSON.stringify({ event, id, data })),
  onclose() {
    throw new Error("the stream ended"); // reconnects, as its documentation says
  },
  onerror: (error) => console.error(error.message),
});
