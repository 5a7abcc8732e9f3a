"""Prints the messages of a stream with aiosseclient, which leaves reconnecting to its user."""

import asyncio
import sys

import aiohttp
from aiosseclient import aiosseclient

from messages import show


async def main():
    """Receives until it is ended."""
    last_id = None
    while True:
        try:
            async for message in aiosseclient(sys.argv[1], last_id=last_id, raise_for_status=True):
                show(message.event, message.id, message.data)
                last_id = message.id or last_id
        except aiohttp.ClientError as error:
            print(repr(error), file=sys.stderr)
        await asyncio.sleep(0.5)


asyncio.run(main())
