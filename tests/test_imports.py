"""The one-way order of the package, read from its source, and what must import where TensorFlow is missing."""

import ast
import pathlib
import subprocess
import sys

import pytest

import igpt_jax

ROOT = pathlib.Path(igpt_jax.__file__).parent
ORDER = [
    "errors",
    "checks",
    "types",
    "environment",
    "memory",
    "cores",
    "progress",
    "storage",
    "files",
    "typed",
    "config",
    "config_format",
    "flags",
    "mistakes",
    "search",
    "codes",
    "data",
    "model",
    "objectives",
    "parallel",
    "train",
    "evaluate",
    "generate",
    "weights",
    "quality",
    "report",
    "demo",
    "commands",
    "api",
    "__main__",
]
NEED_TENSORFLOW = {"data", "evaluate", "quality", "report", "demo", "commands", "api", "__main__"}
TENSORFLOW = {"tensorflow", "tensorflow_datasets"}


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
STAGED = [name for name in MODULES if name != "igpt_jax"]


def stage(name):
    return name.split(".")[1]


def imported_names(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def imports(name):
    return list(imported_names(ast.walk(ast.parse(MODULES[name].read_text()))))


@pytest.mark.parametrize("name", STAGED)
def test_a_stage_imports_only_itself_and_stages_before_it(name):
    allowed = ORDER[: ORDER.index(stage(name)) + 1]
    for imported in imports(name):
        assert not imported.startswith("."), f"{name} imports {imported}; write the whole name"
        if imported.split(".")[0] == "igpt_jax" and imported != "igpt_jax.__version__":
            assert stage(f"{imported}.") in allowed, f"{name} imports {imported}, which comes after it"


@pytest.mark.parametrize("name", [name for name in STAGED if stage(name) != "data"])
def test_only_data_imports_tensorflow(name):
    assert not TENSORFLOW & {imported.split(".")[0] for imported in imports(name)}
    loaded_with_the_module = imported_names(ast.parse(MODULES[name].read_text()).body)
    assert "clu" not in {imported.split(".")[0] for imported in loaded_with_the_module}


def test_the_core_imports_where_tensorflow_is_missing():
    core = [name for name in STAGED if stage(name) not in NEED_TENSORFLOW]
    program = f"import importlib, sys; sys.modules.update(dict.fromkeys({sorted(TENSORFLOW)}))\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in ["igpt_jax", *core]
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent)
    assert finished.returncode == 0, finished.stderr


def test_importing_the_package_loads_no_framework():
    program = "import igpt_jax, sys; print(*sorted({'tensorflow', 'jax', 'flax'} & set(sys.modules)))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert finished.stdout.strip() == ""
