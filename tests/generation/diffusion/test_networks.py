"""The networks at both sizes: stock names, independence of rows, modes, gradient checkpointing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from dp360.generation.diffusion.architectures import COMPACT, OFFICIAL
from dp360.generation.diffusion.camera_control import CameraControl
from dp360.generation.diffusion.unet import DenoisingUNet
from dp360.generation.diffusion.view_consistency import ViewConsistency


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_official_size_has_stock_names_and_the_specified_parameters() -> None:
    with torch.device("meta"):
        parts = OFFICIAL.components()
        assert shapes(parts["unet"]) == shapes(UNet2DConditionModel(cross_attention_dim=768))
        assert shapes(parts["camera_control"]) == shapes(ControlNetModel(cross_attention_dim=768))
    counts = {name: sum(p.numel() for p in parts[name].parameters()) for name in ("unet", "appearance")}
    assert counts == {"unet": 859_520_964, "appearance": 859_508_800}
    consistency = parts["view_consistency"]
    assert sum(p.numel() for p in consistency.parameters()) == 417_137_600
    assert sum(b.numel() for b in consistency.buffers()) == 844_800
    assert sum(p.numel() for p in parts["camera_control"].parameters()) == 361_279_120


def test_compact_size() -> None:
    with torch.device("meta"):
        parts = COMPACT.components()
    millions = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in parts.items() if hasattr(m, "parameters")}
    assert sum(millions.values()) < 30 and set(millions) == {"unet", "camera_control", "view_consistency", "vae"}


@pytest.fixture
def compact() -> dict:
    torch.manual_seed(0)
    small = {"block_out_channels": (32, 64, 64), "num_heads": (2, 4, 4)}
    architecture = dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, clip_length=3, **small),
    )
    parts = architecture.components()
    for name in ("unet", "camera_control", "view_consistency"):
        for parameter in parts[name].parameters():  # nothing stays at its zero initialisation
            torch.nn.init.normal_(parameter, std=0.1)
    return parts


@torch.no_grad()
def test_rows_do_not_touch_each_other_without_view_consistency(compact: dict) -> None:
    unet: DenoisingUNet = compact["unet"]
    noisy, timesteps = torch.randn(3, 16, 8, 8), torch.tensor([10, 500, 900])
    reference = unet.read_reference(unet.write_reference(torch.randn(1, 16, 8, 8), timesteps[:1], None, mode=1))
    together = unet(noisy, timesteps, None, reference=reference)
    alone = torch.cat([unet(noisy[k : k + 1], timesteps[k : k + 1], None, reference=reference) for k in range(3)])
    assert (together - alone).abs().max() <= 1e-4 * together.abs().max()


@torch.no_grad()
def test_modes_are_told_apart_and_references_are_read(compact: dict) -> None:
    unet: DenoisingUNet = compact["unet"]
    noisy, timestep = torch.randn(2, 16, 8, 8), torch.tensor([300])
    plain = unet(noisy, timestep, None)
    assert (unet(noisy, timestep, None, mode=2) - plain).abs().max() > 1e-3
    bank = unet.write_reference(torch.randn(1, 16, 8, 8), timestep, None, mode=1)
    assert len(bank) == len(unet.attention_sites())
    assert (unet(noisy, timestep, None, reference=unet.read_reference(bank)) - plain).abs().max() > 1e-4


@torch.no_grad()
def test_control_that_does_not_see_the_latent_holds_for_all_steps(compact: dict) -> None:
    control: CameraControl = compact["camera_control"]
    embedded = control.embed_control(torch.rand(2, 7, 64, 64))
    steady = control(None, None, None, embedded)
    shown = control(torch.randn(2, 16, 8, 8), torch.tensor([7]), None, embedded)
    assert all(torch.equal(a, b) for a, b in zip(steady.skips, shown.skips))
    noisy = torch.randn(2, 16, 8, 8)
    changed = compact["unet"](noisy, torch.tensor([5]), None, control=steady)
    assert (changed - compact["unet"](noisy, torch.tensor([5]), None)).abs().max() > 1e-3


@torch.no_grad()
def test_clip_length_is_an_argument(compact: dict) -> None:
    consistency: ViewConsistency = compact["view_consistency"]
    hidden = torch.randn(6, 32, 4, 4)
    two, three = (consistency.after_down(0, 0, hidden, length) for length in (2, 3))
    assert torch.equal(three, consistency.after_down(0, 0, hidden)), "the config's own length by default"
    assert (two - three).abs().max() > 1e-3
    halves = torch.cat([consistency.after_down(0, 0, half, 3) for half in hidden.split(3)])
    assert (halves - three).abs().max() < 1e-5, "clips do not touch each other"
    for length in (4, 25):
        with pytest.raises(RuntimeError):
            consistency.after_down(0, 0, hidden, length)


def test_gradient_checkpointing_gives_the_same_gradients(compact: dict) -> None:
    unet: DenoisingUNet = compact["unet"]
    noisy, timestep, latent = torch.randn(3, 16, 8, 8), torch.tensor([5]), torch.randn(1, 16, 8, 8)

    def gradients() -> list[torch.Tensor]:
        unet.zero_grad(set_to_none=True)
        reference = unet.read_reference(unet.write_reference(latent, timestep, None, mode=1))
        predicted = unet(noisy, timestep, None, reference=reference, view_consistency=compact["view_consistency"])
        predicted.square().mean().backward()
        return [p.grad for p in unet.parameters() if p.grad is not None]

    plain = gradients()
    unet.enable_gradient_checkpointing()
    checkpointed = gradients()
    assert len(plain) == len(checkpointed) > 50
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(plain, checkpointed))


def test_banks_of_another_network_are_refused(compact: dict) -> None:
    with pytest.raises(AssertionError):
        compact["unet"].read_reference([torch.zeros(1, 4, 32)] * 2)


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 3 is shorter"):
        DenoisingUNet(num_heads=(8, 8))
