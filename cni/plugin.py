"""The plugin: one exec per verb, no state, no imports that cost. Shell.

    python3 -I -S plugin.py

Opens the pod's network namespace, opens a netlink socket in it, and passes both with what
the runtime said to the daemon; prints the daemon's answer. Builtin modules only: starting
Python is most of what an ADD costs, and a plugin that needs no library can be one file.
The rule a changer must keep: stdout carries the result and nothing else, and every way out
is `_exit`.
"""

import posix
import time
from _socket import socket

FOLDER = b"/run/enid"
SOCKET = FOLDER + b"/ipamd.sock"
SPOOL = FOLDER + b"/spool"
HEARTBEAT = FOLDER + b"/heartbeat"
DEADLINE_SECONDS = 110
"""How long a verb may take, unless `deadlineSeconds` says otherwise: kubelet allows a sandbox
240 s, and must hear why."""

DEADLINE_KEY, SHORTEST_DEADLINE, LONGEST_DEADLINE = b"deadlineseconds", 10, 240
"""The daemon answers 5 s before the deadline; what comes after kubelet's is heard by nobody."""

PATIENCE_SECONDS = 0.05
"""Between two tries to reach a daemon that restarts."""

MAX_BYTES = 1 << 20
"""Environment and stdin; the daemon takes no larger frame."""

MAX_ID, MAX_IFNAME = 128, 15
"""A container id is 64 hex digits; the kernel's IFNAMSIZ is 16 with its NUL. Both names and a
time make one file name, of 255 bytes at most."""

MAX_NETWORK, SMALLEST_MTU, LARGEST_MTU = 64, 576, 9001
"""Of the configuration, as cni/spec.py has them."""

CORRECT_IT = "correct the network configuration"

MAX_SPOOLED = 256
"""DELs kept for a daemon that is away: two nodes' worth of pods. Beyond, kubelet retries."""

LATEST, FALLBACK = "1.1.0", "1.0.0"
VERSIONS = '["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]'
SANDBOX = (b"CNI_CONTAINERID", b"CNI_NETNS", b"CNI_IFNAME")
NEEDED: dict[bytes, tuple[bytes, ...]] = {
    b"ADD": SANDBOX,
    b"CHECK": SANDBOX,
    b"DEL": (b"CNI_CONTAINERID", b"CNI_IFNAME"),
    b"GC": (),
    b"STATUS": (),
}

INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, IO, DECODE, INVALID_CONFIG = 1, 4, 5, 6, 7
TRY_AGAIN_LATER, NOT_AVAILABLE = 11, 50
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
AF_UNIX, AF_NETLINK, SOCK_STREAM, SOCK_RAW, SOCK_CLOEXEC = 1, 16, 1, 3, 0o2000000
CLONE_NEWNET = 0x40000000
WRITE_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC


class RefusalError(Exception):
    """The verb fails; *code* is the specification's."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        self.code, self.msg, self.details = code, msg, details


def main() -> None:
    """Do one verb."""
    stdin = b""
    try:
        env = {k: v for k, v in posix.environ.items() if k.startswith(b"CNI_")}
        command = env.get(b"CNI_COMMAND", b"")
        if command == b"VERSION":
            stdin = b"" if posix.isatty(0) else read_stdin()
            finish(0, version(stdin))
        stdin = read_stdin()
        check(command, env, stdin)
        finish(*(status(stdin) if command == b"STATUS" else ask(command, env, stdin)))
    except RefusalError as error:
        finish(1, error_json(error, version_in(stdin)))
    except OSError as error:
        finish(1, error_json(RefusalError(IO, "enid-cni: %s" % error), version_in(stdin)))


def finish(code: int, stdout: bytes) -> None:
    """Print and leave without the interpreter's clean-up, which costs 1.5 ms."""
    while stdout:
        stdout = stdout[posix.write(1, stdout) :]
    posix._exit(code)


def read_stdin() -> bytes:
    """Return all of stdin, at most MAX_BYTES."""
    pieces, size = [], 0
    while piece := posix.read(0, 65536):
        size += len(piece)
        if size > MAX_BYTES:
            raise RefusalError(
                DECODE, "the network configuration on stdin is over %d bytes" % MAX_BYTES
            )
        pieces.append(piece)
    return b"".join(pieces)


def check(command: bytes, env: dict[bytes, bytes], stdin: bytes) -> None:
    """Refuse what the daemon need not see, in one sentence."""
    if command not in NEEDED:
        known = "ADD, CHECK, DEL, GC, STATUS or VERSION"
        raise RefusalError(
            INVALID_ENVIRONMENT,
            "CNI_COMMAND=%s is not %s" % (text_of(command), known)
            if command
            else "CNI_COMMAND is missing: it is %s" % known,
        )
    missing = [name.decode() for name in NEEDED[command] if not env.get(name)]
    if missing:
        raise RefusalError(INVALID_ENVIRONMENT, "%s missing" % ", ".join(missing))
    for name, longest in ((b"CNI_CONTAINERID", MAX_ID), (b"CNI_IFNAME", MAX_IFNAME)):
        if name in NEEDED[command] and not is_plain(env[name], longest):
            raise RefusalError(
                INVALID_ENVIRONMENT, "%s=%s is not a name" % (text_of(name), text_of(env[name]))
            )
    check_object(stdin)
    if posix.geteuid():
        raise RefusalError(IO, "enid-cni runs as uid %d and must be root" % posix.geteuid())


def check_object(stdin: bytes) -> None:
    """Refuse what begins or ends as no object does; the daemon reads what is between."""
    text = stdin.strip()
    if text[:1] != b"{" or text[-1:] != b"}":
        what = "not a JSON object" if text else "empty"
        raise RefusalError(DECODE, "the network configuration on stdin is %s" % what)


def version(stdin: bytes) -> bytes:
    """Return what we speak, in the version that is asked in: a caller may know none of ours.

    Nothing at all is somebody who asks by hand.
    """
    asked = LATEST
    if stdin.strip():
        check_object(stdin)
        asked = version_in(stdin)
    return ('{"cniVersion":"%s","supportedVersions":%s}' % (asked, VERSIONS)).encode()


def status(stdin: bytes) -> tuple[int, bytes]:
    """Promise that this node can serve pods, or refuse: by the daemon's file, without the daemon.

    Its first line is `enid1 <written_ns> <grace seconds> <code>[ more words]`, its second what to
    say if the code is not 0. A runtime may ask every 5 s.
    """
    if version_in(stdin) != LATEST:
        raise RefusalError(
            INCOMPATIBLE_VERSION, "cniVersion %s does not allow STATUS" % version_in(stdin)
        )
    check_configuration(stdin)
    data, sentence = b"", "ipamd has not run on this node since it was booted"
    unreadable = "%s is unreadable" % text_of(HEARTBEAT)
    try:
        data = posix.read(posix.open(HEARTBEAT, posix.O_RDONLY | posix.O_CLOEXEC), 4096)
        _, written, grace, code = data.partition(b"\n")[0].split(b" ")[:4]
        silent = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(written)) // 1000000000
        if silent > int(grace):
            sentence = "ipamd has been silent for %d s" % silent
        elif silent >= 0:  # else it is of a former boot
            if code == b"0":
                return 0, b""
            sentence = text_of(data.split(b"\n")[1]) or unreadable
    except FileNotFoundError:
        pass
    except (ValueError, IndexError):
        sentence = unreadable
    raise RefusalError(NOT_AVAILABLE, sentence, "see the ipamd pod of this node, and `enid status`")


def check_configuration(stdin: bytes) -> None:
    """Refuse the keys that each ADD would be refused for (cni/spec.py): no promise can be kept."""
    keys = own_keys(stdin)
    name, mtu, ipam = [keys.get(key, b"null") for key in (b"name", b"mtu", b"ipam")]
    kind = keys.get(b"ipam.type", b"null") if ipam == b"{" else ipam
    wrong = ""
    if name[:1] != b'"' or not is_plain(name[1:-1], MAX_NETWORK):
        wrong = "name %s is not a network's name" % text_of(name)
    elif kind not in (b"null", b'""', b'"enid-cni"'):
        wrong = "ipam of type %s cannot be used: addresses are the VPC's" % text_of(kind)
    elif mtu != b"null" and not is_within(mtu, SMALLEST_MTU, LARGEST_MTU):
        wrong = "mtu %s is not within %d to %d" % (text_of(mtu), SMALLEST_MTU, LARGEST_MTU)
    if wrong:
        raise RefusalError(INVALID_CONFIG, wrong, CORRECT_IT)
    deadline_seconds(b"STATUS", stdin)


def is_within(word: bytes, least: int, most: int) -> bool:
    """Whether *word* is a whole number from *least* to *most*."""
    return word.isdigit() and least <= int(word[:9]) <= most


def is_plain(name: bytes, longest: int) -> bool:
    """Whether *name*, as `cni.spec` takes it, may become part of a file name."""
    return 0 < len(name) <= longest and name[0] in LETTERS and not name.strip(LETTERS + b"_.-")


def ask(command: bytes, env: dict[bytes, bytes], stdin: bytes) -> tuple[int, bytes]:
    """Return the exit status and the stdout that the daemon answers."""
    started = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    seconds = deadline_seconds(command, stdin)
    deadline = started + seconds * 1000000000
    head = b"\0".join([k + b"=" + v for k, v in env.items()])
    tail = b"%b\n%b%b" % (runtime_since() if command == b"GC" else b"", head, stdin)
    frame = b"enid1 %d %d %d %d%b" % (len(head), len(stdin), started, deadline, tail)
    if len(head) + len(stdin) > MAX_BYTES:
        raise RefusalError(DECODE, "environment and stdin are over %d bytes" % MAX_BYTES)
    descriptors = open_pod(env[b"CNI_NETNS"]) if NEEDED[command] is SANDBOX else ()
    while True:
        answer = exchange(frame, descriptors, deadline)
        if command == b"DEL" and answer is None:
            # The daemon may have begun to listen after its last look into the spool: ask again.
            name = spool(env, started, frame)
            answer = exchange(frame, descriptors, deadline)
            if not answer:
                return 0, b""
            unlink(name)
        if answer:
            return answer[0] - 48, answer[1:]
        if time.clock_gettime_ns(time.CLOCK_BOOTTIME) > deadline:
            raise RefusalError(
                TRY_AGAIN_LATER,
                "ipamd did not answer within %d s" % seconds,
                "see the ipamd pod of this node; the runtime retries",
            )
        time.sleep(PATIENCE_SECONDS)


def deadline_seconds(command: bytes, stdin: bytes) -> int:
    """Return how long *command* may take: what the configuration says, if it says anything.

    A DEL gets the file as it is now, and must succeed whatever became of it.
    """
    word = own_keys(stdin).get(DEADLINE_KEY, b"null") if DEADLINE_KEY in stdin.lower() else b"null"
    if is_within(word, SHORTEST_DEADLINE, LONGEST_DEADLINE):
        return int(word)
    if word == b"null" or command in (b"DEL", b"GC"):
        return DEADLINE_SECONDS
    words = (text_of(word), SHORTEST_DEADLINE, LONGEST_DEADLINE)
    raise RefusalError(
        INVALID_CONFIG,
        "deadlineSeconds %s is not a whole number within %d to %d" % words,
        CORRECT_IT,
    )


def runtime_since() -> bytes:
    """Return the word that tells since when the runtime runs: a young one may not know its pods."""
    try:
        fd = posix.open("/proc/%d/stat" % posix.getppid(), posix.O_RDONLY | posix.O_CLOEXEC)
        ticks = int(posix.read(fd, 4096).rpartition(b")")[2].split()[19])  # starttime, proc(5)
    except (OSError, ValueError, IndexError):
        return b""
    return b" runtime=%d" % (ticks * 10000000)  # USER_HZ is 100 on every architecture of ours


def open_pod(path: bytes) -> tuple[int, ...]:
    """Return the pod's netns and a netlink socket in it. A DEL needs neither."""
    try:
        netns = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise RefusalError(
            INVALID_ENVIRONMENT,
            "CNI_NETNS=%s cannot be opened: %s" % (text_of(path), error.strerror),
        ) from None
    home = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        setns(netns)
        netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
        setns(home)
    except OSError:
        raise RefusalError(
            INVALID_ENVIRONMENT, "CNI_NETNS=%s is not a network namespace" % text_of(path)
        ) from None
    return netns, netlink.detach()


def setns(descriptor: int) -> None:
    """Enter a network namespace: os.setns is there from Python 3.12 on."""
    if hasattr(posix, "setns"):
        posix.setns(descriptor, CLONE_NEWNET)
        return
    import _ctypes  # noqa: PLC0415 - only where it is needed: it costs a file look-up

    function = _ctypes.dlsym(_ctypes.dlopen(None, 0), "setns")  # type: ignore[arg-type]  # None is ourselves
    if _ctypes.call_function(function, (descriptor, CLONE_NEWNET)):
        raise OSError


def exchange(frame: bytes, descriptors: tuple[int, ...], deadline: int) -> bytes | None:
    """Return the answer, b"" if the daemon went away before it, None if it is not there."""
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        left = (deadline - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
        sock.settimeout(max(left, 0.1))
        try:
            sock.connect(SOCKET)
        except OSError:
            return None
        return talk(sock, frame, descriptors)
    finally:
        sock.close()


def talk(sock: socket, frame: bytes, descriptors: tuple[int, ...]) -> bytes:
    """Send one frame and read to the end.

    An answer counts, whatever sending says: a daemon that refuses a frame may have hung up
    before it was sent whole.
    """
    rights = b"".join([fd.to_bytes(4, "little") for fd in descriptors])
    answer = b""
    try:
        sent = sock.sendmsg([frame], [(1, 1, rights)] if rights else [])  # SOL_SOCKET, SCM_RIGHTS
        while sent < len(frame):
            sent += sock.send(frame[sent:])
    except OSError:
        pass
    try:
        while piece := sock.recv(65536):
            answer += piece
    except OSError:
        pass
    return answer if answer[:1].isdigit() else b""


def spool(env: dict[bytes, bytes], started: int, frame: bytes) -> bytes:
    """Leave a DEL for a daemon that is away, which drains the folder when it is back.

    Returns the file. The folder is the daemon's, but it is made here on a node whose daemon has
    not run since boot: there is nothing to release then, and a DEL must not wait for it.
    """
    name = SPOOL + b"/%b.%b.%d" % (env[b"CNI_CONTAINERID"], env[b"CNI_IFNAME"], started)
    try:
        for folder in (FOLDER, SPOOL):
            make_folder(folder)
        if len(posix.listdir(SPOOL)) >= MAX_SPOOLED:
            raise RefusalError(
                TRY_AGAIN_LATER,
                "ipamd is away and %d DELs wait for it already" % MAX_SPOOLED,
                "start ipamd on this node; the runtime retries",
            )
        draft = SPOOL + b"/.%d" % posix.getpid()
        fd = posix.open(draft, WRITE_NEW, 0o600)
        while frame:
            frame = frame[posix.write(fd, frame) :]
        posix.close(fd)
        posix.rename(draft, name)
    except OSError as error:
        raise RefusalError(
            TRY_AGAIN_LATER,
            "ipamd is away and its spool cannot be written: %s" % error.strerror,
            "start ipamd on this node; the runtime retries",
        ) from None
    return name


def make_folder(path: bytes) -> None:
    """Make a folder for root alone, if it is not there."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return


def unlink(path: bytes) -> None:
    """Take a DEL out of the spool again; the daemon may have been faster."""
    try:
        posix.unlink(path)
    except OSError:
        return


def text_of(data: bytes) -> str:
    """Return bytes from outside as part of a sentence: in one line, and not too long."""
    return "".join([c if c >= " " else "?" for c in data[:400].decode("utf-8", "replace")])


def version_in(stdin: bytes) -> str:
    """Return the cniVersion in *stdin* without parsing it; an error must be told in it."""
    version = own_keys(stdin).get(b"cniversion", b"")
    number = version[1:-1]
    is_one = version[:1] == b'"' and number and not number.strip(b"0123456789.")
    return number[:20].decode() if is_one else FALLBACK


DEEPEST = 2
"""An object in the configuration is looked into, such as `ipam`, and none in that."""


def own_keys(stdin: bytes) -> dict[bytes, bytes]:
    """Return what the keys of an object say as it is written, and `outer.inner` of those within.

    Names are in lower case, and an object or a list is its first bracket. A parser would be a
    module to load, and a sentence is due of what is no JSON, too.
    """
    found: dict[bytes, bytes] = {}
    outer = name = b""
    is_due = False
    for text, depth, after in strings_of(stdin):
        if after[:1] == b":" and depth <= DEEPEST:
            name = text.lower() if depth == 1 else outer + b"." + text.lower()
            outer = name if depth == 1 else outer
            value = after[1:].lstrip()
            is_due = not value  # it is a string, the next one
            found[name] = value[:1] if value[:1] in b"{[" else word_of(value)
        elif is_due:
            found[name] = b'"' + text + b'"'
            is_due = False
    return found


def word_of(value: bytes) -> bytes:
    """Return what stands before the next comma or bracket."""
    return value.partition(b",")[0].partition(b"}")[0].rstrip()


def strings_of(stdin: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return each string of the first object, how deep it is, and what stands before the next."""
    pieces = stdin.split(b'"')
    found, depth, at = [], opened(pieces[0]), 1
    while depth > 0 and at < len(pieces):
        begin = at
        while at + 1 < len(pieces) and is_cut(pieces[at]):
            at += 1
        after = pieces[at + 1] if at + 1 < len(pieces) else b""
        found.append((b'"'.join(pieces[begin : at + 1]), depth, after.strip()))
        depth += opened(after)
        at += 2
    return found


def opened(text: bytes) -> int:
    """Return how many brackets of *text* are open at its end."""
    return text.count(b"{") + text.count(b"[") - text.count(b"}") - text.count(b"]")


def is_cut(text: bytes) -> bool:
    """Whether the quote behind *text* is escaped, so that it ends no string."""
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def error_json(error: RefusalError, version: str) -> bytes:
    """Return *error* as the specification wants it on stdout."""
    return (
        '{"cniVersion":"%s","code":%d,"msg":"%s","details":"%s"}'
        % (version, error.code, escape(error.msg), escape(error.details))
    ).encode("utf-8", "replace")


def escape(text: str) -> str:
    """Return *text* for the inside of a JSON string."""
    return "".join(
        ["\\" + c if c in '"\\' else c if c >= " " else "\\u%04x" % ord(c) for c in text]
    )


if __name__ == "__main__":
    main()
