"""Portrait preparation: any picture file to an aligned, cut-out head."""

from .face_detection import DetectedFace as DetectedFace
from .face_detection import FaceNetworks as FaceNetworks
from .face_detection import find_faces as find_faces
from .image_io import LoadedImage as LoadedImage
from .image_io import load_image as load_image
from .portrait import Portrait as Portrait
from .portrait import PortraitConfig as PortraitConfig
from .portrait import encode_portrait as encode_portrait
from .portrait import prepare_portrait as prepare_portrait
from .portrait import read_portrait as read_portrait
