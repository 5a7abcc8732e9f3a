// The kafkajs client, as its documentation shows it. README.md in the parent folder describes the
// command line.

const { randomBytes } = require("node:crypto");
const { createInterface } = require("node:readline");
const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require("kafkajs");
const lz4 = require("lz4-napi");

// kafkajs has gzip built in; users add other codecs.
CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
});

const COMPRESSIONS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
};
const ALL_COMPRESSIONS = [...Object.keys(COMPRESSIONS), "zstd"];

// How long a reader waits for the requested records, and how long it continues after them.
const PATIENCE_MS = 60_000;
const QUIET_MS = 1_000;

const CANNOT = 3;

class Failure extends Error {
  constructor(why, code) {
    super(why);
    this.code = code;
  }
}

function connect(bootstrap) {
  return new Kafka({
    clientId: "kafkajs",
    brokers: bootstrap.split(","),
    logLevel: logLevel.WARN,
    logCreator: () => ({ label, log }) => console.error(label, log.message, log.error ?? ""),
  });
}

async function records() {
  const messages = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const { key, value, headers } = JSON.parse(line);
    messages.push({ key, value, headers });
  }
  return messages;
}

async function produce(bootstrap, topic, compression, transactionalId, end) {
  if (!(compression in COMPRESSIONS)) {
    throw new Failure(`kafkajs has no codec for ${compression}`, CANNOT);
  }
  const producer = connect(bootstrap).producer({
    allowAutoTopicCreation: false,
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
    transactionalId,
  });
  await producer.connect();
  try {
    const batch = { topic, messages: await records(), compression: COMPRESSIONS[compression] };
    if (transactionalId === undefined) {
      await producer.send(batch);
      return;
    }
    const transaction = await producer.transaction();
    await transaction.send(batch);
    await (end === "abort" ? transaction.abort() : transaction.commit());
  } finally {
    await producer.disconnect();
  }
}

function show(partition, message) {
  const headers = Object.entries(message.headers ?? {});
  const record = {
    partition,
    offset: Number(message.offset),
    key: message.key === null ? null : message.key.toString(),
    value_base64: message.value.toString("base64"),
    headers: Object.fromEntries(headers.map(([name, text]) => [name, text.toString()])),
  };
  process.stdout.write(`${JSON.stringify(record)}\n`);
}

async function consume(bootstrap, topic, count, isolation = "read_committed") {
  const consumer = connect(bootstrap).consumer({
    groupId: `kafkajs-${randomBytes(8).toString("hex")}`,
    readUncommitted: isolation === "read_uncommitted",
    maxWaitTimeInMs: 200,
  });
  let left = Number(count);
  let stop;
  const crashed = new Promise((_, reject) => {
    // kafkajs restarts by itself after most of these events.
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error);
    });
  });
  const enough = new Promise((resolve) => (stop = resolve));
  let timer = setTimeout(stop, left > 0 ? PATIENCE_MS : QUIET_MS);
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      for (const message of batch.messages) {
        show(batch.partition, message);
        resolveOffset(message.offset);
        left -= 1;
      }
      if (left <= 0) {
        clearTimeout(timer);
        timer = setTimeout(stop, QUIET_MS);
      }
      await heartbeat();
    },
  });
  await Promise.race([enough, crashed]);
  await consumer.disconnect();
}

async function main([verb, ...args]) {
  if (verb === "compressions") {
    console.log(Object.keys(COMPRESSIONS).join("\n"));
  } else if (verb === "produce" && args.length >= 3 && ALL_COMPRESSIONS.includes(args[2])) {
    await produce(...args);
  } else if (verb === "consume" && args.length >= 3) {
    await consume(...args);
  } else {
    throw new Failure("usage: see tests/clients/README.md", 2);
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  // Otherwise a consumer would run for ever.
  process.exit(error instanceof Failure ? error.code : 1);
});
