"""What runs in the checks' pods: a server that says whom it sees, and a client. Shell.

    agent.py serve PORT [ADDRESS]   HTTP and UDP; port 0 is any, and is written to /tmp/port
    agent.py local ADDRESS PORT     the same, on an address that it puts on `lo` and takes off again
    agent.py ask JSON               put questions, print the answers

It is sent to pods as it is: one file of the standard library. Only what it must have is imported,
because each question pays for it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAME = os.environ.get("NAME") or socket.gethostname()
PORT_FILE = Path("/tmp/port")  # noqa: S108 - a container's own
MOST = 65_535
TRIES = 3
"""How often a datagram is sent: one may be lost."""

HEARD: deque[tuple[str, str]] = deque(maxlen=2000)
"""Who has sent a datagram, and its first word."""

Answer = dict[str, Any]


# Server ----------------------------------------------------------------------------------
def plain(address: str) -> str:
    """Return an IPv4 address as such, though a socket of both families saw it."""
    return address.removeprefix("::ffff:")


def bound(kind: int, address: str, port: int) -> socket.socket:
    """Return a socket on an address; "" is all addresses of both families."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not address and socket.has_dualstack_ipv6():
        family = socket.AF_INET6
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, port))
    return sock


def serve(port: int, address: str = "", noted: Path = PORT_FILE) -> None:
    """Serve for ever; the port is *noted*."""
    web = bound(socket.SOCK_STREAM, address, port)
    web.listen(256)
    port = web.getsockname()[1]
    datagrams = bound(socket.SOCK_DGRAM, address, port)
    noted.write_text(str(port))
    threading.Thread(target=hear, args=(datagrams,), daemon=True).start()
    while True:
        sock, who = web.accept()
        threading.Thread(target=answer, args=(sock, plain(who[0])), daemon=True).start()


def hear(sock: socket.socket) -> None:
    """Answer datagrams: "WORD LENGTH ..." with whom it sees, who it is, padded to a length."""
    while True:
        text, who = sock.recvfrom(MOST)
        word, length = [*text.decode().split(), "0"][:2]
        HEARD.append((plain(who[0]), word))
        reply = f"{plain(who[0])} {NAME} {len(text)} ".encode()
        sock.sendto(reply.ljust(int(length), b"."), who)


def answer(sock: socket.socket, who: str) -> None:
    """Answer one request of HTTP."""
    with sock:
        sock.settimeout(30)
        path = first_line(sock).split(" ")[1:2]
        body = content(path[0] if path else "/", who)
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)


def first_line(sock: socket.socket) -> str:
    """Return a request's first line, when its head is there."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(MOST)
        if not part:
            break
        head += part
    return head.decode(errors="replace").partition("\r\n")[0]


def content(path: str, who: str) -> bytes:
    """Return what is at a path."""
    if path == "/heard":
        return json.dumps(list(HEARD)).encode()
    if path.startswith("/bytes/"):
        return b"e" * int(path.rpartition("/")[2])
    return f"{who} {NAME}\n".encode()


def local(address: str, port: int) -> None:
    """Serve on an address that is put on `lo`, and taken off at the end.

    One that is there already is somebody else's: it is left alone, and nothing is served.
    """
    if any(address in link["addresses"] for link in links()):
        PORT_FILE.write_text("taken")
        signal.pause()
    change(NEW_ADDRESS, address)

    def end(*_: object) -> None:
        change(DELETE_ADDRESS, address)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    serve(port, address)


# Netlink ---------------------------------------------------------------------------------
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
ADDRESS_HEAD = struct.Struct("=BBBBI")
MESSAGE_HEAD = struct.Struct("=IHHII")
IFA_ADDRESS, IFA_LOCAL = 1, 2
REQUEST, ACK, DUMP = 1, 4, 0x300
DONE, ERROR = 3, 2


def netlink(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what the kernel answers to one message of rtnetlink. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(MESSAGE_HEAD.pack(16 + len(body), kind, REQUEST | flags, 1, 0) + body)
        while True:
            text = sock.recv(1 << 17)
            while text:
                length, what = MESSAGE_HEAD.unpack_from(text)[:2]
                message, text = text[16:length], text[length + 3 & ~3 :]
                if what == DONE:
                    return
                if what == ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield what, message


def change(kind: int, address: str, ifname: str = "lo") -> None:
    """Put an IPv4 address on a link, or take it off."""
    packed = socket.inet_aton(address)
    attributes = b"".join(struct.pack("=HH", 8, what) + packed for what in (IFA_LOCAL, IFA_ADDRESS))
    head = ADDRESS_HEAD.pack(socket.AF_INET, 32, 0, 0, socket.if_nametoindex(ifname))
    for _ in netlink(kind, ACK | (0x600 if kind == NEW_ADDRESS else 0), head + attributes):
        pass


def links() -> list[Answer]:
    """Return the links with their addresses."""
    held: dict[int, list[str]] = {}
    for _, message in netlink(GET_ADDRESS, DUMP, ADDRESS_HEAD.pack(0, 0, 0, 0, 0)):
        family, length, _, _, index = ADDRESS_HEAD.unpack_from(message)
        found = attributes_of(message[8:])
        packed = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
        held.setdefault(index, []).append(f"{socket.inet_ntop(family, packed)}/{length}")
    return [
        {
            "name": name, "mtu": int(Path(f"/sys/class/net/{name}/mtu").read_text()),
            "up": bool(int(Path(f"/sys/class/net/{name}/flags").read_text(), 16) & 1),
            "networks": held.get(index, []),
            "addresses": [one.partition("/")[0] for one in held.get(index, [])],
        }
        for index, name in socket.if_nameindex()
    ]  # fmt: skip


def attributes_of(text: bytes) -> dict[int, bytes]:
    """Return a message's attributes."""
    found = {}
    while len(text) >= 4:  # noqa: PLR2004 - an attribute's head
        length, kind = struct.unpack_from("=HH", text)
        found[kind] = text[4:length]
        text = text[length + 3 & ~3 :]
    return found


# Client ----------------------------------------------------------------------------------
def http(to: str, port: int, path: str = "/", times: int = 1, seconds: float = 5) -> Answer:
    """Fetch so often, each time by a connection of its own."""
    return {"texts": [fetched(to, port, path, seconds).decode() for _ in range(times)]}


def fetched(
    to: str, port: int, path: str, seconds: float, method: str = "GET", more: str = ""
) -> bytes:
    """Return the body of what is answered, whatever its status."""
    request = f"{method} {path} HTTP/1.0\r\nHost: {to}\r\n{more}\r\n"
    with socket.create_connection((to, port), seconds) as sock:
        sock.sendall(request.encode())
        text = b"".join(iter(lambda: sock.recv(1 << 18), b""))
    head, found, body = text.partition(b"\r\n\r\n")
    if not found:
        raise OSError(errno.EPROTO, f"no answer of HTTP: {text[:80]!r}")
    return body or head.partition(b"\r\n")[0]


def load(to: str, port: int, size: int, seconds: float = 30) -> Answer:
    """Fetch so many bytes; say how many came, in how many seconds."""
    began = time.monotonic()
    text = fetched(to, port, f"/bytes/{size}", seconds)
    return {"length": text.count(b"e"), "seconds": time.monotonic() - began}


def udp(
    to: str,
    port: int,
    size: int = 0,
    back: int = 0,
    source: str = "",
    word: str = "hello",
    tries: int = TRIES,
    df: bool = False,  # noqa: FBT001, FBT002
) -> Answer:
    """Send a datagram and return what is answered; with *df* it may not be fragmented."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if df:
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        if source:
            sock.bind((source, 0))
        sock.connect((to, port))
        text = f"{word} {back} ".encode()
        for _ in range(tries):
            sock.send(text.ljust(size, b"."))
            if select.select([sock], [], [], 1)[0]:
                reply = sock.recv(MOST)
                return {"text": reply.decode().rstrip("."), "length": len(reply)}
    return {"error": f"no answer to {tries} datagrams"}


def connect(to: str, port: int, seconds: float = 3) -> Answer:
    """Say what comes of a connection: open, refused, unreachable or silent."""
    began = time.monotonic()
    words = {
        errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "unreachable",
        errno.ENETUNREACH: "unreachable", errno.ETIMEDOUT: "silent",
    }  # fmt: skip
    try:
        socket.create_connection((to, port), seconds).close()
        state = "open"
    except TimeoutError:
        state = "silent"
    except OSError as error:
        state = words.get(error.errno or 0, str(error))
    return {"state": state, "seconds": time.monotonic() - began}


def resolve(name: str) -> Answer:
    """Return what programs get for a name: by search list and all."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return {"addresses": sorted({str(one[4][0]) for one in found})}


def dns(name: str, server: str = "", tcp: bool = False) -> Answer:  # noqa: FBT001, FBT002 - a question's field
    """Ask a server, the first of resolv.conf without one, for a whole name's A records."""
    server = server or nameserver()
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.rstrip(".").split("."))
    query = struct.pack("!HHHHHH", 4711, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect((server, 53))
        reply = by_stream(sock, query) if tcp else by_datagrams(sock, query)
    return {"server": server, "addresses": records(reply, len(query)), "code": reply[3] & 15}


def nameserver() -> str:
    """Return who is asked for names."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    return next(words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"])


def by_datagrams(sock: socket.socket, query: bytes) -> bytes:
    """Return what is answered to a query."""
    for _ in range(TRIES - 1):
        sock.send(query)
        try:
            return sock.recv(MOST)
        except TimeoutError:
            pass
    sock.send(query)
    return sock.recv(MOST)


def by_stream(sock: socket.socket, query: bytes) -> bytes:
    """Return what is answered to a query."""
    sock.sendall(struct.pack("!H", len(query)) + query)
    text = sock.recv(MOST)
    while len(text) < 2 or len(text) < 2 + struct.unpack_from("!H", text)[0]:  # noqa: PLR2004 - the length's
        part = sock.recv(MOST)
        if not part:
            raise OSError(errno.EPROTO, "the answer ended too soon")
        text += part
    return text[2:]


def records(reply: bytes, at: int) -> list[str]:
    """Return the A records that stand behind a reply's question, which ends *at*."""
    found = []
    for _ in range(struct.unpack_from("!H", reply, 6)[0]):
        while reply[at] and reply[at] < 0xC0:  # noqa: PLR2004 - a label; else a pointer
            at += 1 + reply[at]
        at += 2 if reply[at] else 1
        kind, _, _, length = struct.unpack_from("!HHIH", reply, at)
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(reply[at : at + 4]))
        at += length
    return sorted(found)


def imds(seconds: float = 3) -> Answer:
    """Ask the instance's metadata for a session's token, as programs do."""
    more = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n"
    reply = fetched("169.254.169.254", 80, "/latest/api/token", seconds, "PUT", more).decode()
    return {"token": len(reply) > 20 and " " not in reply, "said": reply[:40]}  # noqa: PLR2004 - a token


def spoof(source: str, to: str, port: int, word: str, ifname: str = "eth0") -> Answer:
    """Send datagrams from an address that is another's; say what the kernel made of it."""
    change(NEW_ADDRESS, source, ifname)
    try:
        return udp(to, port, source=source, word=word, tries=1)
    finally:
        change(DELETE_ADDRESS, source, ifname)


def inside() -> Answer:
    """Return the links, and IPv4 routes as the kernel lists them: link, network, gateway, mask."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    routes = [[w[0], *(little(w[at]) for at in (1, 2, 7))] for w in words]
    return {"links": links(), "routes": routes}


def little(text: str) -> str:
    """Return the address that the kernel writes as a number of this machine."""
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))


def port() -> Answer:
    """Return which port the server of this pod has."""
    return {"port": PORT_FILE.read_text() if PORT_FILE.exists() else ""}


def files(folder: str) -> Answer:
    """Return a folder's files that are JSON, with what is in them."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        try:
            found[path.name] = json.loads(path.read_text())
        except (ValueError, OSError):
            found[path.name] = None
    return {"files": found}


VERBS: dict[str, Callable[..., Answer]] = {
    one.__name__: one
    for one in (http, load, udp, connect, resolve, dns, imds, spoof, inside, port, files)
}


def ask(questions: list[Answer]) -> list[Answer]:
    """Return an answer to each question; "error" is in it where there was none."""
    answers = []
    for question in questions:
        try:
            answers.append(VERBS[question.pop("do")](**question))
        except OSError as error:
            answers.append({"error": str(error) or type(error).__name__, "errno": error.errno})
    return answers


def main(words: list[str]) -> None:
    """Do one of three things."""
    if words[0] == "ask":
        sys.stdout.write(json.dumps(ask(json.loads(words[1]))) + "\n")
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # a container's first process needs it
    if words[0] == "local":
        local(words[1], int(words[2]))
    serve(int(words[1]), "".join(words[2:3]))


if __name__ == "__main__":
    main(sys.argv[1:])
