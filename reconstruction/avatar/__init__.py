"""Heads that move: the rig of a head, its poses, and Gaussians that follow it."""

from .arkit import ARKIT_NAMES as ARKIT_NAMES
from .binding import Binding as Binding
from .binding import animate as animate
from .binding import decode_binding as decode_binding
from .lighting import Lighting as Lighting
from .live_link import Take as Take
from .live_link import read_live_link as read_live_link
from .moving_splats import moving_splats as moving_splats
from .poses import PRESETS as PRESETS
from .poses import Pose as Pose
from .poses import pose_from_text as pose_from_text
from .rig import Rig as Rig
from .rig import build_rig as build_rig
