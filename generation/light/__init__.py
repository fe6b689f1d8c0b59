"""Light on heads: spherical harmonics and shadows, for portraits that are read and for heads that are composed."""
