"""`--offline`, down to the sockets."""

import os
import socket
import threading

import pytest

from bench.evaluation.weights import find_weights
from bench.experiment import ranges
from bench.system.errors import UserError
from bench.system.offline import network, no_network
from metrics.catalogue import INCEPTION
from tests.bench.helpers import TOY_METRICS, bench, contents

ELSEWHERE = ("192.0.2.1", 80)
"""An address that is nobody's (RFC 5737)."""


@pytest.fixture
def server():
    """A socket on this machine that takes connections."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda s: s.connect(ELSEWHERE),
        lambda s: s.connect_ex(ELSEWHERE),
        lambda s: socket.create_connection(("weights.example", 443), timeout=0.1),
        lambda s: socket.getaddrinfo("weights.example", 443),
        lambda s: socket.gethostbyname("weights.example"),
        lambda s: super(socket.socket, s).connect(ELSEWHERE),
    ],
)
def test_other_machines_cannot_be_reached(attempt):
    with socket.socket() as made, no_network():
        made.settimeout(0.1)
        with pytest.raises(UserError, match=r"--offline forbids the connection to (192|weights)"):
            attempt(made)


def test_datagrams_and_ipv6_are_refused():
    refused = pytest.raises(UserError, match=r"to 192\.0\.2\.1 that")
    with socket.socket(type=socket.SOCK_DGRAM) as made, no_network(), refused:
        made.sendto(b"x", ELSEWHERE)
    with pytest.raises(UserError, match="to 2001:db8::1 that"), no_network():
        socket.getaddrinfo("2001:db8::1", 80)


def test_this_machine_can_be_reached(server):
    with no_network(), socket.create_connection(server, timeout=5) as made:
        assert made.getpeername() == server
        assert socket.getaddrinfo("localhost", 80)
        assert socket.getaddrinfo(None, 80)


def test_offline_covers_threads_and_ends_with_the_command(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    found = []

    def attempt():
        try:
            socket.getaddrinfo("weights.example", 443)
        except UserError as error:
            found.append(str(error))
        except OSError:
            found.append("asked")

    with no_network():
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert "HTTPS_PROXY" not in os.environ
    assert found[0].startswith("--offline forbids the connection to weights.example")
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["HTTPS_PROXY"]
    # An address of no machine, in numbers: nothing is asked of the network to resolve it.
    assert socket.getaddrinfo("192.0.2.1", 80)


def test_download_is_refused_before_it_begins(tmp_path):
    refused = pytest.raises(UserError, match=r"--offline forbids the connection to github\.com")
    with refused, no_network():
        find_weights(INCEPTION, tmp_path, download=True)
    assert contents(tmp_path) == {}
    refused = pytest.raises(UserError, match="--offline forbids what --download allows")
    with refused, network(offline=True, download=True):
        pass


def test_sweep_offline_computes_and_contradicts_download(trained, monkeypatch):
    before = contents(trained)
    ran = bench("sweep", "--offline", "--download", "--results", trained)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "Error: --offline forbids what --download allows: drop one of them.\n"
    assert contents(trained) == before
    ran = bench("sweep", "--offline", "-m", "edm", "-g", "1", "-n", "4", *TOY_METRICS,
                "--results", trained)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "1 cell computed" in ran.out


def test_connection_in_a_sweep_is_a_one_line_error(trained, monkeypatch):
    def curious(*arguments, **options):
        socket.create_connection(ELSEWHERE, timeout=0.1)

    monkeypatch.setattr(ranges, "parse_range", curious)
    ran = bench("sweep", "--offline", "--results", trained)
    assert ran.code == 1
    assert ran.err.startswith("Error: --offline forbids the connection to 192.0.2.1 ")
    assert ran.err.count("\n") == 1
    # The guard is gone again.
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        made.connect(ELSEWHERE)  # sends nothing
