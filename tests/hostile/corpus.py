"""Bad files of every format that is read, keyed by their defect.

All files are at most a few MB on disk; their claimed or expanded sizes are larger.
"""

import gzip
import lzma
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from tests.hostile.makers import (
    BOMB,
    DEEP,
    HUGE,
    Evil,
    Maker,
    archive,
    chunk,
    encrypted_zip,
    evil_npy,
    laughs,
    lying_zip,
    npy,
    npz_bomb,
    pax,
    picture,
    png,
    png_of,
    postscript,
    tar,
    tar_bomb,
    tar_header,
    tensors_file,
    torch_file,
    weights,
    zip_bomb,
    zip_of_links,
)

BYTES: dict[str, Maker] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\0",
    "zeros": lambda: bytes(5000),
    "ones": lambda: b"\xff" * 5000,
    "noise": lambda: np.random.default_rng(1).bytes(5000),
    "text": lambda: "Straße\n".encode() * 50,
    "latin-1": lambda: "{'a': 'Stra\xdfe'}".encode("latin1"),
    "UTF-16": lambda: '{"a": 1}'.encode("utf-16"),
    "NUL in text": lambda: b'source,dataset,method\n"a\0b",c,d\n',
    "script": lambda: b"#!/bin/sh\ntouch canary\n",
    "postscript": postscript,
    # JSON
    "deep lists": lambda: b"[" * DEEP,
    "deep closed lists": lambda: b"[" * DEEP + b"]" * DEEP,
    "deep objects": lambda: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep labels": lambda: b'{"labels": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "duplicate keys": lambda: b'{"key": "a", "key": "b", "n": 1, "n": 2}',
    "NaN": lambda: b'{"n": NaN, "value": Infinity, "guidance": -Infinity}',
    "1e999": lambda: b'{"n": 1e999, "step": 1e999}',
    "long number": lambda: b'{"n": ' + b"9" * 10_000 + b"}",
    "list": lambda: b"[1, 2, 3]",
    "null": lambda: b"null",
    "number": lambda: b"7",
    "string of 10 MB": lambda: b'{"key": "' + b"x" * 10_000_000 + b'"}',
    "surrogate": lambda: b'{"key": "\\ud800", "name": "\\ud800"}',
    # TOML
    "deep TOML": lambda: b"a = " + b"[" * DEEP + b"]" * DEEP,
    "long TOML number": lambda: b"a = " + b"9" * 10_000,
    "many dots": lambda: b".".join([b"a"] * 20_000) + b" = 1",
    "TOML infinity": lambda: b"[[study]]\ndataset='digits'\nmethods=['edm']\nguidance=[inf, nan]",
    # CSV
    "long CSV field": lambda: b"source,dataset\n" + b"x" * 200_000 + b",y\n",
    "quote without end": lambda: b'source,dataset\n"' + b"x\n" * 100_000,
    # images
    "PNG": png,
    "PNG of 10^10 pixels": lambda: png_of(100_000, 100_000),
    "PNG of 2^62 pixels": lambda: png_of(2**31 - 1, 2**31 - 1),
    "PNG of no pixels": lambda: png_of(0, 0),
    "PNG with a text bomb": lambda: png_of(
        8, 8, chunk(b"zTXt", b"guidance-bench\0\0" + zlib.compress(bytes(80 << 20)))
    ),
    "PNG with a profile bomb": lambda: png_of(
        8, 8, chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(80 << 20)))
    ),
    "JPEG": lambda: picture("JPEG"),
    "GIF of 2^32 pixels": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0),
    "BMP of 2^62 pixels": lambda: (
        b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0
        )
    ),
    "PPM of 10^18 pixels": lambda: b"P6 999999999 999999999 255\n123",
    "TIFF that points at itself": lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    # arrays
    "npy": lambda: npy(np.arange(6)),
    "npy of 10^12": lambda: npy(np.zeros(3), (HUGE,)),
    "npy of 10^30": lambda: npy(np.zeros(3), (10**10, 10**10, 10**10)),
    "npy of -1": lambda: npy(np.zeros(3), (-1, 5)),
    "npy of a huge text": lambda: npy(np.zeros(3), (1,), "'<U500000000'"),
    "npy of odd types": lambda: npy(np.zeros(3), (3,), "[('a', '<f8', (10, 10, 1000000))]"),
    "npy with a deep header": lambda: npy(np.zeros(3), "(" * 9000 + ")" * 9000),
    "npy with code": evil_npy,
    "npz with code": lambda: archive(
        {f"{name}.npy": evil_npy() for name in ("arr_0", "arr_1", "mu", "sigma", "about", "labels")}
    ),
    "npz of 10^12": lambda: archive(
        {
            f"{name}.npy": npy(np.zeros(3), (HUGE,))
            for name in ("arr_0", "arr_1", "mu", "sigma", "about", "labels", "data", "checksum")
        }
    ),
    "npz of a huge text": lambda: archive(
        {f"{n}.npy": npy(np.zeros(3), (1,), "'<U500000000'") for n in ("about", "guidance-bench")}
    ),
    # bombs
    "bomb of images": lambda: npz_bomb("arr_0", (BOMB >> 27, 1 << 13, 1 << 13, 2), "u1"),
    "bomb of one image": lambda: npz_bomb("arr_0", (1, 1 << 13, BOMB // (3 << 13), 3), "u1"),
    "bomb of vectors": lambda: npz_bomb("arr_0", (2, BOMB // 8), "<f4"),
    "bomb of labels": lambda: npz_bomb(
        "arr_1", (BOMB // 8,), "<i8", {"arr_0.npy": npy(np.zeros((2, 8, 8, 3), np.uint8))}
    ),
    "bomb of moments": lambda: npz_bomb(
        "sigma", (BOMB // 8192 // 8, 8192), "<f8", {"mu.npy": npy(np.zeros(4))}
    ),
    "bomb of features": lambda: npz_bomb("reps", (BOMB // 4096, 1024), "<f4"),
    "bomb of a card": lambda: zip_bomb("samples.json", b'{"run": "', {"a/1.png": png()}, b"x"),
    "bomb of an index": lambda: zip_bomb(
        "dataset.json", b'{"labels": [0', {"a/1.png": png()}, b",0"
    ),
    "bomb of an image": lambda: zip_bomb("a/1.png", png()),
    "bomb of an about": lambda: npz_bomb("about", (BOMB,), "|u1"),
    "bomb of a data.pkl": lambda: zip_bomb("archive/data.pkl", b"\x80\x02"),
    "bomb of a checkpoint": lambda: zip_bomb(
        "archive/data/0", b"", {"archive/data.pkl": b"\x80\x02}.", "archive/constants.pkl": b"."}
    ),
    # zips
    "zip of nothing": lambda: archive({}),
    "zip with ..": lambda: archive({"../../evil/1.png": png(), "a/2.png": png()}),
    "zip with a root": lambda: archive({"/tmp/evil/1.png": png(), "a/2.png": png()}),
    "zip with a drive": lambda: archive({"C:\\evil\\1.png": png(), "a/2.png": png()}),
    "zip with links": zip_of_links,
    "zip that claims 4 GiB": lying_zip,
    "zip with a password": encrypted_zip,
    "zip of a zip": lambda: archive({"a/1.png": archive({"a/1.png": png()})}),
    "zip of a program": lambda: archive({"a/1.png": postscript(), "a/2.png": postscript()}),
    "zip with a deep card": lambda: archive({"samples.json": b"[" * DEEP, "a/1.png": png()}),
    "zip with a deep index": lambda: archive({"dataset.json": b"[" * DEEP, "a/1.png": png()}),
    "zip of 10^10 pixels": lambda: archive({"a/1.png": png_of(100_000, 100_000), "a/2.png": png()}),
    # tars
    "tar with ..": lambda: tar({"../../evil/1.png": png(), "a/2.png": png()}),
    "tar with a root": lambda: tar({"/tmp/evil/1.png": png(), "a/2.png": png()}),
    "tar with a drive": lambda: tar({"C:/evil/1.png": png(), "a/2.png": png()}),
    "tar with a soft link": lambda: tar(
        {"a/1.png": png()}, **{"a/2.png": (tarfile.SYMTYPE, "/etc/passwd")}
    ),
    "tar with a hard link": lambda: tar(
        {"a/1.png": png()}, **{"a/2.png": (tarfile.LNKTYPE, "../../etc/passwd")}
    ),
    "tar with a device": lambda: tar({"a/1.png": png()}, **{"a/2.png": (tarfile.CHRTYPE, "")}),
    "tar with a pipe": lambda: tar({"a/1.png": png()}, **{"a/2.png": (tarfile.FIFOTYPE, "")}),
    "tar of 8 GB": lambda: tar_header("a/1.png", 8 << 30, b"0") + bytes(2048),
    "tar with a long name": lambda: tar_bomb(b"L"),
    "tar with many attributes": lambda: tar_bomb(b"x"),
    "tar with a negative size": lambda: pax({"size": "-1024"}, bytes(2048)),
    "tar with a huge size": lambda: pax({"size": str(10**30)}, bytes(2048)),
    "tar with a sparse map": lambda: pax(
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a/1.png"},
        b"99999999\n1\n".ljust(512, b"\0") + bytes(2048),
    ),
    "tar with a broken map": lambda: pax(
        {"GNU.sparse.map": "a,b,c", "GNU.sparse.size": "x"}, bytes(2048)
    ),
    "gzip of nothing": lambda: gzip.compress(b""),
    "xz of noise": lambda: lzma.compress(np.random.default_rng(2).bytes(3000)),
    # checkpoints
    "safetensors": weights,
    "safetensors of 2^60 bytes": lambda: tensors_file(b"{", 2**60),
    "safetensors of a deep header": lambda: tensors_file(b"[" * DEEP),
    "safetensors of huge tensors": lambda: tensors_file(
        {"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
    ),
    "safetensors past the end": lambda: tensors_file(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [2**62, 2**62 + 8]}}
    ),
    "safetensors of odd numbers": lambda: tensors_file(
        {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, data=bytes(4)
    ),
    "safetensors of short floats": lambda: weights(a=torch.zeros(3, dtype=torch.bfloat16)),
    "safetensors of NaN": lambda: weights(a=torch.full((3,), torch.nan)),
    "safetensors with step 1e999": lambda: tensors_file(
        {"__metadata__": {"state": '{"step": 1e999}'}}
    ),
    "safetensors with a deep state": lambda: tensors_file(
        {"__metadata__": {"state": "[" * DEEP, "about": "[" * DEEP}}
    ),
    "torch file": lambda: torch_file({"model.weight": torch.zeros(2, 3)}),
    "older torch file": lambda: torch_file({"model.weight": torch.zeros(2, 3)}, new=False),
    "torch file with code": lambda: torch_file({"a": Evil()}),
    "older torch file with code": lambda: torch_file({"a": Evil()}, new=False),
    # pickles
    "pickle": lambda: pickle.dumps({"data": [1], "labels": [2]}),
    "pickle with code": lambda: pickle.dumps(Evil()),
    "pickle of 2^60 bytes": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a.",
    "pickle with a far memo": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
    "pickle that laughs": laughs,
    "deep pickle": lambda: b"\x80\x02" + b"(" * DEEP + b"t" * DEEP + b".",
}
"""Bad content by description; each is tried under every file name."""


def no_files(folder: Path) -> dict[str, Path]:
    """Things in place of a file that are not files: a folder, a pipe, a socket, a symlink loop."""
    import socket

    folder.mkdir(parents=True, exist_ok=True)
    places = {name: folder / name for name in ("folder", "pipe", "socket", "loop", "absent")}
    places["folder"].mkdir()
    os.mkfifo(places["pipe"])
    with socket.socket(socket.AF_UNIX) as found:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket is limited to about a hundred characters
        try:
            found.bind("socket")
        finally:
            os.chdir(here)
    places["loop"].symlink_to("loop")
    return places
