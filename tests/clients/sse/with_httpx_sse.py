"""Prints the messages of a stream with httpx-sse, which leaves reconnecting to its user."""

import sys
import time

import httpx
from httpx_sse import connect_sse

from messages import show

last_id = ""
with httpx.Client(timeout=httpx.Timeout(10, read=None)) as client:
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=headers) as source:
                source.response.raise_for_status()
                for message in source.iter_sse():
                    show(message.event, message.id, message.data)
                    last_id = message.id
        except httpx.TransportError as error:
            print(repr(error), file=sys.stderr)
        time.sleep(0.5)
