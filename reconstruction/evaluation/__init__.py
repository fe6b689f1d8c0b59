"""How good views or heads are: against truth, against the portrait, against themselves."""

from .compare import METRICS as METRICS
from .compare import Comparison as Comparison
from .compare import Estimate as Estimate
from .compare import MatchConfig as MatchConfig
from .compare import NamedViews as NamedViews
from .compare import ViewFigures as ViewFigures
from .compare import compare_views as compare_views
from .compare import summarise as summarise
from .features import open_perceptual as open_perceptual
