from __future__ import annotations

import pytest

from bench.plugins import catalogue
from bench.plugins.catalogue import known_lines, load, refuse_unknown, registered_lines
from bench.system.errors import UserError
from tests.bench.helpers import bench
from tests.bench.plugins.test_plugins import METHOD, write


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has loaded no plugins and an empty cache folder."""
    monkeypatch.setattr(catalogue, "LOADER", "not.loaded")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution with one method."""
    folder = tmp_path / "packages"
    folder.mkdir()
    write(folder, METHOD, "plug_catalogue.py")
    info = folder / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[guidance_bench.methods]\ntwin = plug_catalogue\n")
    monkeypatch.syspath_prepend(folder)
    return folder


def test_copy_has_what_is_registered():
    assert known_lines() is None
    assert load() == []
    assert known_lines() == registered_lines()


def test_copy_is_not_used_where_the_registry_is(monkeypatch):
    load()
    monkeypatch.setattr(catalogue, "LOADER", "bench.plugins.load")
    assert known_lines() is None


def test_copy_counts_until_an_installed_plugin_changes(package):
    load()
    known = known_lines()
    assert ("twin", "a second EDM", "(package plug)") in known["methods"]
    assert ("strip", "()") in known["data sets of presets"]
    source = package / "plug_catalogue.py"
    source.write_text(source.read_text().replace("a second EDM", "another"))
    assert known_lines() is None
    load()
    assert known_lines() is not None
    (package / "plug-1.0.dist-info" / "entry_points.txt").unlink()
    assert known_lines() is None


def test_copy_counts_until_a_source_file_is_added(tmp_path, monkeypatch):
    packages = catalogue._packages()
    monkeypatch.setattr(catalogue, "_packages", lambda: [*packages, tmp_path / "more"])
    load()
    assert known_lines() is not None
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "method.py").touch()
    assert known_lines() is None


def test_plugin_files_and_failing_packages_are_not_copied(package, tmp_path):
    load([write(tmp_path, METHOD)])
    assert known_lines() is None
    (package / "plug-1.0.dist-info" / "entry_points.txt").write_text(
        "[guidance_bench.methods]\ntwin = nowhere\n"
    )
    assert len(load()) == 1
    assert known_lines() is None


@pytest.mark.parametrize("text", ["", "[", "{}", '{"made_from": "", "files": [], "lines": {}}'])
def test_damaged_copy_does_not_count(text):
    load()
    catalogue._place().write_text(text)
    assert known_lines() is None


def test_without_a_place_for_the_copy_everything_works(tmp_path):
    (tmp_path / "cache").touch()
    assert load() == []
    assert known_lines() is None


@pytest.mark.parametrize(
    ("option", "name", "command"),
    [
        ("method", "edn", ("train", "-m", "edn")),
        ("rule", "apgg", ("sweep", "--rule", "apgg", "--dry-run")),
        ("metric", "kids", ("evaluate", "a", "-r", "b", "--metric", "kids")),
        ("metric", "fid", ("evaluate", "a", "-r", "b", "--metric", "fid")),
        ("dataset", "digitz", ("sweep", "-d", "digitz")),
    ],
)
def test_refusal_is_that_of_the_command_itself(option, name, command, monkeypatch):
    assert refuse_unknown({option: [name]}) is None  # there is no copy
    load()
    with pytest.raises(UserError) as refused:
        refuse_unknown({option: [name]})
    monkeypatch.undo()
    ran = bench(*command)
    assert (ran.code, ran.err) == (refused.value.code, f"Error: {refused.value}\n")


def test_known_names_are_not_refused():
    load()
    refuse_unknown(
        {
            "method": ["edm", "igct"],
            "rule": ["cfg,interval+apg", " apg"],
            "metric": ["fd"],
            "extractor": ["clip"],
            "dataset": ["digits", "cifar10"],
        }
    )
