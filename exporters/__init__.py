"""From a finished head to bytes that other programs read, and back: one module per format."""

from . import mesh_glb as mesh_glb
from . import portrait_png as portrait_png
from . import splat_ply as splat_ply
from .head_files import write_head as write_head
from .splat_renders import splat_pictures as splat_pictures
