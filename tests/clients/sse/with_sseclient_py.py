"""Prints the messages of a stream with sseclient-py, which leaves reconnecting to its user."""

import sys
import time

import httpx
import sseclient

from messages import show


def stream(client, headers):
    """The bytes as they arrive."""
    with client.stream("GET", sys.argv[1], headers=headers) as response:
        response.raise_for_status()
        yield from response.iter_bytes()


last_id = ""
with httpx.Client(timeout=httpx.Timeout(10, read=None)) as client:
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            for message in sseclient.SSEClient(stream(client, headers)).events():
                show(message.event, message.id, message.data)
                last_id = message.id or last_id
        except httpx.TransportError as error:
            print(repr(error), file=sys.stderr)
        time.sleep(0.5)
