import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from bench.data.find import find_dataset
from bench.system.errors import UserError
from bench.training import loop as training
from bench.training.card import WEIGHTS, make_method, read_card
from bench.training.checkpoint import STATE, load_into, load_state, load_weights, save_weights
from bench.training.loop import Stopped, build_nets, train
from bench.training.step import Ema, draw_batch, learning_rate
from methods import METHODS, BatchRNG, Progress, TrainSettings
from methods.edm import EDM
from tests.bench.helpers import TINY, TINY_IMAGES, bench, contents, sets, tiny_card
from tests.bench.training.steps import at_step, crash, steps_logged
from tests.processes import new_interpreter, start_slow_training, train_together


def interrupt():
    signal.raise_signal(signal.SIGINT)


CASES = [
    ("edm", "modes1d", []),
    ("ct", "modes1d", []),
    ("igct", "modes1d", []),
    ("igct", "digits", ["train.iterations=8", "net.dropout=0.5"]),
]


@pytest.mark.parametrize(("method", "data", "pairs"), CASES)
def test_stopped_run_resumes_to_equal_bytes(method, data, pairs, tmp_path, fabric, monkeypatch):
    card = tiny_card(method, data, *pairs)
    content = find_dataset(data)
    handler = signal.getsignal(signal.SIGINT)  # a background job of a shell starts with none
    whole = train(card, content, tmp_path / "whole", fabric=fabric).read_bytes()

    folder = tmp_path / "stopped"
    for step in (2, 5):
        at_step(monkeypatch, step, interrupt)
        with pytest.raises(Stopped, match=f"at step {step + 1} of {card.train.iterations}"):
            train(card, content, folder, fabric=fabric)
        assert load_state(folder / STATE).step == step + 1
        assert not (folder / WEIGHTS).exists()
    monkeypatch.undo()
    assert train(card, content, folder, fabric=fabric).read_bytes() == whole
    assert steps_logged(folder) == list(range(card.train.iterations))
    assert not (folder / STATE).exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_crashed_run_repeats_steps_since_the_checkpoint_to_equal_bytes(
    tmp_path, fabric, monkeypatch
):
    card = tiny_card("ct", "modes1d", "train.checkpoint_every=5")
    data = find_dataset("modes1d")
    whole = train(card, data, tmp_path / "whole", fabric=fabric).read_bytes()
    at_step(monkeypatch, 11, crash)
    with pytest.raises(RuntimeError, match="power"):
        train(card, data, tmp_path / "run", fabric=fabric)
    monkeypatch.undo()
    assert load_state(tmp_path / "run" / STATE).step == 10
    assert train(card, data, tmp_path / "run", fabric=fabric).read_bytes() == whole
    assert steps_logged(tmp_path / "run") == list(range(12))


def test_damaged_line_of_the_log_is_the_only_one_dropped(tmp_path, fabric, monkeypatch):
    card, data = tiny_card("edm", "modes1d"), find_dataset("modes1d")
    at_step(monkeypatch, 8, interrupt)
    with pytest.raises(Stopped):
        train(card, data, tmp_path, fabric=fabric)
    monkeypatch.undo()
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:4], "\0\0\0", *lines[5:]]) + "\n")
    train(card, data, tmp_path, fabric=fabric)
    assert steps_logged(tmp_path) == [0, 1, 2, 3, *range(5, 12)]


def test_finished_run_is_unchanged(trained):
    before = contents(trained)
    ran = bench("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", trained)
    assert (ran.code, contents(trained)) == (0, before)


def test_initial_weights_depend_only_on_the_seed():
    method = make_method(tiny_card("edm"), find_dataset("modes1d"))
    state = torch.get_rng_state()
    first = build_nets(method, 3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again, other = build_nets(method, 3).state_dict(), build_nets(method, 4).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("ramp", [True, False])
def test_ema_against_numpy(ramp):
    rng = np.random.default_rng(0)
    sequence = rng.standard_normal((40, 3, 2))
    net = nn.Linear(2, 3, bias=False).double()
    net.register_buffer("count", torch.tensor(0))
    ema = Ema(0.9, ramp, {k: torch.zeros_like(v) for k, v in net.state_dict().items()})
    expected = np.zeros((3, 2))
    for step, weights in enumerate(sequence):
        net.weight.data = torch.from_numpy(weights)
        net.count.fill_(step)
        ema.update(net, step)
        beta = min(0.9, (1 + step) / (10 + step)) if ramp else 0.9
        expected = beta * expected + (1 - beta) * weights
    # float64 rounding over 40 updates of values of order 1.
    np.testing.assert_allclose(ema.weights["weight"].numpy(), expected, rtol=0, atol=1e-14)
    assert int(ema.weights["count"]) == 39


def test_written_weights_are_the_average_not_the_last(tmp_path, fabric):
    data = find_dataset("modes1d")
    written = []
    for ema in ("0.0", "0.999"):
        card = tiny_card("edm", "modes1d", f"train.ema={ema}", "train.ema_ramp=false")
        folder = tmp_path / ema
        written.append(load_weights(train(card, data, folder, fabric=fabric)))
    start = build_nets(make_method(card, data), 0).state_dict()
    # 12 steps at 1 - 0.999 each move the average by 1.2 % of the way at most.
    moved = [sum(float((w[k] - start[k]).abs().sum()) for k in start) for w in written]
    assert moved[0] > 0
    assert 0 < moved[1] < 0.012 * 1.5 * moved[0]


def test_learning_rate_schedule():
    settings = TrainSettings(
        iterations=11, batch=1, lr=2.0, warmup=4, decay_from=6 / 11, final_lr=0.1
    )
    expected = [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.55, 1.1, 0.65, 0.2]
    rates = [learning_rate(settings, step) for step in range(11)]
    # float64 rounding.
    np.testing.assert_allclose(rates, expected, rtol=1e-14)
    constant = TrainSettings(iterations=5, batch=1, lr=3.0)
    assert {learning_rate(constant, step) for step in range(5)} == {3.0}
    # The preset of the toy data: decay from the first step to a tenth at the last.
    decaying = constant.model_copy(update={"decay_from": 0.0, "final_lr": 0.1})
    rates = [learning_rate(decaying, step) for step in range(5)]
    np.testing.assert_allclose(rates, np.linspace(3.0, 0.3, 5), rtol=1e-14)


class Poisoned(EDM):
    name = "poisoned"

    def loss(self, nets, batch, progress, rng):
        terms = super().loss(nets, batch, progress, rng)
        bad = torch.full_like(terms["denoise"], float("nan"))
        return {**terms, "second": bad if progress.step == 7 else torch.zeros_like(bad)}


class Steep(EDM):
    name = "steep"

    def loss(self, nets, batch, progress, rng):
        # A square root has infinite slope at 0: a finite loss with a gradient that is none.
        zero = sum((p * 0).sum() for p in nets.parameters()) if progress.step == 7 else None
        terms = super().loss(nets, batch, progress, rng)
        return terms if zero is None else {"denoise": terms["denoise"] + zero.sqrt()}


def test_nan_stops_with_step_and_term_and_the_last_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "poisoned", Poisoned)
    arguments = ["train", "-m", "poisoned", "-d", "modes1d", *sets(*TINY), "--results", tmp_path]
    ran = bench(*arguments, "--set", "train.checkpoint_every=5")
    folder = tmp_path / "default" / "runs" / "modes1d-poisoned-s0"
    assert ran.code == 1
    assert ran.err.startswith(
        f"Error: The loss term 'second' became nan at step 7; training stopped, the last good "
        f"checkpoint is {folder / STATE}."
    )
    assert load_state(folder / STATE).step == 5
    assert not (folder / WEIGHTS).exists()
    ran = bench(*arguments, "--name", "other")
    assert "no checkpoint yet" in ran.err


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "steep", Steep)
    arguments = ["train", "-m", "steep", "-d", "modes1d", *sets(*TINY), "--results", tmp_path]
    ran = bench(*arguments, "--set", "train.checkpoint_every=4")
    folder = tmp_path / "default" / "runs" / "modes1d-steep-s0"
    assert ran.code == 1
    assert "modes1d-steep-s0: the weights " in ran.err
    assert "are not finite after step 7" in ran.err
    state = load_state(folder / STATE)
    assert state.step == 4
    assert all(w.isfinite().all() for w in state.weights.values())


class Huge(EDM):
    name = "huge"

    def loss(self, nets, batch, progress, rng):
        terms = super().loss(nets, batch, progress, rng)
        if progress.step == 7:  # its gradient is finite, and the square of that is not
            one = next(p for p in nets.parameters())
            terms = {"denoise": terms["denoise"] + 1e25 * (one - one.detach()).sum()}
        return terms


def test_gradient_that_freezes_weights_stops_training(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "huge", Huge)
    arguments = ["train", "-m", "huge", "-d", "modes1d", *sets(*TINY), "--results", tmp_path]
    for every, when in ((4, "step 7"), (100, "the last step")):
        ran = bench(*arguments, "--name", when.replace(" ", ""), "--set",
                    f"train.checkpoint_every={every}")  # fmt: skip
        assert ran.code == 1
        assert "the moments of the optimiser 0/exp_avg_sq are not finite after " + when in ran.err


def test_existing_run_with_other_settings_is_refused_and_kept(trained):
    before = contents(trained)
    changed = sets(*TINY, "train.lr=0.5", "net.width=16", "sigma_data=1")
    ran = bench("train", "-m", "edm", "-d", "modes1d", *changed, "--results", trained)
    assert ran.code == 1
    for part in (
        "Run 'modes1d-edm-s0' exists with other settings (",
        "train.lr is 0.002 there, 0.5 here",
        "config.net.width is 8 there, 16 here",
        "config.sigma_data is 2.01 there, 1.0 here",
        "use another --name",
    ):
        assert part in ran.err
    assert ran.err.count(" there, ") == 3
    assert contents(trained) == before


def test_impossible_settings_are_refused_before_anything_is_written(tmp_path):
    ran = bench(
        "train", "-m", "edm", *sets(*TINY_IMAGES, "net.channels=30"), "--results", tmp_path / "r"
    )
    assert ran.code == 2
    assert ran.err.startswith("Error: edm cannot be built: 30 channels do not divide into 7")
    assert not (tmp_path / "r").exists()


def test_igct_starts_as_its_initial_denoiser(fabric, tmp_path):
    data = find_dataset("digits")
    source_card, card = tiny_card("edm", "digits"), tiny_card("igct", "digits")
    source = load_weights(train(source_card, data, tmp_path, fabric=fabric))
    edm, igct = make_method(source_card, data), make_method(card, data)
    denoiser, pair = edm.build(), build_nets(igct, 0)
    load_into(denoiser, source, "edm")
    noiser = {k: v.clone() for k, v in pair.enc.state_dict().items()}
    load_into(pair, pair.state_dict() | igct.initial_weights(source), "edm")

    assert not pair.dec.map_w_embed.weight.any()
    for name, value in denoiser.model.state_dict().items():
        assert torch.equal(pair.dec.state_dict()[name], value)
    for name, value in pair.enc.state_dict().items():
        assert torch.equal(value, noiser[name])
    x = torch.randn(5, 1, 8, 8)
    sigma, labels = torch.tensor([0.01, 0.5, 1, 10, 80]), torch.eye(10)[:5]
    w_embed = torch.randn(5, card.config["guidance_dim"])
    with torch.no_grad():
        guided = pair.denoise(x, sigma, labels, w_embed, form="train")
        # The same weights in the same operations, with a term of exact zeros.
        assert torch.equal(guided, denoiser(x, sigma, labels))


@pytest.fixture
def quick_edm(monkeypatch):
    """EDM's own preset for digits with as many steps as a test can afford."""
    preset = EDM.presets["digits"]
    short = preset.train.model_copy(update={"iterations": 3, "batch": 4})
    monkeypatch.setitem(EDM.presets, "digits", preset.model_copy(update={"train": short}))


def test_prerequisite_is_trained_with_a_network_that_fits(tmp_path, quick_edm):
    arguments = ["train", "-m", "ct", *sets(*TINY_IMAGES), "--results", tmp_path]
    ran = bench(*arguments)
    assert ran.code == 0, ran.err
    assert "ct on digits starts from the weights of digits-edm-s0, which is trained first" in (
        ran.out
    )
    runs = tmp_path / "default" / "runs"
    edm, ct = read_card(runs / "digits-edm-s0"), read_card(runs / "digits-ct-s0")
    assert (edm.train.iterations, ct.train.iterations) == (3, 2)
    assert edm.config["net"] == ct.config["net"]
    assert ct.init_run == "digits-edm-s0"
    before = contents(tmp_path)
    assert bench(*arguments).code == 0
    assert contents(tmp_path) == before


def test_trained_prerequisite_is_used_unchanged(tmp_path, quick_edm):
    methods = ("-m", "edm", "-m", "ct")
    ran = bench("train", *methods, *sets(*TINY_IMAGES), "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert "trained first" not in ran.out
    runs = tmp_path / "default" / "runs"
    assert read_card(runs / "digits-edm-s0").train.iterations == 2
    assert read_card(runs / "digits-ct-s0").init_run == "digits-edm-s0"


def test_init_from_a_run_a_folder_a_file_or_nothing(trained, tmp_path):
    runs = trained / "default" / "runs"
    file = tmp_path / "start.safetensors"
    save_weights(file, load_weights(runs / "modes1d-edm-s0" / WEIGHTS))
    cards = []
    for k, source in enumerate(("modes1d-edm-s0", runs / "modes1d-edm-s0", file, "none")):
        ran = bench(
            "train", "-m", "ct", "-d", "modes1d", *sets(*TINY), "--init-from", source,
            "--name", f"ct{k}", "--results", trained,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        cards.append(read_card(runs / f"ct{k}"))
    assert len({card.init_checkpoint for card in cards[:3]}) == 1
    weights = [(runs / f"ct{k}" / WEIGHTS).read_bytes() for k in range(4)]
    assert weights[0] == weights[1] == weights[2] != weights[3]
    assert (cards[0].init_run, cards[2].init_run) == ("modes1d-edm-s0", "start.safetensors")
    assert (cards[3].init_run, cards[3].init_checkpoint) == ("", "")


def test_unknown_init_from_lists_the_runs(trained):
    def attempt(source, *pairs):
        return bench(
            "train", "-m", "ct", "-d", "modes1d", *sets(*TINY, *pairs), "--init-from", source,
            "--name", "new", "--results", trained,
        )  # fmt: skip

    ran = attempt("nothing")
    assert ran.code == 2
    assert "is no run of this experiment (it has: modes1d-ct-s0, modes1d-edm-s0" in ran.err
    ran = attempt("modes1d-edm-s0", "net.width=16")
    assert ran.code == 1
    assert "The weights in run modes1d-edm-s0 do not fit the network: misshapen" in ran.err
    assert not (trained / "default" / "runs" / "new").exists()


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("edm", {"denoise"}),
        ("ct", {"consistency"}),
        # Not the noiser's own loss: it starts near the identity, which agrees with itself, and has
        # to leave it for the round trip.
        ("igct", {"guided", "reconstruction"}),
    ],
)
def test_training_lowers_the_loss(method, terms, tmp_path, fabric):
    pairs = ("train.iterations=300", "train.batch=64", "net.width=32", "train.lr=0.01")
    card = tiny_card(method, "modes1d", *pairs)
    data = find_dataset("modes1d")
    made = make_method(card, data)
    before, after = build_nets(made, card.seed), build_nets(made, card.seed)
    load_into(after, load_weights(train(card, data, tmp_path, fabric=fabric)), "run")

    def losses(nets):
        # The same large batch, draws and stage for both, so that nothing but the weights differs.
        rng = BatchRNG(0, 4000, 0, 4000)
        batch = draw_batch(data.train, made, rng, torch.device("cpu"))
        with torch.no_grad():
            terms = made.loss(nets, batch, Progress(0, 10), rng)
        return {name: float(term.mean()) for name, term in terms.items()}

    first, last = losses(before), losses(after)
    assert terms <= first.keys() == last.keys()
    assert all(last[name] < 0.8 * first[name] for name in terms)


@pytest.mark.parametrize(
    ("processes", "torchrun"), [(2, False), pytest.param(4, True, marks=pytest.mark.long)]
)
def test_several_processes_train_the_same_as_one(tmp_path, processes, torchrun):
    settings = ["train", "-m", "igct", "-d", "modes1d", *sets(*TINY)]
    assert bench(*settings, "--results", tmp_path / "one").code == 0
    own = [*settings, "--results", str(tmp_path / "two"), "--device", "cpu"]
    out = train_together(own, processes, torchrun)
    assert out.count("Trained runs are in") == 1
    assert out.count("modes1d-igct-s0: 12/12") == 1
    folders = [tmp_path / name / "default" / "runs" / "modes1d-igct-s0" for name in ("one", "two")]
    assert contents(folders[0]).keys() == contents(folders[1]).keys()
    assert steps_logged(folders[1]) == list(range(12))
    one, two = (load_weights(folder / WEIGHTS) for folder in folders)
    for name in one:
        # The same draws, summed in halves: float32 rounding of gradients, which RAdam's division
        # by their size may carry to a small part of 12 steps of lr 2e-3.
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("method", "data"), [("igct", "modes1d"), ("edm", "digits")])
def test_mixed_precision_trains_float32_weights_close_to_the_others(method, data, tmp_path):
    pairs = sets(*(TINY_IMAGES if data == "digits" else TINY))
    found = []
    for precision in ("32-true", "bf16-mixed"):
        ran = bench(
            "train", "-m", method, "-d", data, *pairs, "--init-from", "none",
            "--precision", precision, "--results", tmp_path / precision,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        folder = tmp_path / precision / "default" / "runs" / f"{data}-{method}-s0"
        found.append(load_weights(folder / WEIGHTS))
    full, mixed = found
    assert all(w.dtype == torch.float32 for w in mixed.values())
    assert any(not torch.equal(full[k], mixed[k]) for k in full)
    steps = 12 if data == "modes1d" else 2
    for name in full:
        # Each step moves a weight by about the learning rate, of which bfloat16's 8 bits may turn
        # the sign where a gradient is next to nothing.
        torch.testing.assert_close(mixed[name], full[name], rtol=0, atol=2 * steps * 2e-3)


def test_batch_that_cannot_be_divided_among_processes_is_refused(fabric):
    class Three:
        world_size, global_rank = 3, 0

    with pytest.raises(UserError, match=r"8 cannot be divided equally among 3 .* train\.batch=9"):
        training._rows(8, Three())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize(
    ("starts", "steps"),
    [(start_slow_training, 150), pytest.param(new_interpreter, 1500, marks=pytest.mark.long)],
    ids=["forked", "new"],
)
def test_signal_stops_with_a_checkpoint_and_the_same_command_resumes(
    tmp_path, number, starts, steps
):
    settings = sets(*TINY, f"train.iterations={steps}")
    command = ["train", "-m", "edm", "-d", "modes1d", *settings, "--results", str(tmp_path)]
    process = starts(*command)
    folder = tmp_path / "default" / "runs" / "modes1d-edm-s0"
    log = folder / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    step = load_state(folder / STATE).step
    assert (process.returncode, err) == (
        130,
        f"Stopped modes1d-edm-s0 at step {step} of {steps}; its checkpoint is written. "
        "Run the same command to continue.\n",
    )
    assert steps_logged(folder) == list(range(step))
    ran = bench(*command)
    assert ran.code == 0, ran.err
    assert steps_logged(folder) == list(range(steps))
    assert (folder / WEIGHTS).exists()


def test_mistyped_setting_is_refused_before_a_prerequisite_is_trained(tmp_path):
    ran = bench("train", "-m", "igct", "--set", "train.iteration=5", "--results", tmp_path)
    assert ran.code == 2
    assert "Did you mean 'train.iterations'?" in ran.err
    assert not list(tmp_path.rglob("*.safetensors"))
