"""From a portrait to posed views of the whole head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import kernel_cache as kernel_cache
from .errors import InputError as InputError

if TYPE_CHECKING:
    from .cameras import Cameras as Cameras
    from .cameras import OrbitConfig as OrbitConfig
    from .cameras import look_at_origin as look_at_origin
    from .cameras import orbit as orbit
    from .view_generator import ViewGenerator as ViewGenerator
    from .views import PointCloud as PointCloud
    from .views import Provenance as Provenance
    from .views import ViewSet as ViewSet

_MODULES = {
    **dict.fromkeys(("Cameras", "OrbitConfig", "look_at_origin", "orbit"), "cameras"),
    **dict.fromkeys(("PointCloud", "Provenance", "ViewSet"), "views"),
    "ViewGenerator": "view_generator",
}
"""What needs torch comes when it is asked for: errors, files and the system's calls are to be had at once."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
