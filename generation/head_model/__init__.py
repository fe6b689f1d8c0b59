"""The parametric head and its fit to face landmarks."""

from .landmark_fit import FACE_OVAL_LANDMARKS as FACE_OVAL_LANDMARKS
from .landmark_fit import HeadFit as HeadFit
from .landmark_fit import fit_landmarks as fit_landmarks
from .landmark_fit import mean_head_fit as mean_head_fit
from .model import HeadModel as HeadModel
from .model import load_head_model as load_head_model
from .model import view_terms as view_terms
from .sparse_points import fit_sparse_points as fit_sparse_points
