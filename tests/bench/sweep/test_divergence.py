import pytest
import torch

from bench.sweep.generate import Diverged, refuse_constant
from methods import METHODS
from methods.oracle import Oracle
from tests.bench.helpers import TOY_METRICS, bench, rows_of


def batches(*groups):
    return [(torch.tensor(x), torch.zeros(len(x), dtype=torch.long)) for x in groups]


@pytest.mark.parametrize(
    "groups",
    [
        [[[1.0, 2.0]] * 3, [[1.0, 2.0]] * 2, [[1.0, 2.0], [1.0, 2.5]]],
        [[[1.0, 2.0]] * 3, [[1.5, 2.0]] * 3],
        [[[1.0, 2.0]]],
        [],
    ],
)
def test_refuse_constant_passes_varying_batches_in_order(groups):
    given = batches(*groups)
    got = list(refuse_constant(iter(given)))
    assert [x is y for a, b in zip(got, given, strict=True) for x, y in zip(a, b, strict=True)] == [
        True
    ] * (2 * len(given))


def test_refuse_constant_raises_before_the_last_constant_batch():
    got = []
    with pytest.raises(Diverged, match=r"^all 5 samples are equal"):
        got.extend(iter(refuse_constant(iter(batches([[7]] * 3, [[7]] * 2)))))
    stream = refuse_constant(iter(batches([[7]] * 3, [[7]] * 2)))
    assert len(next(stream)[0]) == 3
    with pytest.raises(Diverged):
        next(stream)


class Dead(Oracle):
    name = "dead"

    def sample(self, nets, labels, guidance, steps, rng):
        x = super().sample(nets, labels, guidance, steps, rng)
        return torch.full_like(x, 0.5) if guidance.scale == 2 else x


def test_constant_samples_make_a_cell_diverged(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "dead", Dead)
    command = (
        "sweep", "-m", "dead", "-d", "modes1d", "-g", "1,2", "-n", "20", "--batch", "8",
        "--steps", "4", *TOY_METRICS, "--save-samples", "npz", "--results", tmp_path,
    )  # fmt: skip
    ran = bench(*command)
    assert ran.code == 0, ran.err
    assert "2 cells computed (1 diverged)" in ran.out
    rows = {row.guidance: row for row in rows_of(tmp_path, "dead")}
    assert rows[1.0].status == "ok"
    assert (rows[2.0].status, rows[2.0].values) == ("diverged", ())
    assert rows[2.0].reason == "all 20 samples are equal: the network's output is constant"
    (folder,) = (tmp_path / "default" / "samples").iterdir()
    assert [p.name for p in folder.iterdir()] == ["g1-steps4-seed0.npz"]
    assert "0 cells computed, 2 kept" in bench(*command).out
