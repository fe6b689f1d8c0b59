"""A textured mesh out of renders of splats or of a radiance field."""

from dp360.reconstruction.splat_scene import Renderable as Renderable
from dp360.reconstruction.splat_scene import Renders as Renders

from .config import COARSE_MESH as COARSE_MESH
from .config import MeshConfig as MeshConfig
from .config import Ring as Ring
from .config import run_mesh as run_mesh
from .mesher import mesh_from_renders as mesh_from_renders
