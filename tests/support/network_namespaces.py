"""Hosts of their own on this machine: network namespaces on a bridge, whose links a test can cut."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field

_CLONE_NEWNET = 0x40000000  # of <sched.h>


def find_obstacle() -> str:
    """Return why this machine has no network namespaces for tests, or ""."""
    if shutil.which("ip") is None:
        return "no `ip` here: install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"paropt{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    bridge = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], check=False)
    subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
    return f"ip link add type bridge: {bridge.stderr.strip()}" if bridge.returncode else ""


@dataclass(slots=True)
class Network:
    """A bridge with an address of this host, and namespaces behind it."""

    token: str = field(default_factory=lambda: secrets.token_hex(3))
    subnet: int = field(default_factory=lambda: secrets.randbelow(200) + 20)
    hosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    @property
    def address(self) -> str:
        """The address of this host on the bridge; 198.18/15 is for benchmarks, so that no route hides it."""
        return f"198.18.{self.subnet}.1"

    def add_host(self) -> str:
        """Add a namespace and return its name."""
        number = len(self.hosts) + 2
        name = f"pn{self.token}{number}"
        self.hosts.append(name)
        _ip("netns", "add", name)
        _ip("link", "add", self._link(name), "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", self._link(name), "master", self._bridge, "up")
        _ip("-n", name, "addr", "add", f"198.18.{self.subnet}.{number}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", name, "link", "set", device, "up")
        return name

    def cut(self, name: str) -> None:
        """Cut a namespace off: its packets vanish, without an error on either side."""
        _ip("link", "set", self._link(name), "down")

    def join(self, name: str) -> None:
        """Connect a namespace again."""
        _ip("link", "set", self._link(name), "up")

    def close(self) -> None:
        for name in self.hosts:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self._bridge], check=False)

    @property
    def _bridge(self) -> str:
        return f"pb{self.token}"

    def _link(self, name: str) -> str:
        return f"v{name}"


def enter(name: str) -> None:
    """Move this process, which has one thread, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", "rb") as namespace:  # noqa: PTH123 -- for its descriptor
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
