"""The shared part of the Python clients: command line, record format, end of reading.

README.md in the parent folder describes the command line. No client library is used here.
"""

import base64
import json
import sys
import time

COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]

# How long a reader waits for the requested records.
PATIENCE_S = 60
# How long it continues after them, to find surplus records.
QUIET_S = 1
# How long the broker may take to acknowledge a record.
DELIVERY_S = 30

CANNOT = 3


def fail(why, code=1):
    print(why, file=sys.stderr)
    sys.exit(code)


class Enough:
    """Decides when to stop reading: a second after the last requested record, or at a time-out."""

    def __init__(self, count):
        self.left = count
        self.deadline = time.monotonic() + (PATIENCE_S if count > 0 else QUIET_S)

    def took(self, records=1):
        self.left -= records
        if self.left <= 0:
            self.deadline = time.monotonic() + QUIET_S

    def seconds_left(self):
        return max(self.deadline - time.monotonic(), 0)

    def reached(self):
        return self.seconds_left() == 0


def records():
    """The records on standard input, each with its key, value and headers in bytes."""
    for line in sys.stdin:
        record = json.loads(line)
        key = record["key"]
        headers = [(name, text.encode()) for name, text in record["headers"].items()]
        yield (None if key is None else key.encode()), record["value"].encode(), headers


def text_of(part):
    return part.decode() if isinstance(part, bytes) else part


def show(partition, offset, key, value, headers):
    record = {
        "partition": partition,
        "offset": offset,
        "key": text_of(key),
        "value_base64": base64.b64encode(value).decode(),
        "headers": {text_of(name): text_of(text) for name, text in headers or []},
    }
    print(json.dumps(record))


def run(produce, consume):
    """Reads the command line and calls `produce(bootstrap, topic, compression, id, abort)` or
    `consume(bootstrap, topic, count, isolation)`."""
    match sys.argv[1:]:
        case ["compressions"]:
            print("\n".join(COMPRESSIONS))
        case ["produce", bootstrap, topic, compression] if compression in COMPRESSIONS:
            produce(bootstrap, topic, compression, None, False)
        case ["produce", bootstrap, topic, compression, name, *end] if (
            compression in COMPRESSIONS and end in ([], ["commit"], ["abort"])
        ):
            produce(bootstrap, topic, compression, name, end == ["abort"])
        case ["consume", bootstrap, topic, count, *isolation] if (
            isolation in ([], ["read_committed"], ["read_uncommitted"])
        ):
            consume(bootstrap, topic, int(count), (isolation or ["read_committed"])[0])
        case _:
            fail("usage: see tests/clients/README.md", 2)
