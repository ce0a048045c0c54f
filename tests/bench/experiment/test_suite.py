from pathlib import Path

import pytest

from bench.data import DATASETS
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.place import builtin_suites
from bench.experiment.suite import read_suite
from bench.report.numbers.published import read_published
from bench.system.errors import UserError
from bench.training.card import make_card
from bench.training.study import preset_for
from methods import METHODS, DataSpec
from metrics import EXTRACTORS, METRICS
from tests.bench.helpers import bench

ROOT = Path(__file__).resolve().parents[3]
GOOD = '[[study]]\ndataset = "modes1d"\nmethods = ["oracle"]\n'


@pytest.mark.parametrize("name", ["cifar10-small", "demo", "modes1d-seeds", "reference"])
def test_built_in_suites_name_existing_things(name):
    assert name in builtin_suites()
    for study in read_suite(name).study:
        assert study.dataset in (*DATASETS, "cifar10-jpeg")
        assert set(study.methods) <= set(METHODS)
        assert set(study.metrics or ()) <= set(METRICS)
        assert set(study.extractors or ()) <= set(EXTRACTORS)
        assert study.guidance[0] == 1.0
        here = study.dataset in DATASETS
        images = RandomImages(DataSpec(study.dataset, (3, 32, 32), 10))
        data = find_dataset(study.dataset) if here else images
        for method in study.methods:
            preset = preset_for(study, method)
            overrides = study.set if METHODS[method].trains else None
            card = make_card(method, data=data, preset=preset, overrides=overrides)
            assert card.preset == (study.preset or study.dataset)
        if here and study.samples is not None:
            # The real-versus-real floor takes as many training samples.
            assert study.samples <= len(data.train)


EDM2 = {  # preset: images in thousands, EMA width without guidance, under CFG
    "edm2-img64-s": (1073741, "0.075", None),
    "edm2-img512-xs": (2147483, "0.135", "0.045"),
    "edm2-img512-s": (2147483, "0.130", "0.025"),
    "edm2-img512-m": (2147483, "0.100", "0.030"),
    "edm2-img512-l": (1879048, "0.085", "0.015"),
    "edm2-img512-xl": (1342177, "0.085", "0.020"),
    "edm2-img512-xxl": (939524, "0.070", "0.015"),
}
AUTOGUIDED = {
    "edm2-img64-s": ("0.045", "edm2-img64-xs-0134217-0.110"),
    "edm2-img512-s": ("0.070", "edm2-img512-xs-0134217-0.125"),
    "edm2-img512-xxl": ("0.075", "edm2-img512-m-0268435-0.155"),
}


@pytest.mark.parametrize("name", EDM2)
def test_suites_of_edm2_name_the_published_networks_and_include_the_published_scales(name):
    kimg, plain, guided = EDM2[name]
    images, size = name.removeprefix("edm2-").split("-")
    dataset = {"img64": "imagenet64", "img512": "imagenet512"}[images]
    published = read_published(ROOT / "results/published.csv")
    scales = {
        kind: {
            p.guidance
            for p in published
            if (p.dataset, p.method) == (dataset, f"edm2-{size}{kind}") and p.extractor != "dinov2"
        }
        for kind in ("", "-cfg", "-interval", "-autoguidance")
    }
    found = {}
    for study in read_suite(name).study:
        assert (study.dataset, study.steps, study.labels) == (dataset, (32,), "random")
        rule = study.rules[0] if study.rules != ("cfg",) else "cfg" if study.null_run else ""
        kind = f"-{rule}" if rule else ""
        found[kind] = study
        assert scales.pop(kind) <= set(study.guidance)
        ema = {"": plain, "autoguidance": AUTOGUIDED.get(name, ("",))[0]}.get(rule, guided)
        assert study.runs == (f"{name}-{kimg:07d}-{ema}",)
        null = f"edm2-{images}-xs-uncond-2147483-{ema}"
        assert study.null_run == (null if rule in ("cfg", "interval") else None)
        assert study.weak_run == (AUTOGUIDED[name][1] if rule == "autoguidance" else None)
    assert not any(scales.values())  # every published kind of guidance has its study
    if "-interval" in found:
        assert found["-interval"].knobs == {"interval": {"steps": [17, 22]}}


def write(folder, text, encoding="utf-8"):
    path = folder / "mine.toml"
    path.write_bytes(text.encode(encoding))
    return path


def test_own_suite_file_is_read(tmp_path):
    text = 'experiment = "mine"\n' + GOOD + 'guidance = "1..3"\nsteps = [5]\n'
    suite = read_suite(str(write(tmp_path, text)))
    (study,) = suite.study
    assert (suite.experiment, study.guidance, study.steps) == ("mine", (1.0, 2.0, 3.0), (5,))
    listed = read_suite(str(write(tmp_path, GOOD + "guidance = [1, 1.5]\n"))).study[0]
    assert listed.guidance == (1.0, 1.5)
    assert (listed.inversion, listed.inversion_guidance) == (False, None)
    more = 'inversion = true\ninversion_samples = 30\ninversion_guidance = "1,7"\n'
    inverted = read_suite(str(write(tmp_path, GOOD + more))).study[0]
    assert inverted.inversion
    assert (inverted.inversion_samples, inverted.inversion_guidance) == (30, (1.0, 7.0))
    assert read_suite(str(write(tmp_path, GOOD))).study[0].guidance == tuple(range(1, 14))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[study]\n", "is not TOML"),
        ("study = []\n", "study: tuple should have at least 1 item"),
        ("", "study: field required"),
        (GOOD + "guidence = 3\n", "study.0.guidence: extra inputs are not permitted"),
        (GOOD + 'guidance = "13..1"\n', "'13..1' runs backwards"),
        (GOOD + 'guidance = "one"\n', "'one' is not a number"),
        (GOOD + "guidance = [1.0, nan]\n", "study.0.guidance.1: input should be a finite number"),
        (GOOD + "steps = [0]\n", "study.0.steps.0: input should be greater than 0"),
        (GOOD + "seeds = [-1]\n", "study.0.seeds.0: input should be greater than or equal to 0"),
        (GOOD + "samples = 1\n", "study.0.samples: input should be greater than or equal to 2"),
        ('[[study]]\nmethods = ["edm"]\n', "study.0.dataset: field required"),
    ],
)
def test_unusable_suite_is_named_with_the_reason(tmp_path, text, complaint):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as raised:
        read_suite(str(path))
    assert str(path) in str(raised.value)
    assert complaint in str(raised.value)
    assert raised.value.code == 2


def test_suite_that_is_not_utf_8_is_refused(tmp_path):
    path = write(tmp_path, GOOD + '# "ä"\n', "latin-1")
    ran = bench("train", "--suite", path, "--results", tmp_path / "results")
    assert ran.code == 2
    assert ran.err.startswith(f"Error: Suite {path} is not TOML: 'utf-8' codec can't decode")


@pytest.mark.parametrize("command", ["train", "sweep", "report"])
def test_missing_suite_is_reported(tmp_path, command):
    ran = bench(command, "--suite", tmp_path / "none.toml", "--results", tmp_path / "results")
    assert ran.code == 2
    assert ran.err == (
        f"Error: Cannot read the suite '{tmp_path / 'none.toml'}': No such file or directory. "
        f"Give a TOML file or one of: {', '.join(builtin_suites())}.\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("oracle", "orakel"), "Unknown method 'orakel'. Did you mean 'oracle'?"),
        (GOOD.replace("modes1d", "modes1"), "Unknown data set 'modes1'. Did you mean 'modes1d'?"),
        (GOOD + 'preset = "huge"\n', "Unknown preset 'huge'. Available: auto, modes1d, modes2d."),
        (GOOD + 'metrics = ["w2"]\n', "Unknown metric 'w2'. Did you mean 'w1'?"),
    ],
)
def test_names_in_a_suite_are_checked(tmp_path, text, message):
    ran = bench("sweep", "--suite", write(tmp_path, text), "--results", tmp_path / "results")
    assert ran.code == 2
    assert ran.err.startswith(f"Error: {message}")


@pytest.mark.parametrize(
    ("command", "options", "named"),
    [
        ("train", ["-m", "edm", "--set", "a=1"], "--method, --set"),
        ("train", ["--seed", "1"], "--seed"),
        ("sweep", ["-g", "1..3", "-n", "5"], "--guidance, --samples"),
        ("sweep", ["--extractor", "identity"], "--extractor"),
    ],
)
def test_options_that_the_suite_sets_are_refused(tmp_path, command, options, named):
    ran = bench(command, "--suite", "demo", *options, "--results", tmp_path / "results")
    assert ran.code == 2
    assert ran.err.startswith(f"Error: --suite sets this itself: drop {named}")
    assert not (tmp_path / "results").exists()


def test_suite_trains_and_sweeps_into_its_experiment(tmp_path):
    text = 'experiment = "mine"\n' + GOOD.replace('"oracle"', '"oracle", "edm"')
    text += 'guidance = "1..2"\nsamples = 10\nsteps = [2]\nseeds = [0, 1]\n'
    text += 'set = { "train.iterations" = 2, "train.batch" = 4, "net.width" = 8 }\n'
    path, results = write(tmp_path, text), tmp_path / "results"
    done = bench("train", "--suite", path, "--results", results)
    assert done.code == 0, done.err
    assert f"Next: bench sweep --suite {path} --results {results}" in done.out
    done = bench("sweep", "--suite", path, "--results", results)
    assert done.code == 0, done.err
    # 2 scales for the oracle, which has no training seeds, and 2 x 2 for edm.
    assert "modes1d: 6 cells computed, 0 kept, 0 skipped" in done.out
    assert sorted(p.name for p in (results / "mine" / "runs").iterdir()) == [
        "modes1d-edm-s0",
        "modes1d-edm-s1",
    ]


def test_suite_takes_a_protocol_instead_of_metrics_and_extractors(tmp_path):
    (study,) = read_suite(str(write(tmp_path, GOOD + 'protocol = "offline"\n'))).study
    assert study.protocol == "offline"
    for more, why in (
        (
            'protocol = "adm"\nmetrics = ["fd"]\n',
            "sets metrics and extractors: drop those",
        ),
        ('protocol = "offlin"\n', "did you mean 'offline'"),
    ):
        with pytest.raises(UserError, match=why):
            read_suite(str(write(tmp_path, GOOD + more)))
