import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

# What must not load with the package or with --help.
HEAVY = ("tensorflow", "tensorflow_text", "keras", "keras_hub", "jax", "sklearn", "scipy")
LINKS = ("tasks", "eval")
# Where the name to import is not the name to install.
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Told how to install when they are asked for: `hf://` presets, the JAX backend, the adapter.
OPTIONAL = {"huggingface-hub", "jax", "lm-eval", "sentencepiece", "tokenizers"}


def python(code: str, *, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", ["tasks", "eval"])
def test_top_level_folders_refuse_their_bare_names(repository, tmp_path, name):
    done = python(f"import {name}", cwd=tmp_path, PYTHONPATH=str(repository))
    assert done.returncode != 0
    assert f"from llama_keras import {name}" in done.stderr


def test_import_is_lazy_and_gives_the_submodules(repository, tmp_path):
    code = f"""
import sys
import llama_keras as lk
lk.tasks, lk.eval, lk.data, dir(lk.tasks), dir(lk.eval), dir(lk)
print([name for name in {HEAVY} if name in sys.modules])
try:
    lk.nonsense
except AttributeError as error:
    print(error)
"""
    done = python(code, cwd=tmp_path, PYTHONPATH=str(repository))
    assert done.returncode == 0, done.stderr
    heavy, missing = done.stdout.strip().split("\n")
    assert heavy == "[]"
    assert "'nonsense'" in missing


def test_links_hold_the_top_level_folders(repository):
    for name in ("tasks", "eval"):
        link = repository / "llama_keras" / name
        assert link.is_symlink()
        assert link.resolve() == repository / name


def test_readme_tree_names_every_source_file(repository):
    named = set(tree_of((repository / "README.md").read_text(encoding="utf-8")))
    assert [path for path in sorted(named) if not (repository / path).exists()] == []
    files = {
        file.relative_to(repository)
        for folder in ("llama_keras", "tasks", "eval", "benchmarks", "examples", "docs")
        for file in (repository / folder).rglob("*.py")
        if not file.name.startswith("__")
    }
    # The links show the same files a second time.
    own = {file for file in files if file.parts[:2] not in {("llama_keras", n) for n in LINKS}}
    assert sorted(own - named) == []


def tree_of(readme: str) -> list[Path]:
    """The paths in the README's tree, by their indentation."""
    (tree,) = re.findall(r"```\n(run .*?)```", readme, re.DOTALL)
    paths, folders = [], []
    for line in tree.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        del folders[indent // 2 :]
        path = Path(*folders, name)
        paths.append(path)
        if name.endswith("/"):
            folders.append(name)
    return paths


def test_every_imported_package_is_declared(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normal(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}
    imported = {
        normal(DISTRIBUTIONS.get(name, name))
        for folder in ("llama_keras", *LINKS)
        for file in (repository / folder).rglob("*.py")
        for name in top_level_imports(file)
    }
    assert imported - declared - OPTIONAL == set()


def normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def top_level_imports(file: Path) -> set[str]:
    modules = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(node.module or "")
    names = {module.partition(".")[0] for module in modules}
    return names - sys.stdlib_module_names - {"llama_keras"}


@pytest.mark.slow
def test_wheel_holds_the_linked_folders_and_the_data_files(repository, tmp_path):
    # A copy, for a build leaves a folder behind.
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (repository / name).is_symlink():
            target.symlink_to((repository / name).readlink())
        elif (repository / name).is_file():
            target.write_bytes((repository / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source]
    subprocess.run(command, check=True, timeout=250)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("tasks", "eval", "llama_keras"):
        prefix = "" if folder == "llama_keras" else "llama_keras/"
        for file in (source / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".jsonl") and not file.is_symlink():
                assert prefix + file.relative_to(source).as_posix() in names
    assert "llama_keras/data/sentiment/README.md" in names
    assert not [name for name in names if not name.startswith("llama_keras")]
