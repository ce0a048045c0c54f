import hashlib
import io

import pytest
from rich.console import Console

from bench.data import checksum
from bench.data.checksum import sha256
from bench.system.progress import Reporter


@pytest.mark.parametrize("size", [0, 1, checksum.CHUNK, 3 * checksum.CHUNK + 7])
def test_it_is_the_sha256_of_the_bytes_and_quiet_on_small_files(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    out = io.StringIO()
    assert (
        sha256(path, Reporter(Console(file=out))) == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    assert out.getvalue() == ""


def test_a_large_file_shows_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(checksum, "SHOWN_FROM", 0)
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * checksum.CHUNK))
    out = io.StringIO()
    sha256(path, Reporter(Console(file=out)))
    assert out.getvalue() == "file: MiB: 64/64, 0 s left. \n"
