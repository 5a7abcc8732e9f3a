// Prints the messages of a stream with the npm package eventsource, which reconnects by itself.
"use strict";

const { EventSource } = require("eventsource");

const source = new EventSource(process.argv[2]);
for (const type of ["message", "post.created", "gap", "failure"]) {
  source.addEventListener(type, ({ lastEventId, data }) => {
    console.log(JSON.stringify({ event: type, id: lastEventId, data }));
  });
}
source.addEventListener("error", (error) => {
  console.error(error.code, error.message);
});
