"""Build the parametric head that ships with the package out of openly licensed data.

Run by hand; the package itself never needs the data:

    python scripts/build_head_model.py --data PACK --output generation/weights/head_model.npz

The result depends on nothing but the data and the seed: the archive is written with fixed dates and a fixed order, so
two runs on one machine give the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dp360.generation.cameras import PANOHEAD_RADIUS, UNITS_PER_CM, Cameras, look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, view_terms
from dp360.generation.head_model.anatomy import world_units
from dp360.generation.head_model.model import steps_of
from dp360.generation.mesh import vertex_normals
from dp360.generation.mesh_raster import box_downsample, interpolate, rasterize_mesh
from dp360.generation.portrait.face_detection import FaceNetworks, find_faces

VERSION = "1"
PARTS = {
    "face": (0, 9409),
    "cranium_and_neck": (9409, 11248),
    "mouth_socket": (11248, 13294),
    "eye_socket_left": (13294, 13678),
    "eye_socket_right": (13678, 14062),
    "gums_and_tongue": (14062, 17039),
    "teeth": (17039, 21451),
    "eyeball_left": (21451, 23021),
    "eyeball_right": (23021, 24591),
}
"""Vertex ranges kept from ICT-FaceKit's table of regions; lacrimal fluid, blends, occlusion and lashes are left out."""
IDENTITY_STEP_CM, EXPRESSION_STEP_CM = 0.0005, 0.001
"""Quantisation steps of the modes: 0.005 mm and 0.01 mm."""
Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class HeadModelBuildConfig:
    """Where the data is, where the model goes, and how the landmarks are measured."""

    data: Path
    """Folder of the head assets, with `ict_facekit` inside."""
    output: Path = Path("generation/weights/head_model.npz")
    """File to write."""
    identities: int = 14
    """Random identities that the landmark correspondence is measured on; the first is the mean head."""
    yaw_deg: tuple[float, ...] = (-18.0, 0.0, 18.0)
    """Views of each identity, degrees."""
    identity_sigma: float = 0.7
    """Spread of the random identities, standard deviations of the model."""
    turned_identities: int = 28
    """Random identities that the landmarks' dependence on the view is measured on, every other one smiling."""
    views_per_identity: int = 4
    """Random views of each of those."""
    largest_view_deg: tuple[float, float] = (40.0, 20.0)
    """Largest yaw and pitch of the random views, degrees."""
    seed: int = 0
    """Seed of the identities and views."""


def read_shape(data: Path) -> Arrays:
    """Mesh, modes and parts from ICT-FaceKit, in world units, modes quantised."""
    source = np.load(data / "ict_facekit" / "ict_facekit.npz")
    count = PARTS["eyeball_right"][1]
    kept = (source["faces"] < count).all(axis=1)
    faces_uv = source["faces_uv"][kept].astype(np.int64)
    used_uv, faces_uv = np.unique(faces_uv, return_inverse=True)

    def quantised(modes_cm: Float[np.ndarray, "m v 3"], step_cm: float) -> tuple[NDArray, NDArray]:
        steps = np.round(modes_cm / step_cm)
        assert np.abs(steps).max() < 2**15
        return steps.astype(np.int16), np.full(len(modes_cm), step_cm * UNITS_PER_CM, dtype=np.float32)

    names = [str(name) for name in source["expr_names"]]
    # Gaze moves eyeballs that we do not pose, and pupils are painted: neither can be seen in landmarks.
    wanted = [k for k, name in enumerate(names) if "Pupil" not in name and "eyeLook" not in name]
    expressions = np.zeros((len(wanted), count, 3), dtype=np.float32)
    for row, k in enumerate(wanted):
        span = slice(source["expr_ptr"][k], source["expr_ptr"][k + 1])
        index = source["expr_idx"][span].astype(np.int64)
        inside = index < count
        expressions[row, index[inside]] = source["expr_delta"][span][inside]
    identity, identity_scale = quantised(source["identity"][:, :count].astype(np.float32), IDENTITY_STEP_CM)
    expression, expression_scale = quantised(expressions, EXPRESSION_STEP_CM)
    part = np.zeros(count, dtype=np.uint8)
    for number, (begin, end) in enumerate(PARTS.values()):
        part[begin:end] = number
    return {
        "neutral": world_units(source["neutral"][:count]).astype(np.float32),
        "faces": source["faces"][kept].astype(np.int32),
        "uv": source["uv"][used_uv].astype(np.float32),
        "faces_uv": faces_uv.reshape(-1, 3).astype(np.int32),
        "part": part,
        "part_names": np.array(list(PARTS)),
        "identity_basis": identity,
        "identity_scale": identity_scale,
        "expression_basis": expression,
        "expression_scale": expression_scale,
        "expression_names": np.array([names[k] for k in wanted]),
    }


def closest_on_mesh(
    points: Float[np.ndarray, "p 3"], vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    """Face and barycentric weights of the nearest point of a mesh."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    nearest, _, face = trimesh.proximity.closest_point(mesh, points)
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face], nearest)
    return face, np.clip(weights, 0.0, 1.0) / np.clip(weights, 0.0, 1.0).sum(1, keepdims=True)


def landmarks68(data: Path) -> Int[np.ndarray, " 68"]:
    """Vertices of the usual 68 facial landmarks."""
    indices = json.loads((data / "ict_facekit" / "vertex_indices.json").read_text("utf-8"))
    return np.array(indices["idx_to_landmark_verts"])


def painted_colours(shape: Arrays, landmarks68: Int[np.ndarray, " 68"]) -> Float[np.ndarray, "v 3"]:
    """Colours by which a face detector recognises the bare head: lips, brows, irises, mouth and a cap of hair."""
    from matplotlib.path import Path as Polygon

    neutral, part = shape["neutral"].astype(np.float64), shape["part"]
    marks = neutral[landmarks68]
    skin = part <= 1
    colour = np.tile([0.80, 0.62, 0.52], (len(neutral), 1))

    def paint(polygon: Float[np.ndarray, "n 2"], rgb: tuple[float, float, float], least_z: float) -> None:
        inside = Polygon(polygon).contains_points(neutral[:, :2])
        colour[inside & (neutral[:, 2] > least_z) & (part == 0)] = rgb

    paint(marks[48:60, :2], (0.66, 0.30, 0.28), 0.10)  # the outer lips
    lift = np.array([0, 0.006])
    for brow in (marks[17:22, :2], marks[22:27, :2]):
        paint(np.concatenate([brow + lift, (brow - lift)[::-1]]), (0.20, 0.13, 0.10), 0.05)
    for number in (7, 8):
        own = np.flatnonzero(part == number)
        low, high = neutral[own].min(0), neutral[own].max(0)
        radius = np.hypot(*(neutral[own, :2] - (low + high)[:2] / 2).T)
        front = neutral[own, 2] > (low + high)[2] / 2
        colour[own] = 0.92
        colour[own[front & (radius < 0.0105)]] = (0.25, 0.16, 0.10)
        colour[own[front & (radius < 0.0045)]] = 0.03
    colour[(part >= 2) & (part <= 5)] = (0.40, 0.15, 0.13)
    x, y, z = neutral.T
    colour[skin & ((y > 0.115) | ((z < 0) & (y > -0.03) & (np.abs(x) < 0.115)))] = (0.22, 0.15, 0.10)
    return colour


def render_painted(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    colours: Float[np.ndarray, "v 3"],
    camera: Cameras,
) -> UInt8[np.ndarray, "h w 3"]:
    """The painted head under one light beside the camera, on light grey."""
    fragments = rasterize_mesh(vertices, faces, camera, supersample=2)
    attributes = interpolate(fragments, np.concatenate([vertex_normals(vertices, faces), colours], axis=1), faces)
    light = camera.T_world_camera[0, :3, :3].numpy() @ np.array([-0.3, -0.5, -0.8])
    normal = attributes[..., :3] / np.maximum(np.linalg.norm(attributes[..., :3], axis=-1, keepdims=True), 1e-6)
    shading = 0.45 + 0.55 * np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    picture = np.where(fragments.hit[..., None], attributes[..., 3:] * shading[..., None], 0.85)
    return (np.clip(box_downsample(picture.astype(np.float32), 2), 0, 1) ** 0.8 * 255 + 0.5).astype(np.uint8)


def landmark_correspondence(shape: Arrays, data: Path, config: HeadModelBuildConfig) -> Arrays:
    """Where mediapipe's 478 landmarks lie on the neutral head: medians over renders of random identities."""
    colours = painted_colours(shape, landmarks68(data))
    neutral, faces, part = shape["neutral"].astype(np.float64), shape["faces"], shape["part"]
    modes = shape["identity_basis"].astype(np.float32) * shape["identity_scale"][:, None, None]
    rng = np.random.default_rng(config.seed)
    seen_points: list[NDArray] = []
    seen_parts: list[NDArray] = []
    tried = 0
    networks = FaceNetworks()
    for number in range(config.identities):
        weights = rng.normal(0.0, config.identity_sigma, len(modes)) * (number > 0)
        vertices = neutral + np.tensordot(weights, modes, 1)
        for yaw_deg in config.yaw_deg:
            tried += 1
            camera = look_at_origin([np.radians(yaw_deg)], [0.0])
            found = find_faces(render_painted(vertices, faces, colours, camera), networks)
            if not found:
                continue
            fine = rasterize_mesh(vertices, faces, camera, supersample=4)
            normals = vertex_normals(vertices, faces)
            column, row = (found[0].landmarks_px[:, :2].T * 4).astype(np.int64).clip(0, 4 * camera.width - 1)
            face, weight = fine.triangle_index[row, column], fine.barycentric[row, column]
            corners = faces[np.maximum(face, 0)]
            on_head = (vertices[corners] * weight[..., None]).sum(1)
            ray = on_head - camera.position_world[0].numpy()
            facing = -((normals[corners] * weight[..., None]).sum(1) * ray).sum(1) / np.linalg.norm(ray, axis=1)
            usable = (face >= 0) & (facing > 0.25)
            points = (neutral[corners] * weight[..., None]).sum(1)
            seen_points.append(np.where(usable[:, None], points, np.nan))
            seen_parts.append(np.where(usable, part[corners[:, 0]], 255))
    points, parts = np.array(seen_points), np.array(seen_parts)
    hits = np.isfinite(points[..., 0]).sum(0)
    valid = hits >= max(3, len(points) // 7)
    median = np.nan_to_num(np.nanmedian(points, axis=0))
    spread = np.sqrt(np.nan_to_num(np.nanmean(((points - median) ** 2).sum(-1), axis=0), nan=0.02**2))
    usual_part = np.array([np.bincount(p[p < 255], minlength=len(PARTS)).argmax() for p in parts.T])

    # mediapipe's mesh is symmetric: pair the landmarks left to right and average each pair.
    opposite = np.array([1.0, 0, 0]) * -2 * median + median
    _, partner = linear_sum_assignment(np.linalg.norm(opposite[:, None] - median[None], axis=-1))
    paired = (partner[partner] == np.arange(len(partner))) & valid & valid[partner]
    median[paired] = (median[paired] + median[partner[paired]] * [-1, 1, 1]) / 2

    landmark_faces = np.zeros((len(median), 3), dtype=np.int32)
    landmark_weights = np.zeros((len(median), 3), dtype=np.float32)
    for number in np.unique(usual_part):
        own = np.flatnonzero(usual_part == number)
        candidates = faces[(part[faces] == number).all(axis=1)]
        face, weights = closest_on_mesh(median[own], neutral, candidates)
        landmark_faces[own], landmark_weights[own] = candidates[face], weights
    to_mm = 10 / UNITS_PER_CM
    print(
        f"landmarks: {len(points)} of {tried} renders detected, {int(valid.sum())} of {len(valid)} landmarks valid, "
        f"{int(paired.sum())} paired left to right; spread median {np.median(spread) * to_mm:.2f} mm, "
        f"90 % {np.percentile(spread, 90) * to_mm:.2f} mm"
    )
    return {
        "landmark_faces": landmark_faces,
        "landmark_weights": landmark_weights,
        "landmark_spread": spread.astype(np.float32),
        "landmark_valid": valid,
    }


def landmark_view_offset(shape: Arrays, data: Path, config: HeadModelBuildConfig) -> Arrays:
    """How the detected landmarks move against the projected ones with the view.

    Positions are compared in the camera's frame at the depth of the model's landmark, mediapipe's relative depth with
    the mean removed, and turned into the head's frame; a robust least-squares fit gives the coefficients of
    `view_terms`. Each render counts a second time as its mirror image.
    """
    so_far = {"landmark_view_offset": np.zeros((478, 3, 6)), "version": np.array(VERSION)}
    model = HeadModel.from_arrays(packed(shape | so_far), sha256="")
    colours = painted_colours(shape, landmarks68(data))
    smile = np.isin(model.expression_names, ["mouthSmile_L", "mouthSmile_R"])
    jaw = np.isin(model.expression_names, ["jawOpen"])
    rng = np.random.default_rng([config.seed, 1])
    offsets, terms, mirrored_terms = [], [], []
    networks = FaceNetworks()
    for number in range(config.turned_identities):
        identity = rng.normal(0.0, config.identity_sigma, len(model.identity_basis))
        expression = (number % 2) * (rng.uniform(0.2, 0.7) * smile + rng.uniform(0.0, 0.25) * jaw)
        vertices = model.vertices(identity, expression)
        on_head = model.landmarks(vertices)
        for yaw_rad, pitch_rad in np.radians(
            rng.uniform(-1, 1, (config.views_per_identity, 2)) * config.largest_view_deg
        ):
            camera = look_at_origin([yaw_rad], [pitch_rad])
            found = find_faces(render_painted(vertices, model.faces, colours, camera), networks)
            if not found:
                continue
            R_camera_world = camera.T_camera_world[0, :3, :3].numpy()
            expected = on_head @ R_camera_world.T
            units_per_px = 1 / camera.focal_px[0].numpy()
            seen = found[0].landmarks_px.copy()
            seen[:, :2] = (seen[:, :2] - camera.principal_px[0].numpy()) * units_per_px
            seen[:, :2] *= expected[:, 2:] + PANOHEAD_RADIUS
            seen[:, 2] *= units_per_px[0] * PANOHEAD_RADIUS
            seen[:, 2] += expected[:, 2].mean() - seen[:, 2].mean()
            offsets.append((seen - expected) @ R_camera_world)
            terms.append(view_terms(yaw_rad, pitch_rad))
            mirrored_terms.append(view_terms(-yaw_rad, pitch_rad))

    opposite = model.landmarks(model.neutral) * [-1, 1, 1]
    _, partner = linear_sum_assignment(np.linalg.norm(opposite[:, None] - opposite * [-1, 1, 1], axis=-1))
    measured = np.array(offsets)
    measured = np.concatenate([measured, measured[:, partner] * [-1, 1, 1]])
    A = np.array(terms + mirrored_terms)
    ridge = np.diag([1e-6, 0.3, 0.3, 0.3, 0.3, 0.3])
    trust = np.ones(measured.shape[:2])
    for _ in range(6):
        H = np.einsum("nk,nl,nj->lkj", A, trust, A) + ridge
        coefficients = np.linalg.solve(H, np.einsum("nk,nl,nlc->lkc", A, trust, measured))
        left = np.linalg.norm(measured - np.einsum("nk,lkc->nlc", A, coefficients), axis=2)
        trust = 1 / (1 + (left / 0.01) ** 2)
    to_mm = 10 / UNITS_PER_CM
    before = np.median(np.linalg.norm(measured, axis=2))
    print(
        f"views: {len(offsets)} of {config.turned_identities * config.views_per_identity} renders detected; landmarks "
        f"off by {before * to_mm:.2f} mm (median) before, {np.median(left) * to_mm:.2f} mm after"
    )
    return {"landmark_view_offset": coefficients.transpose(0, 2, 1).astype(np.float16)}


def packed(shape: Arrays) -> Arrays:
    """The arrays as they are stored: modes as steps."""
    modes = {name: steps_of(shape[f"{name}_basis"]) for name in ("identity", "expression")}
    kept = {name: array for name, array in shape.items() if not name.endswith("_basis")}
    return kept | {f"{name}_steps": steps for name, steps in modes.items()}


def archive(arrays: Arrays) -> bytes:
    """A compressed .npz whose bytes depend on the arrays only: fixed order, fixed dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            file.writestr(entry, content.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main(config: HeadModelBuildConfig) -> None:
    """Build the model, write it and print its size and errors."""
    shape = read_shape(config.data)
    shape |= landmark_correspondence(shape, config.data, config)
    shape |= landmark_view_offset(shape, config.data, config)
    shape |= {
        "version": np.array(VERSION),
        "licence": np.array(
            "Head model derived from ICT-FaceKit (MIT):\n\n"
            + (config.data / "ict_facekit" / "LICENSE").read_text("utf-8")
        ),
    }
    data = archive(packed(shape))
    write_bytes_atomically(config.output, data)
    report_errors(shape, config)
    print(f"{config.output}: {len(data) / 1e6:.2f} MB, {len(shape['neutral'])} vertices, {len(shape['faces'])} faces")


def report_errors(shape: Arrays, config: HeadModelBuildConfig) -> None:
    """Print what quantisation costs, in millimetres."""
    source = np.load(config.data / "ict_facekit" / "ict_facekit.npz")
    exact = source["identity"][:, : len(shape["neutral"])].astype(np.float64)
    stored = shape["identity_basis"] * (shape["identity_scale"].astype(np.float64)[:, None, None] / UNITS_PER_CM)
    rng = np.random.default_rng(1)
    worst = max(
        np.linalg.norm(np.tensordot(rng.normal(size=len(exact)), stored - exact, 1), axis=-1).max() for _ in range(20)
    )
    print(f"errors: largest of 20 random heads {worst * 10:.3f} mm from quantisation")


if __name__ == "__main__":
    main(tyro.cli(HeadModelBuildConfig, description=__doc__))
