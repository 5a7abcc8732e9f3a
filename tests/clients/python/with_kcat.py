"""The kcat client: one command per batch, records on its standard input.

kcat sets headers per command, not per record, so each command gets records with the same headers,
and a transaction must be one command. Delimiters separate keys, values and records; neither key nor
value may contain one, and JSON never does.

Reading a pipe, kcat 1.7 ends on Ctrl-C without aborting its transaction. So a transaction is
aborted as after a crash: kcat is interrupted, and the broker aborts what it left open when kcat
starts again with the same id.
"""

import os
import re
import select
import signal
import subprocess
import time
from itertools import groupby

import contract

RECORD_END = b"\x1e"
KEY_END = b"\x1f"
DELIMITERS = ["-D", r"\x1e", "-K", r"\x1f"]

# How long kcat may take to send the records of a transaction before it is interrupted.
SENDING_S = 1
# What it prints before a record: the lengths of its parts, -1 for none.
FORMAT = r"%p %o %K %S\n%k%s%h\n"
READ_BYTES = 1 << 16


def produce(bootstrap, topic, compression, transactional_id, abort):
    runs = [
        (headers, [(key, value) for key, value, _ in run])
        for headers, run in groupby(contract.records(), key=lambda record: record[2])
    ]
    if transactional_id and len(runs) != 1:
        contract.fail("kcat has one set of headers for a transaction", contract.CANNOT)
    command = [
        "kcat", "-P", "-b", bootstrap, "-t", topic, "-z", compression, *DELIMITERS,
        "-X", "enable.idempotence=true",
        "-X", f"topic.message.timeout.ms={contract.DELIVERY_S * 1000}",
    ]
    if transactional_id:
        command += ["-X", f"transactional.id={transactional_id}", "-m", str(contract.DELIVERY_S)]
    for headers, records in runs:
        send(command + [f"-H{name}={text.decode()}" for name, text in headers], records, abort)
    if abort:
        send(command, [], False)


def send(command, records, interrupt):
    for key, value in records:
        if any(end in part for end in (RECORD_END, KEY_END) for part in (key or b"", value)):
            contract.fail("kcat has no way to send its own delimiters", contract.CANNOT)
    kcat = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        for key, value in records:
            kcat.stdin.write((b"" if key is None else key + KEY_END) + value + RECORD_END)
        kcat.stdin.flush()
    except BrokenPipeError:
        pass  # It has ended; the reason is on standard error.
    if interrupt:
        time.sleep(SENDING_S)
        kcat.send_signal(signal.SIGINT)
    kcat.communicate()
    if kcat.returncode and not interrupt:
        contract.fail(f"kcat ended with {kcat.returncode}")


def consume(bootstrap, topic, count, isolation):
    command = [
        "kcat", "-C", "-q", "-u", "-b", bootstrap, "-t", topic, "-o", "beginning", "-f", FORMAT,
        "-X", f"isolation.level={isolation}",
    ]
    kcat = subprocess.Popen(command, stdout=subprocess.PIPE)
    enough = contract.Enough(count)
    unread = b""
    while not enough.reached():
        if select.select([kcat.stdout], [], [], 0.2)[0]:
            got = os.read(kcat.stdout.fileno(), READ_BYTES)
            if not got:
                contract.fail(f"kcat ended with {kcat.wait()}")
            unread = show_whole(unread + got, enough)
    kcat.terminate()
    kcat.wait()


def show_whole(unread, enough):
    """Prints the records that are complete and returns the rest."""
    at = 0
    while head := re.compile(rb"(\d+) (\d+) (-?\d+) (-?\d+)\n").match(unread, at):
        partition, offset, key_bytes, value_bytes = map(int, head.groups())
        value_at = head.end() + max(key_bytes, 0)
        headers_at = value_at + max(value_bytes, 0)
        end = unread.find(b"\n", headers_at)
        if end < 0:
            break
        contract.show(
            partition,
            offset,
            None if key_bytes < 0 else unread[head.end():value_at],
            unread[value_at:headers_at],
            headers_in(unread[headers_at:end]),
        )
        enough.took()
        at = end + 1
    return unread[at:]


def headers_in(text):
    """kcat prints headers as `name=text,name=text` and escapes nothing."""
    return [tuple(header.split(b"=", 1)) for header in text.split(b",") if header]


contract.run(produce, consume)
