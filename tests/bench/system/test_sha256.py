import hashlib
import io

import pytest
from rich.console import Console

from bench.system import files
from bench.system.progress import Reporter


@pytest.mark.parametrize("size", [0, 1, files.CHUNK, 3 * files.CHUNK + 7])
def test_sha256_of_small_files_shows_no_progress(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    out = io.StringIO()
    assert (
        files.sha256(path, Reporter(Console(file=out)))
        == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    assert out.getvalue() == ""


def test_sha256_of_a_large_file_shows_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHOWN_FROM", 0)
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * files.CHUNK))
    out = io.StringIO()
    files.sha256(path, Reporter(Console(file=out)))
    assert out.getvalue() == "file: MiB: 64/64 in 0 s.\n"
