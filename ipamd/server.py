"""The local socket: frames and descriptors in, answers out. Shell.

Raw non-blocking sockets on the loop, because asyncio's streams cannot receive
descriptors. A client never half-closes: end of file before the answer means it is gone,
so one read stays pending on every connection until it is answered.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path

from cni.frame import Frame, FrameError, FrameReader, answer
from cni.spec import CniError, Code, error_json

log = logging.getLogger(__name__)

FRAME_SECONDS = 2.0
"""A frame is complete within this long: the plugin writes it in one call, so a slower
client is broken or hostile."""

MAX_DESCRIPTORS = 8
"""Descriptors taken from one message; we use two, and close the rest."""

MAX_CLIENTS = 1024
"""Connections at once; beyond, new ones wait in the kernel's accept queue. Ten times the
pods that any node starts at once."""

_PEERCRED = struct.Struct("3i")


class Call:
    """One client's frame, until it is answered or the client is gone.

    The call owns the descriptors that came with it: whoever got it from the server calls
    `close` when no thread uses them any more.
    """

    _ids = itertools.count(1)

    def __init__(self, connection: Connection, frame: Frame, descriptors: tuple[int, ...]) -> None:
        self.id = next(self._ids)
        self.frame = frame
        self.descriptors = descriptors
        self.on_gone: Callable[[], None] = lambda: None
        self._connection = connection

    def is_gone(self) -> bool:
        """Whether the client has hung up, which the loop may not have come to yet."""
        return self._connection.has_ended()

    def reply(self, code: int, stdout: bytes) -> None:
        """Answer and hang up; nothing if the client is gone."""
        self._connection.send(answer(code, stdout))

    def close(self) -> None:
        """Close the descriptors; twice is once."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


class Connection:
    """One accepted socket."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server, self._sock = server, sock
        self._reader = FrameReader()
        self._descriptors: list[int] = []
        self._call: Call | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(FRAME_SECONDS, self._refuse, "the frame is incomplete")
        # By its number: of a socket that is new to it the selector writes a sentence, twice.
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                65536, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        self._keep_descriptors(ancillary)
        if flags & socket.MSG_CTRUNC:
            self._refuse(f"more than {MAX_DESCRIPTORS} descriptors came with the frame")
        elif not data:
            self._hang_up()
        elif self._call is not None:
            self._hang_up()  # bytes after the frame: no client of ours does that
        else:
            self._feed(data)

    def _keep_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._descriptors.extend(numbers)

    def _feed(self, data: bytes) -> None:
        try:
            frame = self._reader.feed(data)
        except FrameError as error:
            self._refuse(str(error))
            return
        if frame is not None:
            self._timer.cancel()
            descriptors, self._descriptors = tuple(self._descriptors), []
            self._call = Call(self, frame, descriptors)
            self._server.on_call(self._call)

    def has_ended(self) -> bool:
        """Whether there is anything to read after the frame: its end, or what nobody sends."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _refuse(self, sentence: str) -> None:
        log.warning("frame refused", extra={"reason": sentence})
        error = CniError(Code.DECODE, sentence, "this socket speaks the protocol of enid-cni only")
        self.send(answer(1, error_json(error, "1.0.0")))

    def _stop_reading(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _hang_up(self) -> None:
        self._stop_reading()
        self._sock.close()
        self._server.finished(self)
        call, self._call = self._call, None
        if call is not None:
            call.on_gone()

    def send(self, payload: bytes) -> None:
        """Send *payload*, then close; nothing if that was done before."""
        if self._sock.fileno() >= 0:
            self._stop_reading()
            try:
                sent = self._sock.send(payload)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = len(payload)  # the client is gone
            if sent < len(payload):
                self._server.spawn(self._send(payload[sent:]))
            else:
                self._close()

    async def _send(self, payload: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(FRAME_SECONDS):
                await self._loop.sock_sendall(self._sock, payload)
        self._close()

    def _close(self) -> None:
        self._sock.close()
        self._server.finished(self)


class Server:
    """The listening socket at *path*; *on_call* gets every complete frame."""

    def __init__(self, path: Path, on_call: Callable[[Call], None]) -> None:
        self.path, self.on_call = path, on_call
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Start to accept. The socket's file is for root alone and replaces a dead one."""
        self.path.unlink(missing_ok=True)
        former = os.umask(0o177)
        try:
            self._listener.bind(str(self.path))
        finally:
            os.umask(former)
        self._listener.listen(MAX_CLIENTS)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Stop accepting; what is being answered is answered."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run *work* and keep hold of it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def finished(self, connection: Connection) -> None:
        """Forget *connection*, and accept again if we had stopped."""
        self._connections.discard(connection)
        if len(self._connections) == MAX_CLIENTS - 1 and self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        if len(self._connections) >= MAX_CLIENTS:
            asyncio.get_running_loop().remove_reader(self._listener)
            return
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        pid, uid, _ = _PEERCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        )
        if uid != 0:
            log.warning("caller refused", extra={"pid": pid, "uid": uid})
            error = CniError(Code.IO, f"uid {uid} may not talk to ipamd", "call it as root")
            with contextlib.suppress(OSError):
                sock.send(answer(1, error_json(error, "1.0.0")))
            sock.close()
            return
        self._connections.add(Connection(self, sock))
