"""Who may import whom: packages, and within each the rooms, floor by floor."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "consilium": {"consilium"},
    "gateway": {"gateway"},
    "models": {"models"},
    "services": {"consilium", "gateway", "models", "services"},
}
# One function reads an image for training and for serving, and the gateway, which is installed
# without models, has it.
SHARED = {("models", "gateway", "intake")}
MOST_FILES = 14  # of a room: a screenful of names
HEAVY = {"torch", "torchvision", "transformers", "timm", "peft", "vllm", "bitsandbytes", "gguf"}
LIGHT = ("client/", "gateway/", "models/data/", "models/metrics/")

# The ground floor first. A room, or a file that stands beside the rooms, imports from its own and
# from lower floors; those on one floor know nothing of each other.
FLOORS: dict[str, list[str]] = {
    "consilium": [
        "verdict tiff",
        "case errors",
        "patience wire",
        "client",
    ],
    "gateway": [
        "contract must_be",
        "refusals",
        "case",
        "watch verdict",
        "drift store",
        "tables",
        "settings",
        "archive",
        "asking door intake",
        "processes",
        "service",
        "out",
        "app",
        "server",
        "__main__",
    ],
    "models": [
        "complaint cpu_torch exported files positions",
        "assets metrics tensors",
        "data connectors",
        "recipe",
        "parts",
        "training",
        "serving study",
        "recipes zoo",
    ],
    "services": [
        "running",
        "evaluation",
        "cli",
    ],
}
FLOOR_OF = {
    (package, room): floor
    for package, floors in FLOORS.items()
    for floor, rooms in enumerate(floors)
    for room in rooms.split()
}

HOMES = {package: ROOT / package for package in FLOORS} | {"consilium": ROOT / "client/consilium"}
FILES = {
    ".".join(path.relative_to(home.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for home in HOMES.values()
    for path in sorted(home.rglob("*.py"))
}


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Every module that a file imports; with `at_import_time`, not those inside functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import; write it out"
            yield node.module
            # `from models import assets` imports a module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def room(module: str) -> tuple[str, str]:
    """("gateway", "verdict") of gateway.verdict.weigh, ("gateway", "case") of gateway.case."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


@pytest.mark.parametrize("module", [name for name in FILES if name not in FLOORS])
def test_a_module_imports_from_its_own_room_and_from_lower_floors(module: str) -> None:
    """The gateway knows no model, a model knows of the gateway how it reads an image, and no room
    reaches up."""
    package, own = room(module)

    reached = {room(name) for name in imports(FILES[module]) if name in FILES} - {room(module)}
    reached -= {(package, "")}  # the package itself is empty

    wrong = {
        (other, there)
        for other, there in reached
        if (other not in MAY_IMPORT[package] and (package, other, there) not in SHARED)
        or (other == package and FLOOR_OF[other, there] >= FLOOR_OF[package, own])
    }
    assert wrong == set()


def test_every_room_has_a_floor_and_every_floor_is_inhabited() -> None:
    rooms = {
        (package, path.stem)
        for package in FLOORS
        for path in HOMES[package].iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    }

    assert rooms == FLOOR_OF.keys()


def test_a_room_is_a_screenful_of_names() -> None:
    for package in FLOORS:
        for folder in {file.parent for file in HOMES[package].rglob("*.py")}:
            files = [file for file in folder.glob("*.py") if file.stem != "__init__"]
            assert len(files) <= MOST_FILES, folder


@pytest.mark.parametrize(
    "module", [m for m, path in FILES.items() if str(path.relative_to(ROOT)).startswith(LIGHT)]
)
def test_the_gateway_and_the_shared_ground_import_nothing_heavy(module: str) -> None:
    """Not even inside a function: they are installed where there is no torch."""
    assert {name.split(".")[0] for name in imports(FILES[module])} & HEAVY == set()


def test_the_contract_needs_pydantic_only() -> None:
    """Anyone may vendor that one file."""
    foreign = {name.split(".")[0] for name in imports(FILES["gateway.contract"])}

    assert foreign - set(sys.stdlib_module_names) == {"pydantic"}


def test_the_core_install_is_what_the_gateway_and_its_client_import() -> None:
    """The gateway's image holds that and no more; the command line's own packages come with
    [cli]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    dists = packages_distributions()
    imported = {
        re.sub(r"[-_.]+", "-", dists[name][0]).lower()
        for module, path in FILES.items()
        if module.startswith(("consilium", "gateway"))
        for name in {name.split(".")[0] for name in imports(path)}
        if name in dists and name not in FLOORS
    }

    def families(names: set[str]) -> set[str]:
        """OpenTelemetry's packages share one name to import."""
        return {"opentelemetry" if name.startswith("opentelemetry") else name for name in names}

    # Uvicorn imports the gateway, and a parser and a loop that save it a tenth of its time;
    # Starlette comes with FastAPI, and two with Pydantic.
    extras = project["optional-dependencies"]
    apart = {"starlette", "pydantic-core", "typing-extensions"}
    apart |= {*extras["archive"], *extras["burned-in"], *extras["nifti"]}
    needed = families(imported) - apart | {"httptools", "uvicorn", "uvloop"}
    assert needed == families(set(project["dependencies"]))


def test_the_client_needs_httpx_and_pydantic_only() -> None:
    """It is installed alone, too, where there is no gateway. Pydantic brings typing_extensions."""
    foreign = {
        name.split(".")[0]
        for module, path in FILES.items()
        if module.startswith("consilium")
        for name in imports(path)
    } - set(sys.stdlib_module_names)

    assert foreign == {"consilium", "httpx", "pydantic", "typing_extensions"}
    project = tomllib.loads((ROOT / "client/pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split("[>=]", each)[0] for each in project["dependencies"]}
    assert needed == {"httpx", "pydantic", "typing-extensions"}


def test_there_are_no_circles() -> None:
    """Each module can be read after those it imports."""
    graph = {
        module: {name for name in imports(path, at_import_time=True) if name in FILES} - {module}
        for module, path in FILES.items()
    }
    while leaves := {module for module, needs in graph.items() if not needs}:
        graph = {m: needs - leaves for m, needs in graph.items() if m not in leaves}

    assert graph == {}


def test_the_command_line_starts_without_torch() -> None:
    """`consilium ask` runs where there is no torch, and `--help` at once."""
    program = f"import sys, services.cli.__main__; print(sorted({HEAVY!r} & sys.modules.keys()))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "[]"
