"""The neck above a collar: what is cloth there in the picture is the bust's, not skin's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import NECK_TOP_Y_CM, centimetres
from dp360.generation.portrait import Portrait
from dp360.generation.prior.head_prior import PriorBasis
from dp360.generation.prior.labels.portrait_labels import project_px
from dp360.generation.prior.texture.atlas import MATERIAL_SKIN

BLUE = np.array([0.1, 0.15, 0.75], np.float32)


def test_a_tip_of_a_collar_is_not_painted_on_a_bare_neck(portrait: Portrait) -> None:
    basis = PriorBasis.of(portrait)
    model = load_head_model()
    cm = centimetres(model.neutral)
    on_neck = (np.abs(cm[:, 1] - NECK_TOP_Y_CM) < 0.5) & (np.abs(cm[:, 0]) < 2.0) & (cm[:, 2] > 2.0)
    column, row = project_px(portrait.head.camera, portrait.head.vertices_world[on_neck]).mean(0)
    at = np.indices(basis.labels.skin.shape)
    tip = np.hypot(at[0] - row, at[1] - column) < 7
    labels = replace(basis.labels, skin=basis.labels.skin & ~tip, cloth=basis.labels.cloth | tip)
    colours = np.where(tip[..., None], BLUE, portrait.foreground_unit).astype(np.float32)
    changed = replace(basis, labels=labels, portrait=replace(basis.portrait, foreground_unit=colours))
    view = changed.prior().render(portrait.head.camera)
    shown = tip & (view.labels[0] == MATERIAL_SKIN + 1)
    bluer = view.rgb[0][shown][:, 2] > view.rgb[0][shown][:, 0]
    assert shown.sum() > 30 and bluer.mean() < 0.05
