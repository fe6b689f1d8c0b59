"""Quality, time and memory of meshes out of splats: `python tests/benchmarks/bench_mesh.py head.ply [...]`.

For each file of fitted Gaussians: what kind of surface comes out (watertight, pieces, Euler number), seconds and CPU
seconds of a second run (kernels are compiled in the first), the most memory the process ever took, and how renders of
the textured mesh compare with renders of the Gaussians, from cameras that the mesh was not made from: PSNR inside the
silhouette at 256 px, mean and worst, and the overlap (intersection over union) of the silhouettes. Cameras look from
level, 12 degrees above and 10 below, framed as a portrait; what lies below the mesh's flat cut is left out.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from pathlib import Path

import numpy as np

from dp360.exporters import mesh_glb, splat_ply
from dp360.exporters.mesh_arrays import arrays_for_mesh_file
from dp360.exporters.meshing import MeshConfig, mesh_from_renders
from dp360.generation import Cameras, Provenance
from dp360.generation.cameras import concatenate_cameras, orbit
from dp360.generation.mesh import TexturedMesh
from dp360.generation.mesh_raster import box_downsample, interpolate, rasterize_mesh, sample_texture
from dp360.reconstruction.splat_scene import SplatScene

_SUPERSAMPLE = 4


def held_out_cameras(size_px: int = 256) -> Cameras:
    """Cameras between those of the rings that a mesh is made from."""
    rings = [(0.0, 12, 0.09), (12.0, 8, 0.2), (-10.0, 8, 0.3)]
    return concatenate_cameras(
        [
            orbit(count, elevation_rad=math.radians(degrees), start_azimuth_rad=start, size_px=size_px)
            for degrees, count, start in rings
        ]
    )


def draw(mesh: TexturedMesh, camera: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied colour and coverage of a textured mesh, averaged over samples of each pixel."""
    fragments = rasterize_mesh(mesh.vertices_world, mesh.faces, camera, supersample=_SUPERSAMPLE)
    height, width = mesh.texture_rgb.shape[:2]
    uv_px = interpolate(fragments, mesh.uv_unit, mesh.faces) * np.array([width, height], np.float32)
    rgb = sample_texture(mesh.texture_rgb.astype(np.float32) / 255, uv_px) * fragments.hit[..., None]
    return box_downsample(rgb, _SUPERSAMPLE), box_downsample(fragments.hit.astype(np.float32), _SUPERSAMPLE)


def compare(
    mesh: TexturedMesh, scene: SplatScene, config: MeshConfig, cameras: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """PSNR inside the common silhouette, dB, and overlap of silhouettes, per camera."""
    psnr, overlap = [], []
    for camera in cameras:
        truth = scene.render(camera)
        alpha, depth = truth.alpha[0].numpy(), truth.depth[0].numpy()
        rows, columns = np.mgrid[: camera.height, : camera.width] + 0.5
        x = (columns - float(camera.principal_px[0, 0])) / float(camera.focal_px[0, 0]) * depth
        y = (rows - float(camera.principal_px[0, 1])) / float(camera.focal_px[0, 1]) * depth
        T = camera.T_world_camera[0].numpy()
        counted = (T[1, 0] * x + T[1, 1] * y + T[1, 2] * depth + T[1, 3] > config.bottom_y) | (alpha < 0.5)
        rgb, coverage = draw(mesh, camera)
        ours, theirs = (coverage > 0.5) & counted, (alpha > 0.5) & counted
        overlap.append((ours & theirs).sum() / max((ours | theirs).sum(), 1))
        both = (coverage > 0.99) & (alpha > 0.9) & counted
        wanted = truth.rgb_premultiplied[0].numpy()[both] / alpha[both][:, None]
        psnr.append(-10 * math.log10(max(float(((rgb[both] - wanted) ** 2).mean()), 1e-10)))
    return np.array(psnr), np.array(overlap)


def main() -> None:
    """Print a few lines per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splats", type=Path, nargs="+", help="fitted Gaussians, the head.ply of a run")
    parser.add_argument("--glb", type=Path, default=None, help="folder for the meshes")
    arguments = parser.parse_args()
    config = MeshConfig()
    for path in arguments.splats:
        scene = SplatScene(splat_ply.decode(path.read_bytes())[0])
        mesh_from_renders(scene, MeshConfig(face_budget=20_000, texture_px=512))
        wall, cpu = time.perf_counter(), time.process_time()
        mesh = mesh_from_renders(scene, config)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        surface = arrays_for_mesh_file(mesh, metres_per_unit=1.0, writer="bench_mesh").to_trimesh()
        psnr, overlap = compare(mesh, scene, config, held_out_cameras())
        print(f"{path}: {len(scene.splats)} Gaussians, load {os.getloadavg()[0]:.1f}")
        print(
            f"  {len(surface.faces)} faces, watertight {surface.is_watertight}, pieces {surface.body_count}, ", end=""
        )
        print(f"Euler number {surface.euler_number}, volume {surface.volume:.4f}")
        print(f"  {wall:.1f} s, {cpu:.1f} CPU s on {os.cpu_count()} cores, at most {memory:.2f} GiB")
        print(f"  PSNR {psnr.mean():.2f} dB, worst {psnr.min():.2f}")
        print(f"  silhouettes overlap {overlap.mean():.4f}, worst {overlap.min():.4f}")
        if arguments.glb is not None:
            arguments.glb.mkdir(parents=True, exist_ok=True)
            provenance = splat_ply.decode(path.read_bytes())[1]
            provenance = provenance or Provenance("unknown", "unknown", 0, "unknown", "unknown")
            (arguments.glb / f"{path.parent.name}.glb").write_bytes(mesh_glb.encode(mesh, provenance))


if __name__ == "__main__":
    main()
