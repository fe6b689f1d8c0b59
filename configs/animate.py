"""`dp360 animate`: a finished head as splats in motion, out of a recorded performance or poses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .console import Display, Outcome


@dataclass(frozen=True)
class AnimateCommand:
    """Show a head's splats in motion: dp360 animate --avatar heads/face --csv take.csv --output talk.mp4."""

    avatar: Path
    """The folder of dp360 run."""
    output: Path
    """File to write: .mp4, .webp or .gif, a film; .png, a still of each pose (several get numbers and names)."""
    csv: Path | None = None
    """A performance recorded with Epic's app Live Link Face: its CSV file of 52 blend shapes and the head's angles."""
    poses: str | None = None
    """Instead: poses with commas between, such as smile,jawOpen=0.7,wink+headYaw=20. Known are neutral, portrait,
    smile, laugh, sad, angry, surprise, blink, wink, kiss, ooh, tongue, the 52 shapes of ARKit, and headYaw, headPitch,
    headRoll in degrees. A film goes from one to the next."""
    light: str = "portrait"
    """The light that stays in place while the head moves: portrait, the one that the head was painted in; even; studio;
    or that of a panorama of your own, FILE.hdr or FILE.exr."""
    frame_px: int = 512
    """Side of the pictures in pixels."""
    fps: float = 30.0
    """Pictures of a film per second."""
    hold_s: float = 1.0
    """Seconds of a film from one pose to the next."""
    azimuth_deg: float = 0.0
    """Where the camera stands: 0 in front, positive at the head's left."""
    elevation_deg: float = 0.0
    """How far above the head's middle the camera stands."""


def run(command: AnimateCommand, display: Display) -> Outcome:
    """Write the film or the stills."""
    from .animation import animation

    return animation(command, track=display.track, notify=display.notify)
