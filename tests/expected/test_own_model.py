"""The flow-matching network of the tutorial, trained as there, against `edm` and `oracle`."""

import math
import runpy
import sys
from pathlib import Path

import pytest

from methods import METHODS
from tests.bench.helpers import bench, rows_of
from tests.documentation import DOCS, blocks

ITERATIONS = 3000
SCALES = (1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """(method, rule, g, metric) -> (value, standard error), of 2000 samples."""
    folder = tmp_path_factory.mktemp("own")
    for block in blocks(DOCS / "tutorials/own-model.md"):
        if (name := block.one("file")) is not None:
            (folder / name).write_text(block.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        runpy.run_path("toy.py")["train"](ITERATIONS)
        assert bench("train", "-m", "edm", "-d", "modes2d").code == 0
        sweep = (
            "sweep", "--model", "mymodel.py:denoise", "-m", "edm", "-m", "oracle", "-d", "modes2d",
            "-g", "1,2,4", "--rule", "cfg,interval", "--metric", "w1", "--metric", "shift",
        )  # fmt: skip
        ran = bench(*sweep)
        assert ran.code == 0, ran.err
        yield {
            (method, row.rule, row.guidance, value.metric): (value.value, value.se)
            for method in ("mymodel.denoise", "edm", "oracle")
            for row in rows_of(Path("results"), method)
            for value in row.values
        }
    del METHODS["mymodel.denoise"], sys.modules["toy"]


@pytest.mark.long
@pytest.mark.parametrize("metric", ["w1", "shift"])
@pytest.mark.parametrize("other", ["edm", "oracle"])
def test_without_guidance_it_equals_other_models_within_the_errors(values, metric, other):
    own, se = values["mymodel.denoise", "", 1.0, metric]
    expected, other_se = values[other, "", 1.0, metric]
    assert abs(own - expected) <= 3 * math.hypot(se, other_se)


@pytest.mark.long
def test_cfg_overshoots_as_with_the_exact_denoiser(values):
    own, exact = (
        [values[method, "", g, "shift"][0] for g in SCALES]
        for method in ("mymodel.denoise", "oracle")
    )
    # The network's error grows with g, which multiplies the difference of two outputs.
    assert abs(own[0]) < 0.1
    assert own[1] == pytest.approx(exact[1], rel=0.15)
    assert own[2] == pytest.approx(exact[2], rel=0.5)
    assert own[0] < own[1] < own[2]


@pytest.mark.long
def test_interval_removes_most_of_the_overshoot_as_with_the_exact_denoiser(values):
    for method in ("mymodel.denoise", "oracle"):
        guided, limited = (values[method, rule, 4.0, "shift"][0] for rule in ("", "interval"))
        assert 0 < limited < guided / 3
