"""A port behind which the server is as far away as wanted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def delayed(port: int, round_trip: float) -> Iterator[int]:
    """A port of the loopback that leads to `port`; every byte arrives half of `round_trip` (seconds) later, in either direction.

    Order is kept and throughput is not limited. Opening a connection is not delayed, only what goes through it.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="roilab-delay", daemon=True)

    async def connect(reader, writer):
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(far_writer)
            ways = (reader, far_writer), (far_reader, writer)
            await asyncio.gather(*(_carry(source, to, round_trip / 2) for source, to in ways))
        except (OSError, asyncio.CancelledError):  # one side is gone, or the block ends; the other side learns it below
            pass
        finally:
            for each in writers:
                each.close()

    async def stop(server):
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread.start()
    server = None
    try:
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(connect, "127.0.0.1", 0), loop).result(10)
        yield server.sockets[0].getsockname()[1]
    finally:
        if server is not None:
            asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _carry(reader, writer, delay: float):
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue()

    async def read():  # apart from the writing below, so that the delay of one piece does not add to the next one's
        data = b"-"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            waiting.put_nowait((loop.time() + delay, data))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return writer.write_eof()
            writer.write(data)
            await writer.drain()
    finally:
        reading.cancel()
