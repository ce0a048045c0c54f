import json
import re
import shutil

import pytest

from bench.evaluation.plan import Measurement
from bench.experiment.rows import read_row
from methods import METHODS, Preset
from methods.oracle import Oracle, OracleConfig
from metrics import METRICS, Accumulator
from metrics.toy import Wasserstein1
from tests.bench.helpers import TINY_IMAGES, TOY_METRICS, bench, contents, rows_of, sets
from tests.long import mostly_long

SWEEP = ("sweep", "-g", "1,2,20", "-n", "20", *TOY_METRICS)


def summary(ran):
    """The line that counts cells."""
    return next(line for line in ran.out.splitlines() if re.search(r" cells? computed", line))


def cells(results, method):
    return {
        (r.guidance, r.steps): (r.status, r.reason, r.nfe, len(r.values) > 0)
        for r in rows_of(results, method)
    }


def test_every_cell_has_a_row_with_values_or_a_reason(swept):
    limit = "trained for guidance 1 to 15, not 20"
    none = "ct takes no guidance"
    assert cells(swept, "edm") == {
        (1.0, 18): ("ok", "", 35, True),
        (2.0, 18): ("ok", "", 70, True),
        (20.0, 18): ("ok", "", 70, True),
    }
    assert cells(swept, "ct") == {
        (g, s): ("ok", "", s, True) if g == 1 else ("skip", none, 0, False)
        for g in (1.0, 2.0, 20.0)
        for s in (1, 2)
    }
    assert cells(swept, "igct") == {
        (g, s): ("ok", "", s, True) if g < 20 else ("skip", limit, 0, False)
        for g in (1.0, 2.0, 20.0)
        for s in (1, 2)
    }
    assert set(cells(swept, "oracle")) == {(1.0, 18), (2.0, 18), (20.0, 18)}
    (floor,) = rows_of(swept, "real")
    assert (floor.run, floor.nfe, floor.n, floor.status) == ("modes1d-real", 0, 20, "ok")
    for row in rows_of(swept, "edm"):
        assert row.preview is not None
        assert sum(map(sum, row.preview.counts)) == row.n == 20
        assert {v.metric for v in row.values} == {v.metric for v in floor.values}


def test_rows_state_how_their_samples_got_labels(swept):
    assert {row.labels for row in rows_of(swept, "edm")} == {"balanced"}


def test_sweep_of_named_runs_gives_reasons_for_skips(trained):
    sweep = ("sweep", "-g", "1,2", "-n", "8", *TOY_METRICS, "--results", trained)
    ran = bench(*sweep, "--run", "modes1d-ct-s0")
    assert ran.code == 0, ran.err
    assert {row.run for row in rows_of(trained, "ct")} == {"modes1d-ct-s0"}
    assert rows_of(trained, "edm") == rows_of(trained, "igct") == []
    assert "modes1d: 2 cells computed, 0 kept, 2 skipped with a reason, 0 failed." in ran.out
    assert "modes1d: 2 skipped: ct takes no guidance." in ran.out
    ran = bench(*sweep, "--run", "modes1d-ct")
    assert ran.code == 2
    assert "Unknown run 'modes1d-ct'. Did you mean 'modes1d-ct-s0'?" in ran.err
    ran = bench("sweep", "--run", "modes1d-ct-s0", "--results", trained / "none")
    assert ran.code == 1
    assert "There is no trained run in " in ran.err


def test_steps_beyond_the_levels_are_skipped_with_the_reason(trained):
    ran = bench(
        "sweep",
        "-g",
        "1",
        "-n",
        "4",
        *TOY_METRICS,
        "--steps",
        "2..3",
        "-m",
        "ct",
        "--results",
        trained,
    )
    assert ran.code == 0
    rows = {r.steps: (r.status, r.reason) for r in rows_of(trained, "ct")}
    reason = "middle_sigma gives levels for 1 to 2 steps, not 3"
    assert rows == {2: ("ok", ""), 3: ("skip", reason)}


def test_same_command_again_changes_no_byte(swept):
    before = contents(swept)
    ran = bench(*SWEEP, "--results", swept)
    assert ran.code == 0
    assert "modes1d: 0 cells computed, 12 kept, 6 skipped with a reason, 0 failed." in ran.out
    assert contents(swept) == before


def test_sweep_computes_only_missing_cells(swept):
    before = contents(swept)
    row = rows_of(swept, "igct")[0]
    path = swept / "default" / "cells" / row.run / f"{row.key[:24]}.json"
    path.unlink()
    ran = bench(*SWEEP, "--results", swept)
    assert summary(ran).startswith("modes1d: 1 cell computed, 11 kept")
    again = read_row(path)
    assert (again.values, again.preview) == (row.values, row.preview)
    after = contents(swept)
    assert {name for name in before if before[name] != after[name]} == {
        str(path.relative_to(swept))
    }


def test_further_metric_is_added_to_stored_values(trained):
    first = ("sweep", "-g", "1", "-n", "20", "--results", trained, "--metric")
    assert bench(*first, "w1").code == 0

    def stored(method):
        path = trained / "default" / "cells" / rows_of(trained, method)[0].run
        texts = [json.loads(p.read_text())["values"] for p in sorted(path.iterdir())]
        return [{v["metric"]: json.dumps(v) for v in values} for values in texts]

    before = {m: stored(m) for m in ("edm", "ct", "igct", "oracle", "real")}
    ran = bench(*first, "within3")
    assert summary(ran).startswith("modes1d: 6 cells computed")
    for method, old in before.items():
        for one, two in zip(old, stored(method), strict=True):
            assert two.keys() == {"w1", "within3"}
            assert two["w1"] == one["w1"]
    assert summary(bench(*first, "w1")).startswith("modes1d: 0 cells computed, 6 kept")


def test_metric_of_another_version_is_recomputed(trained, monkeypatch):
    command = ("sweep", "-g", "1", "-n", "20", "-m", "edm", "--metric", "w1", "--results", trained)
    bench(*command)
    monkeypatch.setattr(Wasserstein1, "version", 2)
    assert summary(bench(*command)).startswith("modes1d: 1 cell computed")
    (row,) = rows_of(trained, "edm")
    assert [(v.metric, v.version) for v in row.values] == [("w1", 2)]


@pytest.mark.parametrize("batch", mostly_long([1, 3, 7], [3, 7]))
def test_batch_size_changes_no_preview_and_no_value(swept, batch, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(swept / "default" / "runs", other / "default" / "runs")
    assert bench(*SWEEP, "--batch", batch, "--results", other).code == 0
    for method in ("ct", "igct", "edm", "oracle"):
        for one, two in zip(rows_of(swept, method), rows_of(other, method), strict=True):
            assert one.key == two.key
            for a, b in zip(one.values, two.values, strict=True):
                # Samples differ by float32 rounding, which the stiff tiny networks do not enlarge.
                assert b.value == pytest.approx(a.value, rel=1e-4, abs=1e-6)


class Brittle(Oracle):
    """Raises, or gives NaN, at guidance 2 while it is told to."""

    name = "brittle"
    presets = {"modes1d": Preset(dataset="modes1d", config=OracleConfig(), train=None, steps=(3,))}  # noqa: RUF012
    trouble = "raise"

    def sample(self, nets, labels, guidance, steps, rng):
        x = super().sample(nets, labels, guidance, steps, rng)
        if guidance.scale == 2 and self.trouble == "nan":
            x[0] = float("nan")
        elif guidance.scale == 2 and self.trouble:
            raise ArithmeticError(self.trouble)
        return x


BRITTLE = ("sweep", "-g", "1..3", "-n", "8", "-m", "brittle", *TOY_METRICS)


def test_failing_cell_is_stored_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "brittle", Brittle)
    command = (*BRITTLE, "--results", tmp_path)
    for trouble in ("no luck", "none again"):
        monkeypatch.setattr(Brittle, "trouble", trouble)
        ran = bench(*command)
        assert ran.code == 1
        assert f"Failed: modes1d-brittle-s0 g=2 steps=3: ArithmeticError: {trouble}" in ran.out
        assert ran.err == (
            "Error: 1 cell failed. Run the same command to try again; the others are kept.\n"
        )
        found = {r.guidance: (r.status, r.reason) for r in rows_of(tmp_path, "brittle")}
        assert found[1.0] == found[3.0] == ("ok", "")
        assert found[2.0] == ("failed", f"ArithmeticError: {trouble}")
    monkeypatch.setattr(Brittle, "trouble", "")
    ran = bench(*command)
    assert (ran.code, summary(ran)) == (
        0, "modes1d: 1 cell computed, 2 kept, 0 skipped with a reason, 0 failed.",
    )  # fmt: skip
    assert {r.status for r in rows_of(tmp_path, "brittle")} == {"ok"}


def test_nan_is_a_result_and_not_a_failure(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "brittle", Brittle)
    monkeypatch.setattr(Brittle, "trouble", "nan")
    ran = bench(*BRITTLE, "--results", tmp_path)
    assert ran.code == 0
    assert "3 cells computed (1 diverged)" in ran.out
    row = rows_of(tmp_path, "brittle")[1]
    assert (row.status, row.values) == ("diverged", ())
    assert row.reason == "1 of samples 0 to 7 are not finite"
    assert "0 cells computed, 3 kept" in bench(*BRITTLE, "--results", tmp_path).out


class Fussy(Wasserstein1):
    """A metric that fails while it is told to."""

    name = "fussy"
    trouble: object = ValueError("no")

    def compute(self, *, real, fake, extractor):
        if isinstance(self.trouble, Exception):
            raise self.trouble
        return self.trouble


def test_failing_metric_keeps_the_other_values(tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "fussy", Fussy)
    command = (
        "sweep", "-g", "1", "-n", "8", "-m", "oracle", "-d", "modes1d",
        "--metric", "w1", "--metric", "fussy", "--results", tmp_path,
    )  # fmt: skip
    ran = bench(*command)
    assert ran.code == 1
    assert "metric fussy failed: ValueError: no" in ran.out
    (row,) = rows_of(tmp_path, "oracle")
    assert (row.status, [v.metric for v in row.values]) == ("ok", ["w1"])
    monkeypatch.setattr(Fussy, "trouble", float("nan"))
    assert "metric fussy failed: ValueError: it gave nan" in bench(*command).out
    monkeypatch.setattr(Fussy, "trouble", 0.0)
    assert bench(*command).code == 0
    (after,) = rows_of(tmp_path, "oracle")
    assert [(v.metric, v.value) for v in after.values] == [
        ("fussy", 0.0),
        ("w1", row.values[0].value),
    ]


def test_reference_features_are_recomputed_only_if_damaged(trained, monkeypatch):
    seen = []
    update = Accumulator.update
    monkeypatch.setattr(
        Accumulator, "update", lambda self, x, y: (seen.append(len(x)), update(self, x, y))[1]
    )
    command = ("sweep", "-g", "1", "-n", "8", "-m", "ct", "--steps", "1", *TOY_METRICS,
               "--results", trained)  # fmt: skip

    def real_samples():
        seen.clear()
        assert bench(*command).code == 0
        return sum(seen) // 4000

    assert real_samples() == 1
    (cached,) = (trained / "cache").glob("real-*")
    whole = cached.read_bytes()
    (values,) = [row.values for row in rows_of(trained, "ct")]
    assert real_samples() == 0
    half = len(whole) // 2
    for damage in (
        whole[:half],
        b"",
        whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
    ):
        cached.write_bytes(damage)
        for path in (trained / "default" / "cells").rglob("*.json"):
            path.unlink()
        assert real_samples() == 1
        assert cached.read_bytes() == whole
        assert rows_of(trained, "ct")[0].values == values


def test_floor_is_skipped_without_enough_real_samples(tmp_path):
    command = ("-m", "oracle", "-d", "modes1d", "-g", "1", "--steps", "1", "--metric", "shift")
    ran = bench("sweep", *command, "-n", "20001", "--results", tmp_path)
    assert ran.code == 0
    assert (
        "modes1d: real samples are not measured, which needs 20001 training "
        "samples: there are 20000." in ran.out
    )
    assert rows_of(tmp_path, "real") == []


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("swept", ["3", "0", "3", "0", "0"]), ("trained", ["3", "0", "0", "3,500", "60"])],
)
def test_dry_run_prices_and_writes_nothing(folder, expected, request):
    results = request.getfixturevalue(folder)
    before = contents(results)
    ran = bench(*SWEEP, "--dry-run", "--results", results)
    assert ran.code == 0, ran.err
    line = next(text for text in ran.out.splitlines() if "modes1d-edm-s0" in text)
    fields = [part.strip() for part in line.strip("│ ").split("│")]
    # Cells, skipped, done, NFE (20 samples of 35 + 70 + 70) and images still to be made.
    assert fields[:7] == ["modes1d-edm-s0", "18", *expected]
    assert "Nothing was computed." in ran.out
    assert "left out" not in ran.out
    assert contents(results) == before


def test_dry_run_excludes_untrained_runs_from_its_time(tmp_path):
    ran = bench("sweep", "--suite", "modes1d-seeds", "--dry-run", "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert "Left out modes1d-edm-s0: it is not trained to its end" in ran.out
    assert "These times do not include the runs left out above." in ran.out


def test_training_dry_run_writes_nothing(tmp_path):
    ran = bench("train", "-m", "edm", "-d", "modes1d", "--dry-run", "--results", tmp_path / "r")
    assert ran.code == 0
    assert '"iterations": 1500' in ran.out
    assert "384,000 images, about " in ran.out
    assert not (tmp_path / "r").exists()


def test_unfinished_runs_are_skipped(trained):
    (trained / "default" / "runs" / "modes1d-ct-s0" / "model.safetensors").unlink()
    ran = bench(*SWEEP, "--results", trained)
    assert ran.code == 0
    assert "Left out modes1d-ct-s0: it is not trained to its end" in ran.out
    assert rows_of(trained, "ct") == []


def test_digits_from_training_to_rows(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "cache")
    results = ("--results", tmp_path)
    ran = bench("train", "-m", "ct", "--init-from", "none", *sets(*TINY_IMAGES), *results)
    assert ran.code == 0, ran.err
    ran = bench("sweep", "-g", "1,2", "-n", "12", "--batch", "5", *results)
    assert ran.code == 0, ran.err
    row = rows_of(tmp_path, "ct")[0]
    (floor,) = rows_of(tmp_path, "real")
    assert {v.extractor for v in row.values} <= {"", "classifier"}
    assert {v.metric for v in row.values} == {v.metric for v in floor.values}
    # Ten tiles although a batch holds five.
    assert row.preview.labels == tuple(range(10))
    assert (row.n, row.reference_n) == (12, 898)


def test_planned_signatures_differ_by_reference():
    from bench.evaluation.plan import plan_metric

    made = [plan_metric(Wasserstein1(), None, reference) for reference in ("a", "b")]
    assert all(isinstance(p, Measurement) for p in made)
    assert made[0].signature != made[1].signature


def test_damaged_checkpoint_is_named(trained):
    weights = trained / "default" / "runs" / "modes1d-edm-s0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    ran = bench(*SWEEP, "-m", "edm", "--results", trained)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: Checkpoint {weights} is cut short or damaged")


def test_run_of_a_missing_plugin_is_skipped_with_advice(trained):
    folder = trained / "default" / "runs" / "modes1d-ct-s0"
    card = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(card | {"method": "mine"}))
    ran = bench(*SWEEP, "--results", trained)
    assert ran.code == 0
    assert (
        "Left out modes1d-ct-s0: its method 'mine' is not registered; name its plugin with --plugin"
        in ran.out
    )
    ran = bench(*SWEEP, "-m", "edm", "--results", trained)
    assert ran.code == 0
    assert "Left out" not in ran.out  # it was not asked for


def test_suite_refuses_a_run_of_other_settings(trained, tmp_path):
    suite = tmp_path / "mine.toml"
    text = '[[study]]\ndataset = "modes1d"\nmethods = ["edm"]\nguidance = "1"\nsamples = 20\n'
    suite.write_text(text)
    before = contents(trained)
    ran = bench("sweep", "--suite", suite, "--results", trained)
    assert ran.code == 1
    assert "Run 'modes1d-edm-s0' was not trained as the suite says (" in ran.err
    assert "train.iterations is 12 there, 1500 here" in ran.err
    assert contents(trained) == before
    tiny = {"train.iterations": 12, "train.batch": 8, "net.width": 8, "net.blocks": 1}
    suite.write_text(text + "".join(f'set."{k}" = {v}\n' for k, v in tiny.items()))
    ran = bench("sweep", "--suite", suite, "--results", trained)
    assert ran.code == 0, ran.err


def test_rows_keep_earlier_values_and_add_errors_and_reasons(trained):
    base = ("sweep", "-g", "1", "-n", "10", "-m", "oracle", "-m", "edm", "--results", trained)
    assert bench(*base, "--metric", "fd_inf", "--metric", "within3").code == 0
    assert bench(*base, "--metric", "w1").code == 0
    (row,) = rows_of(trained, "edm")
    assert row.unmeasured == {"fd_inf identity": "fd_inf needs 20 samples"}
    values = {v.metric: v for v in row.values}
    assert set(values) == {"w1", "within3"}
    assert values["w1"].se > 0
    assert len(values["w1"].replicates) == 10
    low, high = values["within3"].interval
    assert 0.0 <= low < high <= 1.0
    assert "modes1d: 0 cells computed, 2 kept" in bench(*base, "--metric", "w1").out
