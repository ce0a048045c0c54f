import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.find import find_dataset
from bench.experiment.inversion_rows import read_inversion, read_inversions
from bench.experiment.place import Experiment
from bench.system import progress
from bench.system.progress import Bar
from methods import IGCT
from tests.bench.helpers import bench, contents
from tests.bench.inversion.conftest import INVERSION
from tests.processes import STARTS

SWEEP = ("sweep", "-g", "1", *INVERSION, "--inversion-guidance", "1,20")


def rows(results):
    place = Experiment(results, "default")
    return {(r.method, r.guidance): r for r in read_inversions(place.inversions)}


def test_inversion_rows_hold_all_measurements(inverted):
    found = rows(inverted)
    assert len(found) == 6
    for method, nfe in (("igct", (1, 1, 1)), ("edm", (34, 35, 35))):
        row = found[method, 1.0]
        assert row.status == "ok"
        assert (row.inversion_nfe, row.reconstruction_nfe, row.edit_nfe) == nfe
        assert (row.n, row.authors_batch) == (12, 128)
        assert row.edits.n == 12 * 9 == sum(p.n for p in row.pairs)
        assert row.edits.right == sum(p.right for p in row.pairs)
        assert {(p.source, p.target) for p in row.pairs} == {
            (a, b) for a in range(10) for b in range(10) if a != b
        }
        assert row.real.right >= 11
        assert row.judge == "classifier"
        assert len(row.judge_hash) == len(row.reference_hash) == 64
        assert row.inversion_seconds > 0
        assert row.edit_seconds > 0
        assert row.latents.sigma_max == 80.0
        assert {s.name for s in row.scores if s.value is not None} == {
            *("mse", "psnr", "ssim", "psnr_batch", "ssim_batch")
        }
    assert found["edm", 20.0].edit_nfe == 70
    # Reconstruction is at g = 1 in every row.
    assert found["edm", 20.0].scores == found["edm", 1.0].scores
    assert found["edm", 20.0].latents == found["edm", 1.0].latents


def test_impossible_inversions_are_skipped_with_a_reason(inverted):
    found = rows(inverted)
    assert {found["ct", g].reason for g in (1.0, 20.0)} == {"ct maps no image to a latent"}
    assert found["igct", 20.0].status == "skip"
    assert found["igct", 20.0].reason == "trained for guidance 1 to 15, not 20"


def test_preview_shows_sources_and_no_edit_to_the_own_class(inverted):
    grid = rows(inverted)["igct", 1.0].preview
    assert grid.columns == ("source", "latent", "reconstruction", *"0123456789")
    assert grid.rows == tuple("0123456789")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(grid.png))))
    assert pixels.shape == (80, 104)
    tiles = pixels.reshape(10, 8, 13, 8).swapaxes(1, 2)
    data = find_dataset("digits").reference
    for k in range(10):
        first = data.samples[data.labels == k][0, 0].numpy()
        np.testing.assert_array_equal(tiles[k, 0], first)
        assert (tiles[k, 3 + k] == 255).all()
        assert not (tiles[k, 3 + (k + 1) % 10] == 255).all()


def test_same_command_computes_only_what_is_missing(inverted):
    before = contents(inverted / "default" / "inversions")
    lost = sorted((inverted / "default" / "inversions").glob("digits-igct-s0/*.json"))
    for path in lost:
        path.unlink()
    ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == 0, ran.err
    assert "digits: 1 inversion computed, 2 kept, 3 skipped with a reason, 0 failed." in ran.out
    after = contents(inverted / "default" / "inversions")
    assert after.keys() == before.keys()
    same = [name for name in before if not name.startswith("digits-igct")]
    assert all(after[name] == before[name] for name in same)
    # Fewer scales are no other result.
    again = rows(inverted)["igct", 1.0]
    ran = bench("sweep", "-g", "1", *INVERSION, "--results", inverted)
    assert "0 inversions computed, 2 kept, 1 skipped" in ran.out
    assert rows(inverted)["igct", 1.0] == again


def test_inversion_scores_do_not_depend_on_the_batch(inverted):
    first = {s.name: s.value for s in rows(inverted)["igct", 1.0].scores}
    for path in (inverted / "default" / "inversions").glob("digits-igct-s0/*.json"):
        path.unlink()
    assert bench(*SWEEP, "--batch", "5", "--results", inverted).code == 0
    second = {s.name: s.value for s in rows(inverted)["igct", 1.0].scores}
    known = {name: value for name, value in first.items() if value is not None}
    # Rounding may move single values of uint8 images by one level.
    assert {n: second[n] for n in known} == pytest.approx(known, rel=1e-3)


def test_failed_inversion_is_stored_and_tried_again(inverted, monkeypatch):
    for path in (inverted / "default" / "inversions").glob("digits-igct-s0/*.json"):
        path.unlink()

    def broken(*arguments):
        raise RuntimeError("out of ink")

    with monkeypatch.context() as patch:
        patch.setattr(IGCT, "edit", broken)
        ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == 1
    assert "Failed: inversion digits-igct-s0 g=1: RuntimeError: out of ink" in ran.out
    assert rows(inverted)["igct", 1.0].status == "failed"
    assert rows(inverted)["edm", 1.0].status == "ok"
    ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == 0, ran.err
    assert rows(inverted)["igct", 1.0].status == "ok"


@pytest.mark.parametrize("fails", [False, True])
def test_rows_of_another_process_are_kept(inverted, monkeypatch, fails):
    folder = inverted / "default" / "inversions"
    whole = contents(folder)
    paths = sorted(folder.glob("digits-igct-s0/*.json"))
    for path in paths:
        path.unlink()

    def other():
        for path in paths:
            path.write_bytes(whole[str(path.relative_to(folder))])

    def edit(*arguments):
        other()
        raise RuntimeError("out of ink")

    def begin(*arguments):  # once it is known what is missing
        other()
        return Bar(*arguments)

    if fails:
        monkeypatch.setattr(IGCT, "edit", edit)
    else:
        monkeypatch.setattr(progress, "Bar", begin)
    ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == int(fails), ran.err
    assert ("0 inversions computed, 3 kept" in ran.out) is not fails
    assert contents(folder) == whole


@STARTS
def test_two_processes_share_the_inversions(digits, starts):
    both = [starts(*SWEEP, "--results", digits) for _ in range(2)]
    outs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    counts = [re.search(r"(\d+) inversions? computed, (\d+) kept", out) for out, _ in outs]
    assert sum(int(count[1]) for count in counts) == 3
    assert [int(count[1]) + int(count[2]) for count in counts] == [3, 3]
    assert sorted(row.status for row in rows(digits).values()) == ["ok"] * 3 + ["skip"] * 3
    assert not [path for path in (digits / "default").rglob("*") if path.name.startswith(".")]


def test_inversions_halve_batches_that_do_not_fit_into_memory(inverted, monkeypatch):
    first = {s.name: s.value for s in rows(inverted)["igct", 1.0].scores if s.value is not None}
    for path in (inverted / "default" / "inversions").glob("digits-igct-s0/*.json"):
        path.unlink()
    real = IGCT.edit

    def little_memory(self, nets, latents, *more):
        if len(latents) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, nets, latents, *more)

    monkeypatch.setattr(IGCT, "edit", little_memory)
    ran = bench(*SWEEP, "--batch", "12", "--results", inverted)
    assert ran.code == 0, ran.err
    assert "inversion digits-igct-s0 g=1: out of memory; continuing with batches of 3" in ran.out
    second = {s.name: s.value for s in rows(inverted)["igct", 1.0].scores}
    # Rounding may move single values of uint8 images by one level.
    assert {name: second[name] for name in first} == pytest.approx(first, rel=1e-3)


def test_diverged_inversion_is_a_result(inverted, monkeypatch):
    for path in (inverted / "default" / "inversions").glob("digits-igct-s0/*.json"):
        path.unlink()

    def infinite(self, nets, x0, labels):
        return x0 / 0.0

    monkeypatch.setattr(IGCT, "invert", infinite)
    ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == 0, ran.err
    assert "1 inversion computed (1 diverged)" in ran.out
    row = rows(inverted)["igct", 1.0]
    assert (row.status, row.reason) == ("diverged", "12 of 12 latents are not finite")
    assert "0 inversions computed, 3 kept" in bench(*SWEEP, "--results", inverted).out


def test_interrupted_inversions_leave_whole_rows(inverted, monkeypatch):
    folder = inverted / "default" / "inversions"
    for path in folder.glob("digits-igct-s0/*.json"):
        if read_inversion(path).status == "ok":
            path.unlink()
    before = contents(folder)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(IGCT, "edit", interrupt)
        ran = bench(*SWEEP, "--results", inverted)
    assert ran.code == 130
    assert contents(folder) == before
    assert "1 inversion computed, 2 kept" in bench(*SWEEP, "--results", inverted).out


def test_inversion_dry_run_counts_missing_rows_and_writes_nothing(digits):
    before = contents(digits)
    ran = bench(*SWEEP, "--dry-run", "--results", digits)
    assert ran.code == 0, ran.err
    # igct: 12 (1 + 1) + 108; edm: 12 (34 + 35) + 108 (35 + 70).
    assert (
        "digits, 12 images inverted and edited: 3 of 6 rows to compute, 12,300 network evaluations"
    ) in ran.out
    assert contents(digits) == before


def test_vectors_are_not_inverted(trained):
    ran = bench(
        "sweep", "-g", "1", "-n", "4", "--metric", "w1", "--inversion", "--results", trained
    )
    assert ran.code == 0, ran.err
    assert "modes1d: no inversions, which are measured on images." in ran.out
    assert not (trained / "default" / "inversions").exists()


def test_damaged_inversion_row_is_named(inverted):
    path = next((inverted / "default" / "inversions").glob("digits-edm-s0/*.json"))
    path.write_text(path.read_text()[:80])
    for command in (SWEEP, ("report",)):
        ran = bench(*command, "--results", inverted)
        assert ran.code == 1
        assert ran.err.startswith(f"Error: {path} is not a row of results (")


def test_report_has_a_section_of_inversions(inverted):
    ran = bench("report", "--results", inverted)
    assert ran.code == 0, ran.out
    report = inverted / "default" / "report"
    assert "### Reconstruction of digits" in (report / "tables.md").read_text(encoding="utf-8")
    assert (report / "figures" / "digits-edits-igct-g1.png").is_file()
    assert (report / "figures" / "digits-edits-edm-g20.png").is_file()
