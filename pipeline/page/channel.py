"""A live visitor's socket: camera frames in, pictures and words out.

Neither side sends more than the other has said it can take, and what waits is replaced by what is newer: on a slow network the
rate falls, the age does not grow.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Callable

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from pipeline.page.visit import LiveVisit, Made

log = logging.getLogger("understudy")
_CREDIT = 2  # camera frames that may be on their way
_UNSEEN = 2  # pictures sent that the browser has not shown yet
_LARGEST = 4_000_000  # bytes of a message
_UNKNOWN = 4404  # the socket's closing code for a ticket that nobody was given


def route(expected: Callable[[str], LiveVisit | None]) -> WebSocketRoute:
    """Where a browser connects: live/TICKET.

    Args:
        expected: tells which visit a ticket was given for; a ticket is good for once.
    """

    async def connected(socket: WebSocket) -> None:
        visit = expected(socket.path_params["ticket"])
        await socket.accept()
        if visit is None:
            await socket.close(_UNKNOWN)
        else:
            await _Channel(socket, visit).run()

    return WebSocketRoute("/live/{ticket}", connected)


class _Channel:
    def __init__(self, socket: WebSocket, visit: LiveVisit):
        self._socket, self._visit = socket, visit
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._picture: Made | None = None
        self._words: list[dict] = [{"credit": _CREDIT}]
        self._unseen, self._over = 0, False

    async def run(self) -> None:
        self._visit.connect(self._from_thread(self._made), self._from_thread(self._say), self._from_thread(self._ended))
        speaking = asyncio.create_task(self._speak())
        try:
            await self._listen()
        except (WebSocketDisconnect, RuntimeError):
            log.debug("a live visitor's socket closed", exc_info=True)
        finally:
            speaking.cancel()
            self._visit.close()

    def _from_thread(self, work: Callable) -> Callable:
        def handed_over(*args) -> None:
            try:
                self._loop.call_soon_threadsafe(work, *args)
            except RuntimeError:
                log.debug("the server ends", exc_info=True)

        return handed_over

    def _made(self, picture: Made) -> None:
        self._picture = picture
        self._wake.set()

    def _say(self, words: str) -> None:
        self._tell({"words": words})

    def _ended(self, words: str | None) -> None:
        if words:
            self._words.append({"over": words})
        self._over = True
        self._wake.set()

    def _tell(self, news: dict) -> None:
        self._words.append(news)
        self._wake.set()

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (data := message.get("bytes")) is not None:
                self._tell({"credit": 1})
                if 16 < len(data) <= _LARGEST:
                    taken, late = struct.unpack_from("<dd", data)
                    self._visit.arrive(data[16:], taken, late / 1e3)
            elif (text := message.get("text")) is not None:
                self._unseen = max(self._unseen - 1, 0)
                self._wake.set()
                age = _number(text)
                if age is not None:
                    self._visit.seen(age / 1e3)

    async def _speak(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._words:
                    await self._socket.send_text(json.dumps(self._words.pop(0)))
                if self._over:
                    await self._socket.close()
                    return
                if self._picture is not None and self._unseen < _UNSEEN:
                    picture, self._picture = self._picture, None
                    self._unseen += 1
                    await self._socket.send_bytes(struct.pack("<d", picture.taken) + picture.file)
        except (WebSocketDisconnect, RuntimeError):
            log.debug("a live visitor's socket closed", exc_info=True)


def _number(text: str) -> float | None:
    """How old (ms) the picture was that a browser says it has shown; None where it doesn't tell."""
    try:
        age = json.loads(text).get("shown")
    except (ValueError, AttributeError):
        return None
    return float(age) if isinstance(age, (int, float)) and 0 <= age < 60_000 else None
