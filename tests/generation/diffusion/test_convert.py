"""Official checkpoints through the real converter: the fixtures' weights, and small ones with a text encoder."""

import functools
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from dp360.generation import InputError
from dp360.generation.diffusion.architectures import KL_F8, Architecture
from dp360.generation.diffusion.camera_control import CameraControlConfig
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release.checkpoint import CheckpointFile, sha256_of_file
from dp360.generation.diffusion.release.conversion import CONVERSION_RECORD, convert_release, release_role
from dp360.generation.diffusion.release.conversion_report import ConversionReport
from dp360.generation.diffusion.release.keys import IGNORED_KEYS, TEXT_PREFIX, official_keys
from dp360.generation.diffusion.release.schedule import schedule_tables
from dp360.generation.diffusion.unet import UNetConfig
from dp360.generation.diffusion.view_consistency import ViewConsistencyConfig
from dp360.generation.progress import silent


def small(width: int) -> Architecture:
    """The official architecture with one layer, two levels and two text layers."""
    sizes = {"block_out_channels": (width, width), "layers_per_block": 1, "num_heads": (2, 2)}
    attends = {"attention_levels": (True, False), "context_dim": 64}
    autoencoder = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (width, width),
        "layers_per_block": 1,
    }
    return Architecture(
        UNetConfig(**sizes, **attends),
        CameraControlConfig(**sizes, **attends),
        ViewConsistencyConfig(**sizes),
        "AutoencoderKL",
        {**KL_F8, **autoencoder},
        text_layers=2,
    )


TINY, WIDTH = small(32), 64
PARTS = ("unet", "appearance", "camera_control", "view_consistency", "vae")
CONTEXT = torch.linspace(-1, 1, 5 * WIDTH).reshape(1, 5, WIDTH)


def random_weights(motion: bool, *, seed: int = 0, architecture: Architecture = TINY) -> dict[str, Tensor]:
    """A checkpoint in the official form, without a text encoder."""
    generator = torch.Generator().manual_seed(seed)
    tables = {name: torch.from_numpy(table).half() for name, table in schedule_tables().items()}
    weights = {}
    for key, home in official_keys(architecture).items():
        if home.part == "schedule":
            weights[key] = tables[home.name]
        elif home.part != "text_encoder" and (motion or home.part != "view_consistency"):
            weights[key] = torch.randn(home.official_shape, generator=generator) * 0.1
    return weights


def text_encoder() -> CLIPTextModel:
    """CLIP's text encoder with two narrow layers."""
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=TINY.text_layers,
        num_attention_heads=1,
        hidden_act="quick_gelu",
    )
    return CLIPTextModel(config).eval()


@pytest.fixture(scope="module")
def views_weights() -> dict[str, Tensor]:
    return random_weights(motion=True)


@pytest.fixture
def views_file(views_weights: dict[str, Tensor], tmp_path: Path) -> Path:
    save_file(views_weights, tmp_path / "views.safetensors")
    return tmp_path / "views.safetensors"


def stored(folder: Path, component: str) -> dict[str, Tensor]:
    """All weights of a component, however many files they are in."""
    tensors: dict[str, Tensor] = {}
    for file in (folder / component).glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def assert_component_holds(folder: Path, component: str, part: str, weights: dict[str, Tensor], homes: dict) -> None:
    """A component has every tensor of a part of the checkpoint, widened to float32, and no other."""
    ours = stored(folder, component)
    for key, home in homes.items():
        if home.part == part:
            assert torch.equal(ours.pop(home.name), weights[key].float().reshape(home.shape)), key
    assert not ours


@pytest.fixture(scope="module")
def convert_fixture(parity_set, tmp_path_factory) -> Callable[..., Path]:
    """A function: the pipeline folder of one or both fixture sets, made once."""

    @functools.cache
    def convert(*names: str) -> Path:
        last = parity_set(names[0])
        paths = {name: parity_set(name).weights_path for name in names}
        output = tmp_path_factory.mktemp("_".join(names)) / "pipeline"
        convert_release(
            output,
            views_model=paths.get("video"),
            back_model=paths.get("back"),
            architecture=last.architecture,
            context=last.inputs["context"][:1],
        )
        return output

    return convert


@pytest.mark.parametrize("names", [("video",), ("back",), ("video", "back")], ids="+".join)
def test_the_fixtures_arrive_complete(convert_fixture, parity_set, names: tuple[str, ...]) -> None:
    folder = convert_fixture(*names)
    expected = {"scheduler", "context", "vae"}
    for name in names:
        case = parity_set(name)
        weights = load_file(case.weights_path)
        homes = official_keys(case.architecture)
        for part in PARTS[: 4 if name == "video" else 3]:
            component = part if name == "video" else f"back_{part}"
            assert_component_holds(folder, component, part, weights, homes)
            expected.add(component)
        if name == names[0]:  # with both, the 360 model's
            assert_component_holds(folder, "vae", "vae", weights, homes)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == expected
    assert torch.equal(stored(folder, "context")["context"], parity_set(names[0]).inputs["context"][:1])


def test_the_folder_is_what_the_pipeline_would_save(convert_fixture, tmp_path: Path) -> None:
    folder = convert_fixture("video", "back")
    DiffPortrait360Pipeline.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    ours = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - {Path(CONVERSION_RECORD)}
    theirs = {path.relative_to(tmp_path / "saved") for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert ours == theirs
    for path in ours:
        written, saved = (folder / path).read_bytes(), (tmp_path / "saved" / path).read_bytes()
        if path.suffix == ".json":
            written, saved = json.loads(written), json.loads(saved)
            saved.pop("_name_or_path", None)  # where it was loaded from
        assert written == saved, path


def test_back_alone_makes_backs_and_no_views(convert_fixture) -> None:
    pipeline = DiffPortrait360Pipeline.from_pretrained(convert_fixture("back"))
    assert pipeline.can_make_back and pipeline.unet is None


@pytest.mark.parametrize("kind", ["th", "wrapped", "safetensors"])
def test_every_form_of_a_file_gives_the_same_folder(kind: str, views_weights, views_file: Path, tmp_path: Path) -> None:
    path = views_file
    if kind != "safetensors":
        path = tmp_path / f"{kind}.th"
        torch.save({"state_dict": views_weights, "global_step": 340000} if kind == "wrapped" else views_weights, path)
    report = convert_release(tmp_path / "out", views_model=path, architecture=TINY, context=CONTEXT)
    for part in PARTS:
        assert_component_holds(tmp_path / "out", part, part, views_weights, official_keys(TINY))
    assert report.sources[0].sha256 == sha256_of_file(path, silent)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_rounded_once_to_the_stored_type(dtype: torch.dtype, views_weights, views_file, tmp_path) -> None:
    convert_release(tmp_path / "out", views_model=views_file, architecture=TINY, context=CONTEXT, dtype=dtype)
    unet = stored(tmp_path / "out", "unet")
    assert {tensor.dtype for tensor in unet.values()} == {dtype}
    assert torch.equal(unet["conv_in.weight"], views_weights["model.diffusion_model.input_blocks.0.0.weight"].to(dtype))


def test_large_components_are_split_as_diffusers_reads_them(views_weights, views_file, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT, largest_file_bytes=500_000)
    assert len(list((out / "unet").glob("*.safetensors"))) > 2
    assert_component_holds(out, "unet", "unet", views_weights, official_keys(TINY))
    loaded = DiffPortrait360Pipeline.from_pretrained(out).unet.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored(out, "unet").items())


def test_networks_shared_by_both_files_are_stored_once(views_weights, views_file: Path, tmp_path: Path) -> None:
    back = random_weights(motion=False, seed=1)
    same = ("model.diffusion_model.", "first_stage_model.")
    back |= {key: tensor for key, tensor in views_weights.items() if key.startswith(same) and key in back}
    torch.save(back, tmp_path / "back.th")

    def convert() -> ConversionReport:
        back_file = tmp_path / "back.th"
        return convert_release(
            tmp_path / "out", views_model=views_file, back_model=back_file, architecture=TINY, context=CONTEXT
        )

    report = convert()
    assert not (tmp_path / "out" / "back_unet").exists()
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["back_unet"] == [None, None]
    assert any("equal bit for bit" in note for note in report.notes) and not any("differ" in n for n in report.notes)
    assert DiffPortrait360Pipeline.from_pretrained(tmp_path / "out").can_make_back

    back["model.diffusion_model.out.2.bias"] = back["model.diffusion_model.out.2.bias"] + 1e-6
    back["first_stage_model.quant_conv.bias"] = -back["first_stage_model.quant_conv.bias"]
    torch.save(back, tmp_path / "back.th")
    report = convert()
    assert_component_holds(tmp_path / "out", "back_unet", "unet", back, official_keys(TINY))
    assert_component_holds(tmp_path / "out", "vae", "vae", views_weights, official_keys(TINY))
    assert any("VAEs of the two checkpoints differ in 1 tensors" in note for note in report.notes)


def break_missing(weights: dict[str, Tensor]) -> None:
    del weights["control_model.middle_block.0.in_layers.0.bias"]


def break_extra(weights: dict[str, Tensor]) -> None:
    weights["model_ema.decay"] = torch.zeros(1)


def break_shape(weights: dict[str, Tensor]) -> None:
    weights["model.diffusion_model.out.2.weight"] = torch.zeros(4, 32, 1, 1)


WHAT_IS_WRONG = {
    break_missing: r"^broken\.safetensors lacks 1 of the \d+ tensors of the 360 model \(control_model\.middle",
    break_extra: r"^broken\.safetensors has 1 tensors besides the \d+ that the 360 model expects \(model_ema\.decay\)",
    break_shape: r"^broken\.safetensors has 1 tensors of another shape .*out\.2\.weight \[4, 32, 1, 1\] in place of",
}


@pytest.mark.parametrize("damage", WHAT_IS_WRONG)
def test_what_is_wrong_with_a_fixture_is_named(parity_set, tmp_path: Path, damage: Callable) -> None:
    case = parity_set("video")
    weights = load_file(case.weights_path)
    damage(weights)
    save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=WHAT_IS_WRONG[damage]):
        convert_release(
            tmp_path / "out",
            views_model=tmp_path / "broken.safetensors",
            architecture=case.architecture,
            context=case.inputs["context"][:1],
        )
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_said_at_once_and_briefly(views_weights, tmp_path: Path) -> None:
    weights = {key: tensor for key, tensor in views_weights.items() if not key.startswith("pose_control_model")}
    break_extra(weights)
    break_shape(weights)
    torch.save(weights, tmp_path / "broken.th")
    with pytest.raises(InputError) as caught:
        convert_release(tmp_path / "out", views_model=tmp_path / "broken.th", architecture=TINY, context=CONTEXT)
    message = str(caught.value)
    assert all(word in message for word in ("lacks", "and", "more", "besides", "another shape"))
    assert len(message) < 1000


def test_the_two_models_are_not_mistaken_for_each_other(views_file: Path, tmp_path: Path) -> None:
    assert release_role(views_file) == "views"
    with pytest.raises(InputError, match="given as the back-head model, but it is the 360 model"):
        convert_release(tmp_path / "out", back_model=views_file, architecture=TINY, context=CONTEXT)
    torch.save(random_weights(motion=False), tmp_path / "back.th")
    assert release_role(tmp_path / "back.th") == "back"
    with pytest.raises(InputError, match="given as the 360 model, but it is the back-head model"):
        convert_release(tmp_path / "out", views_model=tmp_path / "back.th", architecture=TINY, context=CONTEXT)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"betas": torch.zeros(3), "x": Malicious(trace)}, tmp_path / "evil.th")
    pickle.dump(Malicious(trace), (tmp_path / "plain.pkl").open("wb"))
    for name in ("evil.th", "plain.pkl"):
        with pytest.raises(InputError, match=name):
            CheckpointFile.inspect(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
def test_what_is_no_checkpoint_is_said_in_one_sentence(suffix: str, views_weights, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    save_file(views_weights, whole) if suffix == ".safetensors" else torch.save(views_weights, whole)
    data = whole.read_bytes()
    for name, content in {"empty": b"", "text": b"<html>404</html>\n" * 99, "cut": data[: len(data) // 2]}.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}{suffix} .*download it again") as caught:
            CheckpointFile.inspect(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="There is no checkpoint at"):
        CheckpointFile.inspect(tmp_path / f"absent{suffix}")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt holds a list"):
        CheckpointFile.inspect(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    with pytest.raises(InputError, match=r"not tensors under a name .*'epoch'"):
        CheckpointFile.inspect(tmp_path / "number.pt")


def test_a_failed_conversion_leaves_what_was_there(views_weights, views_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    key = "first_stage_model.decoder.conv_out.bias"  # in the component that is written last
    save_file({**views_weights, key: torch.full_like(views_weights[key], 1e6)}, tmp_path / "large.safetensors")
    with pytest.raises(InputError, match=rf"numbers in {key} that are not finite as float16"):
        convert_release(
            out, views_model=tmp_path / "large.safetensors", architecture=TINY, context=CONTEXT, dtype=torch.float16
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.safetensors", "out", "views.safetensors"]


def test_quantised_weights_are_not_taken_for_numbers(views_weights, tmp_path: Path) -> None:
    key = "model.diffusion_model.out.2.weight"
    torch.save({**views_weights, key: views_weights[key].to(torch.int8)}, tmp_path / "small.th")
    with pytest.raises(InputError, match=f"type torch.int8 in {key}, expected floating-point"):
        convert_release(tmp_path / "out", views_model=tmp_path / "small.th", architecture=TINY, context=CONTEXT)


def test_no_folder_with_other_files_is_replaced(views_file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").touch()
    with pytest.raises(InputError, match="photos holds files that are not a pipeline folder"):
        convert_release(tmp_path / "photos", views_model=views_file, architecture=TINY, context=CONTEXT)
    (tmp_path / "model_index.json").touch()
    with pytest.raises(InputError, match="lies inside"):
        convert_release(tmp_path, views_model=views_file, architecture=TINY, context=CONTEXT)
    assert views_file.is_file() and (tmp_path / "photos" / "one.png").is_file()


def test_a_disk_without_room_is_noticed_before_anything_is_written(views_file: Path, tmp_path: Path, make_disk) -> None:
    disk = make_disk("size=1m")
    with pytest.raises(InputError, match=r"0\.0 GB are needed|GB are free"):
        convert_release(disk / "out", views_model=views_file, architecture=TINY, context=CONTEXT)
    assert not list(disk.iterdir())


def test_the_context_is_what_the_checkpoints_own_text_encoder_says(tmp_path: Path) -> None:
    encoder = text_encoder()
    weights = random_weights(motion=True)
    for name, tensor in encoder.state_dict().items():  # transformers 5 dropped the prefix `text_model.`
        weights[f"{TEXT_PREFIX}text_model.{name.removeprefix('text_model.')}"] = tensor
    weights[next(iter(IGNORED_KEYS))] = torch.arange(77)[None]
    torch.save(weights, tmp_path / "views.th")
    report = convert_release(tmp_path / "out", views_model=tmp_path / "views.th", architecture=TINY)
    with torch.no_grad():
        expected = encoder(torch.tensor([[49406, *[49407] * 76]])).last_hidden_state
    got = stored(tmp_path / "out", "context")["context"]
    assert got.shape == (1, 77, 64)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert next(part.source for part in report.components if part.name == "context").startswith("the text encoder of")

    del weights[TEXT_PREFIX + "text_model.encoder.layers.1.mlp.fc2.bias"]
    torch.save(weights, tmp_path / "views.th")
    with pytest.raises(InputError, match=r"lacks 1 .*layers\.1\.mlp\.fc2\.bias"):
        convert_release(tmp_path / "out", views_model=tmp_path / "views.th", architecture=TINY)


def test_a_context_that_cannot_be_computed_has_to_be_given(views_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no text encoder .*give it as a tensor \[tokens, 64\]"):
        convert_release(tmp_path / "out", views_model=views_file, architecture=TINY)
    with pytest.raises(InputError, match=r"shape \[tokens, 64\], got \[5, 32\]"):
        convert_release(tmp_path / "out", views_model=views_file, architecture=TINY, context=torch.zeros(5, 32))
    save_file({"context": CONTEXT[0].clone()}, tmp_path / "context.safetensors")
    torch.save(CONTEXT, tmp_path / "context.pt")
    for name in ("context.safetensors", "context.pt"):
        convert_release(tmp_path / "out", views_model=views_file, architecture=TINY, context=tmp_path / name)
        assert torch.equal(stored(tmp_path / "out", "context")["context"], CONTEXT)


def test_other_schedule_tables_are_reported_and_no_obstacle(views_weights, views_file: Path, tmp_path: Path) -> None:
    same = convert_release(tmp_path / "out", views_model=views_file, architecture=TINY, context=CONTEXT)
    assert not same.notes
    exact = {name: torch.from_numpy(table).float() for name, table in schedule_tables().items()}
    save_file({**views_weights, **exact}, views_file)
    report = convert_release(tmp_path / "out", views_model=views_file, architecture=TINY, context=CONTEXT)
    assert any("schedule tables that differ from the release's float16 ones" in note for note in report.notes)


def test_a_stock_model_is_compared_tensor_by_tensor(views_weights, views_file: Path, tmp_path: Path) -> None:
    out, stock = tmp_path / "out", tmp_path / "stock"
    convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT)
    unet, vae = (stored(out, part) for part in ("unet", "vae"))
    unet["conv_in.bias"] = unet["conv_in.bias"] + 0.25
    old_names = {name.replace("attentions.0.to_q.", "attentions.0.query."): t.half() for name, t in vae.items()}
    for part, tensors in {"unet": unet, "vae": old_names}.items():
        (stock / part).mkdir(parents=True)
        save_file(tensors, stock / part / "diffusion_pytorch_model.safetensors")
    report = convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT, stock=stock)
    assert report.stock == (
        f"unet of the 360 model: {len(unet) - 1} of {len(unet)} tensors equal the stock ones, 1 differ (by up to 0.25, "
        "in conv_in.bias)",
        # equal in the stock folder's precision, old names and all
        f"vae of the 360 model: {len(vae)} of {len(vae)} tensors equal the stock ones",
    )
    assert all(line in report.to_text() for line in report.stock)
    with pytest.raises(InputError, match="no unet, vae or text_encoder folder"):
        convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT, stock=tmp_path)


def test_the_record_names_every_file_and_its_hash(views_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = convert_release(out, views_model=views_file, architecture=TINY, context=CONTEXT)
    record = json.loads((out / CONVERSION_RECORD).read_text())
    assert record["sources"][0]["sha256"] == sha256_of_file(views_file, silent)
    weights = {str(path.relative_to(out)) for path in out.rglob("*.safetensors")}
    assert record["files"].keys() == weights == report.files.keys()
    assert all(sha256_of_file(out / name, silent) == digest for name, digest in record["files"].items())
    assert str(tmp_path) not in (out / CONVERSION_RECORD).read_text()
    for name in weights:
        with safe_open(out / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_nothing_to_convert_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no checkpoint to convert"):
        convert_release(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the memory figures of Linux")
def test_weights_pass_through_without_a_copy_of_the_file_in_memory(tmp_path: Path) -> None:
    sizes = Architecture(
        UNetConfig(block_out_channels=(64, 128, 256, 256)),
        CameraControlConfig(block_out_channels=(64, 128, 256, 256)),
        ViewConsistencyConfig(block_out_channels=(64, 128, 256, 256)),
        "AutoencoderKL",
        {**KL_F8, "block_out_channels": (64, 128, 256, 256)},
    )
    weights = random_weights(motion=True, architecture=sizes)
    torch.save(weights, tmp_path / "views.th")
    file_bytes = (tmp_path / "views.th").stat().st_size
    del weights

    def resident_bytes(kind: str) -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{kind}:"))
        return 1024 * int(line.split()[1])

    def watched(sequence, *, total, description):
        for item in sequence:
            seen.append((resident_bytes("RssAnon"), resident_bytes("VmRSS")))
            yield item

    before, seen = (resident_bytes("RssAnon"), resident_bytes("VmRSS")), []
    context = torch.zeros(77, 768)
    views = tmp_path / "views.th"
    convert_release(tmp_path / "out", views_model=views, architecture=sizes, context=context, track=watched)
    private, total = (max(column) - start for column, start in zip(zip(*seen), before))
    assert file_bytes > 400e6
    assert private < 0.2 * file_bytes, "our own memory: one tensor at a time"
    assert total < 0.6 * file_bytes, "with the mapped pages: one component at a time"
