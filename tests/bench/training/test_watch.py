import json
import math

import pytest

from bench.data.find import find_dataset
from bench.system.errors import UserError
from bench.training.card import WEIGHTS
from bench.training.checkpoint import STATE, load_state
from bench.training.loop import train
from bench.training.watch import BLOCK, FACTOR, FIRST, STILL, WINDOW, Unstable, Watch, parse_on_nan
from methods import METHODS
from methods.edm import EDM
from tests.bench.helpers import tiny_card


def noisy(step, level=1.0):
    return level * (1.0 + 0.3 * math.sin(12.9898 * step))


def run(watch, losses, start=0):
    """The step at which the watch raises, None if it does not."""
    for step, loss in enumerate(losses, start):
        try:
            watch.add(step, {"a": 0.75 * loss, "b": 0.25 * loss})
        except Unstable as error:
            return step, error.what
    return None


def test_explosion_is_found_at_the_end_of_its_block(tmp_path):
    losses = [noisy(k) for k in range(400)]
    losses += [noisy(k, 3 * FACTOR) for k in range(400, 500)]
    step, what = run(Watch(tmp_path), losses)
    assert step == 400 + BLOCK - 1
    assert "The loss exploded to " in what
    assert f"in the {BLOCK} steps up to step 409, where " in what


def test_rise_below_the_factor_is_no_explosion(tmp_path):
    losses = [noisy(k) for k in range(400)] + [noisy(k, 0.7 * FACTOR) for k in range(400, 1200)]
    assert run(Watch(tmp_path), losses) is None


def test_first_steps_are_never_an_explosion(tmp_path):
    # A fresh network's loss may leave zero by any factor.
    losses = [noisy(k, 1e-6 if k < 50 else 1.0) for k in range(FIRST)]
    assert run(Watch(tmp_path), losses) is None


def test_stages_whose_weights_jump_by_ten_and_a_hundred_are_no_explosions(tmp_path):
    levels = [1.0, 10.0, 0.1, 10.0, 0.001, 0.1]
    losses = [noisy(k, level) for level in levels for k in range(WINDOW * BLOCK)]
    assert run(Watch(tmp_path), losses) is None


def test_term_in_one_of_ten_steps_is_no_explosion(tmp_path):
    watch = Watch(tmp_path)
    for step in range(1000):
        watch.add(step, {"often": noisy(step)} | ({"seldom": 500.0} if step % 10 == 0 else {}))


def test_constant_loss_is_found(tmp_path):
    losses = [noisy(k) for k in range(30)] + [0.25] * 500
    step, what = run(Watch(tmp_path), losses)
    assert step == 30 + STILL
    assert f"did not change in any bit for {STILL} steps up to step {step}" in what
    nearly = [0.25 * (1 + 2**-52 * (k % 2)) for k in range(500)]
    assert run(Watch(tmp_path), nearly) is None
    almost = [0.25 if k % STILL else 0.5 for k in range(500)]
    assert run(Watch(tmp_path), almost) is None


@pytest.mark.parametrize("stop", [3, 397, 400, 405, 1234])
def test_watch_recalls_the_log_as_if_never_stopped(tmp_path, stop):
    losses = [noisy(k, 1 + k / 100) for k in range(1400)]
    losses += [noisy(k, 14 * FACTOR) for k in range(1400, 1420)]
    unbroken = run(Watch(tmp_path), losses)
    log = tmp_path / "log.jsonl"
    records = [{"step": k, "terms": {"a": 0.75 * x, "b": 0.25 * x}} for k, x in enumerate(losses)]
    log.write_text("".join(json.dumps(r) + "\n" for r in records) + '{"step": 2, "te')
    resumed = Watch(tmp_path)
    resumed.recall(log, stop)
    # To the last digit: the two medians are compared in the sentence.
    assert run(resumed, losses[stop:], stop) == unbroken
    assert unbroken[0] == 1409


def test_damaged_lines_of_a_log_are_skipped(tmp_path):
    losses = [noisy(k, 1.0) for k in range(600)] + [noisy(k, 2 * FACTOR) for k in range(600, 620)]
    records = [json.dumps({"step": k, "terms": {"a": x}}) for k, x in enumerate(losses)]
    foreign = (
        '{"step": 3, "terms": {"a": [1]}}', '{"step": 3, "terms": {"a": NaN}}',
        '{"step": [3], "terms": {"a": 1}}', '{"step": 3, "terms": {"a": 1%s}}' % ("0" * 400),
        '{"step": 3, "terms": 5}', '{"step": 3}', "[" * 5000, "\xff", "",
    )  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_bytes("\n".join([*records[:300], *foreign, *records[300:400]]).encode("latin-1"))
    watch = Watch(tmp_path)
    watch.recall(log, 400)
    assert run(watch, losses[400:], 400) == run(Watch(tmp_path), losses)


def test_constant_loss_before_a_stop_is_found_at_the_same_step(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": k, "terms": {"a": 0.75, "b": 0.25}}) + "\n" for k in range(60)]
    log.write_text("".join(lines))
    watch = Watch(tmp_path)
    watch.recall(log, 60)
    found = run(watch, [1.0] * 240, 60)
    assert found[0] == STILL


def test_usual_loss_is_unknown_without_a_log(tmp_path):
    watch = Watch(tmp_path)
    watch.recall(tmp_path / "none.jsonl", 500)
    losses = [noisy(k, 1e-9 if k < 520 else 1.0) for k in range(500, 600)]
    assert run(watch, losses, 500) is None


def test_on_nan_lists_its_choices():
    assert (parse_on_nan("stop"), parse_on_nan("rollback")) == ("stop", "rollback")
    with pytest.raises(UserError, match=r"--on-nan 'rolback'. Did you mean 'rollback'\?"):
        parse_on_nan("rolback")


class Exploding(EDM):
    name = "exploding"

    def loss(self, nets, batch, progress, rng):
        terms = super().loss(nets, batch, progress, rng)
        factor = 1e5 if progress.step >= 230 else 1.0
        return {k: v + (factor - 1) * v.detach() for k, v in terms.items()}


class Dead(EDM):
    name = "dead"

    def loss(self, nets, batch, progress, rng):
        terms = super().loss(nets, batch, progress, rng)
        return {k: 0.0 * v + 0.5 for k, v in terms.items()}


@pytest.mark.parametrize(
    ("method", "said", "last"),
    [
        (Exploding, r"The loss exploded to .* in the 10 steps up to step 239, where ", 200),
        (Dead, f"The loss did not change in any bit for {STILL} steps up to step {STILL},", 100),
    ],
)
def test_exploding_or_constant_loss_stops_with_the_last_good_checkpoint(
    tmp_path, fabric, monkeypatch, method, said, last
):
    monkeypatch.setitem(METHODS, method.name, method)
    card = tiny_card(method.name, "modes1d", "train.iterations=400", "train.checkpoint_every=50")
    with pytest.raises(UserError, match=said) as raised:
        train(card, find_dataset("modes1d"), tmp_path, fabric=fabric)
    assert f"the last good checkpoint is {tmp_path / STATE}" in str(raised.value)
    assert load_state(tmp_path / STATE).step == last
    assert not (tmp_path / WEIGHTS).exists()
