"""Builders of bad files: pictures, arrays, archives and checkpoints with false claims.

All files are at most a few MB on disk; their claimed or expanded sizes are larger.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import safetensors.torch
import torch
from PIL import Image

CANARY = "canary"
DEEP = 100_000
HUGE = 10**12
BOMB = 3 << 30
"""Expanded size of a bomb in bytes: more memory than the readers in the tests may use."""

Maker = Callable[[], bytes]


class Evil:
    """Creates a file if it is unpickled by Python's own reader."""

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
    """A PNG that claims a size but has almost no data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def postscript() -> bytes:
    """A PostScript program, which an image library would pass to an interpreter."""
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        b"(canary) (w) file closefile\nshowpage\n%%EOF\n"
    )


def npy(array: np.ndarray, shape=None, descr: str | None = None) -> bytes:
    """An array whose header may claim another shape or dtype."""
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
    """Raw deflate of `head` plus `size` bytes of `fill`, at about a thousandth of the size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress((fill * (1 << 20))[: 1 << 20]) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size >> 20) + packer.flush()


def zip_bomb(name: str, head: bytes = b"", others: dict[str, bytes] | None = None,
             fill: bytes = b"\0") -> bytes:  # fmt: skip
    """A zip of a few MB whose member expands to `head` plus `BOMB` bytes.

    The checksum is wrong, which a reader notices only after expanding the whole member.
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
    """A zip whose directory claims 2^32 - 2 bytes for a member of a few bytes."""
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
    """A pickle of nested lists, each holding the next twice: a full walk visits 2^60 entries."""
    value: list = []
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps({"data": value, "labels": value})
