"""What `dp360 export` starts from: a run of ns-train, the folder of `dp360 run`, a file of splats, or a mesh.

Folders may have been moved: what belongs to a run is looked for beside it first, and splats need nothing but their
own file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jaxtyping import UInt8
from torch import Tensor

from dp360.exporters import splat_ply
from dp360.exporters.formats import read_splat_file
from dp360.exporters.head_files import SPLATS_NAME
from dp360.exporters.mesh_read import is_mesh_file, read_mesh
from dp360.exporters.splat_moves import InputUpAxis, up_axis_matrix
from dp360.generation import Cameras, InputError, Provenance, ViewSet
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.dataset.view_dataset import TRANSFORMS, read_dataset
from dp360.generation.mesh import TexturedMesh
from dp360.reconstruction.front_view import Framing, framing_of
from dp360.reconstruction.splats import Splats, splat_pictures, straight_rgba

from .run_folder import DATASET_NAME, aligned_portrait_rgb
from .saved_run import SavedRun

if TYPE_CHECKING:
    from dp360.exporters.meshing import Renderable
    from dp360.reconstruction.nerfstudio_nerf import HeadNerfModel


@dataclass(frozen=True)
class FittedHead:
    """A head that can be looked at from all sides."""

    name: str
    """The file, folder or configuration it comes from, for messages."""
    fitted: Splats | HeadNerfModel | TexturedMesh
    """What was fitted, Gaussians or a radiance field; or somebody's mesh."""
    known_provenance: Provenance | None
    """Its origin where the file tells it."""
    data: Path | None
    """Folder of the data set that it was fitted to, where it is known and still there."""
    metres_per_unit: float = METRES_PER_UNIT
    """The factor on lengths for files where none is asked for: what keeps a stranger's lengths."""
    notices: tuple[str, ...] = ()
    """Sentences about the file for people."""

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run that made it from a portrait, where it is known."""
        return None if self.data is None else self.data.parent

    @property
    def splats(self) -> Splats | None:
        """Its Gaussians; None for a radiance field."""
        return self.fitted if isinstance(self.fitted, Splats) else None

    @property
    def mesh(self) -> TexturedMesh | None:
        """Somebody's mesh; None for what has to be meshed first."""
        return self.fitted if isinstance(self.fitted, TexturedMesh) else None

    @property
    def is_slow(self) -> bool:
        """Whether a picture takes seconds: a radiance field on a CPU."""
        return not isinstance(self.fitted, (Splats, TexturedMesh)) and self.fitted.device.type == "cpu"

    @cached_property
    def framing(self) -> Framing:
        """Where it stands and how large it is; anything but splats stands where heads of ours do."""
        if self.splats is None or not len(self.splats):
            return Framing()
        return framing_of(self.splats, known=self.provenance.is_known)

    @property
    def scene(self) -> Renderable:
        """Pictures and depths of it, from any camera, in its framing."""
        from dp360.reconstruction.splat_scene import SplatScene

        if isinstance(self.fitted, Splats):
            return SplatScene(self.framing.framed(self.fitted))
        assert not isinstance(self.fitted, TexturedMesh)
        from dp360.reconstruction.nerfstudio_nerf import NerfScene

        return NerfScene(self.fitted)

    def pictures(self, cameras: Cameras) -> UInt8[Tensor, "n h w 4"]:
        """Straight (not premultiplied) colour and alpha from each camera, in its framing, 8 bits, on the CPU."""
        if self.splats is not None:
            return splat_pictures(self.framing.framed(self.splats), cameras)
        renders = self.scene.render(cameras)
        return straight_rgba(renders.rgb_premultiplied, renders.alpha)

    @cached_property
    def views(self) -> ViewSet | None:
        """The views that it was fitted to."""
        return None if self.data is None else read_dataset(self.data)

    @property
    def provenance(self) -> Provenance:
        """Its origin: as its file tells, or its views, or unknown."""
        if self.known_provenance is not None:
            return self.known_provenance
        if self.views is not None:
            return self.views.provenance
        return Provenance.unknown("A head of unknown origin", "unknown")

    @property
    def portrait_rgb(self) -> UInt8[Tensor, "h w 3"] | None:
        """The aligned portrait that was written together with the views; the first view where it is gone."""
        if self.data is None or self.views is None:
            return None
        aligned = aligned_portrait_rgb(self.data.parent)
        return aligned if aligned is not None else (self.views.rgb_unit()[0] * 255).round().byte()


def open_head(load_config: Path | None, given: Path | None, input_up_axis: InputUpAxis | None = None) -> FittedHead:
    """The head of a run, or of a file or folder; exactly one of the two is named.

    Args:
        input_up_axis: which way is up in a file.

    Raises:
        InputError: neither or both are named, or what is named cannot be read.
    """
    if load_config is not None and given is None:
        if input_up_axis is not None:
            raise InputError("Cannot export: --input-up-axis is for --input; a run knows its axes")
        return _open_run(load_config)
    if given is not None and load_config is None:
        if not given.is_dir():
            return _open_file(given, None, input_up_axis)
        path, data = given / SPLATS_NAME, given / DATASET_NAME  # what dp360 run or dp360 fit left
        if not path.is_file():
            raise InputError(f"Cannot read {given}: expected the folder of a dp360 run, with {SPLATS_NAME} in it")
        return _open_file(path, data if (data / TRANSFORMS).is_file() else None, input_up_axis)
    raise InputError(
        "Cannot export: give either --load-config CONFIG.YML of a run, or --input with a file of splats or the folder "
        "of dp360 run"
    )


def _open_file(path: Path, data: Path | None, input_up_axis: InputUpAxis | None) -> FittedHead:
    """Splats or a mesh out of a file of any format."""
    if is_mesh_file(path):
        mesh, origin = read_mesh(path)
        if input_up_axis == "auto":
            raise InputError(f"Cannot read {path}: the up axis of a mesh is not guessed; name it with --input-up-axis")
        if input_up_axis is not None:
            mesh = mesh.turned(up_axis_matrix(input_up_axis))
        if origin is None:  # a stranger's numbers, in a unit of their own
            return FittedHead(str(path), mesh.scaled(METRES_PER_UNIT), None, None, 1.0)
        return FittedHead(str(path), mesh, origin, None)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    file = read_splat_file(path, content, input_up_axis=input_up_axis)
    return FittedHead(str(path), file.splats, file.provenance, data, file.metres_per_unit, file.notices)


def _open_run(config_path: Path) -> FittedHead:
    """The newest checkpoint of an ns-train run.

    Of a run of splats the configuration's text is read, and nothing that it names is executed. A radiance field is
    loaded as all ns-* tools do it: its configuration may name code to run, so open only your own.
    """
    if not config_path.is_file():
        raise InputError(f"Cannot read {config_path}: no such file; ns-train prints the path of its config.yml")
    saved = SavedRun.read(config_path)
    if saved.method_name.startswith("dp360-splat"):
        splats, beside = saved.splats(), config_path.parent / SPLATS_NAME
        origin = splat_ply.decode(beside.read_bytes())[1] if beside.is_file() else None
        head = FittedHead(str(config_path), splats, origin, saved.data)
        return head if head.provenance.is_known or saved.data is None else replace(head, metres_per_unit=1.0)
    if not saved.method_name.startswith("dp360-nerf"):
        raise InputError(
            f"Cannot export {config_path}: expected a run of dp360-splat or dp360-nerf, got {saved.method_name}"
        )
    if saved.data is None:
        raise InputError(
            f"Cannot export {config_path}: a radiance field needs the data set that it was trained on, and "
            f"{saved.named_data} is gone; put it back, or beside the run as it was"
        )
    from nerfstudio.utils.eval_utils import eval_setup

    def at_its_place(config: Any) -> Any:
        config.run_folder, config.data, config.pipeline.datamanager.data = config_path.parent, saved.data, saved.data
        return config

    _, pipeline, _, _ = eval_setup(config_path, test_mode="inference", update_config_callback=at_its_place)
    return FittedHead(str(config_path), cast("HeadNerfModel", pipeline.model), None, saved.data)
