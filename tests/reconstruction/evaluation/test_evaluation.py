"""Evaluation of views: each figure against an independent implementation or a known answer, laws, bad data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.generation import InputError, PointCloud, Provenance, ViewSet, look_at_origin, orbit
from dp360.generation.cameras import Cameras, concatenate_cameras
from dp360.generation.dataset.view_dataset import read_dataset, write_dataset
from dp360.reconstruction.evaluation.compare import (
    METRICS,
    NamedViews,
    ViewFigures,
    azimuth_bin,
    camera_differences,
    compare_pictures,
    compare_views,
    estimate,
    head_rows,
    masked_psnr,
    masked_ssim,
    silhouette_iou,
    summarise,
)
from dp360.reconstruction.evaluation.consistency import reprojection, rings
from dp360.reconstruction.evaluation.features import (
    EfficientNetLite0,
    efficientnet_weights,
    open_perceptual,
    square_around,
)
from dp360.reconstruction.evaluation.heads import (
    HeadResult,
    _features,
    distribution_distances,
    frechet_distance,
    spread,
)
from dp360.reconstruction.evaluation.identity import IdentityAt
from dp360.reconstruction.evaluation.reports import identity_result
from dp360.reconstruction.evaluation.results import (
    EvaluationResult,
    Panel,
    ResultTable,
    column_titles,
    comparison_strip,
    strip_views,
    summary_data,
    summary_table,
    unique_names,
    write_result,
)
from dp360.reconstruction.perceptual import Lpips
from dp360.reconstruction.splat_scene import Renders

RNG = np.random.default_rng(0)
needs_efficientnet = pytest.mark.skipif(efficientnet_weights() is None, reason="needs the extra eval")


def noisy_pair(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    ramp = np.linspace(0.1, 0.9, size)
    true = np.stack([np.outer(ramp, np.ones(size)), np.outer(np.ones(size), ramp), np.outer(ramp, ramp)], -1)
    return np.clip(true + RNG.normal(0, 0.08, true.shape), 0, 1), true


def test_psnr_and_ssim_agree_with_other_implementations() -> None:
    from skimage.metrics import peak_signal_noise_ratio
    from torchmetrics.functional.image import structural_similarity_index_measure

    ours, true = noisy_pair()
    assert masked_psnr(ours, true) == pytest.approx(peak_signal_noise_ratio(true, ours, data_range=1), abs=1e-9)
    x, y = (torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in (ours, true))
    theirs = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)[1]
    assert isinstance(theirs, torch.Tensor)
    windows = theirs[0, :, 5:-5, 5:-5].mean(0).numpy()  # the pictures mirror differently at their edges
    assert masked_ssim(ours, true) == pytest.approx(windows.mean(), abs=1e-6)
    mask = np.zeros(ours.shape[:2], bool)
    mask[20:30, 15:40] = True
    assert masked_ssim(ours, true, mask) == pytest.approx(windows[15:25, 10:35].mean(), abs=1e-6)


def test_known_answers() -> None:
    true = np.full((32, 32, 3), 0.5)
    assert masked_psnr(true + 0.1, true) == pytest.approx(20.0)
    assert masked_psnr(true, true) == 100.0 and masked_ssim(true, true) == pytest.approx(1.0)
    mask = np.zeros((32, 32), bool)
    assert math.isnan(masked_psnr(true, true, mask)) and math.isnan(masked_ssim(true, true, mask))
    mask[:4] = True
    half = true.copy()
    half[4:] += 0.3  # outside the mask
    assert masked_psnr(half, true, mask) == 100.0 and masked_psnr(half, true) < 15
    square = np.zeros((40, 40))
    square[10:30, 10:30] = 1
    assert silhouette_iou(square, square) == 1 and silhouette_iou(np.zeros((4, 4)), np.zeros((4, 4))) == 1
    for shift in (1, 5, 10, 20):
        assert silhouette_iou(np.roll(square, shift, axis=1), square) == pytest.approx((20 - shift) / (20 + shift))


@pytest.mark.parametrize(
    ("azimuth", "name"),
    [(0, "front"), (14.9, "front"), (-15.1, "30"), (44.9, "30"), (-60, "60"), (104, "90"), (-120, "120"),
     (164, "150"), (166, "back"), (-180, "back"), (180, "back"), (345.2, "front"), (315, "60")],
)  # fmt: skip
def test_bins_of_azimuth(azimuth: float, name: str) -> None:
    assert azimuth_bin(float(azimuth)) == name


def test_frechet_distances() -> None:
    rng = np.random.default_rng(1)
    ours, true = rng.normal(0, 1, (400, 8)), rng.normal(0.5, 1.5, (300, 8))
    mean = ours.mean(0) - true.mean(0)
    from scipy.linalg import sqrtm

    a, b = np.cov(ours.T), np.cov(true.T)
    expected = mean @ mean + np.trace(a + b - 2 * np.real(np.asarray(sqrtm(a @ b))))
    assert frechet_distance(ours, true) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-6)
    shifted = ours + 3.0  # the same covariance: the squared distance of the means alone
    assert frechet_distance(shifted, ours) == pytest.approx(9 * 8, rel=1e-6)


def test_sets_of_pictures_are_compared_where_there_are_enough() -> None:
    rng = np.random.default_rng(2)

    def head(number: int, count: int) -> HeadResult:
        rows = tuple(ViewFigures(f"v{k}", 0.0 if k % 2 else 180.0, 0.0, {}) for k in range(count))
        true = rng.normal(0, 1, (count, 20))
        return HeadResult(f"h{number}", rows, {}, np.zeros((2, 2, 3), np.uint8), (true + 0.5, true))

    few = distribution_distances([head(k, 40) for k in range(3)])
    assert set(few) == {"all"}  # 60 pictures in front and behind are too few
    enough = distribution_distances([head(k, 60) for k in range(5)])
    assert set(enough) == {"front", "back", "all"} and enough["all"]["kid"] > 0
    assert enough["all"]["frechet"] == pytest.approx(20 * 0.25, rel=1e-6)  # equal covariances, shifted means
    assert distribution_distances([]) == {}


@needs_efficientnet
def test_the_perceptual_distance_grows_with_what_people_see() -> None:
    network = EfficientNetLite0()
    assert "EfficientNet-Lite0" in network.name
    _, true = noisy_pair(128)
    true = true.astype(np.float32)
    true[40:90, 50:80] = (0.8, 0.3, 0.2)

    def blurred(steps: int) -> np.ndarray:
        picture = true
        for _ in range(steps):
            picture = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1) + np.roll(picture, -1, 0)) / 4
        return picture

    pictures = np.stack([true, blurred(2), blurred(8), blurred(24)])
    found = network.distances(pictures, np.stack([true] * 4))
    assert found[0] == 0 and (np.diff(found) > 0).all()
    np.testing.assert_allclose(network.distances(np.stack([true] * 4), pictures), found, rtol=1e-5)
    assert network.pooled(pictures).shape == (4, 320)


def test_lpips_without_weights_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="--perceptual lpips downloads them"):
        Lpips("alex")

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(InputError, match=r"cannot be downloaded \(no route\)"):
        open_perceptual("lpips")


def test_the_square_about_a_mask_holds_it_whole() -> None:
    picture = np.zeros((50, 80, 3), np.float32)
    picture[10:30, 60:80] = 0.5
    mask = picture[..., 0] > 0
    (square,) = square_around([picture], mask)
    assert square.shape[0] == square.shape[1] == 23 and (square == 0.5).sum() == 3 * mask.sum()
    assert (square[:, -1] == 1).all()  # beyond the picture lies background
    assert square_around([picture], np.zeros_like(mask))[0].shape[0] >= 80


# views of a painted sphere ---------------------------------------------------------------------------------------


def sphere_views(cameras: Cameras, radius: float = 0.3, turn_rad: float = 0.0) -> tuple[ViewSet, torch.Tensor]:
    """A sphere whose colour follows its direction, turned about y, seen from cameras; and the depth."""
    n, size = len(cameras), cameras.width
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pictures, depths = [], []
    for camera in cameras:
        f, c, T = camera.focal_px[0], camera.principal_px[0], camera.T_world_camera[0]
        rays = torch.stack([(columns - c[0]) / f[0], (rows - c[1]) / f[1], torch.ones_like(rows)], -1).double()
        directions, origin = rays @ T[:3, :3].T, T[:3, 3]
        a, b = (directions**2).sum(-1), directions @ origin
        inside = b**2 - a * (origin @ origin - radius**2)
        z = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / a, torch.zeros_like(a))
        point = origin + directions * z[..., None]
        x = point[..., 0] * math.cos(turn_rad) - point[..., 2] * math.sin(turn_rad)
        w = point[..., 0] * math.sin(turn_rad) + point[..., 2] * math.cos(turn_rad)
        colour = 0.5 + torch.stack([x, point[..., 1], w], -1) / radius * 0.45
        rgba = torch.cat([colour, torch.ones_like(a)[..., None]], -1) * (inside > 0)[..., None]
        pictures.append((rgba * 255).round().to(torch.uint8))
        depths.append(z.float())
    surface = PointCloud(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3))
    provenance = Provenance("sphere", "none", 0, "00", "0")
    names = tuple(f"view_{i:03d}" for i in range(n))
    return ViewSet(torch.stack(pictures), cameras, torch.ones(n), names, surface, provenance), torch.stack(depths)


@pytest.fixture(scope="module")
def truth() -> ViewSet:
    return sphere_views(concatenate_cameras([orbit(8, size_px=48), orbit(6, elevation_rad=0.5, size_px=48)]))[0]


def named(views: ViewSet, name: str = "views") -> NamedViews:
    return NamedViews(views, name)


def test_equal_views_are_perfect_and_a_shrunken_head_is_not(truth: ViewSet) -> None:
    rows = compare_views(named(truth), named(truth)).rows
    assert len(rows) == 14 and all(row.values["psnr"] == 100 and row.values["iou"] == 1 for row in rows)
    assert all(math.isnan(row.values["perceptual"]) for row in rows)
    small = sphere_views(truth.cameras, radius=0.25)[0]
    for row in compare_views(named(small), named(truth)).rows:
        assert row.values["iou"] == pytest.approx((0.25 / 0.3) ** 2, abs=0.05)
        assert row.values["psnr"] < row.values["psnr_full"]  # the empty background makes the full picture look good


def test_features_are_paired_in_the_order_of_the_rows(truth: ViewSet) -> None:
    """Whatever the order of both sides: a network that sees the mean colour finds equal features in equal views."""

    class MeanColour(EfficientNetLite0):
        def __init__(self) -> None:
            pass

        def pooled(self, rgb_unit: np.ndarray) -> np.ndarray:
            return rgb_unit.mean((1, 2)).astype(np.float64)

    rows = compare_views(named(truth), named(truth)).rows
    shuffled = truth.select(np.random.default_rng(5).permutation(14).tolist())
    ours, true = _features(shuffled, truth, rows, MeanColour())
    expected = [truth.rgb_unit()[truth.names.index(row.name)].mean((0, 1)).numpy() for row in rows]
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    np.testing.assert_allclose(true, expected, atol=1e-4)


def test_order_and_image_format_do_not_matter(truth: ViewSet, tmp_path: Path) -> None:
    prediction = sphere_views(truth.cameras, turn_rad=0.2)[0]
    rows = compare_views(named(prediction), named(truth)).rows
    shuffled = np.random.default_rng(3).permutation(14).tolist()
    assert compare_views(named(prediction.select(shuffled)), named(truth)).rows == rows
    assert compare_views(named(prediction), named(truth.select(shuffled))).rows == rows
    renamed = dataclasses.replace(prediction, names=tuple(f"other_{i}" for i in range(14)))
    assert compare_views(named(renamed), named(truth)).rows == rows  # cameras decide, not names
    write_dataset(prediction, tmp_path / "png")
    for path in (tmp_path / "png" / "images").iterdir():  # another lossless format
        Image.open(path).save(path.with_suffix(".webp"), lossless=True, exact=True)
        path.unlink()
    text = (tmp_path / "png" / "transforms.json").read_text().replace(".png", ".webp")
    (tmp_path / "png" / "transforms.json").write_text(text)
    assert compare_views(named(read_dataset(tmp_path / "png")), named(truth)).rows == rows


def test_pictures_without_alpha_are_judged_by_the_true_silhouette(truth: ViewSet) -> None:
    rgb = (truth.rgb_unit() * 255).round().to(torch.uint8)
    opaque = dataclasses.replace(truth, rgba=torch.cat([rgb, torch.full_like(rgb[..., :1], 255)], -1))
    found = compare_views(named(opaque, "theirs"), named(truth))
    assert "theirs have no transparency" in found.notices[0]
    assert all(math.isnan(row.values["iou"]) and row.values["psnr"] > 45 for row in found.rows)


def test_bad_data_is_named(truth: ViewSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine are 24x24, those of truth 48x48"):
        other = sphere_views(truth.cameras.resized(24, 24))[0]
        compare_views(named(other, "mine"), named(truth, "truth"))
    fewer = truth.select(range(10))
    with pytest.raises(InputError, match=r"truth/images/view_010\.png has no counterpart.*4 have none"):
        compare_views(named(fewer, "mine"), named(truth, "truth"))
    partly = compare_views(named(fewer), named(truth), skip_missing=True)
    assert len(partly.rows) == 10 and "4 of 14 true views have no counterpart" in partly.notices[0]
    turned = dataclasses.replace(truth, cameras=look_cameras(3.0))
    with pytest.raises(InputError, match=r"turned by 3\.0 degrees"):
        compare_views(named(turned), named(truth.select(range(8))))
    empty = truth.rgba.clone()
    empty[3, ..., 3] = 0
    with pytest.raises(InputError, match=r"mask of truth/images/view_003\.png is empty"):
        compare_views(named(truth), named(dataclasses.replace(truth, rgba=empty), "truth"))
    write_dataset(truth, tmp_path / "data")
    (tmp_path / "data" / "images" / "view_004.png").unlink()
    with pytest.raises(InputError, match=r"view_004\.png, which does not exist"):
        read_dataset(tmp_path / "data")


def look_cameras(turned_deg: float) -> Cameras:
    azimuth = [math.radians(45 * k + turned_deg) for k in range(8)] + [0.1] * 6
    return look_at_origin(azimuth, [0.0] * 8 + [1.2] * 6, size_px=48)


@pytest.mark.parametrize("angle_deg", [0.0, 0.3, 45.0, 179.0])
def test_differences_of_cameras_are_the_known_ones(angle_deg: float) -> None:
    a, b = (look_at_origin([x], [0.0], size_px=32) for x in (0.0, math.radians(angle_deg)))
    angle, shift, focal = camera_differences(a, b)
    assert float(angle) == pytest.approx(angle_deg, abs=1e-6)
    assert float(shift) == pytest.approx(2 * math.sin(math.radians(angle_deg) / 2), abs=1e-6) and float(focal) == 0


def test_summaries_average_views_then_heads() -> None:
    def head(front: list[float], back: float) -> list[ViewFigures]:
        rows = [ViewFigures(f"f{k}", 0.0, 0.0, dict.fromkeys(METRICS, v)) for k, v in enumerate(front)]
        return [*rows, ViewFigures("b", 180.0, 0.0, dict.fromkeys(METRICS, back))]

    summary = summarise([head([1.0, 3.0], 5.0), head([4.0], 6.0)])
    assert list(summary) == ["front", "back", "all"]
    assert summary["front"]["psnr"].mean == pytest.approx(3.0) and summary["front"]["psnr"].count == 2
    assert summary["all"]["psnr"].mean == pytest.approx((3.0 + 5.0) / 2)
    assert summary["back"]["psnr"].interval == pytest.approx(1.96 * math.sqrt(0.5) / math.sqrt(2))
    assert estimate([2.0]).interval is None and math.isnan(estimate([]).mean)


def test_a_part_of_a_grid_has_something_of_every_side_and_ring() -> None:
    chosen = spread(72, 24)
    assert len(set(chosen)) == 24 and spread(72, 100) == list(range(72))
    rings_met, sides_met = {k // 24 for k in chosen}, {azimuth_bin(15.0 * (k % 24)) for k in chosen}
    assert len(rings_met) == 3 and len(sides_met) == 7


def test_strips_show_level_views_round_the_head_under_their_true_azimuths(truth: ViewSet) -> None:
    shown = strip_views(truth)
    assert [truth.names[i] for i in shown] == [f"view_{k:03d}" for k in range(8)]  # the level ring from the front
    assert column_titles(truth) == ("0°", "45°", "90°", "135°", "180°", "-135°", "-90°", "-45°")
    some = truth.select([9, 11, 2, 5])
    assert column_titles(some) == ("90°", "-135°")  # of what is level
    assert comparison_strip(some, some).shape == (3 * 144, 2 * 144, 3) and column_titles(truth.select([9])) == ("60°",)


def test_pictures_compared_by_hand() -> None:
    true, alpha = np.ones((32, 32, 3), np.float32), np.zeros((32, 32), np.float32)
    alpha[8:24, 8:24] = 1
    true[8:24, 8:24] = 0.2
    wrong = true.copy()
    wrong[8:24, 8:24] = 0.4
    values = compare_pictures(wrong, alpha, true, alpha)
    assert values["psnr"] == pytest.approx(-20 * math.log10(0.2), abs=1e-4)
    assert values["psnr_full"] == pytest.approx(values["psnr"] + 10 * math.log10(4), abs=1e-4)
    wrong[12:] = true[12:]  # wrong above row 12 alone
    above = compare_pictures(wrong, alpha, true, alpha, head_rows=12)
    assert above["psnr_head"] == pytest.approx(values["psnr"], abs=1e-4) and above["psnr"] > values["psnr"] + 5


def test_the_row_of_the_chin_moves_with_the_camera() -> None:
    level, above = (look_at_origin([0.0], [e], size_px=256) for e in (0.0, 0.5))
    assert head_rows(level) == 190 and 170 < head_rows(above) < 190
    assert head_rows(level.resized(512, 512)) == 380


# consistency -----------------------------------------------------------------------------------------------------


class KnownDepth:
    """A scene that gives the sphere's depth; implements `Renderable`."""

    def render(self, cameras: Cameras) -> Renders:
        views, depth = sphere_views(cameras)
        return Renders(views.rgb_unit((0.0, 0.0, 0.0)), views.alpha_unit, depth)


def test_reprojection_sees_no_error_in_one_sphere_and_finds_the_view_that_is_another(truth: ViewSet) -> None:
    cameras = orbit(24, size_px=96)
    views = sphere_views(cameras)[0]
    pairs = reprojection(views, KnownDepth())
    assert len(pairs) == 24 and sum(p.closes_ring for p in pairs) == 1
    assert all(p.error < 0.01 and p.shared > 0.75 and not p.seam for p in pairs)
    closing = next(p for p in pairs if p.closes_ring)
    assert abs(abs(closing.azimuth_deg) - 172.5) < 1e-6  # between the last and the first camera behind the head
    rgba = views.rgba.clone()
    rgba[5] = sphere_views(cameras[[5]], turn_rad=0.5)[0].rgba[0]  # one view shows it turned
    found = reprojection(dataclasses.replace(views, rgba=rgba), KnownDepth())
    assert {(p.first, p.second) for p in found if p.seam} == {("view_004", "view_005"), ("view_005", "view_006")}
    assert len(reprojection(truth, KnownDepth())) == 14  # both rings close


def test_large_pictures_are_carried_too() -> None:
    views = sphere_views(orbit(24, size_px=256)[[0, 1]])[0]  # more pixels on the head than OpenCV takes in one row
    (pair,) = reprojection(views, KnownDepth())
    assert pair.error < 0.005 and pair.shared > 0.8 and not pair.closes_ring


def test_rings_are_ordered_whatever_the_order_of_cameras(truth: ViewSet) -> None:
    shuffled = np.random.default_rng(0).permutation(14).tolist()
    names = [[truth.names[i] for i in ring] for ring in rings(truth.cameras)]
    mixed = truth.select(shuffled)
    assert [[mixed.names[i] for i in ring] for ring in rings(mixed.cameras)] == names
    assert [len(ring) for ring in names] == [8, 6]


# files -----------------------------------------------------------------------------------------------------------


def test_results_are_written_with_their_origin(tmp_path: Path) -> None:
    summary = summarise([[ViewFigures("a", 90.0, 0.0, {**dict.fromkeys(METRICS, 0.5), "iou": math.nan})]])
    table = summary_table("one head", {"prior": summary}, ("psnr", "iou"))
    assert table.rows == (("prior", "±90°", "0.50", "-"), ("prior", "all", "0.50", "-"))
    panel = Panel("p", "azimuth", {"c": ([0.0, 90.0], [1.0, math.nan], [0.1, 0.1])})
    facts = {"version": "0", "data_sha256": "ab" * 32, "seed": 3}
    tables = (table, ResultTable("t", ("a",), (("b",),)))
    data, sheet = {"summary": summary_data(summary)}, np.zeros((8, 8, 3), np.uint8)
    result = EvaluationResult(facts, data, tables, (panel,), sheet, ("mind this",))
    files = write_result(tmp_path, result)
    assert [f.name for f in files] == ["results.json", "table.md", "plot.png", "sheet.png"]
    import json

    data = json.loads(files[0].read_text())
    assert data["facts"] == facts and data["summary"]["all"]["iou"]["mean"] is None
    text = files[1].read_text()
    assert "| prior | ±90° | 0.50 | - |" in text and "data_sha256: abababababab;" in text and "mind this." in text
    for path in files[2:]:
        with Image.open(path) as picture:
            picture.load()


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.jpg", "b/y.png", "b/x.png", "a/dataset/f", "b/dataset/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*paths: str) -> list[str]:
        return unique_names([tmp_path / path for path in paths])

    assert names("a/x.png", "b/y.png") == ["x", "y"] and names() == []
    assert names("a/x.png", "b/x.jpg") == ["x.png", "x.jpg"]
    assert names("a/x.png", "b/x.png", "b/y.png") == ["a/x.png", "b/x.png", "b/y.png"]
    assert names("a/dataset", "b/dataset") == ["a/dataset", "b/dataset"]
    assert names("a/dataset", "a/../a/dataset") == ["dataset", "dataset"]  # one and the same


def test_identity_tables_say_what_is_missing() -> None:
    seen = IdentityAt(0.0, "v", 1.0, 0.45, 0.93, 0.53, "dlib", "dlib")
    no_face = IdentityAt(60.0, "v", 60.0, math.nan, math.nan, math.nan, None, "dlib")
    no_view = IdentityAt(90.0, None, math.nan, math.nan, math.nan, math.nan, None, "dlib")
    result = identity_result({"a": (seen, no_face, no_view), "b": (seen, seen, no_view)}, (0.0, 60.0, 90.0), {})
    assert result.tables[0].rows == (
        ("a", "0.45 (0.53)", "no face", "no view"),
        ("b", "0.45 (0.53)", "0.45 (0.53)", "no view"),
        ("mean", "0.45 (0.53), n = 2", "0.45 (0.53), n = 1", "-"),
    )
