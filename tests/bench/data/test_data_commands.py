import json
import multiprocessing
import os
import re

import numpy as np
import pytest

from bench.data import prepare as preparing
from bench.data.card import CARD, IMAGES
from bench.data.decode import Geometry
from bench.data.ensure import ensure
from bench.system.progress import SILENT
from bench.training.card import read_card
from methods import METHODS
from tests.bench.data.makers import cifar_files, encoded, image_tree, write_folder, write_tar
from tests.bench.helpers import TINY_IMAGES, bench, contents, sets

IN_SHORT = (*TINY_IMAGES, "net.dropout=0.0")


@pytest.fixture
def source(tmp_path):
    return write_tar(tmp_path / "pets.tar.xz", image_tree())


@pytest.fixture
def preset(monkeypatch):
    """A preset of edm for images like those of `source`, made for another data set."""
    edm = METHODS["edm"]
    made = edm.presets["digits"].model_copy(
        update={"dataset": "elsewhere", "shape": (3, 8, 8), "num_classes": 3}
    )
    monkeypatch.setattr(edm, "presets", {**edm.presets, "small": made})
    return "small"


def test_prepare_list_and_verify(source, root, preset):
    ran = bench("data", "prepare", source)
    assert ran.code == 0, ran.err
    assert "pets: 18 training and 18 reference images, 8x8 RGB, 3 classes." in ran.out
    assert "edm on pets: preset small, which fits images of 3x8x8." in ran.out
    assert "Next: bench train --method edm --dataset pets\n" in ran.out
    assert "pets: 36/36" in ran.out
    listed = bench("data", "list")
    assert re.search(r"^pets +pets: 18 training .* \(from pets\.tar\.xz\)", listed.out)
    everything = bench("list", "datasets")
    assert re.search(r"^pets .*\(prepared\)", everything.out, re.MULTILINE)
    assert "digits" in everything.out
    assert bench("data", "verify", "pets").code == 0
    content = bytearray((root / "pets" / IMAGES).read_bytes())
    content[-1] ^= 1
    (root / "pets" / IMAGES).write_bytes(content)
    ran = bench("data", "verify", "pets")
    assert (ran.code, "has changed since it was prepared" in ran.err) == (1, True)


def test_preparing_images_that_fit_no_network_names_the_size_that_does(tmp_path):
    wide = write_tar(tmp_path / "wide.tar.xz", image_tree(shape=(3, 8, 12)))
    ran = bench("data", "prepare", wide)
    assert ran.code == 0, ran.err
    assert "got 8x12 pixels: prepare them with --size 8." in ran.out
    assert "Next:" not in ran.out
    ran = bench("data", "prepare", wide, "--dataset", "square", "--size", "8")
    assert "edm on square: preset auto, the settings of digits with a network for " in ran.out
    assert "Next: bench train --method edm --dataset square\n" in ran.out


@pytest.mark.parametrize("arrays", [False, True])
def test_mode_converts_to_grey_and_to_colour(arrays, tmp_path, root):
    source = write_tar(tmp_path / "in.tar.xz", cifar_files()[0] if arrays else image_tree())
    assert bench("data", "prepare", source, "--dataset", "own").code == 0
    ran = bench("data", "prepare", source, "--dataset", "grey", "--mode", "grey")
    assert ran.code == 0, ran.err
    own, grey = (np.load(root / name / IMAGES) for name in ("own", "grey"))
    assert grey.shape == (len(own), 1, *own.shape[2:])
    assert f"{len(own)} images were RGB and were converted to grey." in ran.out
    # ITU-R 601-2: the luma transform of Pillow, in fixed point.
    luma = np.tensordot([0.299, 0.587, 0.114], own, (0, 1))
    assert np.abs(grey[:, 0] - luma).max() < 0.51
    # Grey files and arrays in colour have three equal channels.
    folder = write_folder(tmp_path / "levels", {
        f"{('train', 'test')[k % 2]}/{'ab'[k // 2 % 2]}/{k}.png": encoded(grey[k])
        for k in range(12)
    })  # fmt: skip
    ran = bench("data", "prepare", folder, "--dataset", "rgb", "--mode", "rgb")
    assert ran.code == 0
    assert "12 images were greyscale and were converted to RGB." in ran.out
    rgb = np.load(root / "rgb" / IMAGES)
    assert rgb.shape[1] == 3
    assert (rgb == rgb[:, :1]).all()
    assert {image.tobytes() for image in rgb[:, 0]} == {image.tobytes() for image in grey[:12, 0]}


def test_mode_of_a_prepared_set_is_kept_and_unknown_modes_are_refused(source):
    assert bench("data", "prepare", source, "--mode", "rgb").code == 0
    assert bench("data", "prepare", source).code == 0
    ran = bench("data", "prepare", source, "--mode", "grey")
    assert ran.code == 1
    assert "already prepared in RGB, and this command asks for --mode grey: give the" in ran.err
    ran = bench("data", "prepare", source, "--mode", "gray")
    assert (ran.code, "Did you mean 'grey'?" in ran.err) == (2, True)


def test_preparing_again_writes_nothing(source, root):
    first = bench("data", "prepare", source)
    assert f"Prepared the data set 'pets' in {root / 'pets'}." in first.out
    before = contents(root)
    again = bench("data", "prepare", source)
    assert again.code == 0
    assert f"The data set 'pets' is already prepared in {root / 'pets'}." in again.out
    assert "36/36" not in again.out
    assert "Prepared" not in again.out
    assert contents(root) == before


def test_prepare_refuses_other_content_or_size_under_the_same_name(source, tmp_path, root):
    assert bench("data", "prepare", source, "--dataset", "pets", "--size", "4").code == 0
    before = contents(root)
    ran = bench("data", "prepare", source, "--size", "8")
    assert ran.code == 1
    assert (
        "'pets' is already prepared with --size 4 --crop center --resize box, and this command "
        "asks for --size 8 --crop center --resize box: give the new one another name with "
        f"--dataset, or remove {root / 'pets'} first."
    ) in ran.err
    other = write_tar(tmp_path / "other.tar", image_tree(7), "w:")
    ran = bench("data", "prepare", other, "--dataset", "pets")
    assert ran.code == 1
    assert "'pets' was prepared from other content (pets.tar.xz)" in ran.err
    assert contents(root) == before


def test_prepare_notices_a_changed_folder_but_accepts_a_moved_one(tmp_path, root):
    folder = write_folder(tmp_path / "pets", image_tree())
    assert bench("data", "prepare", folder).code == 0
    moved = folder.rename(tmp_path / "moved")
    assert bench("data", "prepare", moved, "--dataset", "pets").code == 0
    (moved / "train" / "cat" / "000.png").unlink()
    ran = bench("data", "prepare", moved, "--dataset", "pets")
    assert (ran.code, "other content" in ran.err) == (1, True)


def test_data_root_option_sets_the_folder(source, tmp_path, root, preset):
    place = tmp_path / "elsewhere"
    ran = bench("data", "prepare", source, "--data-root", place)
    assert f"Next: GUIDANCE_BENCH_DATA={place} bench train" in ran.out
    assert (place / "pets" / CARD).exists()
    assert not root.exists()
    assert "pets" in bench("data", "list", "--data-root", place).out
    assert "No prepared data sets in" in bench("data", "list").out
    assert bench("data", "verify", "pets", "--data-root", place).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepare", "nowhere.zip"], "There is no data source nowhere.zip."),
        (["prepare", "SOURCE", "--crop", "centre", "--size", "4"], "Did you mean 'center'?"),
        (["prepare", "SOURCE", "--resize", "boxx", "--size", "4"], "Did you mean 'box'?"),
        (["prepare", "SOURCE", "--resize", "bicubic"], "--crop and --resize need --size"),
        (["prepare", "SOURCE", "--size", "0"], "Invalid value for '--size'"),
        (["prepare", "SOURCE", "--dataset", "digits"], "'digits' is taken by a built-in"),
        (["prepare", "SOURCE", "--dataset", "a/b"], "data set name 'a/b' cannot be a folder"),
        (["prepare", "SOURCE", "--dataset", "cifar10"], "'cifar10' is for the original pixels"),
        (["prepare"], "Missing argument"),
        (["verif"], "Available: list, prepare, verify."),
    ],
)
def test_wrong_use_prints_one_sentence_and_exits_with_2(arguments, said, source, root):
    ran = bench("data", *(source if a == "SOURCE" else a for a in arguments))
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not root.exists() or list(root.iterdir()) == []


def test_verify_suggests_the_closest_name(source, root):
    assert "There is no prepared data set in" in bench("data", "verify", "pets").err
    bench("data", "prepare", source)
    ran = bench("data", "verify", "pet")
    assert (ran.code, "Did you mean 'pets'?" in ran.err) == (2, True)


@pytest.mark.usefixtures("empty_figures")
def test_train_prepares_sweeps_and_reports(source, tmp_path, root, preset):
    results = tmp_path / "results"
    train = ("train", "-m", "edm", "--preset", preset, "--data", source, *sets(*IN_SHORT),
             "--results", results)  # fmt: skip
    first = bench(*train)
    assert first.code == 0, first.err
    assert "pets: 36/36" in first.out
    assert "--dataset pets --guidance " in first.out.splitlines()[-1]
    card = read_card(results / "default" / "runs" / "pets-small-edm-s0")
    assert (card.dataset, card.preset) == ("pets", "small")
    assert card.data_hash == json.loads((root / "pets" / CARD).read_text())["train_hash"]
    before = contents(results) | contents(root)
    again = bench(*train)
    assert again.code == 0, again.err
    assert "36/36" not in again.out
    assert contents(results) | contents(root) == before
    swept = bench("sweep", "-g", "1", "-n", "18", "--steps", "1", "--metric", "fd",
                  "--results", results)  # fmt: skip
    assert swept.code == 0, swept.err
    assert "pets: 1 cell computed" in swept.out
    report = bench("report", "--results", results)
    assert report.code == 0, report.err
    table = (results / "default" / "report").glob("*.md")
    assert any("pets" in path.read_text() for path in table)


def test_training_on_prepared_images_resumes_bit_for_bit(source, tmp_path, preset):
    def train(results, *extra):
        pairs = ("train.checkpoint_every=2", "train.iterations=6")
        return bench("train", "-m", "edm", "--preset", preset, "--data", source,
                     *sets(*IN_SHORT, *pairs, *extra), "--results", results)  # fmt: skip

    assert train(tmp_path / "whole").code == 0
    from bench.training import step as module

    real, steps = module.draw_batch, []

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_batch", interrupted)
        assert train(tmp_path / "parts").code == 130
    assert train(tmp_path / "parts").code == 0
    run = "default/runs/pets-small-edm-s0/model.safetensors"
    assert (tmp_path / "parts" / run).read_bytes() == (tmp_path / "whole" / run).read_bytes()


def test_wrong_use_of_data_prepares_nothing(source, root, tmp_path):
    for arguments, said in (
        (("-m", "emd"), "Did you mean 'edm'?"),
        (("-m", "edm", "--set", "x"), "--set takes key=value"),
        (("-m", "edm", "--dry-run"), "is not prepared yet, and --dry-run prepares nothing"),
        (("--suite", "demo"), "drop --data"),
    ):
        ran = bench("train", "--data", source, *arguments, "--results", tmp_path / "r")
        assert ran.code != 0
        assert said in ran.err
    assert not root.exists()
    wide = write_tar(tmp_path / "wide.tar.xz", image_tree(shape=(3, 8, 12)))
    ran = bench("train", "-m", "edm", "--data", wide, "--results", tmp_path / "r")
    assert ran.code == 2
    assert "Method 'edm' has no preset for the data set 'wide'" in ran.err


def test_sweep_skips_runs_without_their_data_set_and_gives_the_reason(
    source, tmp_path, root, preset
):
    results = tmp_path / "results"
    bench("train", "-m", "edm", "--preset", preset, "--data", source, *sets(*IN_SHORT),
          "--results", results)  # fmt: skip
    root.rename(tmp_path / "away")
    ran = bench("sweep", "-g", "1", "--results", results)
    assert ran.code == 1
    assert "data set 'pets' is not registered" in ran.out + ran.err


def _ensure(source, root, queue):
    card = ensure(SILENT, source, "pets", Geometry(), root)
    queue.put((os.getpid(), card.images_sha256, (root / "pets" / CARD).stat().st_mtime_ns))


def test_concurrent_processes_prepare_once(source, root):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_ensure, args=(source, root, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert len({pid for pid, _, _ in found}) == 3
    assert len({rest for _, *rest in map(list, found) for rest in [tuple(rest)]}) == 1
    assert [p.name for p in root.iterdir()] == ["pets"]


def test_leftovers_of_a_killed_preparation_are_removed(source, root):
    (root / ".pets.abcdefgh").mkdir(parents=True)
    (root / ".other.abcdefgh").mkdir()
    assert bench("data", "prepare", source).code == 0
    assert sorted(p.name for p in root.iterdir()) == [".other.abcdefgh", "pets"]


@pytest.mark.parametrize(
    ("file", "name"),
    [("cifar-10-python.tar.gz", "cifar10"), ("x.tar.xz", "x"), ("y.zip", "y"), ("z.1.tgz", "z.1")],
)
def test_default_names_come_from_file_names(file, name, tmp_path):
    from bench.data.card import name_of

    assert name_of(tmp_path / file) == name


def test_interrupt_reports_that_nothing_was_kept(source, root, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "write_images", stop)
    ran = bench("data", "prepare", source)
    assert (ran.code, ran.err[:26]) == (130, "Stopped. Nothing was kept.")
    assert list(root.iterdir()) == []


def test_run_of_a_preset_for_other_data_is_named_after_the_data(source, tmp_path, preset):
    """A second data set of the same shape gets a run of its own."""
    results = ("--results", tmp_path / "results")
    for name in ("pets", "pets2"):
        files = tmp_path / f"{name}.tar.xz"
        if not files.exists():
            write_tar(files, image_tree(per_class=7))
        ran = bench("train", "-m", "edm", "--preset", preset, "--data", files, *sets(*IN_SHORT),
                    *results)  # fmt: skip
        assert ran.code == 0, ran.err
    runs = tmp_path / "results" / "default" / "runs"
    assert {path.name for path in runs.glob("pets*")} == {"pets-small-edm-s0", "pets2-small-edm-s0"}


def test_dry_run_has_the_name_of_the_run(tmp_path):
    train = ("train", "-m", "edm", "-d", "modes1d", "--dry-run", "--results", tmp_path)
    assert '"name": "modes1d-edm-s0"' in bench(*train).out
    named = bench(*train, "--name", "mine")
    assert '"name": "mine"' in named.out
    assert "mine: " in named.out
    assert bench(*train, "--name", "a/b").code == 2


def test_data_set_wins_over_a_folder_of_its_name_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "digits", image_tree(split=False, shape=(1, 8, 8)))
    ran = bench("evaluate", "digits", "-r", "digits:train", "--metric", "saturation")
    assert ran.code == 0, ran.err
    assert "'digits' is taken for the data set; write ./digits for the file or folder" in ran.err
    assert "Samples: digits/reference, 898" in ran.out
    ran = bench("evaluate", "./digits", "-r", "digits:train", "--metric", "saturation")
    assert "is taken for" not in ran.err
    assert "Samples: digits, 18" in ran.out
