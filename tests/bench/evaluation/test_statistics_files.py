"""Statistics files: there and back, in the hands of the field's own readers, and refused."""

import io
import pickle
import zipfile
from pathlib import Path

import cleanfid
import numpy as np
import pytest
import torch
from cleanfid.features import get_reference_statistics
from torch_fidelity.metric_fid import (
    fid_features_to_statistics,
    fid_input_id_to_statistics_cached,
    fid_statistics_to_metric,
)

from bench.evaluation.statistics_files import (
    StatisticsCard,
    clean_fid_name,
    is_statistics,
    read_statistics,
    split_section,
    torch_fidelity_name,
    write_statistics,
)
from bench.system.errors import UserError
from metrics.frechet import frechet_distance
from metrics.moments import moments_of

CARD = StatisticsCard(
    extractor="inception", extractor_hash="ab", n=50, source="here", source_hash="cd"
)


def draws(n=50, dim=6, seed=0):
    return np.random.default_rng(seed).gamma(2.0, 1.0, (n, dim)).astype(np.float32)


def few_line_reader(path):
    """As scripts of this form read it."""
    with np.load(path) as file:
        stats = dict(file)
    return stats["mu"], stats["sigma"]


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("kind", ["edm", "adm", "clean-fid"])
def test_round_trip(tmp_path, kind):
    x, spatial = draws(), moments_of(draws(dim=4, seed=1))
    path = tmp_path / "a.npz"
    written = write_statistics(path, kind, moments_of(x), CARD, spatial=spatial, features=x)
    assert all(is_statistics(file) for file in written)
    found = read_statistics(path)
    assert np.array_equal(found.moments.mean, moments_of(x).mean)
    np.testing.assert_array_equal(found.moments.cov, moments_of(x).cov)
    assert (found.n, found.card) == (50, CARD)
    if kind == "adm":
        np.testing.assert_array_equal(found.spatial.cov, spatial.cov)
    else:
        assert found.spatial is None
    if kind == "clean-fid":
        features = read_statistics(written[1])
        assert np.array_equal(features.features, x)
        np.testing.assert_array_equal(features.moments.cov, moments_of(x).cov)


def test_distance_from_file_equals_that_from_features(tmp_path):
    x, y = draws(), draws(seed=1)
    path = tmp_path / "a.npz"
    write_statistics(path, "edm", moments_of(x), CARD)
    theirs = read_statistics(path).moments
    direct = frechet_distance(moments_of(x), moments_of(y), real_features=x, fake_features=y)
    assert frechet_distance(theirs, moments_of(y)) == pytest.approx(direct, rel=1e-10)


def test_simple_numpy_code_and_ours_read_each_others_files(tmp_path):
    x = draws()
    write_statistics(tmp_path / "a.npz", "edm", moments_of(x), CARD)
    mu, sigma = few_line_reader(tmp_path / "a.npz")
    np.testing.assert_allclose(mu, x.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(sigma, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)
    assert mu.dtype == sigma.dtype == np.float64
    theirs = npz(tmp_path / "b.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    found = read_statistics(theirs)
    assert (found.n, found.card, found.moments.n) == (0, None, 0)
    np.testing.assert_allclose(found.moments.cov, sigma, rtol=1e-6)


def test_clean_fid_finds_and_reads_our_files(tmp_path, monkeypatch):
    (tmp_path / "stats").mkdir()
    monkeypatch.setattr(cleanfid, "__file__", str(tmp_path / "__init__.py"))
    x = draws()
    name = clean_fid_name("My Set".replace(" ", "-"))
    write_statistics(tmp_path / "stats" / name, "clean-fid", moments_of(x), CARD, features=x)
    mu, sigma = get_reference_statistics("My-Set", 32, split="custom")
    np.testing.assert_allclose(sigma, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)
    assert mu.shape == (6,)
    feats = get_reference_statistics("My-Set", 32, split="custom", metric="KID")
    assert np.array_equal(feats, x)
    assert clean_fid_name("FFHQ", "clean", "trainval", "256") == "ffhq_clean_trainval_256.npz"
    assert clean_fid_name("a", kid=True) == "a_clean_custom_na_kid.npz"


class Named:
    """An extractor's name, which is all that torch-fidelity's cache asks for."""

    @staticmethod
    def get_name():
        return "inception-v3-compat"


def test_torch_fidelity_reads_our_file_from_its_cache(tmp_path):
    x, y = draws(), draws(seed=1)
    path = tmp_path / torch_fidelity_name("mine")
    write_statistics(path, "torch-fidelity", moments_of(x), CARD)
    cached = fid_input_id_to_statistics_cached(
        2, Named, "2048", input2=str(tmp_path), input2_cache_name="mine", cache=True,
        cache_root=str(tmp_path), verbose=False,
    )  # fmt: skip
    other = fid_features_to_statistics(torch.from_numpy(y))
    theirs = fid_statistics_to_metric(other, cached, False)["frechet_inception_distance"]
    ours = frechet_distance(moments_of(x), moments_of(y))
    # Their mean is float32.
    assert theirs == pytest.approx(ours, rel=1e-6)


def test_dgm_eval_without_its_pickled_parts(tmp_path):
    x = draws()
    hparams = np.array({"model": "dinov2"}, dtype=object)
    np.savez(tmp_path / "r.npz", reps=x, model=np.array("dinov2"), hparams=hparams)
    found = read_statistics(tmp_path / "r.npz")
    assert np.array_equal(found.features, x)
    assert found.n == 50
    np.savez(tmp_path / "o.npz", reps=np.array([x, None], dtype=object))
    with pytest.raises(UserError, match="pickled objects, which could run code"):
        read_statistics(tmp_path / "o.npz")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def edm2(path, **content):
    path.write_bytes(pickle.dumps(content))
    return path


def test_edm2_by_section(tmp_path):
    x, y = draws().astype(np.float64), draws(dim=4, seed=1).astype(np.float64)
    parts = [{"mu": z.mean(0), "sigma": np.cov(z, rowvar=False)} for z in (x, y)]
    path = edm2(tmp_path / "e.pkl", num_images=50, fid=parts[0], fd_dinov2=parts[1])
    assert split_section(f"{path}#fd_dinov2") == (path, "fd_dinov2")
    found = read_statistics(path, "fid")
    np.testing.assert_allclose(found.moments.cov, parts[0]["sigma"], rtol=1e-15)
    assert (found.n, found.moments.n, found.extractor) == (50, 50, "inception")
    assert read_statistics(path, "fd_dinov2").moments.mean.shape == (4,)
    with pytest.raises(UserError, match=r"several sections: name one, as in .*#fd_dinov2 or"):
        read_statistics(path)
    with pytest.raises(UserError, match="Did you mean 'fid'"):
        read_statistics(path, "fidd")


def test_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="which is not allowed in such a file"):
        read_statistics(edm2(tmp_path / "e.pkl", fid=Evil()))
    assert not Path("ran").exists()
    with pytest.raises(UserError, match="no section with mu and sigma"):
        read_statistics(edm2(tmp_path / "n.pkl", num_images=3))


GOOD = {"mu": np.zeros(3), "sigma": np.eye(3)}
BAD = {
    "shape": ({"mu": np.zeros(3), "sigma": np.eye(4)}, "shapes are"),
    "flat": ({"mu": np.zeros((1, 3)), "sigma": np.eye(3)}, "shapes are"),
    "whole numbers": ({"mu": np.zeros(3, int), "sigma": np.eye(3)}, "not arrays of float32"),
    "half": ({"mu": np.zeros(3, np.float16), "sigma": np.eye(3)}, "not arrays of float32"),
    "nan": ({"mu": np.array([0, np.nan, 0]), "sigma": np.eye(3)}, "NaN or infinite"),
    "infinite": ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.inf)}, "NaN or infinite"),
    "asymmetric": ({"mu": np.zeros(2), "sigma": np.array([[1, 0.5], [0, 1.0]])}, "not symmetric"),
    "indefinite": ({"mu": np.zeros(2), "sigma": np.array([[1, 2], [2, 1.0]])}, "eigenvalue -1"),
    "negative": ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "eigenvalue -1"),
    "no sigma": ({"mu": np.zeros(2)}, "it has no sigma"),
    "objects": ({"mu": np.array([None, 1]), "sigma": np.eye(2)}, "pickled objects"),
    "one row": ({"reps": np.zeros((1, 3), np.float32)}, "n >= 2"),
    "nan feature": (
        {"feats": np.array([[0.0, 1], [np.inf, 0]], np.float32)},
        "NaN or infinity, first in row 1 of 2",
    ),
    "images": ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8)}, "it holds arr_0 instead of mu"),
}


@pytest.mark.parametrize(("arrays", "why"), BAD.values(), ids=BAD)
def test_invalid_statistics_are_refused(tmp_path, arrays, why):
    with pytest.raises(UserError, match=why) as caught:
        read_statistics(npz(tmp_path / "a.npz", **arrays))
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).startswith(("Cannot read", str(tmp_path)))


def test_covariance_of_rank_one_with_rounding_is_accepted(tmp_path):
    v = np.linspace(1, 2, 40)
    sigma = np.outer(v, v)
    sigma[0, 1] *= 1 + 1e-9
    assert np.linalg.eigvalsh(sigma)[0] < 0
    found = read_statistics(npz(tmp_path / "a.npz", mu=v, sigma=sigma)).moments.cov
    assert np.array_equal(found, found.T)


def damaged(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        place = content.index(np.eye(3).tobytes())
        path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    else:
        # A header that claims more than there is.
        header = io.BytesIO()
        claim = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(header, claim)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("mu.npy", header.getvalue())
            file.writestr("sigma.npy", header.getvalue())


@pytest.mark.parametrize(
    ("how", "why"), [("cut", "damaged|not a zip"), ("flipped", "CRC"), ("claims", "not the size")]
)
def test_damage_is_one_sentence(tmp_path, how, why):
    path = npz(tmp_path / "a.npz", **GOOD)
    damaged(path, how)
    with pytest.raises(UserError, match=f"(?i){why}"):
        read_statistics(path)


def test_adm_file_needs_spatial_statistics(tmp_path):
    with pytest.raises(UserError, match="needs spatial statistics"):
        write_statistics(tmp_path / "a.npz", "adm", moments_of(draws()), CARD)
    assert not (tmp_path / "a.npz").exists()


def test_file_of_only_images_is_not_statistics(tmp_path):
    images = npz(tmp_path / "i.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    assert not is_statistics(images)
    assert not is_statistics(tmp_path)
    assert not is_statistics(tmp_path / "missing.npz")
    with pytest.raises(UserError, match="There is no statistics file"):
        read_statistics(tmp_path / "missing.npz")
