"""What lies just behind lips and teeth has the colour of the picture there."""

from __future__ import annotations

import numpy as np

from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import LIPS, centimetres
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.light.head_light import HeadLight
from dp360.generation.prior.texture.atlas import MATERIAL_MOUTH, MATERIAL_SKIN, MATERIAL_TEETH, atlas_texels
from dp360.generation.prior.texture.looked_up import LookedUp
from dp360.generation.prior.texture.portrait_lookup import picture_of_portrait


def test_lips_are_seen_up_to_the_line_between_them_and_the_skin_about_them_as_ever(
    portrait: Portrait, prior: HeadPrior
) -> None:
    model, mesh = load_head_model(), prior.mesh
    texels = atlas_texels(mesh)
    labels = prior.portrait_labels
    picture = picture_of_portrait(portrait, labels, mesh)
    found = LookedUp.of(portrait, labels, picture, model, mesh, texels, HeadLight.unknown(mesh)).own
    plain = picture.look_up(texels.points_world, texels.normals_world)
    np.testing.assert_allclose(found.colour, plain.colour, atol=1e-6)
    more = found.trust > plain.trust
    in_mouth = np.isin(texels.material, (MATERIAL_MOUTH, MATERIAL_TEETH))
    cm = np.where(mesh.head_vertex[:, None] >= 0, centimetres(model.neutral)[np.maximum(mesh.head_vertex, 0)], np.inf)
    at = texels.interpolated(np.nan_to_num(cm, posinf=99.0), mesh.faces)
    at_lips = LIPS.holds(at) & (texels.material == MATERIAL_SKIN)
    hidden = at_lips & (plain.trust < 0.1)
    assert hidden.sum() > 100 and found.trust[hidden].mean() > 0.8
    about = LIPS._replace(low=(0.0, -5.4, 5.0), high=(3.9, -1.4, np.inf)).holds(at)
    assert not more[~in_mouth & ~about].any()
