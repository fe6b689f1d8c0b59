"""From a finished head to bytes that other programs read, and back: one module per format."""

from dp360.reconstruction.splats import splat_pictures as splat_pictures

from . import avatar_glb as avatar_glb
from . import avatar_html as avatar_html
from . import contact_sheet as contact_sheet
from . import formats as formats
from . import mesh_glb as mesh_glb
from . import mesh_obj as mesh_obj
from . import mesh_ply as mesh_ply
from . import mesh_stl as mesh_stl
from . import mesh_usd as mesh_usd
from . import portrait_png as portrait_png
from . import splat_antimatter as splat_antimatter
from . import splat_compressed_ply as splat_compressed_ply
from . import splat_glb as splat_glb
from . import splat_ply as splat_ply
from . import splat_sog as splat_sog
from . import splat_spz as splat_spz
from . import splat_usd as splat_usd
from . import turntable as turntable
from . import viewer_html as viewer_html
from .head_files import write_head as write_head
