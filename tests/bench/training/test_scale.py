"""Training at scale: gradients in slices, precisions, compiled networks."""

from pathlib import Path

import pytest
import torch

from bench.data.find import find_dataset
from bench.system import devices
from bench.system.devices import compile_nets, compiler_problem, make_fabric, matmul_precision
from bench.training import loop
from bench.training.card import WEIGHTS, make_method, read_card
from bench.training.checkpoint import load_weights
from bench.training.initial import make_teacher, teacher_card
from bench.training.loop import Loss, accumulate_gradients, build_nets, near, train
from methods import METHODS, BatchRNG, Progress
from tests.bench.helpers import TINY, bench, sets, tiny_card
from tests.processes import train_together

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
METHODS_AND_TERMS = [
    ("edm", {"denoise"}),
    ("ct", {"consistency"}),
    ("guided-cd", {"distil"}),
    ("igct", {"guided", "inverse", "reconstruction"}),
    ("mg", {"denoise"}),
    ("gft", {"denoise"}),
    ("mg-ct", {"guided"}),
    ("meanflow", {"meanflow"}),
    ("alpha-flow", {"alpha-flow"}),
    ("imm", {"moments"}),
    ("sct", {"tangent"}),
    ("scd", {"tangent"}),
    ("tcm", {"consistency", "boundary"}),
]


def gradient(name, micro_batch, fabric, data_name="digits"):
    data = find_dataset(data_name)
    # Groups are formed in a slice, so only single rows do not depend on its size.
    alone = ["group=1"] if name == "imm" else []
    card = tiny_card(name, data_name, "net.dropout=0", "train.batch=8", *alone)
    method = make_method(card, data)
    nets = build_nets(method, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # layers that start at zero hold gradients back
        for parameter in nets.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    teacher = None
    if method.wants_teacher is not None:
        own = teacher_card(method.wants_teacher, data, None, {"net.channels": 8})  # as quick
        teacher = make_teacher(type(method), own, data, None, CPU)
    means = accumulate_gradients(
        Loss(method, nets, teacher), data.train, method, BatchRNG(3, 8, 0, 8), Progress(0, 10),
        fabric=fabric, micro_batch=micro_batch,
    )  # fmt: skip
    return {k: p.grad for k, p in nets.named_parameters()}, means


def test_every_trained_method_is_covered():
    built_in = {
        name
        for name, m in METHODS.items()
        if m.trains and m.presets and m.__module__[:8] == "methods."
    }
    assert {name for name, _ in METHODS_AND_TERMS} == built_in


@pytest.mark.parametrize(("name", "terms"), METHODS_AND_TERMS)
def test_gradients_in_slices_equal_those_of_one_batch(name, terms, fabric):
    whole, means = gradient(name, None, fabric)
    assert means.keys() == terms
    for micro_batch in (3, 4):  # the last slice of three is shorter
        parts, also = gradient(name, micro_batch, fabric)
        for key, value in means.items():
            assert float(also[key]) == pytest.approx(float(value), rel=1e-5)
        largest = max(float(g.abs().max()) for g in whole.values())
        for key, value in whole.items():
            # float32 sums over rows in another order.
            torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-5 * largest)


def test_slices_get_the_rows_of_their_batch():
    def draw(rng):
        return rng.randint(1000), rng.randn(3), rng.rand()

    whole = draw(BatchRNG(5, 12, 2, 11))
    slices = BatchRNG(5, 12, 2, 11).split(4)
    assert [(s.start, s.stop) for s in slices] == [(2, 6), (6, 10), (10, 11)]
    parts = [draw(part) for part in slices]
    for k, value in enumerate(whole):
        assert torch.equal(torch.cat([part[k] for part in parts]), value)
    assert len(BatchRNG(5, 12, 2, 11).split(9)) == 1
    masks = [part.dropout("net").initial_seed() for part in slices]
    assert len(set(masks)) == 3


def test_run_in_slices_equals_run_in_whole_batches(tmp_path):
    runs = []
    for pair in ("train.micro_batch=null", "train.micro_batch=3"):
        results = tmp_path / pair[-1]
        ran = bench(
            "train", "-m", "igct", "-d", "modes1d", *sets(*TINY, pair), "--results", results
        )
        assert ran.code == 0, ran.err
        runs.append(load_weights(results / "default" / "runs" / "modes1d-igct-s0" / WEIGHTS))
    for key, value in runs[0].items():
        # RAdam divides gradients, rounded otherwise, by their size; 12 steps of lr 2e-3.
        torch.testing.assert_close(runs[1][key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16-mixed"])
def test_precision_is_set_only_for_training(precision, tmp_path, monkeypatch):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    seen = []

    def watch(*arguments, **options):
        seen.append((matmul.allow_tf32, cudnn.allow_tf32))
        return accumulate_gradients(*arguments, **options)

    monkeypatch.setattr(loop, "accumulate_gradients", watch)
    card = tiny_card("edm").model_copy(update={"precision": precision})
    train(card, find_dataset("modes1d"), tmp_path, fabric=make_fabric("cpu", precision))
    assert set(seen) == {(precision == "tf32",) * 2}
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    assert read_card(tmp_path).precision == precision


def test_precision_is_restored_after_an_error():
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(RuntimeError, match="inside"), matmul_precision("tf32"):
        raise RuntimeError("inside")
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.parametrize(
    ("method", "backend", "data"),
    [
        ("edm", "aot_eager", "modes1d"),
        ("igct", "eager", "modes1d"),
        pytest.param("edm", "aot_eager", "digits", marks=pytest.mark.long),
        pytest.param("igct", "eager", "digits", marks=pytest.mark.long),
    ],
)
def test_compiled_networks_train_the_same_weights_under_the_same_names(
    method, backend, data, tmp_path, fabric
):
    torch.compiler.reset()
    card = tiny_card(method, data, "net.dropout=0.3")
    data = find_dataset(data)
    plain = load_weights(train(card, data, tmp_path / "plain", fabric=fabric))
    compiled = load_weights(train(card, data, tmp_path / "c", fabric=fabric, compiler=backend))
    assert compiled.keys() == plain.keys()
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    for key, value in plain.items():
        # The same operations and masks; two steps of lr 2e-3, where aot_eager rounds otherwise.
        torch.testing.assert_close(compiled[key], value, rtol=0, atol=1e-4)


def test_only_modules_with_a_forward_are_compiled():
    pair, parts = torch.nn.Module(), torch.nn.Linear(2, 2)
    pair.child = parts
    compile_nets(pair, "eager")
    assert parts._compiled_call_impl is not None
    assert pair._compiled_call_impl is None


def test_training_continues_with_a_message_without_a_compiler(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(devices.torch, "compile", broken)
    assert compiler_problem(CPU) == "no C++ compiler"
    arguments = ["train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", tmp_path]
    ran = bench(*arguments, "--compile")
    assert ran.code == 0, ran.err
    assert "No compiler works on cpu (no C++ compiler): training continues without it." in ran.out
    folder = tmp_path / "default" / "runs" / "modes1d-edm-s0"
    assert "compile" not in read_card(folder).provenance


def test_compiler_is_in_the_provenance_but_not_in_the_settings(tmp_path, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(devices, "compiler_problem", lambda device: None)
    monkeypatch.setattr(devices, "DEFAULT_BACKEND", "eager")
    arguments = ["train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", tmp_path]
    assert bench(*arguments, "--compile").code == 0
    folder = tmp_path / "default" / "runs" / "modes1d-edm-s0"
    assert read_card(folder).provenance["compile"] == "eager"
    assert bench(*arguments).code == 0


def test_data_are_not_copied_on_a_cpu():
    split = find_dataset("digits").train
    assert near(split, CPU) is split


@pytest.mark.parametrize("torchrun", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_processes_distil_the_same_in_slices_as_one(tmp_path, torchrun):
    settings = ["-m", "guided-cd", "-d", "modes1d", *sets(*TINY)]
    edm = ["train", "-m", "edm", "-d", "modes1d", *sets(*TINY)]
    folders = []
    for name in ("one", "two"):
        assert bench(*edm, "--results", tmp_path / name).code == 0
        folders.append(tmp_path / name / "default" / "runs" / "modes1d-guided-cd-s0")
    assert bench("train", *settings, "--results", tmp_path / "one").code == 0
    own = ("--set", "train.micro_batch=3", "--results", tmp_path / "two", "--device", "cpu")
    train_together(["train", *settings, *own], 2, torchrun)
    one, two = (load_weights(folder / WEIGHTS) for folder in folders)
    for key, value in one.items():
        # As for two processes without slices: rounding of gradients in 12 steps of lr 2e-3.
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
