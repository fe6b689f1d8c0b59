"""Takes of Live Link Face: columns by name, times by time code, and sentences about what cannot be read."""

import numpy as np
import pytest

from dp360.generation import InputError
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES, index_of
from dp360.reconstruction.avatar.live_link import read_live_link

ANGLES = [f"{part}{axis}" for part in ("Head", "LeftEye", "RightEye") for axis in ("Yaw", "Pitch", "Roll")]
HEADER = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in ARKIT_NAMES), *ANGLES]


def csv_of(frames: int, fps: int = 60, header: list[str] = HEADER) -> str:
    """A take in which the jaw opens evenly and the head turns to its left."""
    lines = [",".join(header)]
    for k in range(frames):
        values = dict.fromkeys(header, "0.0") | {
            "Timecode": f"{'23:59:59' if k < fps else '00:00:00'}:{k % fps:02d}.000",
            "BlendShapeCount": "61", "JawOpen": f"{k / frames:.4f}", "HeadYaw": "0.25",
        }  # fmt: skip
        lines.append(",".join(values[name] for name in header))
    return "\n".join(lines) + "\n"


def test_a_take_over_midnight_is_read_and_resampled():
    assert len(HEADER) == 2 + 61
    take = read_live_link(csv_of(120), "take.csv")
    assert take.missing == ()
    np.testing.assert_allclose(take.times_s, np.arange(120) / 60, atol=1e-6)
    np.testing.assert_allclose(take.head_rad[:, 0], 0.25)
    poses = take.poses(30.0)
    assert len(poses) == 60
    jaw = [pose.weights[index_of("jawOpen")] for pose in poses]
    np.testing.assert_allclose(jaw, np.arange(60) / 60, atol=1e-3)
    assert sum(pose.weights.sum() for pose in poses) == pytest.approx(sum(jaw))


def test_other_orders_and_missing_shapes_are_taken():
    header = ["JawOpen", "EyeBlinkLeft", "EyeBlinkRight", "MouthSmileLeft", "TongueOut", "HeadYaw", "Timecode"]
    take = read_live_link("\ufeff" + csv_of(10, header=header), "take.csv")
    assert len(take.missing) == 47 and "jawForward" in take.missing
    assert take.weights[5, index_of("jawOpen")] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("a,b,c\n1,2,3\n", "expected the columns of Live Link Face"),
        (",".join(HEADER) + "\n", "it has columns and no frames"),
        (csv_of(3).replace("0.25", "west", 1), "a number for HeadYaw in line 2, got 'west'"),
        (csv_of(3)[:-200], "in line 4"),
        (csv_of(3).replace("23:59:59:01.000", "noon"), "a Timecode such as 10:25:03:17.250 in line 3"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(InputError, match=message):
        read_live_link(text, "take.csv")
