"""The geometric prior against composed heads whose every side is known.

Twelve heads are rendered from the canonical camera in front of them. That one picture goes through the whole of the
portrait preparation and the prior, and the prior is then seen from round the true head. A second table asks how well
the camera of a portrait is recovered. Needs the head assets; run by hand:

    python tests/benchmarks/prior_against_truth.py --data ../shared/data/heads --output outputs/prior_against_truth

How the poses are related: the fitted camera and the true one look at the same picture. The fitted head is carried
into the true camera's frame by the rotation between them and by the scale and shift that make both project alike, the
middles of both heads at distance 2.7; from there the true cameras see it. One picture does not tell where along its
optical axis the head's rotation centre lies. `as fitted` leaves it where the fit says; `depth chosen` moves each head
along that axis to where its outlines at 60, 90 and -90 degrees overlap best with the truth, as the prototype's table
did.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float, Float32
from skimage.metrics import structural_similarity

from dp360.generation.cameras import PANOHEAD_RADIUS, Cameras, look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, PortraitConfig, prepare_portrait
from dp360.generation.prior import HeadPrior, build_head_prior
from dp360.generation.synthetic.bodies.makehuman import MakeHumanRecipe, compose_makehuman
from dp360.generation.synthetic.bodies.valid_busts import compose_valid
from dp360.generation.synthetic.compose import SyntheticHead, render

AZIMUTHS_DEG = (0, 30, -30, 60, -60, 90, -90, 180)
GROUPS = {"0": (0,), "30": (30, -30), "60": (60, -60), "90": (90, -90), "180": (180,)}
HEAD_ROWS = slice(0, 190)
"""Rows of a 256 px picture that show head and hair rather than shoulders."""
MEASURES = ("psnr", "psnr_head", "ssim", "iou", "iou_head", "psnr_of_front")
PROTOTYPE = {
    "0": (21.5, 27.0, 0.93, 0.97, 0.98),
    "30": (14.4, 15.9, 0.68, 0.88, 0.90),
    "60": (13.4, 14.8, 0.62, 0.85, 0.89),
    "90": (13.8, 14.9, 0.62, 0.86, 0.89),
    "180": (15.3, 16.9, 0.65, 0.93, 0.94),
}
"""The table to beat: four heads, depth chosen."""
SMILE = {"expression/units/caucasian/mouth-corner-puller": 0.7}
# fmt: off
RECIPES = (
    MakeHumanRecipe(1, (0.1, 0.1, 0.8), 1.0, 0.1, 0.5, skin="young_lightskinned_male_diffuse", hair="short02",
                    eyes="blue", clothes=("male_casualsuit02",), expression=SMILE),
    MakeHumanRecipe(2, (0.1, 0.1, 0.8), 0.0, 0.1, 0.4, skin="young_lightskinned_female_diffuse2", hair="long01",
                    hair_colour="blond", eyes="green", eyebrows="eyebrow009", clothes=("female_casualsuit01",)),
    MakeHumanRecipe(6, (0.85, 0.05, 0.1), 0.0, 0.4, 0.6, skin="middleage_darkskinned_female_diffuse", hair="afro01",
                    hair_colour="dark", eyebrows="eyebrow012", clothes=("female_sportsuit01",)),
    MakeHumanRecipe(4, (0.1, 0.85, 0.05), 0.0, 0.1, 0.4, skin="young_lightskinned_female_diffuse3", hair="bob02",
                    hair_colour="black", eyebrows="eyebrow003", clothes=("female_casualsuit02",)),
    MakeHumanRecipe(5, (0.1, 0.1, 0.8), 1.0, 0.95, 0.5, skin="old_lightskinned_male_diffuse2", hair="short03",
                    hair_colour="grey", eyes="grey", eyebrows="eyebrow002", clothes=("male_elegantsuit01",)),
    MakeHumanRecipe(7, (0.2, 0.1, 0.7), 0.0, 0.4, 0.6, skin="middleage_lightskinned_female_diffuse2",
                    hair="ponytail01", hair_colour="red", eyes="lightblue", eyebrows="eyebrow010",
                    clothes=("female_elegantsuit01",)),
    MakeHumanRecipe(8, (0.85, 0.05, 0.1), 1.0, 0.9, 0.6, skin="old_darkskinned_male_diffuse", hair=None,
                    hair_colour="grey", eyebrows="eyebrow006", clothes=("male_casualsuit04",)),
    MakeHumanRecipe(3, (0.85, 0.1, 0.05), 1.0, 0.2, 0.5, skin="young_darkskinned_male_diffuse", hair="short01",
                    hair_colour="black", eyebrows="eyebrow006", clothes=("male_casualsuit03",)),
)
# fmt: on
OWN_MODEL = "parametric model"
"""Family of the heads that are drawn from our own model."""
BUSTS = ("White_F_3_Casual", "Black_M_2_Casual", "MENA_M_1_Casual", "Asian_F_2_Casual")


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and where to write it."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/prior_against_truth")
    """Folder for the pictures, `results.json` and `tables.md`."""
    heads: tuple[int, ...] = tuple(range(12))
    """Which heads, for a quick look."""
    pose_heads: tuple[int, ...] = (0, 2, 4, 6, 8, 9)
    """Heads of the camera table."""
    own_pose_heads: int = 4
    """Random heads of the parametric model in the camera table, whose true pose is unambiguous."""
    seed: int = 0
    """Seed of the prior."""


@dataclass(frozen=True)
class WorldFromFit:
    """Similarity that carries the fitted head into the true world: x -> scale * R x + shift."""

    scale: float
    R: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, " 3"]

    def cameras_of_fit(self, cameras: Cameras) -> Cameras:
        """True cameras as the fitted head's frame sees them; a similarity does not change what they show."""
        T = cameras.T_world_camera.clone()
        R = torch.from_numpy(self.R)
        T[:, :3, :3] = R.T @ T[:, :3, :3]
        T[:, :3, 3] = (T[:, :3, 3] - torch.from_numpy(self.shift)) @ R / self.scale
        return Cameras(T, cameras.focal_px, cameras.principal_px, cameras.width, cameras.height)


def benchmark_head(data: Path, number: int) -> SyntheticHead:
    """One of the twelve heads."""
    if number < len(RECIPES):
        return compose_makehuman(data, RECIPES[number])
    return compose_valid(data, BUSTS[number - len(RECIPES)])


def on_white(rgb: Float32[np.ndarray, "*n 3"], alpha: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 3"]:
    """Straight colour over white."""
    return np.clip(rgb * alpha[..., None] + 1 - alpha[..., None], 0, 1)


def write_png(path: Path, rgb_unit: Float32[np.ndarray, "h w 3"]) -> None:
    """Write a picture in [0, 1] as PNG."""
    image = (np.clip(rgb_unit, 0, 1) * 255 + 0.5).astype(np.uint8)
    write_bytes_atomically(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def crop_from_source(
    portrait: Portrait, picture: Float32[np.ndarray, "h w 3"]
) -> tuple[float, Float[np.ndarray, " 2"]]:
    """Scale s and offset o of the portrait's crop: crop pixel = s * picture pixel + o, found by registration."""
    size = portrait.size_px
    crop = cv2.cvtColor(portrait.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    source = cv2.cvtColor((picture * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY).astype(np.float32)
    best_score, best = -1.0, np.eye(2, 3, dtype=np.float32)
    for scale in (0.74, 0.85, 1.0, 1.15):  # standard and wide crops, and heads of other sizes
        shift = size / 2 * (1 - 1 / scale)
        start = np.array([[1 / scale, 0, shift], [0, 1 / scale, shift]], dtype=np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 300, 1e-8)
        try:
            score, warp = cv2.findTransformECC(
                crop, source, start, cv2.MOTION_AFFINE, criteria, portrait.inside.astype(np.uint8) * 255, 5
            )
        except cv2.error:  # no convergence from this start
            continue
        if score > best_score:
            best_score, best = score, warp
    if best_score < 0.98:
        raise RuntimeError(f"crop and picture do not register (correlation {best_score:.3f})")
    per_crop = float(np.sqrt(np.linalg.det(best[:, :2].astype(np.float64))))
    # the warp takes whole-number pixel positions of the crop to those of the picture; ours have centres at +0.5
    middle = best[:, :2] @ np.full(2, size / 2 - 0.5) + best[:, 2] + 0.5
    return 1 / per_crop, size / 2 - middle / per_crop


def world_from_fit(
    portrait: Portrait, scale: float, offset: Float[np.ndarray, " 2"], true_camera: Cameras, depth: float = 0.0
) -> WorldFromFit:
    """See the module's docstring; `depth` moves the head away from the camera, keeping its picture."""
    fitted = portrait.head.camera
    ratio = float(fitted.focal_px[0, 0] / scale / true_camera.focal_px[0, 0])
    principal = (fitted.principal_px[0].numpy() - offset) / scale
    shift_px = principal - true_camera.principal_px[0].numpy()
    stretch = 1 + depth / PANOHEAD_RADIUS
    shift = np.append(shift_px * PANOHEAD_RADIUS / float(true_camera.focal_px[0, 0]), 0.0) * stretch
    shift[2] += depth
    R_world_camera = true_camera.T_world_camera[0, :3, :3].numpy()
    R_camera_fit = fitted.T_camera_world[0, :3, :3].numpy()
    return WorldFromFit(ratio * stretch, R_world_camera @ R_camera_fit, R_world_camera @ shift)


def psnr(a: Float32[np.ndarray, "h w 3"], b: Float32[np.ndarray, "h w 3"]) -> float:
    return float(10 * np.log10(1 / max(float(((a - b) ** 2).mean()), 1e-9)))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def compare(
    ours: Float32[np.ndarray, "h w 3"],
    our_alpha: Float32[np.ndarray, "h w"],
    truth: Float32[np.ndarray, "h w 3"],
    true_alpha: Float32[np.ndarray, "h w"],
    front: Float32[np.ndarray, "h w 3"],
) -> dict[str, float]:
    """All measures of one view, on white."""
    P, Q = our_alpha > 0.5, true_alpha > 0.5
    return {
        "psnr": psnr(ours, truth),
        "psnr_head": psnr(ours[HEAD_ROWS], truth[HEAD_ROWS]),
        "ssim": float(structural_similarity(ours, truth, channel_axis=2, data_range=1.0)),
        "iou": iou(P, Q),
        "iou_head": iou(P[HEAD_ROWS], Q[HEAD_ROWS]),
        "psnr_of_front": psnr(front, truth),
    }


def best_depth(
    prior: HeadPrior,
    portrait: Portrait,
    crop: tuple[float, Float[np.ndarray, " 2"]],
    true_camera: Cameras,
    true_alpha: dict[int, Float32[np.ndarray, "h w"]],
) -> float:
    """Depth offset in [-0.12, 0.12] whose outlines at 60, 90 and -90 degrees agree best with the truth."""
    side = (90, -90, 60)
    cameras = look_at_origin(np.deg2rad(side), [0.0] * 3, size_px=128)
    masks = [cv2.resize(true_alpha[a], (128, 128), interpolation=cv2.INTER_AREA) > 0.5 for a in side]

    def agreement(depth: float) -> float:
        seen = world_from_fit(portrait, *crop, true_camera, depth).cameras_of_fit(cameras)
        return float(np.mean([iou(a > 0.5, m) for a, m in zip(prior.render(seen, supersample=1).alpha, masks)]))

    depths = np.arange(-0.12, 0.121, 0.01)
    return float(depths[np.argmax([agreement(d) for d in depths])])


def measure_head(number: int, config: BenchmarkConfig) -> tuple[dict, Float32[np.ndarray, "h w 3"]]:
    """Results of one head, and its strip: truth above, prior as fitted below."""
    head = benchmark_head(config.data, number)
    azimuth_rad = np.deg2rad(AZIMUTHS_DEG)
    true_cameras = look_at_origin(azimuth_rad, [0.0] * len(AZIMUTHS_DEG))
    rgb, alpha = render(head, true_cameras)
    picture = on_white(rgb[0], alpha[0])
    path = config.output / "portraits" / f"{number:02d}_{head.name}.png"
    write_png(path, picture)

    begin = time.perf_counter()
    portrait = prepare_portrait(path, PortraitConfig())
    middle = time.perf_counter()
    prior = build_head_prior(portrait, seed=config.seed)
    seconds = {"portrait": middle - begin, "prior": time.perf_counter() - middle}

    def small(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)

    truth = {a: small(on_white(c, o)) for a, c, o in zip(AZIMUTHS_DEG, rgb, alpha)}
    true_alpha = {a: small(o) for a, o in zip(AZIMUTHS_DEG, alpha)}
    crop = crop_from_source(portrait, picture)
    depth = best_depth(prior, portrait, crop, true_cameras[0], true_alpha)
    views: dict[str, dict[int, dict[str, float]]] = {}
    strip = [np.concatenate([truth[a] for a in AZIMUTHS_DEG], axis=1)]
    for setting, offset in (("as fitted", 0.0), ("depth chosen", depth)):
        seen = world_from_fit(portrait, *crop, true_cameras[0], offset).cameras_of_fit(true_cameras.resized(256, 256))
        ours = prior.render(seen, supersample=2)
        pictures = [on_white(c, o) for c, o in zip(ours.rgb, ours.alpha)]
        views[setting] = {
            a: compare(p, o, truth[a], true_alpha[a], truth[0]) for a, p, o in zip(AZIMUTHS_DEG, pictures, ours.alpha)
        }
        if setting == "as fitted":
            strip.append(np.concatenate(pictures, axis=1))
    result = {
        "head": head.name,
        "assets": list(head.assets),
        "notices": list(portrait.notices),
        "crop": portrait.crop,
        "depth_chosen": depth,
        "reprojection_px": _reprojection(portrait),
        "seconds": seconds,
        "views": views,
    }
    return result, np.concatenate(strip, axis=0)


def _reprojection(portrait: Portrait) -> dict[str, float]:
    residual = portrait.head.residual_px * 512 / portrait.size_px
    return {"median": float(np.median(residual)), "p90": float(np.percentile(residual, 90))}


def rotation_angle_deg(R: Float[np.ndarray, "3 3"]) -> float:
    """Angle of a rotation, degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))))


def mean_rotation(rotations: Iterable[Float[np.ndarray, "3 3"]]) -> Float[np.ndarray, "3 3"]:
    """The rotation nearest to the arithmetic mean (Moakher 2002, Sec. 3.2)."""
    U, _, Vt = np.linalg.svd(np.sum(list(rotations), axis=0))
    return U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt


def build_script() -> ModuleType:
    """`scripts/build_head_model.py` as a module: it paints and renders bare heads of the model."""
    path = Path(__file__).parents[2] / "scripts" / "build_head_model.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def pose_pictures(
    config: BenchmarkConfig, cameras: Cameras
) -> Iterator[tuple[str, str, list[Float32[np.ndarray, "h w 3"]]]]:
    """Family, name and pictures of each head of the camera table."""
    for number in config.pose_heads:
        head = benchmark_head(config.data, number)
        rgb, alpha = render(head, cameras)
        yield head.assets[0].split("/")[0], head.name, [on_white(c, o) for c, o in zip(rgb, alpha)]
    if config.own_pose_heads:
        build, model = build_script(), load_head_model()
        colours = build.painted_colours({"neutral": model.neutral, "part": model.part}, build.landmarks68(config.data))
        rng = np.random.default_rng(777)  # not the seed that the model was measured with
        for k in range(config.own_pose_heads):
            identity = rng.normal(0.0, 0.7, len(model.identity_basis))
            vertices = model.vertices(identity, np.zeros(len(model.expression_basis)))
            pictures = [build.render_painted(vertices, model.faces, colours, camera) for camera in cameras]
            yield OWN_MODEL, f"model_{k}", [(p / 255).astype(np.float32) for p in pictures]


def measure_poses(config: BenchmarkConfig) -> list[dict]:
    """Recovered against intended camera for turned and nodding portraits.

    "Straight ahead" of a composed head is not that of our model. `error_deg`: without one constant rotation per asset
    family, the mean over the family's heads at yaw 0. `relative_error_deg`: without the rotation of the head's own
    portrait at yaw 0, thus the recovered turn away from it. `raw_error_deg`: nothing removed. Heads of the model
    itself have no such ambiguity, and nothing is removed from their `error_deg`.
    """
    angles = [(yaw, 0) for yaw in (-35, -25, -15, 0, 15, 25, 35)] + [(0, -15), (0, 15)]
    cameras = look_at_origin(np.deg2rad([a for a, _ in angles]), np.deg2rad([e for _, e in angles]))
    rows: list[dict] = []
    for family, name, pictures in pose_pictures(config, cameras):
        for (yaw, pitch), camera, picture in zip(angles, cameras, pictures):
            path = config.output / "poses" / f"{name}_yaw{yaw:+03d}_pitch{pitch:+03d}.png"
            write_png(path, picture)
            portrait = prepare_portrait(path, PortraitConfig(crop="standard"))
            R_fit = portrait.head.camera.T_camera_world[0, :3, :3].numpy()
            R_true = camera.T_camera_world[0, :3, :3].numpy()
            rows.append(
                {
                    "head": name,
                    "family": family,
                    "yaw_deg": yaw,
                    "pitch_deg": pitch,
                    "R_true_fit": R_true.T @ R_fit,
                    "reprojection_px": _reprojection(portrait),
                }
            )
    for family in {row["family"] for row in rows}:
        own = [row for row in rows if row["family"] == family]
        front = {r["head"]: r["R_true_fit"] for r in own if r["yaw_deg"] == 0 and r["pitch_deg"] == 0}
        ahead = np.eye(3) if family == OWN_MODEL else mean_rotation(front.values())
        for row in own:
            row["relative_error_deg"] = rotation_angle_deg(row["R_true_fit"] @ front[row["head"]].T)
            row["convention_offset_deg"] = rotation_angle_deg(ahead)
            row["error_deg"] = rotation_angle_deg(row["R_true_fit"] @ ahead.T)
            row["raw_error_deg"] = rotation_angle_deg(row["R_true_fit"])
    for row in rows:
        row["R_true_fit"] = row["R_true_fit"].tolist()
    return rows


def view_table(results: list[dict], setting: str) -> str:
    """Means over the heads, with the prototype's numbers in brackets."""
    lines = [
        f"### {len(results)} heads, {setting}",
        "",
        "| azimuth | PSNR | PSNR head | SSIM | IoU | IoU head | PSNR of the pasted front picture |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group, azimuths in GROUPS.items():
        cells = []
        for k, measure in enumerate(MEASURES):
            value = np.mean([r["views"][setting][a][measure] for r in results for a in azimuths])
            text = f"{value:.1f}" if measure.startswith("psnr") else f"{value:.2f}"
            cells.append(text + (f" ({PROTOTYPE[group][k]:g})" if k < len(PROTOTYPE[group]) else ""))
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def head_table(results: list[dict]) -> str:
    """One line per head."""
    lines = [
        "### Heads, as fitted",
        "",
        "| head | IoU head 0 / 60 / 90 / 180 | PSNR head 0 / 60 / 90 / 180 | depth chosen | reprojection px | s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        cells = []
        for measure, digits in (("iou_head", 2), ("psnr_head", 1)):
            values = [
                np.mean([r["views"]["as fitted"][a][measure] for a in GROUPS[g]]) for g in ("0", "60", "90", "180")
            ]
            cells.append(" / ".join(f"{v:.{digits}f}" for v in values))
        seconds = sum(r["seconds"].values())
        lines.append(
            f"| {r['head']} | {cells[0]} | {cells[1]} | {r['depth_chosen']:+.2f} | "
            f"{r['reprojection_px']['median']:.2f} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def pose_table(rows: list[dict]) -> str:
    """Errors by pose, then the worst; composed heads, then heads of the model itself."""
    text = [
        "### Recovered camera",
        "",
        "Angle between the intended and the recovered camera. `error`: one constant rotation per asset family (the",
        "mean at yaw 0) removed, none for heads of the model itself; `relative`: the rotation of the head's own",
        "portrait at yaw 0 removed; `raw`: nothing removed. Reprojection at 512 px.",
    ]
    for title, chosen in (
        ("Composed heads", [r for r in rows if r["family"] != OWN_MODEL]),
        ("Heads of the parametric model", [r for r in rows if r["family"] == OWN_MODEL]),
    ):
        if chosen:
            text += ["", f"{title}:", "", *_pose_lines(chosen)]
    return "\n".join(text)


def _pose_lines(rows: list[dict]) -> list[str]:
    """The table of one group of heads."""
    lines = [
        "| yaw, pitch | error mean | error max | relative mean | relative max | raw mean | reprojection median | p90 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pose in sorted({(r["yaw_deg"], r["pitch_deg"]) for r in rows}):
        own = [r for r in rows if (r["yaw_deg"], r["pitch_deg"]) == pose]
        error, relative, raw = ([r[f"{kind}error_deg"] for r in own] for kind in ("", "relative_", "raw_"))
        px = np.median([r["reprojection_px"]["median"] for r in own])
        p90 = np.median([r["reprojection_px"]["p90"] for r in own])
        lines.append(
            f"| {pose[0]:+d}, {pose[1]:+d} | {np.mean(error):.2f} | {max(error):.2f} | {np.mean(relative):.2f} "
            f"| {max(relative):.2f} | {np.mean(raw):.2f} | {px:.2f} | {p90:.2f} |"
        )
    offsets = {r["family"]: r["convention_offset_deg"] for r in rows}
    worst = max(r["error_deg"] for r in rows)
    named = ", ".join(f"{family} {angle:.1f}" for family, angle in sorted(offsets.items()))
    mean, relative = (np.mean([r[f"{kind}error_deg"] for r in rows]) for kind in ("", "relative_"))
    lines += [
        "",
        f"{len(rows)} portraits: mean error {mean:.2f} degrees, largest {worst:.2f}; relative {relative:.2f}. Constant "
        f"rotation removed: {named}.",
    ]
    return lines


def main(config: BenchmarkConfig) -> None:
    """Measure, and write tables, JSON and pictures."""
    results, strips = [], []
    for number in config.heads:
        result, strip = measure_head(number, config)
        results.append(result)
        strips.append(strip)
        mean = {a: round(result["views"]["as fitted"][a]["iou_head"], 3) for a in AZIMUTHS_DEG}
        print(number, result["head"], mean, {k: round(v, 1) for k, v in result["seconds"].items()}, flush=True)
        write_png(config.output / f"sheet_{number:02d}.png", strip)
    tables = []
    if results:
        write_png(config.output / "contact_sheet.png", np.concatenate(strips, axis=0))
        tables = [view_table(results, "as fitted"), view_table(results, "depth chosen"), head_table(results)]
    poses = measure_poses(config) if config.pose_heads else []
    if poses:
        tables.append(pose_table(poses))
    text = "\n\n".join(tables) + "\n"
    write_bytes_atomically(config.output / "tables.md", text.encode())
    data = {"heads": results, "poses": poses}
    write_bytes_atomically(config.output / "results.json", json.dumps(data, indent=1).encode())
    print(text)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig, description=__doc__))
