"""Find the servers that a traced command uses, from its calls on sockets, since no file has their answers.

Servers that the command itself runs don't count; `bind` and `listen` show their sockets.
"""

from __future__ import annotations

import os
from _struct import unpack_from

from paropt_exporter.executors.supervisor.link_walk import complete_path
from paropt_exporter.executors.supervisor.seccomp import Kernel, Notification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar

_MOST_SERVERS = 20
_MOST_SOCKETS = 100_000
_UNIX, _INET, _INET6 = 1, 2, 10
_LOCAL_FAMILIES = (0, 16, 38)  # none, netlink, the kernel's ciphers
_MESSAGE_BYTES, _MOST_MESSAGES = 64, 1024  # struct mmsghdr, UIO_MAXIOV
_LONGEST_ADDRESS_BYTES = 128
# Sockets by which the C library looks up names of users and hosts, and the system's log.
_NAME_SERVICES = (b"/run/nscd/", b"/var/run/nscd/", b"/run/systemd/userdb/", b"/run/systemd/resolve/", b"/dev/log")


class TracedServers:
    """The servers that one command uses, in `names`.

    `note_absence` is called with the path of a Unix socket that does not exist, `note_write` with that of one which the
    command creates.
    """

    def __init__(
        self, kernel: Kernel, *, note_absence: Callable[[bytes], object], note_write: Callable[[bytes], object]
    ) -> None:
        self._kernel = kernel
        self._note_absence = note_absence
        self._note_write = note_write
        self.names: dict[str, None] = {}
        self._own: set[bytes | int] = set()  # paths of sockets, and ports
        self._bound: dict[bytes | int, list[tuple[int, int]]] = {}  # processes and descriptors, if the call succeeds
        self._untaken: dict[int, str] = {}  # by port: `names` of servers that did not run when the command connected

    def _on_connect(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 1), connects=True)

    def _on_send(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 4))

    def _on_send_message(self, call: Notification) -> None:
        self._note_receiver(call, call.arguments[1])

    def _on_send_messages(self, call: Notification) -> None:
        for number in range(min(call.arguments[2] & 0xFFFFFFFF, _MOST_MESSAGES)):
            self._note_receiver(call, call.arguments[1] + number * _MESSAGE_BYTES)

    def _note_receiver(self, call: Notification, header: int) -> None:
        """Note the address in a message's header, struct msghdr."""
        address, size = unpack_from("=QI", self._kernel.read_bytes(call.pid, header, 16))
        if address and size:
            self._note_server(call, self._kernel.read_bytes(call.pid, address, min(size, _LONGEST_ADDRESS_BYTES)))

    def _on_bind(self, call: Notification) -> None:
        address = self._read_address(call, 1)
        family, port = _parse_address(address)
        name: bytes | int = _find_socket(call, address) if family == _UNIX else port
        if isinstance(name, bytes) and name[:1] == b"/":
            self._note_write(name)
        if len(self._bound) < _MOST_SOCKETS:
            # The call may fail, if another server has the address. The socket itself shows it, when a process connects.
            self._bound.setdefault(name, []).append(_identify_socket(call))

    def _on_listen(self, call: Notification) -> None:
        """Note the address of a server that the command itself runs; the kernel may have chosen its port."""
        own = _identify_socket(call)
        name = self._read_socket_name(*own)
        if isinstance(name, tuple) and len(name) >= 2:
            port = int(name[1])
            self._own.add(port)
            self.names.pop(self._untaken.pop(port, ""), None)
        elif name:
            self._own.update(bound for bound, sockets in self._bound.items() if own in sockets)

    HANDLERS: ClassVar[Mapping[str, Callable[[TracedServers, Notification], None]]] = {
        "connect": _on_connect, "sendto": _on_send, "sendmsg": _on_send_message, "sendmmsg": _on_send_messages,
        "bind": _on_bind, "listen": _on_listen,
    }  # fmt: skip

    def _note_server(self, call: Notification, address: bytes, *, connects: bool = False) -> None:
        family, port = _parse_address(address)
        if family == _UNIX:
            name = _find_socket(call, address)
            if name[:1] == b"/" and not os.path.exists(name):
                self._note_absence(name)
            elif name and not name.startswith(_NAME_SERVICES):
                self._add(f"the socket {os.fsdecode(name.replace(bytes(1), b'@'))}", name)
        elif family in (_INET, _INET6):
            if port and _is_loopback(address):
                self._note_port(call, port, connects=connects)
            elif port:
                self._add(f"port {port} of another host", None)
        elif family not in _LOCAL_FAMILIES:
            self._add(f"a server of the address family {family}", None)

    def _note_port(self, call: Notification, port: int, *, connects: bool) -> None:
        """Note a port of this host. While no socket has it, the command may still take it for a server of its own.

        Before a server starts, the C library connects a datagram socket to each of its addresses, to put them in order.
        That sends nothing. Other sockets would show the command whether another program has the port.
        """
        server = f"port {port} of this host"
        is_known = server in self.names
        self._add(server, port)
        if server not in self.names:
            return
        may_be_own = connects and (not is_known or port in self._untaken) and not _is_taken(call.pid, port)
        if may_be_own and self._is_datagram(call):
            self._untaken[port] = server
        else:
            self._untaken.pop(port, None)

    def _add(self, server: str, name: bytes | int | None) -> None:
        """Add a server, unless it is one of the command's own under this name.

        A known server is not looked for again, which takes 20 µs for each socket that the command has bound.
        """
        if server in self.names or len(self.names) >= _MOST_SERVERS:
            return
        if name is None or not self._is_own(name):
            self.names[server] = None

    def _is_own(self, name: bytes | int) -> bool:
        """Return whether the command itself has a socket with this address."""
        if name not in self._own:
            chosen = () if isinstance(name, bytes) else self._bound.get(0, ())  # sockets whose ports the kernel chose
            if any(self._has_name(own, name) for own in (*self._bound.get(name, ()), *chosen)):
                self._own.add(name)
        return name in self._own

    def _has_name(self, own: tuple[int, int], name: bytes | int) -> bool:
        try:
            found = self._read_socket_name(*own)
        except OSError:
            return False  # it is closed, so nothing shows that it had the address
        if isinstance(name, int) or isinstance(found, tuple):
            return isinstance(found, tuple) and len(found) >= 2 and found[1] == name
        # The socket has the path that the command gave, which may be relative.
        text = os.fsencode(found or b"")
        return bool(text) and (text == name or os.path.basename(text) == os.path.basename(name))

    def _is_datagram(self, call: Notification) -> bool:
        import _socket as socket  # here: few commands connect

        try:
            copy = socket.socket(fileno=self._kernel.copy_descriptor(*_identify_socket(call)))
        except OSError:
            return False  # it is no socket, so the call fails
        try:
            return copy.type == socket.SOCK_DGRAM
        finally:
            copy.close()

    def _read_socket_name(self, process: int, descriptor: int) -> Any:
        import _socket as socket  # here: few commands listen

        copy = socket.socket(fileno=self._kernel.copy_descriptor(process, descriptor))
        try:
            return copy.getsockname()
        finally:
            copy.close()

    def _read_address(self, call: Notification, place: int) -> bytes:
        size = min(call.arguments[place + 1] & 0xFFFFFFFF, _LONGEST_ADDRESS_BYTES)
        return self._kernel.read_bytes(call.pid, call.arguments[place], size) if size else b""


def _identify_socket(call: Notification) -> tuple[int, int]:
    """Return the process whose thread made a call, and the descriptor of the call's socket."""
    with open(b"/proc/%d/status" % call.pid, "rb") as file:
        process = next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
    return process, call.arguments[0] & 0xFFFFFFFF


def _find_socket(call: Notification, address: bytes) -> bytes:
    """Return the path of a Unix socket; an abstract one begins with NUL."""
    if address[2:3] == b"\0":
        return address[2:].rstrip(b"\0") or b"\0"
    return complete_path(call.pid, None, address[2:].partition(b"\0")[0]) or b""


def _parse_address(address: bytes) -> tuple[int, int]:
    """Return the family and the port of a socket's address."""
    if len(address) < 4:
        return (unpack_from("=H", address)[0] if len(address) >= 2 else 0), 0
    return unpack_from("=H", address)[0], unpack_from(">H", address, 2)[0]


def _is_taken(process: int, port: int) -> bool:
    """Return whether a socket of this host has a port, in the network namespace of a process; True if unknown."""
    ending = b":%04X" % port
    for table in (b"tcp", b"udp", b"tcp6", b"udp6"):
        try:
            with open(b"/proc/%d/net/%s" % (process, table), "rb") as file:
                if any(line.split(None, 2)[1].endswith(ending) for line in file):
                    return True
        except OSError:
            if table[-1:] != b"6":  # otherwise a host without IPv6
                return True
    return False


def _is_loopback(address: bytes) -> bool:
    if _parse_address(address)[0] == _INET:
        return address[4:5] == b"\x7f" or address[4:8] == bytes(4)
    host = address[8:24]
    return host in (bytes(15) + b"\1", bytes(16)) or host[:13] == bytes(10) + b"\xff\xff\x7f"
