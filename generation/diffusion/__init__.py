"""DiffPortrait360 (CVPR 2025, arXiv 2503.15667) on diffusers: networks, pipeline, sampling and the official weights."""
