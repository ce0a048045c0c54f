"""A good file for every reader; tests make bad files by cutting and changing them."""

import gzip
import json
import pickle

import numpy as np
import torch

from bench.evaluation.cache import to_arrays
from metrics.base import SampleSet
from metrics.memo import content_digest
from tests.bench.data.makers import edm_files, idx_files, image_tree, imagenet_files, old_pickle
from tests.bench.report.factory import demo
from tests.hostile import makers
from tests.hostile.makers import Maker, archive, npy, tar
from tests.hostile.readers import card_json

SUITE = b"""experiment = "mine"
[[study]]
dataset = "digits"
methods = ["edm", "igct"]
guidance = "1..13:2"
seeds = [0, 1]
set = { "net.channels" = 32, "train.lr" = 1e-3 }
[study.knobs.interval]
low = 0.5
"""
RUN = {
    "name": "r", "method": "edm", "dataset": "digits", "data_hash": "h", "preset": "digits",
    "shape": [1, 8, 8], "num_classes": 10, "config": {},
    "train": {"iterations": 1, "batch": 1, "lr": 1e-3},
    "steps": [18], "seed": 0,
}  # fmt: skip
STATE = {"__metadata__": {"state": '{"step": 3}'}}
STATE |= {
    f"{part}/a": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
    for i, part in enumerate(("weights", "ema", "optimizer"))
}
BATCH = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 2]}
MOMENTS = {"mu": np.zeros(4), "sigma": np.eye(4)}


def npz(**arrays: np.ndarray) -> bytes:
    return archive({f"{name}.npy": npy(array) for name, array in arrays.items()})


def sample_set() -> bytes:
    features = {"f": np.ones((4, 3), np.float32)}
    arrays = to_arrays(SampleSet(n=4, labels=np.zeros(4, np.int64), features=features))
    return npz(checksum=np.array([content_digest(arrays, {"key": "key"})]), **arrays)


def row() -> bytes:
    return next(r for r in demo() if r.preview is not None).model_dump_json().encode()


GOOD: dict[str, Maker] = {
    "suite": lambda: SUITE,
    "run card": lambda: json.dumps(RUN).encode(),
    "weights": makers.weights,
    "null file": makers.weights,
    "state": lambda: makers.tensors_file(STATE, data=bytes(12)),
    "log": lambda: b'{"step": 1, "terms": {"a": 1.0}}\n' * 3,
    "row": row,
    "published numbers": lambda: (
        b"source,dataset,method,guidance,nfe,metric,value,note\n"
        b"a,b,c,1,2,fid_inception_n50000,3.5,d\n"
    ),
    "sample card": card_json,
    "sample image": makers.png,
    "sample tiff": lambda: makers.picture("TIFF"),
    "sample npz": lambda: npz(arr_0=np.zeros((3, 8, 8, 3), np.uint8), arr_1=np.arange(3)),
    "sample zip": lambda: archive({"a/1.png": makers.png(), "b/2.jpg": makers.picture("JPEG")}),
    "output npz": lambda: npz(about=np.array(card_json().decode())),
    "output zip": lambda: archive({"samples.json": card_json()}),
    "output grid": makers.png,
    "labels npy": lambda: npy(np.arange(6)),
    "labels text": lambda: b"0\n1\n2\n3\n4\n5\n",
    "statistics npz": lambda: npz(**MOMENTS),
    "statistics pkl": lambda: pickle.dumps({"num_images": 5, "fid": MOMENTS}, protocol=4),
    "import pkl": lambda: pickle.dumps({"a": 1}, protocol=2),
    "import pt": lambda: makers.torch_file({"model.weight": torch.zeros(2, 3)}),
    "import safetensors": makers.weights,
    "source archive": lambda: tar(image_tree(1, shape=(3, 8, 8)), "w:gz"),
    "source image": lambda: makers.picture("JPEG"),
    "source index": lambda: edm_files(4)[0]["dataset.json"],
    "source cifar meta": lambda: old_pickle(BATCH),
    "source imagenet": lambda: pickle.dumps(BATCH, protocol=4),
    "source imagenet npz": lambda: imagenet_files(npz=True)[0]["train_data_batch_1.npz"],
    "source idx": lambda: idx_files(packed=False)[0]["train-images-idx3-ubyte"],
    "source idx labels": lambda: gzip.compress(b"\0\0\x08\x01\0\0\0\x03\0\1\2"),
    "prepared images": lambda: npy(np.zeros((4, 3, 8, 8), np.uint8)),
    "prepared labels": lambda: npy(np.array([0, 1, 0, 1])),
    "prepared stamp": lambda: b'{"files": {"images.npy": [1, 2]}}',
    "image to edit": makers.png,
    "cached set": sample_set,
    "cached result": lambda: npz(checksum=np.array(["a"]), a=np.zeros(3)),
    "extractor pth": lambda: makers.torch_file({"a": torch.zeros(2, 3)}),
    "extractor pt": lambda: makers.torch_file({"a": torch.zeros(2, 3)}, new=False),
    "extractor safetensors": makers.weights,
    "extractor copy": lambda: makers.torch_file({"a": torch.zeros(2, 3)}),
}
