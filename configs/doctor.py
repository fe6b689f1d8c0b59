"""What this machine has, what it lacks, and what each missing thing would be needed for; and the figures by which
`--generator auto` decides.

Nothing that may be missing is imported before it was looked for: the doctor itself needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from dp360.generation.system import IS_LINUX, available_memory_bytes, usable_cores

from .console import Display, Outcome, print_diagnosis
from .options import Flag

State = Literal["ok", "note", "missing"]

_DISTRIBUTIONS = (
    "dp360", "viser", "torch", "numpy", "numba", "scipy", "scikit-image", "opencv-python-headless", "pymatting",
    "pillow", "safetensors", "trimesh", "tyro",
)  # fmt: skip
_OPTIONAL_DISTRIBUTIONS = (  # distribution, what needs it
    *((name, "ns-train: pip install 'dp360[nerfstudio]'") for name in ("nerfstudio", "gsplat", "torchvision")),
    ("open3d", "ns-export, point clouds"),
    ("diffusers", "--generator field, compact and diffportrait360, dp360 train"),
    ("accelerate", "dp360 train"),
    ("usd-core", "files of OpenUSD: pip install 'dp360[usd]'"),
    ("dlib-bin", "dp360 eval identity and pose: pip install 'dp360[eval]'"),
    ("rembg", "--matte rembg: pip install 'dp360[matte]'"),
    ("onnxruntime", "--matte rembg: pip install 'dp360[matte]'"),
)
_DEVELOPMENT_DISTRIBUTIONS = (
    "pytest", "hypothesis", "beartype", "ruff", "pyright", "pre-commit", "playwright", "plyfile", "build",
)  # fmt: skip
_BROWSER = "chromium"
_PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of `dp360.configs` and its neighbours, found without importing any of them."""
_WEIGHTS = _PACKAGE / "generation" / "weights"
_FIELD_WEIGHTS = ("field_autoencoder.safetensors", "field_denoiser.safetensors", "field_grain.safetensors")
"""What draws head fields."""
_LIBRARIES = (  # file that the loader looks for, Debian package, what needs it
    ("libGL.so.1", "libgl1", "ns-export, and any program with another OpenCV"),
    ("libEGL.so.1", "libegl1", "ns-export"),
    ("libOpenGL.so.0", "libopengl0", "ns-export"),
    ("libusb-1.0.so.0", "libusb-1.0-0", "ns-export"),
    ("libX11.so.6", "libx11-6", "ns-export"),
)
_PROGRAMS = (  # command, Debian package, what needs it
    ("gcc", "gcc", "installing the viewer"),
    ("g++", "g++", "stock splatfacto, and gsplat on a GPU"),
    ("ffmpeg", "ffmpeg", "ns-render to a video file"),
)
_MEMORY_NEEDED_GB = 6.0
_DISK_NEEDED_GB = 2.0


@dataclass(frozen=True)
class DoctorCommand:
    """Say what this machine has, what it lacks, and what for."""

    output: Path = Path()
    """Where results would go: its disk is looked at."""
    compile: Flag = False
    """Compile everything that the first head would compile, by making a small one: one to two minutes, once per
    machine."""


def run(command: DoctorCommand, display: Display) -> Outcome:
    """Show the findings; exit code 1 where the main job cannot run."""
    diagnosis = examine(command.output)
    print_diagnosis(diagnosis)
    if command.compile and diagnosis.main_job_possible:
        from .kernels import compile_kernels

        compile_kernels(track=display.track)
    return 0 if diagnosis.main_job_possible else 1


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    """What was looked at."""
    value: str
    """What was found."""
    state: State = "ok"
    """`missing` stands in the way of something, `note` is worth knowing."""
    needed_for: str = ""
    """What a missing thing would be needed for."""
    blocks_main_job: bool = False
    """Without it no head can be made."""
    section: str = ""
    """Heading that the line stands under."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings and the one line that installs the missing system packages."""

    findings: tuple[Finding, ...]
    apt_line: str
    """Empty where nothing is missing."""

    @property
    def main_job_possible(self) -> bool:
        """Whether `dp360 run` has all it needs."""
        return not any(f.blocks_main_job and f.state == "missing" for f in self.findings)


def examine(output_folder: Path) -> Diagnosis:
    """Look at versions, devices, weights and their figures, memory, disk, caches, system libraries and programs.

    Changes nothing, and finds what is missing instead of stumbling over it.

    Args:
        output_folder: where results would be written; its disk is measured.
    """
    system, packages = _system()
    sections: dict[str, Iterable[Finding]] = {
        "Versions": _versions(),
        "Devices": _devices(),
        "Weights": _weights(),
        "What --generator auto takes": _choice_of_generator(),
        "Memory and disk": _room(output_folder),
        "Caches": [_numba_cache()],
        "System": system,
    }
    findings = tuple(replace(finding, section=name) for name, found in sections.items() for finding in found)
    apt_line = f"sudo apt-get update && sudo apt-get install -y {' '.join(packages)}" if packages else ""
    return Diagnosis(findings, apt_line)


def _versions() -> Iterator[Finding]:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    python = platform.python_version() + ("" if supported else ", expected 3.10 to 3.13")
    yield Finding("python", python, "ok" if supported else "missing", "everything", True)
    for name, needed_for in (*((name, "") for name in _DISTRIBUTIONS), *_OPTIONAL_DISTRIBUTIONS):
        version, blocks = version_of(name), not needed_for
        state: State = "ok" if version else "missing" if blocks else "note"
        yield Finding(name, version or "not installed", state, needed_for or "everything", blocks)
    lacking = [name for name in _DEVELOPMENT_DISTRIBUTIONS if not version_of(name)]
    lacking += [_BROWSER] if shutil.which(_BROWSER) is None else []
    if lacking:
        yield Finding("development tools", f"without {', '.join(lacking)}", "note", "the tests: scripts/setup.sh --dev")
    else:
        yield Finding("development tools", "all installed")


def version_of(distribution: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    yield Finding("CPU", f"{usable_cores()} cores, {platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", f"cannot be imported: {error}", "missing", "everything", True)
        return
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that CUDA can use; everything runs on the CPU", "note")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 1e9:.1f} GB")
    compiler = shutil.which("nvcc") or str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc")
    if Path(compiler).is_file():
        yield Finding("nvcc", compiler)
    else:
        yield Finding("nvcc", "not found", "missing", "gsplat on the GPU (compiled at first use)")


def _weights() -> Iterator[Finding]:
    files = sorted(file for file in _WEIGHTS.iterdir() if file.suffix in (".npz", ".safetensors"))
    for file in files:
        data = file.read_bytes()
        yield Finding(file.name, f"{len(data) / 1e6:.1f} MB, sha256 {hashlib.sha256(data).hexdigest()[:16]}")
    if not any(file.name == "head_model.npz" for file in files):
        yield Finding("head_model.npz", "not found", "missing", "every head", True)
    lacking = [name for name in _FIELD_WEIGHTS if not (_WEIGHTS / name).is_file()]
    if lacking:
        yield Finding(" and ".join(lacking), "not installed", "note", "--generator field, --variants")
    yield _compact_weights()


def _compact_weights() -> Finding:
    try:
        from dp360.generation import InputError
        from dp360.generation.diffusion.compact import compact_folder, verified_name
    except (ImportError, OSError) as error:
        return Finding("compact", f"not looked at: {error}", "note", "--generator compact")
    folder = compact_folder()
    if folder is None:
        return Finding("compact", "not installed", "note", "--generator compact; auto takes the prior")
    size_mb = sum(file.stat().st_size for file in folder.rglob("*")) / 1e6
    try:
        return Finding("compact", f"{size_mb:.1f} MB, {verified_name(folder)}")
    except InputError as error:
        return Finding("compact", str(error), "missing", "--generator compact")


def _choice_of_generator() -> Iterator[Finding]:
    """What `--generator auto` takes, and the figures that say so."""
    try:
        from dp360.generation import InputError
        from dp360.generation.diffusion.compact import held_out
    except (ImportError, OSError) as error:
        yield Finding("choice", f"not looked at: {error}", "note", "the choice itself")
        return
    try:
        measured = held_out()
    except InputError as error:
        yield Finding("choice", str(error), "missing", "--generator auto")
        return
    rule = "compact is taken once its PSNR is higher and its perceptual distance not larger than the prior's"
    if measured is None:
        yield Finding("choice", f"prior: nothing was measured here; {rule}")
        return
    yield Finding("choice", f"{measured.winner}; {rule}")
    heads = f"{measured.heads} composed heads that no training saw, {measured.views} views each"
    yield Finding("measured on", heads)
    for key, meaning, digits, unit in (
        ("psnr_head", "PSNR above the chin, more is better", ".2f", " dB"),
        ("perceptual", "perceptual distance, less is better", ".3f", ""),
    ):
        values = [
            f"{name} {format(figures[key], digits)}{unit}" if key in figures else f"{name} not measured"
            for name, figures in (("prior", measured.prior), ("compact", measured.compact))
        ]
        yield Finding(meaning, ", ".join(values))


def _room(output_folder: Path) -> Iterator[Finding]:
    available = available_memory_bytes()
    if available is not None:
        state: State = "ok" if available >= 1e9 * _MEMORY_NEEDED_GB else "note"
        wants = f"a head wants {_MEMORY_NEEDED_GB:.0f} GB"
        yield Finding("memory available", f"{available / 1e9:.1f} GB", state, wants)
    existing = next(p for p in (output_folder.absolute(), *output_folder.absolute().parents) if p.exists())
    for name, folder in (("disk for results", existing), ("disk for temporary files", Path(tempfile.gettempdir()))):
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            yield Finding(name, f"{folder} cannot be written", "missing", "writing results", True)
            continue
        free = shutil.disk_usage(folder).free / 1e9
        state = "ok" if free >= _DISK_NEEDED_GB else "note"
        yield Finding(name, f"{free:.1f} GB free in {folder}", state, "writing results")


def _numba_cache() -> Finding:
    """Where compiled kernels are kept: beside the package, in the user's cache, or among temporary files."""
    before = os.environ.get("NUMBA_CACHE_DIR")
    try:
        from dp360.generation.kernel_cache import kept_in
    except (ImportError, OSError) as error:
        return Finding("numba kernels", f"not looked at: {error}", "note", "a fast start")
    place, is_temporary = kept_in()
    if is_temporary:
        sentence = f"kept in {place}, since neither the package's folder nor the user's cache can be written"
        return Finding("numba kernels", sentence, "note", "a fast start after every restart: set NUMBA_CACHE_DIR")
    return Finding("numba kernels", f"kept under {place}" + (" (NUMBA_CACHE_DIR)" if before else ""))


def _system() -> tuple[list[Finding], list[str]]:
    """Findings on libraries and programs, and the Debian packages that are missing; none where names are others."""
    if not IS_LINUX:
        return [Finding(platform.system() or "system", "libraries and compilers are looked for on Linux alone")], []
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    looked_for = [  # name, what was found, what was not found, Debian package, what needs it
        *((package, file if _loads(file) else None, file, package, use) for file, package, use in _LIBRARIES),
        *((command, shutil.which(command), "", package, use) for command, package, use in _PROGRAMS),
        ("Python.h", str(header) if header.is_file() else None, "", "python3-dev", "installing the viewer, splatfacto"),
    ]
    findings, packages = [], []
    for name, found, lacking, package, needed_for in looked_for:
        if found:
            findings.append(Finding(name, found))
        else:
            sentence = f"{lacking} not found".strip()
            findings.append(Finding(name, sentence, "missing", needed_for))
            packages.append(package)
    return findings, packages


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
