"""Training of the learned parts: one loop, one module per part. Runs without nerfstudio and open3d."""

from .loop import LoopConfig as LoopConfig
from .loop import train_model as train_model
