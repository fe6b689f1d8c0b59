"""Portraits of composed heads: cameras, backgrounds, photographic and painted looks, cartoons."""
