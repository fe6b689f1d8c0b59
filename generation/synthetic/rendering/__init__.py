"""Pictures of composed heads with their truth: light, renderer, its kernels and its slow twin."""
