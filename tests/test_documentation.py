"""The documentation is that of the code: its commands, keys, messages and links exist, and its tutorials run."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.main import get_command

from lrc_ase import LongRangeConvolution, load, load_potential, start_structure
from lrc_ase.cli import app
from lrc_ase.training.configuration_keys import template

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for page in sorted(DOCS.rglob("*.md")) if "notebook/paper/" not in page.as_posix()),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "potentials").rglob("*.md")),
]
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
SHORTER = {
    "--time-limit 1 ": "--epochs 1 ",
    "--epochs 150": "--epochs 2",
    "--steps 2000": "--steps 8",
    "--write-every 20": "--write-every 4",
    '"25:"': '"1:"',
}
"""Replacements that shorten tutorials: only the program is tested, not the potential."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return language and content of the fenced blocks of a page."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, content) for language, content in blocks if language in languages]


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the words of each call of `lrc-ase` in the code blocks of a page."""
    for _, content in code_blocks(page, "", "bash"):
        for line in content.replace("\\\n", " ").splitlines():
            match = re.search(r"(?:^|\s|-m )lrc[-_]ase(?:\.cli)? (.+)", line.strip().removesuffix("&"))
            if match and "`" not in line:
                yield shlex.split(match[1], comments=True)


@cache
def options_of(command: str) -> set[str]:
    """Return the options of a command of `lrc-ase`."""
    group = get_command(app)
    context = group.make_context("lrc-ase", [command], resilient_parsing=True)
    _, resolved, _ = group.resolve_command(context, [command])
    names = {name for each in resolved.params for name in (*each.opts, *each.secondary_opts)}
    return names | {"--help", "-h"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_docs_exist(page):
    known = set(get_command(app).commands)
    for words in commands_of(page):
        if words[0].startswith("-"):
            continue
        assert words[0] in known, words
        options = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert options <= options_of(words[0]), words


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_help_of_a_command_ends_with_an_example_of_it(name):
    group = get_command(app)
    _, command, _ = group.resolve_command(group.make_context("lrc-ase", [name], resilient_parsing=True), [name])
    example = command.help.partition("Example: ")[2]
    words = shlex.split(example.partition("lrc-ase ")[2])
    assert words[0] == name
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options_of(name)


def test_commands_of_the_docs_are_seen():
    assert [words[0] for words in commands_of(ROOT / "README.md")].count("md") == 1
    assert sum(len(list(commands_of(page))) for page in PAGES) > 45


@cache
def every_key() -> Any:
    """Return the configuration with every key."""
    return yaml.safe_load(template())


def key_exists(key: str) -> bool:
    """Return True if a dotted key stands in the template of all keys; names of stages and sets count as any."""
    content = every_key()
    for part in re.sub(r"\[\d+\]", "", key).split("."):
        if isinstance(content, list):
            content = content[0]
        if not isinstance(content, dict):
            return False
        if part == "*":
            content = next(iter(content.values()))
        elif part in content:
            content = content[part]
        else:
            return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_of_the_docs_exist(page):
    text = page.read_text(encoding="utf-8")
    keys = re.findall(r"--set \"?([a-z_]+(?:[.\[][\w*\].]+)*)=", text)
    other_descriptor = ("model.descriptor.name",)
    assert not [key for key in keys if not key_exists(key) and key not in other_descriptor and "KEY" not in key]


def test_keys_that_are_misspelled_are_seen():
    assert key_exists("stages.loss.energy")
    assert not key_exists("stages.loss.energie")
    assert not key_exists("stages.epochs.more")


def links_of(page: Path) -> list[str]:
    """Return the links of a page to files of the repository."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not target.startswith(("http:", "https:", "mailto:"))]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, by the rule of GitHub and MyST."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_the_docs_lead_somewhere(page):
    for link in links_of(page):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors_of(target), link


def message_templates() -> list[str]:
    """Return the texts in the library, with a null character for each value that is filled in."""
    texts = []
    for path in (ROOT / "lrc_ase").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (each.value if isinstance(each, ast.Constant) else "\0" for each in node.values)
                texts.append("".join(map(str, parts)).replace("`", ""))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value.replace("`", ""))
    return texts


def test_messages_of_the_reference_are_those_of_the_code():
    page = (DOCS / "reference" / "messages.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    assert len(messages) > 40
    templates = message_templates()
    patterns = {each: re.compile(".*".join(map(re.escape, re.split(r" ?… ?", each))), re.DOTALL) for each in messages}
    assert not [each for each, pattern in patterns.items() if not any(map(pattern.search, templates))]


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=name_of)
def test_tutorial_runs_as_a_notebook(page, tmp_path, monkeypatch):
    """Every command and every piece of Python of a tutorial, in its order, in one folder."""
    pytest.importorskip("jupytext", reason="the extra 'docs' is not installed")
    client = pytest.importorskip("nbclient", reason="the extra 'docs' is not installed")
    monkeypatch.syspath_prepend(DOCS / "extensions")
    notebook = importlib.import_module("notebooks").notebook_of(page.read_text(encoding="utf-8"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for long, short in SHORTER.items():
                cell.source = cell.source.replace(long, short)
            cell.source = re.sub(r"^lrc-ase ", f"{sys.executable} -m lrc_ase.cli ", cell.source, flags=re.MULTILINE)
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert len(text) > 1000
    assert "\x1b[" not in text, "control codes of a terminal"


@pytest.mark.slow
def test_scripts_of_the_page_on_the_layer_compute_what_it_says(capsys):
    names: dict[str, Any] = {}
    for _, code in code_blocks(ROOT / "docs/how-to/layer.md", "python"):
        exec(code, names)
    assert float(capsys.readouterr().out.split()[-1]) < 0.02  # the trained spline
    inputs = names["weights"], names["fractional"], names["cell"]
    exact = LongRangeConvolution(names["own"].multiplier, method="ewald", mesh_shape=(32, 32, 32))(*inputs)
    assert (names["field"] - exact).norm() < 2e-4 * exact.norm()
    # forces are minus the gradient by Cartesian coordinates
    moved = names["points"].clone().requires_grad_()
    fractional = moved @ torch.linalg.inv(names["cell"][0])
    energy = 0.5 * (inputs[0] * names["layer"](inputs[0], fractional, inputs[2])).sum()
    torch.testing.assert_close(names["forces"], -torch.autograd.grad(energy, moved)[0], rtol=1e-6, atol=1e-6)


def test_script_of_the_page_on_the_calculator_finds_the_potential_of_a_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [script] = [each for _, each in code_blocks(DOCS / "reference" / "calculator.md", "python") if "database" in each]
    names = {"atoms": start_structure("nacl")}
    names["atoms"].calc = load("nacl", dtype="float32")
    exec(script, names)
    assert names["stored"] == names["atoms"].calc.todict()
    shown = script.partition('"digest": "')[2][:4]
    assert names["stored"]["digest"].startswith(shown)


def test_script_of_the_page_on_slabs_relaxes_vibrates_and_climbs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for _, code in code_blocks(ROOT / "docs/how-to/slabs.md", "python"):
        exec(code, names)
    assert len(names["slab"].constraints[0].index) == 4  # of 16 atoms, the lowest layer
    assert all(energy.real > 0.005 for energy in names["energies"])
    energies = [image.get_potential_energy() for image in names["images"]]
    assert max(energies) > energies[0] + 0.05  # the ion leaves the surface
    lengths = names["periodic"].cell.lengths(), names["slab"].cell.lengths()
    assert abs(lengths[0][2] - lengths[1][2]) < 1e-9 < abs(lengths[0][0] - lengths[1][0])


def test_times_of_the_readme_are_those_of_the_table_beside_mace():
    page = (DOCS / "explanation" / "descriptors.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| energy and forces, 1536 atoms \| (\d+) ms,[^|]*\| (\d+) ms,", page, re.MULTILINE)
    assert f"1536 atoms take {row[1]} ms, against {row[0]} ms for MACE" in (ROOT / "README.md").read_text("utf-8")
    drawn = (DOCS / "figures" / "first_screen.svg").read_text(encoding="utf-8")
    assert re.findall(r"<!--  (\d+) ms -->", drawn) == list(row)


def test_figure_of_the_readme_is_drawn_from_trainings(tmp_path):
    script = DOCS / "figures" / "first_screen.py"
    options = ["--run", tmp_path / "run", "--output", tmp_path / "figure.svg", "--epochs", "1"]
    subprocess.run([sys.executable, script, *options], check=True, capture_output=True, timeout=600)
    models = [load_potential(tmp_path / "run" / name).settings for name in ("with-long-range", "without")]
    assert models[0].long_range.compositions == {"Na": 1, "Cl": -1, "H2O": 0}
    assert models[1].long_range is None
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert drawn.count('<g id="axes_') == 2
