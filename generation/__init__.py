"""From a portrait to posed views of the whole head."""

from . import kernel_cache as kernel_cache
from .cameras import Cameras as Cameras
from .cameras import OrbitConfig as OrbitConfig
from .cameras import look_at_origin as look_at_origin
from .cameras import orbit as orbit
from .errors import InputError as InputError
from .view_generator import ViewGenerator as ViewGenerator
from .views import PointCloud as PointCloud
from .views import Provenance as Provenance
from .views import ViewSet as ViewSet
