"""Small splats and views that several exporters are tried on, and disks that are full or read-only."""

import math
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dp360.generation import Cameras, OrbitConfig, PointCloud, Provenance, ViewSet, orbit, weights
from dp360.reconstruction.splats import Splats, splats_from_point_cloud

# Processes side by side share the cores: threads that wait for each other cost both more than they bring.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

SPHERE_RADIUS = 0.3
"""Of the head in `make_sphere_views`, world units."""


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        "prior", "head_model-1 (sha256 00)", 7, "ab" * 32, "0.1.0", settings={"size_px": 64, "note": "é\n" + "x" * 900}
    )


@pytest.fixture
def make_splats():
    """A function: random splats of a count and harmonic degree, in every value a fit may produce."""

    def make(count: int, degree: int, seed: int = 0) -> Splats:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        rest = normal(count, (degree + 1) ** 2 - 1, 3)
        return Splats(normal(count, 3), normal(count, 3) - 4, normal(count, 4), normal(count), normal(count, 3), rest)

    return make


@pytest.fixture
def surface() -> PointCloud:
    """A ball of radius 0.2 whose left half (+x) is red, whose face (+z) is bright and whose back is dark."""
    generator = torch.Generator().manual_seed(1)
    normals = torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=-1)
    rgb = (0.5 + 0.4 * normals[:, 2:]).expand(-1, 3).clone()
    rgb[normals[:, 0] > 0.7] = torch.tensor([0.9, 0.1, 0.1])
    return PointCloud(0.2 * normals, normals, rgb)


@pytest.fixture
def ball(surface: PointCloud) -> Splats:
    return splats_from_point_cloud(surface)


@pytest.fixture
def views(ball: Splats, surface: PointCloud, provenance: Provenance) -> ViewSet:
    """Sixteen level pictures of the ball, 48 px."""
    from dp360.reconstruction.splats import splat_pictures

    cameras = orbit(16, size_px=48)
    names = tuple(f"ring_{i:03d}" for i in range(16))
    return ViewSet(splat_pictures(ball, cameras), cameras, torch.ones(16), names, surface, provenance)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function: the folder of a new memory file system with mount options such as `size=1m` or `ro`.

    Skips the test where mounting is not permitted.
    """
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk_{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=20)
        except FileNotFoundError:
            pytest.skip("needs the program mount")
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


@pytest.fixture(scope="session")
def weights_without_drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all weights that ship but those that draw head fields."""
    from dp360.generation.prior.field.drawn_field import DRAWING_NETWORKS

    folder = tmp_path_factory.mktemp("weights")
    left_out = {file.file_name for file in DRAWING_NETWORKS}
    for file in Path(weights.__file__).parent.iterdir():
        if file.suffix in (".npz", ".safetensors") and file.name not in left_out:
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="session")
def weights_with_tiny_drawing(weights_without_drawing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tiny networks of random numbers, no layer of which is idle, that draw fields."""
    from dp360.generation.prior.field.field_autoencoder import (
        FIELD_AUTOENCODER,
        FieldAutoencoder,
        FieldAutoencoderConfig,
    )
    from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER, FieldDenoiser, FieldDenoiserConfig
    from dp360.generation.prior.field.field_grain import FIELD_GRAIN, FieldGrain, FieldGrainConfig

    folder = tmp_path_factory.mktemp("weights")
    for file in weights_without_drawing.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = FieldAutoencoder(FieldAutoencoderConfig(fine=8, coarse=16, blocks=1, full=8))
        denoiser = FieldDenoiser(FieldDenoiserConfig(width=16, blocks=1, heads=2))
        grain = FieldGrain(FieldGrainConfig(width=8, blocks=1, embedding=8))
        for network in (autoencoder, denoiser, grain):
            for parameter in network.requires_grad_(False).parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    FIELD_AUTOENCODER.save(folder / FIELD_AUTOENCODER.file_name, autoencoder, {})
    FIELD_DENOISER.save(folder / FIELD_DENOISER.file_name, denoiser, {})
    FIELD_GRAIN.save(folder / FIELD_GRAIN.file_name, grain, {})
    return folder


@pytest.fixture(scope="module")
def fields_are_drawn(weights_with_tiny_drawing: Path) -> Iterator[Path]:
    """An installation with tiny networks that draw fields; its folder of weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "__file__", str(weights_with_tiny_drawing / "__init__.py"))
        yield weights_with_tiny_drawing


@pytest.fixture
def no_fields_are_drawn(weights_without_drawing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without such networks."""
    monkeypatch.setattr(weights, "__file__", str(weights_without_drawing / "__init__.py"))


def _traced_sphere(cameras: Cameras) -> torch.Tensor:
    """RGBA of a sphere coloured by its surface position, one ray through each pixel's centre."""
    v, u = torch.meshgrid(
        torch.arange(cameras.height, dtype=torch.float64) + 0.5,
        torch.arange(cameras.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    pictures = []
    for camera in cameras:
        xy = (torch.stack([u, v], dim=-1) - camera.principal_px[0]) / camera.focal_px[0]
        directions = torch.nn.functional.normalize(torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1), dim=-1)
        directions = directions @ camera.T_world_camera[0, :3, :3].T
        origin = camera.position_world[0]
        along = directions @ origin
        root = along**2 - origin @ origin + SPHERE_RADIUS**2
        hit = origin + directions * (-along - root.clamp(min=0).sqrt())[..., None]
        rgba = torch.cat([0.5 + 0.45 * hit / SPHERE_RADIUS, (root > 0).double()[..., None]], dim=-1)
        pictures.append((rgba.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.stack(pictures)


@pytest.fixture(scope="session")
def make_sphere_views() -> Callable[..., ViewSet]:
    """A function: views of a head whose every pixel is known, a sphere of `SPHERE_RADIUS` coloured by position."""

    def make(ring_count: int = 8, size_px: int = 64, points: int = 500) -> ViewSet:
        cameras = OrbitConfig(ring_count, upper_count=2, lower_count=0).cameras(size_px)
        index = torch.arange(points, dtype=torch.float64) + 0.5
        polar, azimuth = torch.arccos(1 - 2 * index / points), math.pi * (1 + 5**0.5) * index
        normals = torch.stack([azimuth.sin() * polar.sin(), polar.cos(), azimuth.cos() * polar.sin()], dim=-1)
        surface = PointCloud((SPHERE_RADIUS * normals).float(), normals.float(), (0.5 + 0.45 * normals).float())
        n = len(cameras)
        return ViewSet(
            _traced_sphere(cameras),
            cameras,
            torch.linspace(1.0, 0.4, n),
            ("portrait", *(f"view_{i:03d}" for i in range(1, n))),
            surface,
            Provenance("test", "none", 7, "ab" * 32, "0", settings={"ring_count": ring_count}),
        )

    return make


@pytest.fixture(scope="session")
def mean_fit():
    """A function: the mean head, or a random one, with an expression, as a fit: of one colour, no hair and no bust."""
    import numpy as np

    from dp360.generation.cameras import look_at_origin
    from dp360.generation.head_model import load_head_model
    from dp360.generation.prior.saved_fit import SavedFit
    from dp360.generation.prior.texture import atlas

    def make(expression: dict[str, float] | None = None, seed: int | None = None) -> SavedFit:
        model = load_head_model()
        weights = np.zeros(len(model.expression_names))
        for name, weight in (expression or {}).items():
            weights[model.expression_names.index(name)] = weight
        identity = np.zeros(len(model.identity_basis))
        if seed is not None:
            identity = 0.7 * np.random.default_rng(seed).standard_normal(len(identity))
        vertices = model.vertices(identity, weights)
        tile, material, u_tile = atlas._head_tiles(model, model.faces, model.faces_uv)
        corner_uv = model.uv[model.faces_uv] - np.stack([u_tile, np.zeros_like(u_tile)], axis=1)[:, None]
        px = tile[:, None, :2] + np.stack([corner_uv[..., 0], 1 - corner_uv[..., 1]], axis=-1) * tile[:, None, 2:]
        keys = np.concatenate([model.faces.reshape(-1, 1), np.round(px.reshape(-1, 2) * 64)], axis=1).astype(np.int64)
        unique, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        texture = np.full((atlas.ATLAS_HEIGHT, atlas.ATLAS_WIDTH, 3), (205, 160, 135), np.uint8)
        return SavedFit(
            identity, weights, vertices[unique[:, 0]].astype(np.float32), inverse.reshape(-1, 3).astype(np.int64),
            px.reshape(-1, 2)[first].astype(np.float32), material, unique[:, 0], texture, texture.copy(),
            np.full(texture.shape[:2], 255, np.uint8), np.full((64, 64, 3), 150, np.uint8), None,
            look_at_origin([0.0], [0.0], size_px=64), None, model.weights_name,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def rig(mean_fit):
    """The rig of a random head that smiled in its portrait."""
    from dp360.reconstruction.avatar.rig import build_rig

    return build_rig(mean_fit({"mouthSmile_L": 0.6, "mouthSmile_R": 0.6, "jawOpen": 0.15}, seed=3))
