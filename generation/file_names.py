"""Names that every system takes: what is made on one can be copied to any other."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

_REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_DEVICE = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
"""Names that Windows keeps for devices, with any ending."""
_MOST_BYTES = 200
"""Of a name in UTF-8; file systems take 255, and endings are added."""


def is_file_name(name: str) -> bool:
    """Whether Linux, macOS and Windows all take this as the name of a file or folder.

    Source: "Naming Files, Paths, and Namespaces" of the Win32 documentation.
    """
    return (
        bool(name.strip(". "))
        and name == name.rstrip(". ")
        and name == name.lstrip(" ")
        and _REFUSED.search(name) is None
        and _DEVICE.fullmatch(name) is None
        and len(name.encode()) <= 255
    )


def as_file_name(text: str, otherwise: str) -> str:
    """The text itself if every system takes it as a name, else one that is as near to it as can be.

    Args:
        text: such as the name of somebody's picture without its ending.
        otherwise: taken where nothing of the text is left.
    """
    if is_file_name(text):
        return text
    name = _REFUSED.sub("_", text).strip(" ").rstrip(". ")
    name = name.encode()[:_MOST_BYTES].decode("utf-8", "ignore").rstrip(". ")
    if _DEVICE.fullmatch(name) is not None:
        name = f"_{name}"
    return name if name.strip("._ ") else otherwise


def leads_inside(name: str) -> bool:
    """Whether a path that somebody else wrote stays below the folder that it is put to, on every system.

    Args:
        name: relative, with the separators of POSIX or of Windows.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    is_anchored = bool(PureWindowsPath(name).anchor) or parts[:1] in (("/",), ("//",))
    names_a_drive = any(part[1:2] == ":" for part in parts)
    return bool(name) and not is_anchored and not names_a_drive and ".." not in parts and "\0" not in name
