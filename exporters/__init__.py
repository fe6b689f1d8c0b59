"""From a finished head to bytes that other programs read, and back: one module per format."""

from . import formats as formats
from . import mesh_glb as mesh_glb
from . import portrait_png as portrait_png
from . import splat_antimatter as splat_antimatter
from . import splat_compressed_ply as splat_compressed_ply
from . import splat_glb as splat_glb
from . import splat_ply as splat_ply
from . import splat_sog as splat_sog
from . import splat_spz as splat_spz
from . import splat_usd as splat_usd
from .head_files import write_head as write_head
from .splat_renders import splat_pictures as splat_pictures
