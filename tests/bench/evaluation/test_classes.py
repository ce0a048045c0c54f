"""Classes of generated and real samples are matched by name, whatever the layout of the files."""

import json
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bench.evaluation.classes import match_classes
from bench.evaluation.sides import dataset_source, file_source
from bench.system.errors import UserError
from metrics import EXTRACTORS
from tests.bench.data.makers import encoded, write_folder, write_tar, write_zip
from tests.bench.evaluation.helpers import Small, pictures
from tests.bench.helpers import bench

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
N = 600
ACCURACY, CLASS_FD = 0.995, 16
"""Of the first 600 of scikit-learn's scans, about half of which are in the reference."""


@pytest.fixture(scope="module")
def digits():
    scans = load_digits()
    images = np.rint(scans.images[:N] * (255 / 16)).astype(np.uint8)[:, None]
    return images, scans.target[:N]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One results folder, so that the classifier is trained once."""
    return tmp_path_factory.mktemp("digits")


def in_folders(digits, names) -> dict[str, bytes]:
    return {
        f"{names[k]}/{i:04}.png": encoded(image)
        for i, (image, k) in enumerate(zip(*digits, strict=True))
        if names[k]
    }


def shards(digits, folder="") -> dict[str, bytes]:
    """EDM's layout: 100 images a folder, their labels in dataset.json."""
    images, labels = digits
    names = [f"{i // 100:05}/img{i:08}.png" for i in range(len(labels))]
    pairs = [[name, int(k)] for name, k in zip(names, labels, strict=True)]
    files = {f"{folder}{n}": encoded(i) for n, i in zip(names, images, strict=True)}
    return {**files, f"{folder}dataset.json": json.dumps({"labels": pairs}).encode()}


def flat(digits) -> dict[str, bytes]:
    return {f"{i:04}.png": encoded(image) for i, image in enumerate(digits[0])}


def write_npz(path, digits, **labels):
    np.savez(path, arr_0=digits[0].transpose(0, 2, 3, 1), **labels)
    return path


def sampled(digits) -> dict[str, bytes]:
    """As `bench sample` writes them, without its samples.json."""
    return in_folders(digits, [f"{k}-{k}" for k in range(10)])


NUMBERS = [str(k) for k in range(10)]
LAYOUTS = {
    "folders": (lambda p, d: write_folder(p, in_folders(d, NUMBERS)), True),
    "nine of ten folders": (
        lambda p, d: write_folder(p, in_folders(d, ["", *NUMBERS[1:]])), True,
    ),
    "padded folders": (lambda p, d: write_folder(p, in_folders(d, [f"0{k}" for k in NUMBERS])),
                       True),
    "sampled folders": (lambda p, d: write_folder(p, sampled(d)), True),
    "test split": (
        lambda p, d: write_folder(p, in_folders(d, [f"x/test/{k}" for k in NUMBERS])), True,
    ),
    "npz with labels": (lambda p, d: write_npz(p.with_suffix(".npz"), d, arr_1=d[1]), True),
    "EDM zip": (lambda p, d: write_zip(p.with_suffix(".zip"), shards(d)), True),
    "EDM zip of the folder": (lambda p, d: write_zip(p, shards(d, "digits/")), True),
    "EDM tar of the folder": (lambda p, d: write_tar(p, shards(d, "a/digits/"), "w:"), True),
    "odd file beside folders": (
        lambda p, d: write_folder(
            p, in_folders(d, NUMBERS) | {"grid.png": encoded(d[0][0]), "notes.txt": b"x"}
        ), True,
    ),
    "system folders": (
        lambda p, d: write_folder(
            p, in_folders(d, NUMBERS) | {"@eaDir/a.png": b"x", "3/@eaDir/a.png": b"x",
                                         "__pycache__/a.png": b"x"}
        ), True,
    ),
    "flat folder": (lambda p, d: write_folder(p, flat(d)), "has no classes: put each image"),
    "npz without labels": (lambda p, d: write_npz(p.with_suffix(".npz"), d), "has no classes"),
    "words": (lambda p, d: write_folder(p, in_folders(d, WORDS)),
              "is named like one of digits/reference (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"),
    "one folder": (lambda p, d: write_folder(p, {f"all/x/{n}": i for n, i in flat(d).items()}),
                   "no class of"),
    "EDM zip without labels": (
        lambda p, d: write_zip(p, shards(d) | {"dataset.json": b'{"labels": null}'}),
        "has no classes",
    ),
}  # fmt: skip
REFUSED = {
    "labels from 1": (
        lambda p, d: write_npz(p.with_suffix(".npz"), d, arr_1=d[1] + 1),
        "run from 1 to 10, and the classes of digits/reference from 0 to 9: these labels start at "
        "1, so subtract 1 from each.",
    ),
    "some words": (
        lambda p, d: write_folder(p, in_folders(d, ["zero", *NUMBERS[1:]])),
        "has the classes zero, which digits/reference (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) does not "
        "have, besides 1, 2, 3, 4, 5, 6, 7, 8, 9, which it has",
    ),
}


def evaluate(path, reference, results, *options):
    ran = bench("evaluate", path, "-r", reference, "--results", results, "--out",
                results / "out.json", *options)  # fmt: skip
    report = json.loads((results / "out.json").read_text()) if ran.code == 0 else None
    return ran, report


@pytest.mark.parametrize(("make", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_digits_give_their_accuracy_or_the_reason(tmp_path, digits, results, make, expected):
    path = make(tmp_path / "x", digits)
    metrics = ("--metric", "class_accuracy", "--metric", "class_fd", "--metric", "fd")
    ran, report = evaluate(path, "digits", results, *metrics)
    assert ran.code == 0, ran.err
    found = {row["metric"]: row["value"] for row in report["rows"]}
    if expected is True:
        assert found["class_accuracy"] == pytest.approx(ACCURACY, abs=0.002)
        assert found["class_fd"] == pytest.approx(CLASS_FD, rel=0.2)
        return
    assert set(found) == {"fd"}
    reasons = {missing["metric"]: missing["reason"] for missing in report["not_measured"]}
    assert set(reasons) == {"class_accuracy", "class_fd"}
    assert all(expected in reason for reason in reasons.values())


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_classes_that_match_in_part_are_refused(tmp_path, digits, results, make, said):
    path = make(tmp_path / "x", digits)
    ran, _ = evaluate(path, "digits", results)
    assert ran.code == 2
    assert said in ran.err
    # They do not matter to other metrics.
    assert evaluate(path, "digits", results, "--metric", "fd")[0].code == 0


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.chdir(tmp_path)
    return ("--extractor", "small", "--metric", "class_fd")


def three(names=("a", "b", "c"), **more) -> dict[str, bytes]:
    return {
        f"{name}/{i:03}.png": encoded(image)
        for k, name in enumerate(names)
        if name
        for i, image in enumerate(pictures(20, seed=k, **more))
    }


def test_files_without_a_class_of_the_reference_are_compared_by_name(tmp_path, small):
    write_folder(tmp_path / "real", three())
    write_folder(tmp_path / "fake", three(("", "b", "c")))
    _, report = evaluate("fake", "real", tmp_path, *small)
    assert report["rows"][0]["value"] == pytest.approx(0, abs=1e-6)
    write_folder(tmp_path / "more", three(("a", "b", "d")))
    ran, _ = evaluate("more", "real", tmp_path, *small)
    assert ran.code == 2
    assert "more has the classes d, which real (a, b, c) does not have, besides a, b" in ran.err


def test_both_spellings_of_an_accented_name_are_one_class(tmp_path, small):
    write_folder(tmp_path / "real", three(("caf\u00e9", "b", "c")))
    write_folder(tmp_path / "fake", three(("cafe\u0301", "b", "c")))
    _, report = evaluate("fake", "real", tmp_path, *small)
    assert report["rows"][0]["value"] == pytest.approx(0, abs=1e-6)


def test_numbers_match_folders_named_by_numbers_only(tmp_path, small):
    x = np.concatenate([pictures(20, seed=k) for k in range(3)]).transpose(0, 2, 3, 1)
    np.savez("fake.npz", arr_0=x, arr_1=np.repeat([9, 10, 11], 20))
    # In the order of names, 10 and 11 come before 9.
    write_folder(tmp_path / "real", three(("9", "10", "11")))
    _, report = evaluate("fake.npz", "real", tmp_path, *small)
    assert report["rows"][0]["value"] == pytest.approx(0, abs=1e-6)
    write_folder(tmp_path / "words", three())
    ran, _ = evaluate("fake.npz", "words", tmp_path, *small)
    assert "the classes of fake.npz are numbers and those of words names (a, b, c)" in ran.err


def test_features_without_classes_have_no_class_distance(tmp_path, small):
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    np.savez("reps.npz", reps=features)
    write_folder(tmp_path / "fake", three())
    ran, _ = evaluate("fake", "reps.npz", tmp_path, *small)
    assert ran.code == 2
    assert "reps.npz does not say which sample is of which class" in ran.err


def test_vectors_without_labels_have_no_distance_to_class_densities(tmp_path):
    data = dataset_source("modes1d:train")
    x = np.concatenate([x.numpy() for x, _ in data.batches()])[:300]
    np.savez(tmp_path / "v.npz", arr_0=x)
    _, report = evaluate(tmp_path / "v.npz", "modes1d", tmp_path, "--metric", "fd",
                           "--metric", "w1")  # fmt: skip
    assert [row["metric"] for row in report["rows"]] == ["fd"]
    assert "has no classes" in report["not_measured"][0]["reason"]
    np.savez(tmp_path / "v.npz", arr_0=x, arr_1=data.classes.labels[:300])
    _, report = evaluate(tmp_path / "v.npz", "modes1d", tmp_path, "--metric", "w1")
    assert report["rows"][0]["value"] < 0.05


def test_small_class_is_a_reason_and_not_a_failure(tmp_path, small):
    write_folder(tmp_path / "real", three())
    files = three()
    write_folder(tmp_path / "fake", {n: f for n, f in files.items() if n[0] != "b" or n < "b/003"})
    _, report = evaluate("fake", "real", tmp_path, *small, "--metric", "fd")
    (missing,) = report["not_measured"]
    assert not missing["failed"]
    assert missing["reason"].startswith("class 1 has 3 generated samples")


def test_labels_of_an_option_are_matched_by_number(tmp_path, digits):
    path = write_npz(tmp_path / "x.npz", digits)
    (tmp_path / "l.txt").write_text("\n".join(map(str, digits[1])))
    fake = file_source(path, labels=tmp_path / "l.txt")
    found = match_classes(fake, dataset_source("digits"), "digits")
    assert found.labels.tolist() == digits[1].tolist()


def test_zip_in_a_folder_of_its_own_has_its_labels(tmp_path, digits):
    with zipfile.ZipFile(write_zip(tmp_path / "x.zip", shards(digits, "digits/"))) as archive:
        archive.extractall(tmp_path / "un")
    side = file_source(tmp_path / "un")
    assert side.classes.labels.tolist() == digits[1].tolist()


def test_labels_in_an_unclear_order_are_refused_and_names_settle_it(tmp_path):
    files = {f"{i}.png": encoded(image) for i, image in enumerate(pictures(12))}
    wanted = {name: i % 3 for i, name in enumerate(files)}
    path, text = write_tar(tmp_path / "x.tar", files, "w:"), tmp_path / "l.txt"
    text.write_text("\n".join(map(str, wanted.values())))
    with pytest.raises(UserError, match=r"not clear: is '10\.png' or '2\.png' first\?"):
        file_source(path, labels=text)
    text.write_text("\n".join(f"{name[:-4]},{k}" for name, k in wanted.items()))
    side = file_source(path, labels=text)
    assert [wanted[name] for name in side.files] == side.classes.labels.tolist()
    text.write_text("0 1\n7 2\n")
    with pytest.raises(UserError, match=r"no class for '11\.png'"):
        file_source(path, labels=text)
    # In the order of the names, which is not that of the archive.
    files = {f"{i:02}.png": image for i, image in enumerate(files.values())}
    path = write_tar(tmp_path / "y.tar", files, "w:")
    np.save(tmp_path / "l.npy", np.arange(12))
    side = file_source(path, labels=tmp_path / "l.npy")
    assert [int(name[:2]) for name in side.files] == side.classes.labels.tolist()
    assert side.files[0] == "11.png"


def test_few_real_images_are_a_reason_and_not_a_failure(tmp_path, small):
    write_folder(tmp_path / "real", {n: f for n, f in three().items() if n.endswith("000.png")})
    write_folder(tmp_path / "fake", three())
    wanted = ("--extractor", "small", "--metric", "coverage_k3", "--metric", "fd")
    ran, report = evaluate("fake", "real", tmp_path, *wanted)
    assert ran.code == 0, ran.err
    (missing,) = report["not_measured"]
    assert missing["reason"] == "coverage_k3 needs 4 real samples, there are 3"
    assert not missing["failed"]


@pytest.mark.parametrize("grey", ["a/000.png", "b/019.png", "c/019.png"])
def test_place_of_a_grey_image_does_not_matter(tmp_path, small, grey):
    files = three() | {grey: encoded(pictures(1, (1, 8, 8))[0])}
    write_folder(tmp_path / "fake", files)
    write_folder(tmp_path / "real", three())
    wanted = ("--extractor", "small", "--metric", "fd")
    assert evaluate("fake", "real", tmp_path, *wanted)[0].code == 0
    assert evaluate("real", "fake", tmp_path, *wanted)[0].code == 0


def test_linked_class_folders_are_read(tmp_path, small):
    write_folder(tmp_path / "disk", three())
    (tmp_path / "fake").mkdir()
    for name in "abc":
        (tmp_path / "fake" / name).symlink_to(tmp_path / "disk" / name, target_is_directory=True)
    _, report = evaluate("fake", "disk", tmp_path, *small)
    assert report["rows"][0]["value"] == pytest.approx(0, abs=1e-6)
