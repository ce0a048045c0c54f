import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bench", "methods", "metrics")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A relative import would hide from this test which package it reaches.
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module.partition(".")[0])
    return found


def imports_below(package: str) -> dict[Path, set[str]]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return {path.relative_to(ROOT): imports_of(path) for path in files}


def requirements(lines: list[str]) -> set[str]:
    return {canonical(re.match(r"[A-Za-z0-9._-]+", line).group()) for line in lines}


def canonical(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(imported: set[str], optional: set[str]) -> set[str]:
    """The distributions that third-party packages come from; optional ones may be missing."""
    owners = metadata.packages_distributions()
    third_party = imported - set(sys.stdlib_module_names) - {*PACKAGES, "tests"}
    missing = third_party - owners.keys()
    assert missing <= optional, f"imported but not installed: {missing}"
    return missing | {canonical(o) for name in third_party - missing for o in owners[name]}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("methods", {"bench", "metrics"}), ("metrics", {"bench", "methods"})],
)
def test_lower_rooms_never_import_upper_ones_or_each_other(package, forbidden):
    guilty = {
        str(path): found & forbidden
        for path, found in imports_below(package).items()
        if found & forbidden
    }
    assert not guilty


# A room imports only rooms of a lower rank; report, a function of the rows, fewer than that.
RANK = {
    "cli": 7,
    "inversion": 6,
    "tuning": 6,
    "sweep": 5,
    "plugins": 5,
    "training": 4,
    "evaluation": 4,
    "report": 4,
    "experiment": 3,
    "data": 3,
    "system": 2,
}


def rooms_imported(path: Path) -> set[str]:
    """The rooms of bench that a file imports, its own left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "bench":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("bench."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bench.")}
    return found - {path.relative_to(ROOT / "bench").parts[0]}


def test_room_imports_only_rooms_below_it():
    upwards = []
    for room, rank in RANK.items():
        below = {name for name in RANK if RANK[name] < rank}
        allowed = {"experiment", "system"} if room == "report" else below
        files = sorted((ROOT / "bench" / room).rglob("*.py"))
        assert files, room
        upwards += [
            f"{path.relative_to(ROOT)} imports {', '.join(sorted(rooms_imported(path) - allowed))}"
            for path in files
            if rooms_imported(path) - allowed
        ]
    assert not upwards


def test_functions_outside_the_command_line_take_at_most_12_parameters():
    long = []
    for path in sorted((ROOT / "bench").rglob("*.py")):
        if path.is_relative_to(ROOT / "bench" / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
                if count > 12:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} takes {count}")
    assert not long


def test_bench_has_the_rooms_and_no_other_entries():
    entries = {path.name for path in (ROOT / "bench").iterdir() if path.name != "__pycache__"}
    assert entries == {*RANK, "__init__.py", "__main__.py", "api.py", "py.typed"}


def test_wheel_has_the_packages_and_the_published_numbers():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["packages"]) == sorted(PACKAGES)
    assert wheel["force-include"] == {"results/published.csv": "bench/published.csv"}
    assert (ROOT / "results" / "published.csv").is_file()
    for package in PACKAGES:
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
            assert (folder / "__init__.py").is_file() or folder == ROOT / package


def test_every_import_is_declared_and_every_declared_dependency_imported():
    imported = set().union(*(s for p in PACKAGES for s in imports_below(p).values()))
    optional = PROJECT["project"]["optional-dependencies"]
    tools = ("dev", "docs")
    extras = [line for extra, lines in optional.items() if extra not in tools for line in lines]
    declared = requirements([*extras, *PROJECT["project"]["dependencies"]])
    assert distributions(imported, requirements(extras)) == declared


def test_help_answers_without_the_heavy_packages():
    heavy = ("torch", "pandas", "matplotlib", "seaborn", "scipy", "sklearn", "numpy", "pydantic")
    code = f"""
import sys
sys.argv = ["bench", "--help"]
from bench.cli.app import main
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("HEAVY", [name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert all(command in done.stdout for command in ("train", "sweep", "report", "list"))


def test_help_of_every_command_answers_without_the_heavy_packages():
    heavy = ("torch", "pandas", "matplotlib", "seaborn", "scipy", "sklearn", "numpy")
    code = f"""
import sys
from typer.main import get_command
from bench.cli.app import app, main
seen = 0
def visit(command, path):
    global seen
    below = getattr(command, "commands", {{}})
    for name, entry in below.items():
        visit(entry, [*path, name])
    if not below:
        sys.argv = ["bench", *path, "--help"]
        try:
            main()
        except SystemExit as stop:
            assert stop.code == 0, (path, stop.code)
        seen += 1
visit(get_command(app), [])
assert seen > 12, seen
print("HEAVY", [name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


def test_public_names_stay():
    code = """
from bench.conformance import MethodConformance
from bench.rule_conformance import RuleConformance
from bench.data import Dataset, register
import bench.conformance, bench.plugins.conformance, bench.plugins.rule_conformance
assert bench.conformance is bench.plugins.conformance
assert RuleConformance is bench.plugins.rule_conformance.RuleConformance
assert bench.plugins.conformance.__spec__.name == "bench.plugins.conformance"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    for module in ("bench", "bench.cli"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT
        )
        assert (done.returncode, "sweep" in done.stdout) == (0, True), done.stderr
    assert PROJECT["project"]["scripts"] == {"bench": "bench.cli:main"}


def test_paths_named_in_the_documentation_exist():
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = set(re.findall(r"`((?:bench|methods|metrics|tests|docs)/[\w./]*)`", text))
        missing = {p for p in found if "NAME" not in p and not (ROOT / p).exists()}
        assert not missing, page
