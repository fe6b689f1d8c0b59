"""The renderer against ray casting, and against scenes whose answer is known."""

import dataclasses

import numpy as np
import pytest

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.light.shadows import sky_directions, visibility
from dp360.generation.mesh import vertex_normals
from dp360.generation.mesh_raster import box_downsample, project_to_screen, rasterize_mesh
from dp360.generation.synthetic.parts import Label, Part, SyntheticHead, unit
from dp360.generation.synthetic.rendering.lighting import (
    DIRECTION_COUNT,
    Lighting,
    irradiance,
    studio_lighting,
)
from dp360.generation.synthetic.rendering.renderer import HeadScene, HeadViews, Shading, linear_from_srgb
from dp360.generation.synthetic.rendering.renderer_kernels import CLEAR, SOLID, THROUGH
from dp360.generation.synthetic.worn.solids import ball, plain_texture, sheet

EVEN = Lighting(np.ones((DIRECTION_COUNT, 3)))
FLAT = Shading(flatness=1.0, specular=0.0)


def card(
    opacity: float, z: float, rgb: tuple[float, float, float] | np.ndarray, label: Label, *, alpha: bool = True
) -> Part:
    """A square that faces +z."""
    corners = np.array([[-0.2, -0.2, z], [0.2, -0.2, z], [0.2, 0.2, z], [-0.2, 0.2, z]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uv = np.array([[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    labels = np.full((1, 1), int(label), np.uint8)
    texture, normals = plain_texture(rgb, opacity), vertex_normals(corners, faces)
    return Part("card", corners, normals, faces, uv, faces, texture, alpha, 0.0, labels)


def test_half_clear_layers_mix_front_to_back_whatever_their_order() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=32)
    layers = [
        card(0.5, 0.10, (1.0, 0.0, 0.0), Label.HAIR),
        card(0.5, 0.05, (0.0, 1.0, 0.0), Label.CLOTH),
        card(1.0, 0.00, (0.0, 0.0, 1.0), Label.FACE, alpha=False),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        scene = HeadScene(SyntheticHead("x", tuple(layers[k] for k in order), ()))
        views = scene.render(camera, EVEN, shading=FLAT)
        np.testing.assert_allclose(views.rgb_linear[0, 16, 16], [0.5, 0.25, 0.25], atol=1e-3)
        assert views.alpha_unit[0, 16, 16] == 1
        assert views.labels[0, 16, 16] == Label.HAIR  # the largest share
        assert views.depth[0, 16, 16] == pytest.approx(2.7 - 0.10, abs=1e-4)


def test_alpha_is_soft_and_colour_is_straight() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=32)
    head = SyntheticHead("x", (card(0.4, 0.0, (0.2, 0.5, 0.8), Label.HAIR),), ())
    views = HeadScene(head).render(camera, EVEN, shading=FLAT)
    assert views.alpha_unit[0, 16, 16] == pytest.approx(0.4, abs=1e-5)
    np.testing.assert_allclose(views.rgb_linear[0, 16, 16], linear_from_srgb(np.array([0.2, 0.5, 0.8])), atol=1e-4)
    assert views.labels[0, 16, 16] == Label.BACKGROUND  # less than half is there
    assert np.isinf(views.depth[0, 16, 16])


def test_even_light_on_a_white_ball_is_its_irradiance() -> None:
    part = ball("accessory", np.zeros(3), 0.15, plain_texture((1.0, 1.0, 1.0)), specular=0.0, rows=40)
    views = HeadScene(SyntheticHead("ball", (part,), ())).render(look_at_origin([0.3], [0.2], size_px=64), EVEN)
    inner = views.rgb_linear[0, 24:40, 24:40]
    np.testing.assert_allclose(irradiance(EVEN.sky_rgb, np.array([0.0, 0.0, 1.0])), 1.0, atol=0.05)
    np.testing.assert_allclose(inner, 1.0, atol=0.08)
    assert (views.labels[0, 24:40, 24:40] == Label.ACCESSORY).all()


def test_a_body_between_light_and_surface_casts_a_shadow() -> None:
    towards = np.array([0.0, 0.0, 1.0])
    sun = Lighting(np.zeros((DIRECTION_COUNT, 3)), towards, np.ones(3))
    fine = np.linspace(-0.2, 0.2, 41)
    grid = np.stack([*np.meshgrid(fine, fine), np.full((41, 41), -0.1)], axis=-1)
    floor = sheet("clothes", grid, plain_texture((1.0, 1.0, 1.0)), outward_from=np.array([0, 0, -1.0]), specular=0.0)
    blocker = ball("accessory", np.array([0.0, 0.0, 0.15]), 0.05, plain_texture((1.0, 1.0, 1.0)))
    camera = look_at_origin([0.0], [1.0], size_px=64)
    views = HeadScene(SyntheticHead("x", (floor, blocker), ())).render(camera, sun)
    on_floor = views.labels[0] == Label.CLOTH
    light = views.rgb_linear[0, ..., 0][on_floor]
    assert light.min() < 0.05 and np.median(light) > 0.8
    assert 0.02 < (light < 0.3).mean() < 0.15  # the ball's disc on the floor: about 5 %


def test_sky_directions_are_even() -> None:
    directions = sky_directions()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(directions.T @ directions / DIRECTION_COUNT, np.eye(3) / 3, atol=0.02)


def test_same_scene_same_bytes_and_views_do_not_depend_on_each_other() -> None:
    part = ball("hair", np.zeros(3), 0.15, plain_texture((0.3, 0.2, 0.1)), rows=20)
    head = SyntheticHead("ball", (part, card(0.5, 0.2, (0.9, 0.1, 0.1), Label.HAIR)), ())
    cameras = look_at_origin([0.0, 1.0, 2.0], [0.0, 0.1, 0.2], size_px=48)
    together, again = HeadScene(head).render(cameras), HeadScene(head).render(cameras)
    alone = HeadScene(head).render(cameras[1])
    for name in ("rgb_linear", "alpha_unit", "depth", "normals_world", "labels"):
        assert getattr(together, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(together, name)[1].tobytes() == getattr(alone, name)[0].tobytes()


def test_odd_supersampling_is_refused() -> None:
    head = SyntheticHead("x", (card(1.0, 0.0, (1.0, 1.0, 1.0), Label.FACE),), ())
    with pytest.raises(AssertionError):
        HeadScene(head).render(look_at_origin([0.0], [0.0], size_px=32), supersample=3)


def crowd() -> SyntheticHead:
    """Balls, half-clear cards and cards of soft texture, near and far, in front of and through each other."""
    rng = np.random.default_rng(3)
    fade = np.ones((16, 16, 4), np.float32)
    fade[..., :3] = rng.random((16, 16, 3))
    fade[..., 3] = np.linspace(0, 1, 16)[None]
    parts = [
        ball("ball", np.zeros(3), 0.12, plain_texture((0.8, 0.5, 0.4), 1.0)),
        *(card(rng.uniform(0.05, 0.3), z, rng.random(3), Label.HAIR) for z in (-0.1, 0.05, 0.13, 0.14, 0.2)),
        dataclasses.replace(card(1.0, 0.02, (1.0, 1.0, 1.0), Label.CLOTH), texture=fade, specular=0.2),
        dataclasses.replace(card(1.0, 0.16, (1.0, 1.0, 1.0), Label.BEARD), texture=fade),
    ]
    fibres = dataclasses.replace(parts[2], tangents_world=np.tile([[0.0, 1.0, 0.0]], (4, 1)))
    return SyntheticHead("crowd", (*parts, fibres), ())


def plain_picture(scene: HeadScene, camera: Cameras, shading: Shading, s: int = 2) -> HeadViews:
    """One view in studio light without compiled loops: every surface at every sample, shaded, sorted, composited."""
    light, width, height = studio_lighting(), camera.width * s, camera.height * s
    sized = camera.resized(width, height)
    screen = project_to_screen(
        scene.vertices, sized.T_camera_world[0].numpy(), sized.focal_px[0].numpy(), sized.principal_px[0].numpy()
    )
    place, face, weights = _hits(screen, scene.faces, width, height)
    weights = weights * screen[scene.faces[face], 2]
    inverse_depth = weights.sum(1)
    weights /= inverse_depth[:, None]
    eye = camera.position_world[0].numpy()
    colour, opacity, normal, label = _shaded(scene, face, weights, eye, light, shading)
    total = np.zeros((width * height // s**2, 4))
    shares = np.zeros((len(total), len(Label), 5))
    through = np.ones(width * height)
    for k in np.argsort(-inverse_depth, kind="stable"):
        weight = through[place[k]] * (1.0 if opacity[k] > SOLID else opacity[k])
        if opacity[k] < CLEAR or through[place[k]] < THROUGH:
            continue
        through[place[k]] -= weight
        y, x = divmod(place[k], width)
        pixel = y // s * camera.width + x // s
        total[pixel] += weight * np.array([*colour[k], 1.0])
        shares[pixel, label[k]] += weight * np.array([1.0, 1 / inverse_depth[k], *normal[k]])
    covered, best = total[:, 3], shares[..., 0].argmax(1)
    chosen, solid = shares[np.arange(len(shares)), best], covered >= 0.5 * s * s
    shape = (1, camera.height, camera.width)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = np.where(solid, chosen[:, 1] / chosen[:, 0], np.inf)
    return HeadViews(
        (total[:, :3] / np.maximum(covered, 1e-9)[:, None]).reshape(*shape, 3).astype(np.float32),
        np.minimum(covered / s**2, 1).reshape(shape).astype(np.float32),
        depth.reshape(shape).astype(np.float32),
        np.where(solid[:, None], unit(chosen[:, 2:]), 0).reshape(*shape, 3).astype(np.float32),
        np.where(solid, best, 0).reshape(shape).astype(np.uint8),
    )


def _hits(screen: np.ndarray, faces: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample, face and barycentric weights on the screen of every face at every sample that it covers."""
    a, b, c = screen[faces].transpose(1, 0, 2)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    drawn = (screen[faces][..., 2] > 0).all(1) & (area != 0)
    found = []
    for y in range(height):
        x = np.arange(width)[:, None]
        edges = [
            (q[:, 0] - p[:, 0]) * (y + 0.5 - p[:, 1]) - (q[:, 1] - p[:, 1]) * (x + 0.5 - p[:, 0])
            for p, q in ((b, c), (c, a), (a, b))
        ]
        weights = np.stack(edges, axis=-1) / np.where(drawn, area, 1)[:, None]
        column, face = np.nonzero((weights >= 0).all(-1) & drawn)
        found.append((y * width + column, face, weights[column, face]))
    place, face, weights = (np.concatenate(arrays) for arrays in zip(*found))
    return place, face, weights


def _shaded(
    scene: HeadScene, face: np.ndarray, weights: np.ndarray, eye: np.ndarray, light: Lighting, shading: Shading
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Linear colour, opacity, normal turned to the eye and label of points on faces; sources are the kernel's."""
    corners, part = scene.faces[face], scene.face_part[face]
    layout, gloss = scene.layout[part], scene.specular[part] * shading.specular
    sky = (scene.transfer @ (light.sky_rgb * (4 / DIRECTION_COUNT))).astype(np.float32)
    solid, sun = scene.face_alpha > 0, light.sun_direction_world
    sun_seen = visibility(
        scene.vertices, scene.normals, scene.faces[solid], scene.face_alpha[solid], sun, resolution=256
    )

    def mixed(values: np.ndarray, index: np.ndarray = corners) -> np.ndarray:
        return (values[index] * weights[..., None]).sum(1)

    normal, to_eye = unit(mixed(scene.normals)), unit(eye - mixed(scene.vertices))
    seen, from_sky = mixed(sun_seen[:, None])[:, 0], mixed(sky)
    half, n_sun = unit(sun + to_eye, 1e-6), normal @ sun
    tangent = unit(mixed(scene.tangents), 1e-6)
    fibre = np.sqrt(np.maximum(1 - (tangent @ sun) ** 2, 0))
    ring = np.maximum(1 - (tangent * half).sum(1) ** 2, 0)
    on_fibre = layout[:, 7] == 1
    wrapped = np.maximum((n_sun + 0.15) / 1.15, 0)
    direct = seen * np.where(on_fibre, 0.35 * fibre + 0.65 * np.maximum((n_sun + 0.3) / 1.3, 0), wrapped)
    blinn = np.maximum((normal * half).sum(1), 0) ** 28 * np.where(n_sun > 0, 2.0, 0.0)
    shine = np.where(on_fibre, np.clip(0.4 + n_sun, 0, 1) * (ring**40 + 0.4 * ring**9), blinn)
    highlight = gloss * seen * shine
    towards = (normal * to_eye).sum(1)
    lit = from_sky + direct[:, None] * light.sun_rgb
    added = highlight[:, None] * light.sun_rgb + ((1 - np.abs(towards)) ** 4 * 0.5 * gloss)[:, None] * from_sky
    if shading.steps >= 2:
        level = lit.mean(1)
        stepped = (np.floor(np.clip(level, 0, 1.2) / 1.2 * shading.steps) + 0.75) / shading.steps * 1.2
        lit = lit * (stepped / np.maximum(level, 1e-4))[:, None]
        added = np.where((highlight > 0.25 * gloss) & (gloss > 0), 0.6 * gloss, 0.0)[:, None] + np.zeros(3)
    uv = mixed(scene.uv, scene.faces_uv[face])
    uv -= np.floor(uv)
    texel = _bilinear(scene.texels, layout, uv)
    colour = added + texel[:, :3] / np.maximum(texel[:, 3:], 1e-6) * (lit * (1 - shading.flatness) + shading.flatness)
    size = layout[:, [6, 5]]
    column, row = np.minimum((uv * size).astype(int), size - 1).T
    label = scene.label_texels[layout[:, 4] + row * layout[:, 6] + column]
    opacity = np.where(layout[:, 3] == 1, texel[:, 3], 1.0)
    return colour, opacity, np.where(towards < 0, -1, 1)[:, None] * normal, label


def _bilinear(texels: np.ndarray, layout: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Premultiplied colour and opacity at places of each part's own texture."""
    begin, height, width = layout[:, :3].T
    x, y = (uv * np.stack([width, height], axis=1) - 0.5).T
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    value = np.zeros((len(uv), 4))
    for dy in (0, 1):
        for dx in (0, 1):
            at = begin + np.clip(y0 + dy, 0, height - 1) * width + np.clip(x0 + dx, 0, width - 1)
            share = (x - x0 if dx else 1 - x + x0) * (y - y0 if dy else 1 - y + y0)
            value += share[:, None] * texels[at]
    return value


@pytest.mark.parametrize("shading", [Shading(), Shading(steps=3, specular=2.0), FLAT])
def test_the_loops_draw_what_plain_sorting_draws(shading: Shading) -> None:
    scene = HeadScene(crowd())
    cameras = look_at_origin([0.2, 1.1, -2.4], [0.1, -0.3, 0.5], size_px=36)
    fast = scene.render(cameras, shading=shading)
    pictures = [plain_picture(scene, camera, shading) for camera in cameras]

    def plain(name: str) -> np.ndarray:
        return np.concatenate([getattr(picture, name) for picture in pictures])

    # the loops leave out what lies behind layers that let less than 4 % through, the lists do not
    difference = np.abs(plain("alpha_unit") - fast.alpha_unit)
    assert difference.max() < 0.04
    same = difference < 1e-5
    assert same.mean() > 0.96 and (plain("labels") == fast.labels)[same].mean() > 0.999
    same &= plain("labels") == fast.labels
    for name in ("rgb_linear", "depth", "normals_world"):
        np.testing.assert_allclose(plain(name)[same], getattr(fast, name)[same], atol=2e-4)
    assert fast.alpha_unit.max() == 1 and 0.2 < (fast.alpha_unit > 0).mean() < 0.9


def test_what_is_behind_the_camera_is_left_out() -> None:
    behind = card(1.0, 3.0, (1.0, 0.0, 0.0), Label.FACE, alpha=False)
    views = HeadScene(SyntheticHead("x", (behind,), ())).render(look_at_origin([0.0], [0.0], size_px=16), EVEN)
    assert (views.alpha_unit == 0).all() and np.isinf(views.depth).all()


def test_solid_parts_cover_what_the_rasteriser_covers() -> None:
    camera = look_at_origin([0.5], [0.2], size_px=64)
    part = card(1.0, 0.0, (0.2, 0.4, 0.6), Label.FACE, alpha=False)
    alpha = HeadScene(SyntheticHead("x", (part,), ())).render(camera).alpha_unit[0]
    hit = rasterize_mesh(part.vertices_world, part.faces, camera, supersample=2).hit
    np.testing.assert_array_equal(alpha, box_downsample(hit.astype(np.float32), 2))
