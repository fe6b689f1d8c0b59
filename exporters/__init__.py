"""From a finished head to bytes that other programs read, and back."""

from .contact_sheet import contact_sheet as contact_sheet
from .head_files import write_head as write_head
from .splat_renders import splat_pictures as splat_pictures
