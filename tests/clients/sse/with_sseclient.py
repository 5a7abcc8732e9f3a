"""Prints the messages of a stream with sseclient, which reconnects by itself."""

import sys

from sseclient import SSEClient

from messages import show

for message in SSEClient(sys.argv[1]):
    show(message.event, message.id, message.data)
