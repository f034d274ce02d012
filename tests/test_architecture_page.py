"""docs/architecture.md names files and functions; each must be where the page says."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "igpt_jax"


def names_of(path):
    """The names that a module defines at its top level, with the methods of its classes as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((\S+?)\)", PAGE)
    assert len(links) > 30
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_every_function_is_in_the_file_that_is_linked_next():
    modules = {path: names_of(path) for path in PACKAGE.rglob("*.py")}
    everything = set().union(*modules.values())
    paragraphs = re.split(r"\n(?=\d+\. |   - |- |\n)", PAGE)
    placed = 0
    for paragraph in paragraphs:
        linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\((\S+?\.py)\)", paragraph)}
        reachable = set().union(*(modules[path] for path in linked)) if linked else everything
        for name in re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", paragraph):
            if name in everything and linked:
                assert name in reachable, f"{name} is in none of {sorted(map(str, linked))}"
                placed += 1
    assert placed > 25


def test_every_place_of_the_table_exists():
    for name, file in re.findall(r"`(\w+)` in `([\w/]+\.py)`", PAGE):
        assert name in names_of(PACKAGE / file), f"{name} is not in {file}"


def imports_of(package):
    """The stages of igpt_jax that a stage imports, apart from the base modules below data/ and model/."""
    path = PACKAGE / package
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return set(re.findall(r"^ *from igpt_jax\.(\w+)", "\n".join(file.read_text() for file in files), re.MULTILINE))


def test_every_arrow_of_the_map_is_an_import_and_every_import_follows_from_the_arrows():
    arrows = re.findall(r"^  (\w+) --> (\w+)", PAGE, re.MULTILINE)
    reached = {package: {end for start, end in arrows if start == package} for package, _ in arrows}
    for package in reached:
        assert reached[package] - {"base"} <= imports_of(package)
    for _ in reached:
        reached = {package: ends.union(*(reached.get(end, ()) for end in ends)) for package, ends in reached.items()}
    packages = {*reached} | {end for ends in reached.values() for end in ends}
    for package, ends in reached.items():
        assert imports_of(package) & packages - {package} <= ends
