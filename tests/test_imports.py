"""Who may import whom, read from every file's syntax; and that our modelscope/ stands in nobody's way."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ("modelscope", "t2v_helpers", "miniature", "benchmarks", "tools")
MODEL_MAY_IMPORT = {"einops", "omegaconf", "psutil", "open_clip", "safetensors", "torch"}
HEAVY = {"diffusers", "open_clip", "torch", "torchvision", "transformers"}
PREDECESSORS = {
    "args", "render", "general_utils", "extensions_utils", "error_hardcode", "key_frames", "video_audio_utils"
}  # fmt: skip
WEBUIS = {"backend", "modules"}
DISTRIBUTIONS = {
    "imageio_ffmpeg": "imageio-ffmpeg", "markupsafe": "MarkupSafe", "open_clip": "open_clip_torch", "PIL": "pillow"
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


WEBUI = set(sources("t2v_helpers/hosts/webui"))
MODEL, HELPERS, WHOLE = sources("modelscope"), sources("t2v_helpers"), sources(*PACKAGE)
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
STARTERS = [ROOT / "run.py", *(ROOT / "tools" / name for name in ("children.py", "make_venv.py"))]
EVERYTHING = [*WHOLE, *SCRIPTS, *sorted(ROOT.glob("*.py")), *sources("tests")]


MODEL_ROOMS = {
    "modelscope": (),
    "modelscope/network": ("modelscope",),
    "modelscope/prompts": ("modelscope", "modelscope/network"),
    "modelscope/sampling": ("modelscope",),
    "modelscope/model.py": ("modelscope", "modelscope/network"),
    "modelscope/conditioning": ("modelscope", "modelscope/sampling"),
    "modelscope/request.py": ("modelscope", "modelscope/sampling", "modelscope/conditioning"),
    "modelscope/memory": (
        "modelscope", "modelscope/network", "modelscope/prompts", "modelscope/model.py", "modelscope/request.py",
    ),
    "modelscope/checkpoints": ("modelscope", "modelscope/network", "modelscope/model.py"),
    "modelscope/lora": (
        "modelscope", "modelscope/network", "modelscope/model.py", "modelscope/memory", "modelscope/checkpoints",
    ),
    "modelscope/run_options.py": ("modelscope", "modelscope/network", "modelscope/memory"),
    "modelscope/encode_decode.py": (
        "modelscope", "modelscope/network", "modelscope/model.py", "modelscope/memory", "modelscope/run_options.py",
    ),
}  # fmt: skip
"""Which rooms each room imports, besides itself. What lies in no room belongs to its folder; some files are rooms."""
MODEL_ROOMS["modelscope/pipeline.py"] = tuple(MODEL_ROOMS)
HELPER_ROOMS = (
    "t2v_helpers", "t2v_helpers/video", "t2v_helpers/request.py", "t2v_helpers/infotext.py", "t2v_helpers/models",
    "t2v_helpers/generation", "t2v_helpers/cleanup", "t2v_helpers/page", "t2v_helpers/hosts", "t2v_helpers/commands",
)  # fmt: skip
"""From the ground up: each imports those before it, and the model."""


def room_of(path: str) -> str:
    return (
        path
        if path in (*MODEL_ROOMS, *HELPER_ROOMS)
        else path.rpartition("/")[0].removesuffix("/standalone").removesuffix("/webui")
    )


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    return ".".join(("sd_t2v", *path.relative_to(ROOT).with_suffix("").parts))


def imported(nodes: Iterator[ast.AST], path: Path) -> Iterator[str]:
    """Full names of all modules that these nodes import, relative ones resolved; strings given to import_module too."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module_name(path).split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            constants = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            yield from (value for value in constants if isinstance(value, str))


def foreign(path: Path) -> set[str]:
    """Top names of the packages that a file imports from outside the standard library and the project."""
    names = {name.partition(".")[0] for name in imported(ast.walk(tree(path)), path)}
    return names - set(sys.stdlib_module_names) - {"sd_t2v", ""}


def at_load(path: Path, seen: set[Path]) -> set[str]:
    """Top names of all packages that importing a file imports, through the project's own files."""
    seen.add(path)
    names = set(imported(run_at_load(tree(path)), path))
    own = {ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if name.startswith("sd_t2v.")}
    inner = [at_load(other, seen) for other in own if other.is_file() and other not in seen]
    return {name.partition(".")[0] for name in names}.union(*inner)


def run_at_load(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes outside functions and outside `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not lazy and not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield child
            yield from run_at_load(child)


@pytest.mark.parametrize("path", MODEL, ids=short)
def test_the_model_imports_torch_and_little_else(path: Path) -> None:
    assert foreign(path) <= MODEL_MAY_IMPORT
    inside = {name for name in imported(ast.walk(tree(path)), path) if name.startswith("sd_t2v")}
    assert all(name.startswith("sd_t2v.modelscope") for name in inside)


@pytest.mark.parametrize("path", [*MODEL, *HELPERS], ids=short)
def test_rooms_import_only_what_is_below_them(path: Path) -> None:
    room, parts = room_of(short(path)), (name.split(".")[1:] for name in imported(ast.walk(tree(path)), path))
    files = {ROOT.joinpath(*part).with_suffix(".py") for part in parts if part}
    rooms = {room_of(short(file)) for file in files & {*MODEL, *HELPERS}} - {room}
    helpers = HELPER_ROOMS[: HELPER_ROOMS.index(room)] if room in HELPER_ROOMS else ()
    assert rooms <= {*MODEL_ROOMS.get(room, MODEL_ROOMS), *helpers}


@pytest.mark.parametrize("path", [path for path in WHOLE if path not in WEBUI], ids=short)
def test_only_the_hosts_folder_knows_the_webui(path: Path) -> None:
    assert not foreign(path) & {"modules", "backend", "launch"}


@pytest.mark.parametrize("path", WHOLE, ids=short)
def test_the_package_refers_to_itself_by_relative_imports(path: Path) -> None:
    absolute = [node for node in ast.walk(tree(path)) if not getattr(node, "level", 0)]
    names = {name.partition(".")[0] for name in imported(iter(absolute), path)}
    rivals = {"modelscope"} if path.parent.name == "benchmarks" else set()
    assert not names & ({"sd_t2v", *PACKAGE} - rivals)


@pytest.mark.parametrize("path", EVERYTHING, ids=short)
def test_nobody_edits_the_search_path_or_imports_ldm(path: Path) -> None:
    assert "ldm" not in foreign(path)
    assert not [ast.unparse(node) for node in ast.walk(tree(path)) if edits_search_path(node)]


def edits_search_path(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return bool(re.match(r"sys\.path\.\w|site\.addsitedir", ast.unparse(node.func)))
    targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [getattr(node, "target", None)]
    return any(target is not None and ast.unparse(target).startswith("sys.path") for target in targets)


@pytest.mark.parametrize("path", STARTERS, ids=short)
def test_the_starters_need_the_standard_library_only(path: Path) -> None:
    assert not foreign(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=short)
def test_nothing_heavy_is_imported_at_script_load(path: Path) -> None:
    assert not at_load(path, set()) & HEAVY


def test_the_check_of_load_time_sees_through_the_projects_files() -> None:
    assert "torch" in at_load(ROOT / "modelscope" / "network" / "unet3d.py", set())


def test_the_folders_are_namespace_portions() -> None:
    assert not [short(path) for folder in (*PACKAGE, "tests") for path in sources(folder) if path.name == "__init__.py"]


def test_the_helpers_avoid_the_predecessors_module_names() -> None:
    assert not {path.stem for path in HELPERS} & PREDECESSORS


def test_every_requirement_is_pinned() -> None:
    lines = [line for file in (ROOT / "requirements").iterdir() for line in file.read_text().splitlines()]
    assert all(re.match(r"#|[\w.-]+==[\w.]+( ; |$)", line) for line in lines)


def pinned(*files: str) -> set[str]:
    text = "\n".join((ROOT / "requirements" / file).read_text() for file in files)
    return set(re.findall(r"^[\w.-]+", text, re.MULTILINE))


@pytest.mark.parametrize("path", [*MODEL, *HELPERS], ids=short)
def test_what_a_file_imports_is_in_the_requirements(path: Path) -> None:
    names = {DISTRIBUTIONS.get(name, name) for name in foreign(path)} - (WEBUIS if path in WEBUI else set())
    assert names <= pinned("torch.txt", "demo.txt", "ui.txt")


def test_the_demo_gets_by_without_the_pages_packages() -> None:
    seen: set[Path] = set()
    names = everything(ROOT / "t2v_helpers" / "commands" / "demo.py", seen)
    assert ROOT / "t2v_helpers" / "video" / "write.py" in seen
    assert {DISTRIBUTIONS.get(name, name) for name in names} <= pinned("torch.txt", "demo.txt")


def everything(path: Path, seen: set[Path]) -> set[str]:
    """Top names of all packages that a file and what it imports may import at any time."""
    seen.add(path)
    names = set(imported(ast.walk(tree(path)), path))
    own = {ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if name.startswith("sd_t2v.")}
    inner = [everything(other, seen) for other in own if other.is_file() and other not in seen]
    return foreign(path).union(*inner)


def python(code: str, *path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, check=False, env=environment, cwd=ROOT.anchor, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_regular_modelscope_anywhere_wins_and_ours_still_works(tmp_path: Path, ours_first: bool) -> None:
    theirs = tmp_path / "modelscope" / "__init__.py"
    theirs.parent.mkdir()
    theirs.touch()
    code = "import modelscope, sd_t2v.modelscope.errors as ours; print(modelscope.__file__, ours.__file__, sep='\\n')"
    path = (ROOT, tmp_path) if ours_first else (tmp_path, ROOT)
    assert python(code, *path).splitlines() == [str(theirs), str(ROOT / "modelscope" / "errors.py")]


def test_importing_the_package_imports_no_torch() -> None:
    assert (
        python("import sys, sd_t2v, sd_t2v.modelscope, sd_t2v.t2v_helpers; print('torch' in sys.modules)", ROOT)
        == "False"
    )
