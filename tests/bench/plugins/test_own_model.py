"""A function as a model, through the commands and in Python."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bench as library
from bench.data.find import find_dataset
from bench.plugins.conformance import MethodConformance
from bench.sweep.generate import generate
from methods import METHODS, Guidance, model
from methods.rules import RULES
from tests.bench.helpers import bench, rows_of

EXACT = """
    import torch
    from safetensors.torch import load_file
    from methods import model

    STD = load_file(__file__.replace("mine.py", "std.safetensors"))["std"]

    def shrunk(x, sigma, labels, std):
        means = x.new_tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
        variance = std**2 + sigma[:, None] ** 2
        some = labels.sum(1, keepdim=True) > 0
        logits = -(x[:, None] - means).square().sum(-1) / (2 * variance)
        logits = logits + torch.where(some, labels.clamp(min=0), 1.0).log()
        pulled = means + (std**2 / variance)[:, :, None] * (x[:, None] - means)
        return (logits.softmax(1)[:, :, None] * pulled).sum(1)

    def blurred(x, sigma, labels):
        return shrunk(x, sigma, labels, 2 * STD)

    @model(shape=(2,), classes=4, null=True, weak=blurred, weak_cost=0.5,
           weights=["std.safetensors"])
    def denoise(x, sigma, labels):
        "The exact denoiser of modes2d."
        return shrunk(x, sigma, labels, STD)
"""
ON = ("-d", "modes2d", "-n", "40", "--metric", "w1")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The file of a model whose weights are the standard deviation of modes2d."""
    monkeypatch.chdir(tmp_path)
    return written(tmp_path, EXACT, 0.2)


def written(folder, text, std):
    save_file({"std": torch.tensor(std)}, folder / "std.safetensors")
    file = folder / "mine.py"
    file.write_text(textwrap.dedent(text))
    return file


def swept(file, *more):
    ran = bench("sweep", "--model", f"{file}:denoise", *ON, *more)
    assert ran.code == 0, ran.err
    return ran.out


def values(method):
    return {
        (r.rule, r.guidance): (r.nfe, r.nfe_weighted, [v.value for v in r.values])
        for r in rows_of(Path("results"), method)
        if r.status == "ok"
    }


def test_function_of_the_exact_denoiser_gives_the_rows_of_the_oracle(mine):
    rules = ("--rule", "cfg,interval,apg,autoguidance,cads", "-g", "1,3", "--sampler", "euler")
    swept(mine, *rules, "-m", "oracle")
    own, oracle = values("mine.denoise"), values("oracle")
    assert own.keys() == oracle.keys()
    assert len(own) == 6
    for key, (nfe, weighted, found) in oracle.items():
        assert own[key][0] == nfe
        # The function works in float32, the oracle in float64.
        assert own[key][2] == pytest.approx(found, rel=1e-4)
        assert own[key][1] == (0.75 * weighted if key[0] == "autoguidance" else weighted)


@pytest.mark.long
def test_every_rule_samples_or_says_what_is_lacking(mine):
    every = [name for name in RULES if name != "cfg"]
    out = swept(mine, "--rule", ",".join(every), "-g", "3", "-n", "4", "--steps", "4")
    done = {rule for rule, _ in values("mine.denoise")}
    skipped = {
        r.rule: r.reason for r in rows_of(Path("results"), "mine.denoise") if r.status != "ok"
    }
    assert done | set(skipped) == set(every)
    for rule, reason in skipped.items():
        assert (
            reason
            in (
                "a function shows no attention of its network",
                "a function shows no blocks of its network",
            )
            or "image" in reason
        ), (rule, reason)
    assert "0 failed" in out


def test_rules_say_which_branch_a_declaration_lacks(mine):
    text = mine.read_text().replace("null=True, weak=blurred, weak_cost=0.5", "null=False")
    mine.write_text(text)
    out = swept(mine, "--rule", "cfg,autoguidance,pag,skip-layer,icg", "-g", "1,3")
    for count, reason in (
        (2, "mine.denoise declares no null label (null=True)"),  # that of cfg and skip-layer
        (1, "mine.denoise declares no weaker model (weak=)"),
        (1, "a function shows no attention of its network"),
    ):
        assert f"{count} skipped: {reason}." in out
    assert values("mine.denoise").keys() == {("", 1.0), ("icg", 3.0)}


def test_same_file_is_found_again_and_a_changed_one_gives_other_rows(mine, tmp_path):
    kept, new = "0 cells computed, 2 kept", "2 cells computed, 0 kept"
    assert new in swept(mine, "-g", "1,3")
    assert kept in swept(mine, "-g", "1,3")
    written(tmp_path, EXACT.replace("exact denoiser", "denoiser"), 0.2)  # its docstring
    assert kept in swept(mine, "-g", "1,3")
    written(tmp_path, EXACT, 0.3)  # the weights alone
    assert new in swept(mine, "-g", "1,3")
    written(tmp_path, EXACT.replace("2 * STD", "3 * STD"), 0.2)  # the code alone
    assert new in swept(mine, "-g", "1,3")
    written(tmp_path, EXACT, 0.2)
    assert kept in swept(mine, "-g", "1,3")
    rows = rows_of(Path("results"), "mine.denoise")
    assert len({(r.code, r.checkpoint) for r in rows}) == 3
    assert len({r.checkpoint for r in rows}) == 2


def test_neighbour_of_the_file_can_be_imported(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "near.py").write_text("SCALE = 2\n")
    mine.write_text(f"from near import SCALE\n{mine.read_text()}")
    try:
        assert "1 cell computed" in swept(mine, "-g", "1")
    finally:
        del sys.modules["near"]


def test_sample_verify_and_report_know_the_model(mine, empty_figures):
    swept(mine, "-g", "1,3")
    ran = bench("sample", "--model", f"{mine}:denoise", "-d", "modes2d", "-g", "3", "-n", "8")
    assert ran.code == 0, ran.err
    assert "modes2d-mine.denoise-s0 at guidance 3, 70 NFE each" in ran.out
    again = bench("verify", "--plugin", mine)
    assert again.code == 0
    assert "3 equal bit for bit" in again.out
    assert bench("report").code == 0
    assert "mine.denoise" in Path("results/default/report/tables-modes2d.md").read_text()


@pytest.mark.long
def test_workers_load_the_model_by_themselves(mine):
    words = ["sweep", "--model", f"{mine}:denoise", *ON, "-g", "1..4", "--workers", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "bench.cli", *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "4 cells computed, 0 kept, 0 skipped with a reason, 0 failed" in ran.stdout
    assert "stopped" not in ran.stderr
    assert "0 cells computed, 4 kept" in swept(mine, "-g", "1..4")


def test_function_is_swept_in_python(mine, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    from mine import denoise

    try:
        place = library.sweep(denoise, dataset="modes2d", guidance=[1, 3], samples=40, metric="w1")
        assert "0 cells computed, 2 kept" in swept(mine, "-g", "1,3")
    finally:
        del sys.modules["mine"]
    frame = library.load(place.name, results=place.results).frame
    assert set(frame[frame.method == "mine.denoise"].rule) == {"cfg"}


def test_unguarded_script_is_told_where_to_put_its_call(tmp_path):
    call = "bench.sweep(denoise, dataset='modes2d')"
    text = (
        EXACT.split("STD =")[0]
        + f"""
    import bench
    @model(shape=(2,), classes=4, null=True)
    def denoise(x, sigma, labels):
        return 0 * x
    {call}
    """
    )
    file = written(tmp_path, text, 0.2)
    ran = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "put the call below if __name__ == '__main__':" in ran.stderr.splitlines()[-1]


def wrong(body, declared="shape=(2,), classes=4, null=True"):
    return f"""
    import torch
    from methods import from_eps, model

    @model({declared})
    def denoise(x, sigma, labels):
        {body}
    """


FITS = "shape=(2,), classes=4, null=True"


@pytest.mark.parametrize(
    ("body", "declared", "message"),
    [
        ("return x[:, :1]", FITS, "it returns (1, 1) for x (1, 2): return the denoised x"),
        ("return x.sum()", FITS, "it returns () for x (1, 2): return the denoised x"),
        ("return x.long()", FITS, "it returns torch.int64: return a tensor of float32"),
        ("return None", FITS, "it returns NoneType: return a tensor of float32"),
        ("return x.log() * 0", FITS, "it returns NaN or infinity at sigma = 80"),
        ("return x @ x", FITS, "it fails at sigma = 80 (RuntimeError: "),
        ("return x / (1 + sigma)", FITS, "it mixes the rows of a batch: each has its own sigma, so "
         "reshape sigma (B,) to (B, 1) beside x (RuntimeError: "),
        ("return x / (1 + sigma[0])", FITS, "it mixes the rows of a batch: each has its own"),
        ("return x - x.mean(0)", FITS, "it mixes the rows of a batch"),
        ("return 0 * x", "shape=(2,), classes=3, null=True",
         "it declares 3 classes, and the data have 4"),
        ("return 0 * x", "shape=(1, 8, 8), classes=4, null=True",
         "it declares samples (1, 8, 8) without decode=, and the data have (2,)"),
        ("return 0 * x", "shape=(3,), classes=4, null=True, decode=lambda z: z",
         "its decode= gives (3,), and the data have (2,)"),
        ("return 0 * x", FITS + ", weak=lambda x, sigma, labels: x[0]",
         "its weaker model returns (2,) for x (1, 2): return the denoised x"),
        ("return from_eps(lambda x, t, c: x, alpha_bar=[.9, .5])(x, sigma, labels)", FITS,
         "it fails at sigma = 80 (ValueError: alpha_bar has levels from 0.3333 to 1, and sigma is "
         "80: declare sigma_min and sigma_max within them)"),
    ],
)  # fmt: skip
def test_wrong_function_is_one_sentence_before_anything_is_sampled(
    body, declared, message, tmp_path
):
    file = written(tmp_path, wrong(body, declared), 0.2)
    ran = bench("sweep", "--model", f"{file}:denoise", *ON, "--results", tmp_path / "r")
    assert ran.code == 2
    assert ran.err.startswith(f"Error: mine.denoise cannot run on 'modes2d': {message}")
    assert len(ran.err.splitlines()) == 1
    assert not list((tmp_path / "r").rglob("*.json"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mine.py", "--model takes FILE.py:NAME, such as mymodel.py:denoise, got 'mine.py'."),
        ("none.py:denoise", "--model none.py:denoise: there is no file none.py."),
        ("mine.py:denoises", "Unknown function of mine.py 'denoises'. Did you mean 'denoise'?"),
        ("mine.py:shrunk", "shrunk in mine.py is no declared model: put @methods.model("),
    ],
)
def test_wrong_option_is_one_sentence(given, message, mine):
    ran = bench("sweep", "--model", given, *ON)
    assert ran.code == 2
    assert ran.err.startswith(f"Error: {message}")
    ran = bench("sample", "--model", given, "-d", "modes2d")
    assert ran.err.startswith(f"Error: {message}")


def test_options_that_do_not_go_together_are_refused(mine):
    needs = "--model needs the data set to compare with: --dataset NAME"
    for command in ("sweep", "sample"):
        assert needs in bench(command, "--model", f"{mine}:denoise").err
    given = ("--model", f"{mine}:denoise", "-d", "modes2d", "--run", "x")
    assert "drop it or --run" in bench("sweep", *given).err
    assert "use --launcher local or slurm" in bench("sweep", *given[:4], "--ray", "local").err
    assert "drop --run and --method" in bench("sample", *given).err


def test_missing_weights_are_named(mine, tmp_path):
    text = EXACT.replace('["std.saf', '["gone.saf')
    written(tmp_path, text, 0.2)
    ran = bench("sweep", "--model", f"{mine}:denoise", *ON)
    assert ran.code == 2
    assert f"the weights 'gone.safetensors' of denoise are not in {tmp_path} (line" in ran.err


def test_function_without_file_or_name_is_refused():
    def inner(x, sigma, labels):
        return x

    declare = model(shape=(2,), classes=4, null=True)
    with pytest.raises(TypeError, match="defines with def at its top"):
        declare(inner)
    namespace = {"__name__": "notebook"}
    exec("def denoise(x, sigma, labels): return x", namespace)
    with pytest.raises(TypeError, match="%%writefile"):
        declare(namespace["denoise"])


NET = torch.nn.Linear(1, 1)


def latent(x, sigma, labels):
    """One number per image, drawn towards the class."""
    value = labels.argmax(1)[:, None] * 0.1
    return value + (x - value) / (1 + sigma[:, None] ** 2)


def decode(z):
    return z.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)


def test_decoder_turns_latents_into_images():
    made = model(shape=(1,), classes=10, null=True, decode=decode, nets=[NET])(latent).method()
    data = find_dataset("digits")
    method = made(made.presets["digits"].config, data.spec)
    nets = method.build()
    assert list(nets) == [NET]
    assert not NET.training
    assert not any(p.requires_grad for p in NET.parameters())
    ((x, labels),) = generate(
        method, nets, Guidance(1.0), 30, 0, 10, batch=10, device=torch.device("cpu")
    )
    assert x.shape == (10, 1, 8, 8)
    # With unit variance at every level the state keeps the side of its noise.
    assert torch.equal(labels, torch.arange(10))
    assert (x == x[:, :, :1, :1]).all()


def test_function_without_gradient_is_named_by_rules_that_need_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, wrong("return (0.5 * x).detach()"), 0.2)
    ran = bench("sweep", "--model", f"{file}:denoise", *ON, "-g", "3", "--rule", "reg")
    assert "the rule needs the slope of the denoiser, whose output has none" in ran.out + ran.err


@model(shape=(2,), classes=4, null=True)
def gaussian(x, sigma, labels):
    """The denoiser of one Gaussian per class."""
    means = labels @ x.new_tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
    return means + (x - means) / (1 + sigma[:, None] ** 2)


class TestConformance(MethodConformance):
    method = gaussian.method()
    preset = "modes2d"

    @pytest.fixture(autouse=True)
    def _registered(self):
        METHODS[self.method.name] = self.method
