"""Splats turned for viewers whose up is another axis."""

from __future__ import annotations

import torch

from dp360.reconstruction.splats import Splats


def half_turn_about_z(splats: Splats, *, inverse: bool = False) -> Splats:
    """Splats turned by 180 degrees about the z axis: +y becomes -y, the face keeps looking to +z.

    Only signs and places of numbers change, so the inverse gives every bit back. Positions, rotations and harmonics
    turn together: a harmonic of order m takes the factor cos(m pi), which is 1 or -1.

    Args:
        splats: Gaussians.
        inverse: turn back; the same rotation, but the quaternions' own signs come back too.
    """
    signs = [(-1.0) ** m for degree in range(1, splats.sh_degree + 1) for m in range(-degree, degree + 1)]
    w, x, y, z = splats.quats_wxyz.unbind(-1)
    turned = [z, y, -x, -w] if inverse else [-z, -y, x, w]  # (0, 0, 0, -1) or (0, 0, 0, 1) times the quaternion
    return Splats(
        means_world=splats.means_world * splats.means_world.new_tensor([-1.0, -1.0, 1.0]),
        log_scales=splats.log_scales,
        quats_wxyz=torch.stack(turned, dim=-1),
        opacity_logits=splats.opacity_logits,
        sh0=splats.sh0,
        sh_rest=splats.sh_rest * splats.sh_rest.new_tensor(signs)[:, None],
    )
