"""The geometric prior: a parametric head with hair, a bust and texture from one portrait."""

from .head_prior import HeadPrior as HeadPrior
from .head_prior import PriorBasis as PriorBasis
from .head_prior import PriorRender as PriorRender
from .head_prior import build_head_prior as build_head_prior
from .prior_generator import PriorGenerator as PriorGenerator
