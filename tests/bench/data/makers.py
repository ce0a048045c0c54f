"""Tiny data sets in every form that people have on disk."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.published import CIFAR10_CLASSES

TREE_CLASSES = ("cat", "dog", "eel")


def pixels(n: int, shape=(3, 8, 8), seed: int = 0) -> np.ndarray:
    """Random uint8 (n, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def encoded(chw: np.ndarray, suffix: str = "PNG", mode: str | None = None, **options) -> bytes:
    """An image file of uint8 (C, H, W)."""
    picture = Image.fromarray(chw[0] if len(chw) == 1 else chw.transpose(1, 2, 0))
    buffer = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(buffer, format=suffix, **options)
    return buffer.getvalue()


def image_tree(per_class: int = 6, split=True, suffix="PNG", shape=(3, 8, 8)) -> dict[str, bytes]:
    """Files of three classes by name, `train/cat/000.png`, or without the split."""
    files = {}
    for s, name in enumerate(("train", "test") if split else ("",)):
        for k, label in enumerate(TREE_CLASSES):
            for i, image in enumerate(pixels(per_class, shape, seed=10 * s + k)):
                prefix = f"{name}/" if name else ""
                files[f"{prefix}{label}/{i:03}.{suffix.lower()}"] = encoded(image, suffix)
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """The files below a folder, made in reverse order."""
    for name, content in reversed(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:xz") -> Path:
    """The files in a tar, in reverse order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in reversed(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def old_pickle(value: object) -> bytes:
    """Protocol 2, with the module names of numpy 1 as the published files have them."""
    return pickle.dumps(value, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")


def cifar_files(per_batch: int = 20) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """The official layout with its images uint8 (6 * per_batch, 3, 32, 32) and labels."""
    images = pixels(6 * per_batch, (3, 32, 32))
    labels = np.arange(6 * per_batch) % 10
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    root = "cifar-10-batches-py"
    files = {}
    for i, name in enumerate(names):
        rows = slice(i * per_batch, (i + 1) * per_batch)
        files[f"{root}/{name}"] = old_pickle(
            {
                b"batch_label": b"one of 6",
                b"labels": labels[rows].tolist(),
                b"data": images[rows].reshape(per_batch, -1),
                b"filenames": [b"x.png"] * per_batch,
            }
        )
    files[f"{root}/batches.meta"] = old_pickle(
        {b"num_cases_per_batch": per_batch, b"label_names": [c.encode() for c in CIFAR10_CLASSES]}
    )
    files[f"{root}/readme.html"] = b"<html>"
    return files, images, labels


def imagenet_files(npz: bool, val: bool = True) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Eleven training batches of 4 images and val_data of 6; images (50, 3, 8, 8), labels 0..4."""
    counts = [4] * 11 + ([6] if val else [])
    images, labels = pixels(sum(counts)), np.arange(sum(counts)) % 5
    files, start = {}, 0
    for i, n in enumerate(counts):
        name = f"train_data_batch_{i + 1}" if i < 11 else "val_data"
        data, some = images[start : start + n].reshape(n, -1), labels[start : start + n] + 1
        if npz:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, data=data, labels=some, mean=data.mean(0))
            files[f"{name}.npz"] = buffer.getvalue()
        else:
            files[name] = pickle.dumps(
                {"data": data, "labels": some.tolist(), "mean": data.mean(0)}, protocol=4
            )
        start += n
    return files, images, labels


def idx(array: np.ndarray) -> bytes:
    """An IDX file of uint8."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files(packed: bool) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Thirty training and ten test images (1, 6, 5) of three classes."""
    images, labels = pixels(40, (1, 6, 5)), np.arange(40) % 3
    files = {}
    for split, rows in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        for what, array in (("images-idx3", images[rows, 0]), ("labels-idx1", labels[rows])):
            content = idx(array)
            name = f"{split}-{what}-ubyte"
            files[f"{name}.gz" if packed else name] = gzip.compress(content) if packed else content
    return files, images, labels


def edm_files(n: int = 40) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Images of four classes with a dataset.json."""
    images, labels = pixels(n), np.arange(n) % 4
    names = [f"00000/img{i:08}.png" for i in range(n)]
    files = {name: encoded(image) for name, image in zip(names, images, strict=True)}
    pairs = [[name, int(k)] for name, k in zip(names, labels, strict=True)]
    files["dataset.json"] = json.dumps({"labels": pairs[::-1]}).encode()
    return files, images, labels
