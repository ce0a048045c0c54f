import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from bench.data.convert import one_hot, to_model
from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.training.card import trained_runs
from bench.training.run import load_nets, open_run
from methods import IGCT, Guidance
from metrics.reconstruction import mse
from tests.bench.helpers import bench, contents


def picture(folder, name="a.png", size=(8, 8), mode="L", value=100):
    path = folder / name
    pixels = np.full((size[1], size[0], len(mode)) if len(mode) > 1 else size[::-1], value, "uint8")
    pixels[0] = 0
    Image.fromarray(pixels, mode=mode).save(path)
    return path


def run_of(results, method):
    place = Experiment(results, "default")
    (card,) = [c for c in trained_runs(place) if c.method == method]
    found = open_run(card, find_dataset("digits"), place)
    return found.method, load_nets(found, torch.device("cpu")), found


def test_invert_writes_latents_reconstructions_and_a_figure(digits, tmp_path):
    out = tmp_path / "out"
    ran = bench("invert", "-m", "igct", "-n", "5", "--out", out, "--results", digits)
    assert ran.code == 0, ran.err
    method, nets, found = run_of(digits, "igct")
    real = find_dataset("digits").reference
    x0, hot = to_model(real.samples[:5]), one_hot(real.labels[:5], 10)
    with torch.inference_mode():
        latents = method.invert(nets, x0, hot)
        back = method.edit(nets, latents, hot, Guidance(1.0))
    with safe_open(out / "latents.safetensors", framework="pt") as file:
        torch.testing.assert_close(file.get_tensor("latents"), latents)
        assert file.get_tensor("labels").tolist() == real.labels[:5].tolist()
        facts = json.loads(file.metadata()["about"])
    assert (facts["run"], facts["sigma_max"]) == ("digits-igct-s0", 80.0)
    assert facts["checkpoint"] == found.checkpoint
    names = facts["names"]
    assert names[0] == f"0000-{real.labels[0]}"
    for i, name in enumerate(names):
        source = np.asarray(Image.open(out / f"{name}-source.png"))
        np.testing.assert_array_equal(source, real.samples[i, 0].numpy())
        shown = np.asarray(Image.open(out / f"{name}-reconstruction.png")).astype(float)
        np.testing.assert_allclose(shown, (back[i, 0].numpy() + 1) * 127.5, atol=1)
    assert (out / "figure.png").is_file()
    assert len(contents(out)) == 2 + 2 * 5
    errors = mse(x0, back)
    assert f"{float(errors.mean()):.1f}"[:2] in ran.out
    assert "not measured: images of 8x8 are smaller than its 11x11 window" in ran.out
    assert "NFE 1 + 1 (inversion + reconstruction)" in ran.out


def test_invert_label_selects_images_of_the_reference_split(digits, tmp_path):
    ran = bench(
        "invert", "-m", "igct", "--class", "7", "-n", "3", "--out", tmp_path, "--results", digits
    )
    assert ran.code == 0, ran.err
    with safe_open(tmp_path / "latents.safetensors", framework="pt") as file:
        assert file.get_tensor("labels").tolist() == [7, 7, 7]
        names = json.loads(file.metadata()["about"])["names"]
    expected = (find_dataset("digits").reference.labels == 7).nonzero().ravel()[:3].tolist()
    assert names == [f"{i:04d}-7" for i in expected]


def test_edit_writes_every_class_and_scale_of_image_files(digits, tmp_path):
    files = [picture(tmp_path), picture(tmp_path, "b.jpg", mode="RGB")]
    out = tmp_path / "out"
    ran = bench(
        "edit", *files, "--source-class", "3", "--target-class", "5", "--target-class", "8",
        "-g", "1,7", "-m", "igct", "--out", out, "--results", digits,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    made = {path.name for path in out.iterdir()}
    assert made == {
        "latents.safetensors",
        *("figure-g1.png", "figure-g7.png"),
        *(f"{n}-{what}.png" for n in ("0000-a", "0001-b") for what in ("source", "reconstruction")),
        *(f"{n}-to-{k}-g{g}.png" for n in ("0000-a", "0001-b") for k in (5, 8) for g in (1, 7)),
    }
    method, nets, _ = run_of(digits, "igct")
    x0 = to_model(torch.from_numpy(np.asarray(Image.open(files[0])).copy())[None, None])
    with torch.inference_mode():
        latent = method.invert(nets, x0, one_hot(torch.tensor([3]), 10))
        edited = method.edit(nets, latent, one_hot(torch.tensor([8]), 10), Guidance(7.0))
    shown = np.asarray(Image.open(out / "0000-a-to-8-g7.png")).astype(float)
    np.testing.assert_allclose(shown, (edited[0, 0].numpy() + 1) * 127.5, atol=1)
    assert "8 edits of 2 images" in ran.out
    assert "NFE of an edit: 1 at g = 1, 1 at g = 7, after 1 to invert." in ran.out
    assert "together" in ran.out


def test_edit_all_means_every_other_class_of_reference_images(digits):
    ran = bench(
        "edit", "--source-class", "3", "--target-class", "all", "-n", "2", "-m", "igct",
        "--results", digits,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "18 edits of 2 images" in ran.out
    out = digits / "default" / "edited" / "digits-igct-s0"
    targets = {name.split("-to-")[1] for name in contents(out) if "-to-" in name}
    assert targets == {f"{k}-g1.png" for k in range(10) if k != 3}


def test_invert_and_edit_are_reproducible(digits, tmp_path):
    for out in ("one", "two"):
        ran = bench(
            "edit", "--source-class", "1", "--target-class", "2", "-n", "2", "-m", "edm",
            "--out", tmp_path / out, "--results", digits,
        )  # fmt: skip
        assert ran.code == 0, ran.err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invert"], "Several runs of "),
        (["invert", "-m", "ct"],
         "Run 'digits-ct-s0' cannot be used: ct maps no image to a latent; these methods do: "),
        (["invert", "--run", "digits-igct-s1"],
         "Unknown run 'digits-igct-s1'. Did you mean 'digits-igct-s0'? Available: "),
        (["invert", "--run", "digits-igct-s0", "-m", "edm"],
         "Run 'digits-igct-s0' has 'igct', not --method 'edm'."),
        (["invert", "-m", "igct", "--class", "x"],
         "Unknown class of digits for --class 'x'. Available: 0, 1, 2"),
        (["edit", "-m", "igct", "--source-class", "3", "--target-class", "10"],
         "Unknown class of digits for --target-class '10'."),
        (["edit", "-m", "igct", "--source-class", "3", "--target-class", "5", "-g", "16"],
         "Run 'digits-igct-s0' cannot be edited with: trained for guidance 1 to 15, not 16."),
    ],
)  # fmt: skip
def test_invalid_options_give_one_sentence(digits, arguments, message):
    before = contents(digits)
    ran = bench(*arguments, "--results", digits)
    assert ran.code == 2
    assert ran.err.startswith(f"Error: {message}")
    assert ran.err.count("\n") == 1
    assert contents(digits) == before


def test_unusable_image_files_are_named(digits, tmp_path):
    wide = picture(tmp_path, "wide.png", size=(9, 8))
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cut = picture(tmp_path, "cut.png")
    cut.write_bytes(cut.read_bytes()[:45])
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), dtype="uint16")).save(deep)
    cases = {
        wide: f"{wide} has 9x8 pixels; a model of digits takes 8x8: resize it first.",
        text: f"{text} is not an image that can be read (PNG, JPEG, WEBP, ",
        cut: f"{cut} is damaged or cut off (",
        deep: f"{deep} has pixels of mode 'I;16', which 8 bits a channel cannot hold",
        tmp_path / "none.png": f"Cannot read {tmp_path / 'none.png'}: No such file or directory.",
    }
    for file, message in cases.items():
        ran = bench(
            "invert", picture(tmp_path), file, "-m", "igct", "--class", "3",
            "--out", tmp_path / "out", "--results", digits,
        )  # fmt: skip
        assert ran.code == 2, file
        assert ran.err.startswith(f"Error: {message}")
        assert ran.err.count("\n") == 1
    ran = bench("invert", picture(tmp_path), "-m", "igct", "--results", digits)
    assert ran.err.startswith("Error: Name the class of the images with --class: 0, 1, 2")
    assert not (tmp_path / "out").exists()


def test_transparent_palette_is_converted_to_grey(digits, tmp_path):
    path = tmp_path / "palette.png"
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 200, 200] + [0] * 762)
    image.info["transparency"] = 1
    image.save(path)
    out = tmp_path / "out"
    ran = bench("invert", path, "-m", "igct", "--class", "0", "--out", out, "--results", digits)
    assert ran.code == 0, ran.err
    assert (np.asarray(Image.open(out / "0000-palette-source.png")) == 200).all()


def test_invert_refuses_vector_runs_and_experiments_without_runs(trained, tmp_path):
    ran = bench("invert", "-m", "igct", "--results", trained)
    assert ran.code == 2
    assert "Run 'modes1d-igct-s0' is of 'modes1d', which has vectors: only images" in ran.err
    ran = bench("invert", "--results", tmp_path / "none")
    assert ran.code == 1
    assert ran.err == (
        f"Error: There is no trained run in {tmp_path / 'none' / 'default' / 'runs'}. Train one: "
        f"bench train --method igct --results {tmp_path / 'none'}.\n"
    )


def test_diverged_edit_gives_one_sentence(digits, monkeypatch, tmp_path):
    def infinite(self, nets, latent, labels, guidance):
        return latent / 0.0

    monkeypatch.setattr(IGCT, "edit", infinite)
    ran = bench("invert", "-m", "igct", "-n", "2", "--out", tmp_path / "o", "--results", digits)
    assert (ran.code, ran.err) == (1, "Error: igct diverged: 2 of 2 edits are not finite.\n")
    assert not (tmp_path / "o").exists()
