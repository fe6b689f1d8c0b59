"""Training of the diffusion model: autoencoder, then appearance, camera control, view consistency and back view.

Runs on torch, diffusers, accelerate, numpy and safetensors alone.
"""
