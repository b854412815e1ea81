"""What stands between the plugin and ipamd, and hands on what it hears, descriptors too. Shell."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from vpclab.node import Node


@dataclass(frozen=True, slots=True)
class Heard:
    """One exchange; times are of CLOCK_BOOTTIME, which is the plugin's, in seconds."""

    frame: bytes
    descriptors: tuple[str, ...]
    """What came with it, in words."""

    answer: bytes
    came: float
    answered: float

    @property
    def head(self) -> str:
        """The frame's first line."""
        return self.frame.partition(b"\n")[0].decode()

    @property
    def started(self) -> float:
        """When the plugin says that it started."""
        return int(self.head.split()[3]) / 1e9

    @property
    def env(self) -> list[str]:
        """The environment in it, sorted."""
        return sorted(self._parts[0].decode().split("\0"))

    @property
    def sandbox(self) -> str:
        """The container id in it."""
        (found,) = (word for word in self.env if word.startswith("CNI_CONTAINERID="))
        return found.partition("=")[2]

    @property
    def stdin(self) -> str:
        """The configuration in it."""
        return self._parts[1].decode()

    @property
    def _parts(self) -> tuple[bytes, bytes]:
        size, rest = int(self.head.split()[1]), self.frame.partition(b"\n")[2]
        return rest[:size], rest[size:]


class Listener:
    """It has ipamd's place on a node, until it is closed."""

    def __init__(self, node: Node) -> None:
        self.heard: list[Heard] = []
        self._path = node.path("/run/enid/ipamd.sock")
        self._behind = self._path.with_name("ipamd.behind")
        self._path.rename(self._behind)  # ipamd goes on listening there
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(self._path))
        self._sock.listen(64)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                plugin, _ = self._sock.accept()
            except OSError:  # it is closed
                return
            threading.Thread(target=self._hand_on, args=(plugin,), daemon=True).start()

    def _hand_on(self, plugin: socket.socket) -> None:
        with plugin, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ipamd:
            frame, descriptors, _, _ = socket.recv_fds(plugin, 1 << 20, 8)
            came, told = _now(), tuple(_in_words(descriptor) for descriptor in descriptors)
            ipamd.connect(str(self._behind))
            socket.send_fds(ipamd, [frame], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            answer = b"".join(iter(lambda: ipamd.recv(65536), b""))
            self.heard.append(Heard(frame, told, answer, came, _now()))
            plugin.sendall(answer)

    def close(self) -> None:
        """Leave the place to ipamd again."""
        self._sock.close()
        self._path.unlink()
        self._behind.rename(self._path)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _in_words(descriptor: int) -> str:
    link = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if not link.startswith("socket:"):
        return f"descriptor: {link}"
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return f"descriptor: a socket, {socket.AddressFamily(sock.family).name}"
