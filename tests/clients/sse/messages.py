"""Prints each message that a client gives, as one line of JSON."""

import json


def show(event, identifier, data):
    """Prints a message; a client that leaves a field out gives None."""
    print(json.dumps({"event": event, "id": identifier, "data": data}), flush=True)
