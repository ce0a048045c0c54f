"""`--offline`: a promise that nothing is asked of another machine, kept by the interpreter."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from bench.system.errors import UserError

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
"""Through a proxy on this very machine the rest of the world would look local."""
_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
"""Audit events of the socket module, and which of their arguments is the address or host."""

_depth = 0
_hooked = False


@contextmanager
def no_network() -> Iterator[None]:
    """Within it, a name looked up or a connection made beyond this machine is a UserError.

    It holds for all code of this process, whatever library makes the attempt and in whatever
    thread; programs that it starts only learn it from Hugging Face's variables in the environment.
    """
    global _depth, _hooked
    if not _hooked:
        # An audit hook stays for good, so there is one, and it asks whether it is wanted.
        sys.addaudithook(_refuse)
        _hooked = True
    _depth += 1
    try:
        with mock.patch.dict(os.environ, _OFFLINE):
            for name in [name for name in os.environ if name.lower() in _PROXIES]:
                del os.environ[name]
            yield
    finally:
        _depth -= 1


@contextmanager
def network(*, offline: bool, download: bool) -> Iterator[None]:
    """`no_network` if `offline`; UserError where a download is asked for at the same time."""
    if offline and download:
        raise UserError(
            "--offline forbids what --download allows: leave one of the two away.", code=2
        )
    if not offline:
        yield
        return
    with no_network():
        yield


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if not _depth or event not in _EVENTS:
        return
    address = arguments[_EVENTS[event]]
    host = address[0] if isinstance(address, tuple) and address else address
    if _is_local(host):
        return
    shown = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    raise UserError(
        f"--offline forbids the connection to {shown} that was attempted: leave --offline away, "
        "or do without what asked for it."
    )


def _is_local(host: object) -> bool:
    """Whether a host is this machine: none, a socket file, 'localhost' or a loopback address."""
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if not isinstance(host, str) or host in ("", "localhost") or "/" in host or host[0] == "\0":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
