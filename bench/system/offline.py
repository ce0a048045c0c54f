"""`--offline`: the interpreter refuses every connection to another machine."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

from bench.system.errors import UserError

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
"""Removed, since a proxy on this machine would make every connection look local."""
_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
"""Audit events of the socket module, with the index of the address or host in their arguments."""

_depth = 0
_hooked = False


@contextmanager
def no_network() -> Iterator[None]:
    """Raise UserError for every name lookup and connection beyond this machine in the block.

    This holds for all libraries and threads of this process. Programs that it starts only get
    Hugging Face's environment variables.
    """
    global _depth, _hooked
    if not _hooked:
        # An audit hook cannot be removed, so there is only one, which checks `_depth`.
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
    """`no_network` if `offline`; UserError if a download is allowed at the same time."""
    if offline and download:
        raise UserError("--offline forbids what --download allows: drop one of them.", code=2)
    with no_network() if offline else nullcontext():
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
        f"--offline forbids the connection to {shown} that was attempted: drop --offline, or the "
        "option that needs it."
    )


def _is_local(host: object) -> bool:
    """Whether a host is this machine: empty, a socket file, 'localhost' or a loopback address."""
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if not isinstance(host, str) or host in ("", "localhost") or "/" in host or host[0] == "\0":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
