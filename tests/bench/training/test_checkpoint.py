import pickle

import pytest
import torch
from torch import nn

from bench.system.errors import UserError
from bench.training.checkpoint import (
    TrainingState,
    load_into,
    load_optimizer,
    load_state,
    load_weights,
    optimizer_tensors,
    save_state,
    save_weights,
)

WEIGHTS = {"b.weight": torch.randn(3, 4), "a": torch.arange(5), "half": torch.ones(2).bfloat16()}
STATE = TrainingState(
    step=7,
    weights={"w": torch.randn(3, 4)},
    ema={"w": torch.randn(3, 4)},
    optimizer={"0/step": torch.tensor(7.0), "0/exp_avg": torch.randn(3, 4)},
)


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


def test_weights_round_trip_and_equal_weights_give_equal_bytes(tmp_path):
    save_weights(tmp_path / "a.safetensors", WEIGHTS)
    save_weights(tmp_path / "b.safetensors", dict(reversed(WEIGHTS.items())))
    assert same(load_weights(tmp_path / "a.safetensors"), WEIGHTS)
    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()


def test_state_round_trips(tmp_path):
    save_state(tmp_path / "s.safetensors", STATE)
    back = load_state(tmp_path / "s.safetensors")
    assert back.step == 7
    for part in ("weights", "ema", "optimizer"):
        assert same(getattr(back, part), getattr(STATE, part))


def test_optimizer_state_round_trips_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        return net, torch.optim.RAdam(net.parameters(), lr=0.1)

    def step(net, optimizer, k):
        optimizer.zero_grad()
        net(torch.full((1, 3), float(k))).square().sum().backward()
        optimizer.step()

    net, optimizer = make()
    for k in range(8):  # RAdam changes its rule after the fifth step
        step(net, optimizer, k)
    other, restored = make()
    other.load_state_dict(net.state_dict())
    state = TrainingState(8, {}, {}, optimizer_tensors(optimizer))
    save_state(tmp_path / "s.safetensors", state)
    load_optimizer(restored, load_state(tmp_path / "s.safetensors").optimizer)
    for k in range(3):
        step(net, optimizer, k)
        step(other, restored, k)
    assert same(net.state_dict(), other.state_dict())


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 40, 0.5, -1])
@pytest.mark.parametrize("what", ["weights", "state"])
def test_truncated_file_is_named(tmp_path, kept, what):
    path = tmp_path / "file.safetensors"
    if what == "weights":
        save_weights(path, WEIGHTS)
    else:
        save_state(path, STATE)
    whole = path.read_bytes()
    end = int(len(whole) * kept) if isinstance(kept, float) else kept
    path.write_bytes(whole[:end])
    with pytest.raises(UserError) as raised:
        load_weights(path) if what == "weights" else load_state(path)
    with pytest.raises(UserError, match="cut short or damaged"):
        load_weights(path)
    assert str(raised.value).startswith(f"Checkpoint {path} is cut short or damaged (")
    assert str(raised.value).endswith("the same bench train or bench import command again.")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize("load", [load_weights, load_state])
@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_pickle_is_refused_without_being_executed(tmp_path, load, write):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        write(Bomb(), file)
    with pytest.raises(UserError, match="cut short or damaged"):
        load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint .*none\.safetensors"):
        load_weights(tmp_path / "none.safetensors")


def test_state_with_unknown_parts_or_without_a_step_is_damaged(tmp_path):
    path = tmp_path / "s.safetensors"
    save_weights(path, {"weights/w": torch.ones(1)})
    with pytest.raises(UserError, match="damaged"):
        load_state(path)
    save_state(path, TrainingState(1, {}, {}, {}))
    text = path.read_bytes().replace(b"step", b"stop")
    path.write_bytes(text)
    with pytest.raises(UserError, match="damaged"):
        load_state(path)


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    wrong = {
        "0.weight": torch.zeros(2, 4),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(1, 2),
        "old": torch.zeros(1),
    }
    with pytest.raises(UserError) as raised:
        load_into(net, wrong, "run x")
    assert str(raised.value) == (
        "The weights in run x do not fit the network: missing (1): 1.bias; left over (1): old; "
        "misshapen (1): 0.weight (2, 4) for (2, 3)."
    )
    assert same(net.state_dict(), before)


def test_long_lists_are_shortened():
    many = {f"extra{k}": torch.zeros(1) for k in range(9)}
    with pytest.raises(UserError, match=r"left over \(9\): extra0, extra1, extra2, extra3 \.\.\."):
        load_into(nn.Module(), many, "run x")
