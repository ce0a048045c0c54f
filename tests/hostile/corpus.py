"""Bad files of every format that is read, made by code: good ones, broken ones, and bombs.

Nothing here is larger than a few MB on disk; what the files claim, or unfold into, is.
"""

import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

CANARY = "canary"
DEEP = 100_000
HUGE = 10**12
BOMB = 3 << 30
"""Bytes that a bomb unfolds into: more than the tests' readers may take, in a small file."""

Maker = Callable[[], bytes]


class Evil:
    """Unpickled by Python's own reader, it leaves a file behind."""

    def __reduce__(self):
        return (os.mkdir, (CANARY,))


def png(width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 9).save(buffer, "PNG")
    return buffer.getvalue()


def picture(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def png_of(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that claims a size and has next to no data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def postscript() -> bytes:
    """A program, which an image library would hand to an interpreter."""
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        b"(canary) (w) file closefile\nshowpage\n%%EOF\n"
    )


def npy(array: np.ndarray, shape=None, descr: str | None = None) -> bytes:
    """An array whose header may claim something else."""
    buffer = io.BytesIO()
    text = f"{{'descr': {descr or repr(array.dtype.str)}, 'fortran_order': False, "
    text += f"'shape': {array.shape if shape is None else shape}, }}"
    head = text.encode("latin1")
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    buffer.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    return buffer.getvalue() + array.tobytes()


def evil_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def repeated(size: int, head: bytes = b"", fill: bytes = b"\0") -> bytes:
    """Raw deflate of `head` and then `size` bytes of `fill`, a thousandth as long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress((fill * (1 << 20))[: 1 << 20]) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size >> 20) + packer.flush()


def zip_bomb(name: str, head: bytes = b"", others: dict[str, bytes] | None = None,
             fill: bytes = b"\0") -> bytes:  # fmt: skip
    """A zip of a few MB whose member unfolds into `BOMB` bytes behind `head`.

    The checksum is wrong, which is known only to who has unfolded all of it.
    """
    content, crc, size = repeated(BOMB, head, fill), 0, BOMB + len(head)
    raw = name.encode()
    version = (20, 0, 8, 0, 33)
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, *version, crc, len(content), size, len(raw), 0)
    start = local + raw + content
    central = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *version, crc, len(content), size, len(raw),
        0, 0, 0, 0, 0, 0,
    ) + raw  # fmt: skip
    files, extra, directory = 1, b"", central
    for other, text in (others or {}).items():
        known, at = other.encode(), len(start) + len(extra)
        sizes = (zlib.crc32(text), len(text), len(text), len(known))
        stored = (20, 0, 0, 0, 33)
        extra += struct.pack("<IHHHHHIIIHH", 0x04034B50, *stored, *sizes, 0) + known + text
        directory += struct.pack(
            "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *stored, *sizes, 0, 0, 0, 0, 0, at
        ) + known  # fmt: skip
        files += 1
    end = struct.pack(
        "<IHHHHIIH", 0x06054B50, 0, 0, files, files, len(directory), len(start) + len(extra), 0
    )
    return start + extra + directory + end


def npz_bomb(name: str, shape: tuple[int, ...], dtype: str,
             others: dict[str, bytes] | None = None) -> bytes:  # fmt: skip
    """An npz with one array of `BOMB` bytes of zeros, whose header agrees with its size."""
    return zip_bomb(f"{name}.npy", npy(np.empty(0, dtype), shape), others)


def zip_of_links() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("a/link.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def lying_zip() -> bytes:
    """A zip whose directory claims 2^32 - 2 bytes for a member of a few."""
    content = bytearray(archive({"a/1.png": png(), "arr_0.npy": npy(np.zeros(3))}))
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = b"\xfe\xff\xff\xff"
    return bytes(content)


def encrypted_zip() -> bytes:
    content = bytearray(archive({"a/1.png": png(), "samples.json": b"{}"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    return bytes(content)


def tar(members: dict[str, bytes], mode: str = "w:gz", **kinds) -> bytes:
    """A tar; `kinds` maps names to (type, linkname)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, (kind, target) in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
    return buffer.getvalue()


def tar_header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def tar_bomb(kind: bytes) -> bytes:
    """A tar.gz whose first header announces a name, or attributes, of `BOMB` bytes."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + repeated(BOMB, tar_header("x", BOMB, kind)) + bytes(8)


def pax(attributes: dict[str, str], after: bytes = b"", kind: bytes = b"0") -> bytes:
    records = b""
    for key, value in attributes.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        records += str(length).encode() + body
    padded = records + bytes(-len(records) % 512)
    return tar_header("x", len(records), b"x") + padded + tar_header("a/1.png", 0, kind) + after


def weights(**tensors: torch.Tensor) -> bytes:
    return safetensors.torch.save(tensors or {"model.weight": torch.zeros(2, 3)})


def tensors_file(header: object, length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file with a header of any content and claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def torch_file(value: object, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def laughs(depth: int = 60) -> bytes:
    """A pickle whose lists hold the list below twice: 2^60 entries to who walks it."""
    value: list = []
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps({"data": value, "labels": value})


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
"""Whatever a file may hold, whatever its name promises."""


def cut(content: bytes, count: int, seed: int = 0) -> list[bytes]:
    """A file cut short at `count` random places, the first and last byte among them."""
    if len(content) < 3:
        return []
    places = np.random.default_rng(seed).integers(1, len(content), max(0, count - 2))
    return [content[:place] for place in {1, len(content) - 1, *places.tolist()}]


def changed(content: bytes, count: int, seed: int = 0) -> list[bytes]:
    """A file with one to four bytes changed, `count` times."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count if content else 0):
        copy = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            copy[place] = rng.integers(0, 256)
        found.append(bytes(copy))
    return found


def no_files(folder: Path) -> dict[str, Path]:
    """What stands where a file should and is none: a folder, a pipe, a socket, a loop of links."""
    import socket

    folder.mkdir(parents=True, exist_ok=True)
    places = {name: folder / name for name in ("folder", "pipe", "socket", "loop", "absent")}
    places["folder"].mkdir()
    os.mkfifo(places["pipe"])
    with socket.socket(socket.AF_UNIX) as found:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket may have a hundred characters
        try:
            found.bind("socket")
        finally:
            os.chdir(here)
    places["loop"].symlink_to("loop")
    return places
