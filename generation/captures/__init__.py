"""Captures of real heads by many cameras, read as the `ViewSet` that everything else works on.

The three data sets are licensed for research only and none of their data ships with this package: a reader opens what
its owner gave you (RenderMe-360: research agreement; NeRSemble: terms of use on request; Ava-256: CC BY-NC 4.0).

Every reader takes, beside what its data set needs:

    frame     number of the frame
    cameras   names of cameras; None takes all that have the frame and a calibration. Others are not decoded
    size_px   side of the square pictures, pixels
    framing   `head` cuts each picture to what our generated views show, `full` keeps all of it
    track     shows progress
"""

from .ava256 import read_ava256 as read_ava256
from .capture_placement import HeadPlacement as HeadPlacement
from .nersemble import read_nersemble as read_nersemble
from .renderme360 import read_renderme360 as read_renderme360
