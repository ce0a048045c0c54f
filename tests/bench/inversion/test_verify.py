"""`bench verify` computes rows of inversions again."""

import json

from bench.training.card import WEIGHTS
from bench.training.checkpoint import load_weights, save_weights
from tests.bench.helpers import bench


def verify(results, *more):
    return bench("verify", "--cells", "99", "--results", results, *more)


def row_at(results, method):
    for path in sorted((results / "default" / "inversions").glob(f"*-{method}-*/*.json")):
        row = json.loads(path.read_text())
        del row["content_sha256"]  # as in rows from before there were hashes
        if row["status"] == "ok":
            return path, row
    raise AssertionError(method)


def number(row, *way):
    """Change the number at the end of a way through a row by a percent, or 1."""
    *way, last = way
    for step in way:
        row = row[step]
    row[last] += 1 if isinstance(row[last], int) else 0.01 * max(1.0, abs(row[last]))


CHANGES = [
    (("scores", 0, "value"), "mse is"),
    (("scores", 2, "se"), "the error of ssim is"),
    (("exact",), "exact is"),
    (("edit_nfe",), "edit_nfe is"),
    (("latents", "mean"), "latents.mean is"),
    (("pairs", 5, "right"), "right is"),
    (("edits", "high"), "edits.high is"),
    (("real", "low"), "real.low is"),
]


def test_verify_finds_any_changed_number_of_an_inversion(inverted):
    ran = verify(inverted)
    assert ran.code == 0, ran.err
    rows = [*inverted.glob("default/cells/*/*.json"), *inverted.glob("default/inversions/*/*.json")]
    able = sum(json.loads(path.read_text())["status"] == "ok" for path in rows)
    assert f"Checked {able} of {len(rows)} rows: {able} equal bit for bit" in ran.out
    path, row = row_at(inverted, "igct")
    others = [p for p in rows if p != path]
    for other in others:
        other.unlink()
    for way, said in CHANGES:
        changed = json.loads(json.dumps(row))
        number(changed, *way)
        path.write_text(json.dumps(changed))
        ran = verify(inverted)
        assert ran.code == 1, way
        assert f"{path}: differs, " in ran.out
        assert said in ran.out, way
    path.write_text(json.dumps(row | {"scores": row["scores"][1:]}))
    assert "mse is None and gives" in verify(inverted).out


def test_verify_reports_stale_inversions(inverted):
    path, row = row_at(inverted, "igct")
    path.write_text(json.dumps(row | {"guidance": 2.0}))
    other, _ = row_at(inverted, "edm")
    weights = inverted / "default" / "runs" / other.parent.name / WEIGHTS
    content = load_weights(weights)
    name = sorted(content)[0]
    save_weights(weights, content | {name: content[name] * 1.5})
    ran = verify(inverted)
    assert ran.code == 0
    text = ran.out.replace("\n", "")
    assert f"{path}: stale, the code or the settings of 'igct', or its measures" in text
    assert f"{other}: stale, the weights of '{other.parent.name}' have changed since" in text


def test_verify_finds_a_changed_inversion_by_its_hash(inverted):
    path, row = row_at(inverted, "igct")
    text = path.read_text()
    path.write_text(text.replace(f'"exact": {row["exact"]}', f'"exact": {row["exact"] + 1}'))
    ran = bench("verify", "--cells", "1", "--results", inverted)
    assert ran.code == 1
    assert f"{path}: differs, it was changed since it was written" in ran.out.replace("\n", "")


def test_verify_finds_an_inversion_under_another_name(inverted):
    path, _ = row_at(inverted, "igct")
    path.rename(path.with_name("0" * 24 + ".json"))
    ran = verify(inverted, "--seed", "1")
    assert ran.code == 1
    assert "its name is that of another cell; it should be" in ran.out
