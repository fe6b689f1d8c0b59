"""The door to numba's threads: every parallel kernel of the package goes through it, and threads may share it."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import numba
import numpy as np

from dp360.generation import numba_pool as pool_module
from dp360.generation.cameras import look_at_origin
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.numba_pool import numba_pool

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("generation", "reconstruction", "exporters", "configs")


def is_kernel(node: ast.AST, *, parallel: bool) -> bool:
    """Whether a function is compiled by numba (and, with `parallel`, runs on several threads)."""
    if not isinstance(node, ast.FunctionDef):
        return False
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func).endswith("njit")]
    if not parallel:
        return bool(calls) or any(ast.unparse(d).endswith("njit") for d in node.decorator_list)
    return any(k.arg == "parallel" and ast.unparse(k.value) == "True" for call in calls for k in call.keywords)


def parallel_kernels(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of the kernels that run on several threads."""
    functions = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return {function.name for function in functions if is_kernel(function, parallel=True)}


def calls_outside_the_pool(tree: ast.Module, kernels: set[str]) -> list[str]:
    """Calls of parallel kernels that stand in no `with numba_pool(...)` and in no other kernel."""
    imported = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    known = (kernels & imported) | parallel_kernels({Path(): tree})
    found: list[str] = []

    def walk(node: ast.AST, safe: bool) -> None:
        if is_kernel(node, parallel=False):
            return
        if isinstance(node, ast.With):
            safe = safe or any(ast.unparse(item.context_expr).startswith("numba_pool(") for item in node.items)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            module, _, last = name.rpartition(".")
            if (name in known or (module in imported and last in kernels)) and not safe:
                found.append(f"line {node.lineno}: {name}")
        for child in ast.iter_child_nodes(node):
            walk(child, safe)

    walk(tree, False)
    return found


def test_every_parallel_kernel_is_called_inside_the_pool() -> None:
    files = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text("utf-8")) for path in files}
    kernels = parallel_kernels(trees)
    assert {"_fill_bands", "_interpolate", "_sample"} <= kernels  # those of the mesh rasteriser: the walk finds kernels
    outside = {str(path.relative_to(REPOSITORY)): calls_outside_the_pool(tree, kernels) for path, tree in trees.items()}
    assert {path: calls for path, calls in outside.items() if calls} == {}


def test_the_law_sees_a_call_outside() -> None:
    source = """
@numba.njit(cache=True, parallel=True)
def kernel(x): ...

@njit
def other(x): return kernel(x)

def good(x):
    with numba_pool(len(x)):
        return kernel(x)

def bad(x):
    return kernel(x)
"""
    tree = ast.parse(source)
    kernels = parallel_kernels({Path("made.py"): tree})
    assert kernels == {"kernel"}
    assert calls_outside_the_pool(tree, kernels) == ["line 13: kernel"]


def test_one_thread_at_a_time_and_the_same_one_again() -> None:
    inside: list[int] = []
    crowded: list[int] = []

    def work() -> None:
        for _ in range(200):
            with numba_pool(1), numba_pool(10**6):
                inside.append(1)
                crowded.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(crowded) == {1}


def test_small_work_takes_one_thread_and_the_number_comes_back() -> None:
    before = numba.get_num_threads()
    with numba_pool(pool_module.SMALL_WORK - 1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with numba_pool(pool_module.SMALL_WORK):
        assert numba.get_num_threads() == before


def test_threads_that_draw_at_once_draw_the_same() -> None:
    rng = np.random.default_rng(0)
    vertices, faces = rng.uniform(-0.3, 0.3, (300, 3)), rng.integers(0, 300, (400, 3))
    camera = look_at_origin([0.2], [0.1], size_px=200)
    expected = rasterize_mesh(vertices, faces, camera).triangle_index
    drawn: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: drawn.append(rasterize_mesh(vertices, faces, camera).triangle_index))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 4 and all(np.array_equal(index, expected) for index in drawn)
