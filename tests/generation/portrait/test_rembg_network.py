"""`--matte rembg`: what is asked of rembg, what is said when it cannot answer, and what becomes of its outline.

Most tests have a module in rembg's place; the last ones have rembg itself with networks of two layers.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dp360.generation import InputError
from dp360.generation.portrait import Portrait, PortraitConfig, encode_portrait, prepare_portrait, read_portrait
from dp360.generation.portrait.rembg_network import DEFAULT_MODEL, RembgNetwork, rembg_file, rembg_model

SIZE = 256
PICTURE = np.zeros((40, 60, 3), np.uint8)


@dataclass
class FakeRembg:
    """What a test says about rembg, and what rembg was asked for."""

    mask: Callable[[np.ndarray], np.ndarray] = lambda rgb: np.zeros(rgb.shape[:2], np.uint8)
    trouble: Exception | None = None
    side: int = 320
    opened: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    pictures: list[tuple[int, ...]] = field(default_factory=list)

    def new_session(self, model_name: str = "u2net", **options: Any) -> Any:
        if self.trouble is not None:
            raise self.trouble
        self.opened.append((model_name, options))
        shape = [1, 3, self.side, self.side]
        return SimpleNamespace(inner_session=SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=shape)]))

    def remove(self, data: np.ndarray, *, session: Any, only_mask: bool) -> np.ndarray:
        assert only_mask and session is not None
        self.pictures.append(data.shape)
        return self.mask(data)


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRembg:
    """A module in rembg's place."""
    fake, module, sessions = FakeRembg(), ModuleType("rembg"), ModuleType("rembg.sessions")
    module.new_session, module.remove = fake.new_session, fake.remove  # type: ignore[attr-defined]
    sessions.sessions_names = ["u2net", "birefnet-portrait", "sam", "u2net_custom"]  # type: ignore[attr-defined]
    for name, what in {"rembg": module, "rembg.sessions": sessions, "onnxruntime": ModuleType("onnxruntime")}.items():
        monkeypatch.setitem(sys.modules, name, what)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "networks of rembg"))
    return fake


def network(matte: str) -> RembgNetwork:
    found = RembgNetwork.of(matte)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("matte", "model", "file"),
    [
        ("own", None, None),
        ("rembg", DEFAULT_MODEL, None),
        ("rembg:u2net_human_seg", "u2net_human_seg", None),
        ("rembg:mine.onnx", "mine.onnx", Path("mine.onnx")),
        ("rembg:C:/my nets/Mine.ONNX", "C:/my nets/Mine.ONNX", Path("C:/my nets/Mine.ONNX")),
        ("rembg:~/mine", "~/mine", Path.home() / "mine"),
    ],
)
def test_what_the_option_means(matte: str, model: str | None, file: Path | None) -> None:
    assert (rembg_model(matte), rembg_file(matte)) == (model, file)


@pytest.mark.parametrize("matte", ["", "rembg:", "Own", "u2net", "rembgs", "own:u2net"])
def test_other_words_are_refused(matte: str) -> None:
    with pytest.raises(InputError, match="expected own, rembg, or rembg:MODEL"):
        rembg_model(matte)


def test_own_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    assert RembgNetwork.of("own") is None


@pytest.mark.parametrize("missing", ["rembg", "onnxruntime"])
def test_a_missing_package_names_the_extra(rembg: FakeRembg, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'needs the packages rembg and onnxruntime.* pip install "dp360\[matte\]"'):
        RembgNetwork.of("rembg")


def test_a_portrait_is_not_read_before_the_extra_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(InputError, match="needs the packages"):
        prepare_portrait(Path("nowhere.png"), PortraitConfig(matte="rembg"))


@pytest.mark.parametrize("model", ["u3net", "sam", "u2net_custom"])
def test_names_without_an_outline_are_refused(rembg: FakeRembg, model: str) -> None:
    with pytest.raises(InputError, match=f"no network '{model}' .* one of u2net, birefnet-portrait, or the path"):
        RembgNetwork.of(f"rembg:{model}")


def test_a_file_that_does_not_exist_is_named(rembg: FakeRembg) -> None:
    with pytest.raises(InputError, match=r"No file nowhere/mine\.onnx .*check the path"):
        RembgNetwork.of("rembg:nowhere/mine.onnx")


def test_a_network_is_opened_once_and_late_on_the_cpu(rembg: FakeRembg) -> None:
    rembg.mask = lambda rgb: np.full(rgb.shape[:2], 51, np.uint8)
    asked = network("rembg:u2net")
    assert rembg.opened == []
    for _ in range(2):
        (seen,) = asked.maps(PICTURE)
        np.testing.assert_allclose(seen, 0.2)
    assert rembg.opened == [("u2net", {"providers": ["CPUExecutionProvider"]})]
    assert rembg.pictures == [PICTURE.shape] * 2


@pytest.mark.parametrize(("side", "way"), [(320, "u2net_custom"), (1024, "dis_custom")])
def test_a_file_is_opened_as_its_size_says(rembg: FakeRembg, side: int, way: str, tmp_path: Path) -> None:
    rembg.side, path = side, tmp_path / "mine.onnx"
    path.write_bytes(b"network")
    asked = network(f"rembg:{path}")
    asked.maps(PICTURE)
    assert rembg.opened[-1] == (way, {"model_path": str(path), "providers": ["CPUExecutionProvider"]})
    assert asked.matte == "rembg:mine.onnx"  # a folder's name is nobody's business
    digest = hashlib.sha256(b"network").hexdigest()[:16]
    assert asked.provenance().startswith(f"mine.onnx (sha256 {digest}) by rembg ")


def test_what_was_fetched_is_named_with_its_hash(rembg: FakeRembg, tmp_path: Path) -> None:
    asked = network("rembg")
    assert asked.provenance().startswith("birefnet-portrait by rembg")
    (tmp_path / "networks of rembg").mkdir()
    (tmp_path / "networks of rembg" / "birefnet-portrait.onnx").write_bytes(b"fetched")
    assert hashlib.sha256(b"fetched").hexdigest()[:16] in asked.provenance()


def test_a_network_that_cannot_be_fetched_says_where_to_put_it(rembg: FakeRembg, tmp_path: Path) -> None:
    rembg.trouble = ConnectionError("Max retries exceeded\n" + "x" * 1000)
    with pytest.raises(InputError, match=r"cannot get its network u2net \(Max retries .*as u2net\.onnx, or lea") as e:
        network("rembg:u2net").maps(PICTURE)
    assert str(tmp_path / "networks of rembg") in str(e.value)
    assert len(str(e.value)) < 600 and "\n" not in str(e.value)


def test_a_network_of_another_kind_is_refused(rembg: FakeRembg) -> None:
    rembg.mask = lambda rgb: np.zeros((3 * rgb.shape[0], rgb.shape[1]), np.uint8)  # as for clothes: three masks
    with pytest.raises(InputError, match=r"expected one mask of 60x40 pixels, got an array of shape \(120, 60\)"):
        network("rembg").maps(PICTURE)

    def broken(rgb: np.ndarray) -> np.ndarray:
        raise RuntimeError("Got invalid dimensions")

    rembg.mask = broken
    with pytest.raises(InputError, match=r"could not be used \(Got invalid dimensions\)"):
        network("rembg").maps(PICTURE)


# ---- a portrait -------------------------------------------------------------------------------------------------


def not_green(rgb: np.ndarray) -> np.ndarray:
    """What is not the background of `in_the_studio`."""
    r, g, b = (rgb[..., k].astype(int) for k in range(3))
    return np.where(g - np.maximum(r, b) > 30, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Portrait:
    path = tmp_path_factory.mktemp("original") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return prepare_portrait(path, PortraitConfig(size_px=384))


@pytest.fixture(scope="module")
def in_the_studio(original: Portrait, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut in front of greens that no flat background has."""
    x = np.linspace(0, 1, original.size_px)[None, :, None]
    greens = np.broadcast_to((1 - x) * np.array([0.1, 0.5, 0.1]) + x * np.array([0.2, 0.9, 0.3]), original.rgb.shape)
    alpha = original.alpha_unit[..., None]
    picture = np.round(255 * (original.foreground_unit * alpha + greens * (1 - alpha))).astype(np.uint8)
    path = tmp_path_factory.mktemp("studio") / "studio.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="module")
def by_ourselves(in_the_studio: Path) -> Portrait:
    return prepare_portrait(in_the_studio, PortraitConfig(size_px=SIZE))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


def test_the_outline_decides_what_the_person_is(
    rembg: FakeRembg, in_the_studio: Path, by_ourselves: Portrait, tmp_path: Path
) -> None:
    def without_shoulders(rgb: np.ndarray) -> np.ndarray:
        mask = not_green(rgb)
        mask[int(0.85 * len(mask)) :] = 0
        return mask

    rembg.mask = not_green
    plain = prepare_portrait(in_the_studio, PortraitConfig(size_px=SIZE, matte="rembg"))
    assert plain.notices == () and (plain.matte, by_ourselves.matte) == ("rembg:birefnet-portrait", "own")
    assert len(rembg.pictures) == 1  # also where `auto` looks for the frame
    assert [w for w in plain.weights if w not in by_ourselves.weights] == [network("rembg").provenance()]
    assert overlap(plain.alpha_unit, by_ourselves.alpha_unit) > 0.95
    soft = (plain.alpha_unit > 0.05) & (plain.alpha_unit < 0.95)
    assert soft.mean() > 0.005  # the mask was hard

    rembg.mask = without_shoulders
    cut = prepare_portrait(in_the_studio, PortraitConfig(size_px=SIZE, matte="rembg"))
    assert plain.alpha_unit[-SIZE // 16 :].mean() > 0.3 > 0.02 > cut.alpha_unit[-SIZE // 16 :].mean()

    (tmp_path / "portrait.npz").write_bytes(encode_portrait(plain))
    kept = read_portrait(tmp_path / "portrait.npz")
    assert (kept.matte, kept.weights) == (plain.matte, plain.weights)
    (tmp_path / "own.npz").write_bytes(encode_portrait(by_ourselves))
    assert read_portrait(tmp_path / "own.npz").matte == "own"
    assert b'"matte"' not in np.load(tmp_path / "own.npz")["facts"].tobytes()  # the bytes of earlier versions


def test_an_outline_of_something_else_leaves_all_to_us(
    rembg: FakeRembg, in_the_studio: Path, by_ourselves: Portrait
) -> None:
    rembg.mask = lambda rgb: 255 - not_green(rgb)
    found = prepare_portrait(in_the_studio, PortraitConfig(size_px=SIZE, matte="rembg"))
    assert len(found.notices) == 1 and "rembg gives does not fit the head" in found.notices[0]
    assert (found.matte, found.weights) == ("own", by_ourselves.weights)
    np.testing.assert_array_equal(found.alpha_unit, by_ourselves.alpha_unit)
    np.testing.assert_array_equal(found.foreground_unit, by_ourselves.foreground_unit)


def test_the_transparency_of_a_file_comes_first(rembg: FakeRembg, in_the_studio: Path, tmp_path: Path) -> None:
    rembg.mask = not_green
    rgb = np.array(Image.open(in_the_studio))
    Image.fromarray(np.dstack([rgb, not_green(rgb)])).save(tmp_path / "cut.png")
    cut = prepare_portrait(tmp_path / "cut.png", PortraitConfig(size_px=SIZE, matte="rembg"))
    assert rembg.opened == [] and (cut.matte, cut.notices) == ("own", ())

    useless = np.full_like(rgb[..., 0], 255)
    useless[-8:] = 0
    Image.fromarray(np.dstack([rgb, useless])).save(tmp_path / "useless.png")
    found = prepare_portrait(tmp_path / "useless.png", PortraitConfig(size_px=SIZE, matte="rembg"))
    assert len(rembg.pictures) == 1 and found.matte == "rembg:birefnet-portrait"
    assert len(found.notices) == 1 and "transparency does not outline the head" in found.notices[0]


def test_without_a_face_the_head_stands_where_the_outline_has_it(rembg: FakeRembg, in_the_studio: Path) -> None:
    rembg.mask = not_green
    blind = PortraitConfig(size_px=SIZE, no_face=True, matte="rembg:u2net")
    placed = prepare_portrait(in_the_studio, blind)
    assert placed.notices == () and placed.matte == "rembg:u2net"
    assert placed.weights == (network("rembg:u2net").provenance(),)

    rembg.mask = lambda rgb: np.zeros(rgb.shape[:2], np.uint8)
    placed = prepare_portrait(in_the_studio, blind)
    assert (placed.matte, placed.weights) == ("own", ())
    assert "No head is seen in the outline that rembg gives" in placed.notices[0]


# ---- rembg itself -----------------------------------------------------------------------------------------------


def tiny_network(path: Path, weights: tuple[float, float, float], threshold: float, side: int) -> Path:
    """An .onnx file that says "person" where a weighted sum of blurred colours, each 0 to 1, is over a threshold."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("rembg")
    h, real = onnx.helper, onnx.TensorProto.FLOAT
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if side == 320 else ((0.5,) * 3, (1.0,) * 3)
    kernel = 40 * np.array(weights) * np.array(std)
    bias = 40 * (np.dot(weights, mean) - threshold)
    constants = [
        onnx.numpy_helper.from_array(kernel.reshape(1, 3, 1, 1).astype(np.float32), "kernel"),
        onnx.numpy_helper.from_array(np.array([bias], np.float32), "bias"),
    ]
    layers = [
        h.make_node("AveragePool", ["picture"], ["blurred"], kernel_shape=[3, 3], pads=[1] * 4),
        h.make_node("Conv", ["blurred", "kernel", "bias"], ["logit"]),
        h.make_node("Sigmoid", ["logit"], ["person"]),
    ]
    ends = [h.make_tensor_value_info(n, real, [1, c, side, side]) for n, c in (("picture", 3), ("person", 1))]
    graph = h.make_graph(layers, "tiny", ends[:1], ends[1:], constants)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def test_the_names_we_count_on_are_rembgs() -> None:
    sessions = pytest.importorskip("rembg.sessions")
    from dp360.generation.portrait.rembg_network import _CUSTOM, _OTHER_TASKS

    assert {DEFAULT_MODEL, "u2net_human_seg", *_OTHER_TASKS, *_CUSTOM.values()} <= set(sessions.sessions_names)


@pytest.mark.parametrize("side", [320, 1024])
def test_a_tiny_network_sees_what_it_is_made_for(side: int, tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "red.onnx", (1.0, -1.0, 0.0), 0.4, side)
    picture = np.full((90, 120, 3), (40, 200, 40), np.uint8)
    picture[20:70, 40:80] = (240, 30, 60)
    (seen,) = network(f"rembg:{path}").maps(picture)
    expected = np.zeros((90, 120), bool)
    expected[20:70, 40:80] = True
    assert ((seen > 0.5) == expected).mean() > 0.99
    assert seen.dtype == np.float32 and seen.min() >= 0 and seen.max() <= 1


def test_a_network_that_sees_nobody_says_so(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tiny_network(tmp_path / "nobody.onnx", (0.0, 0.0, 0.0), 0.5, 320)
    (seen,) = network(f"rembg:{path}").maps(PICTURE)
    assert seen.max() == 0
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_damaged_file_and_one_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "odd.onnx", (1.0, 0.0, 0.0), 0.5, 200)
    with pytest.raises(InputError, match=r"could not be used \(.*dimensions"):
        network(f"rembg:{path}").maps(PICTURE)
    path.write_bytes(b"no network at all")
    with pytest.raises(InputError, match=r"odd\.onnx cannot be read as a network .*expected an \.onnx file"):
        network(f"rembg:{path}").maps(PICTURE)


def test_without_the_internet_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rembg")
    pooch = pytest.importorskip("pooch")

    def no_internet(*_: Any, **__: Any) -> None:
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(pooch, "retrieve", no_internet)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"\(Temporary failure .* put the file into .* as birefnet-portrait\.onnx"):
        network("rembg").maps(PICTURE)


def test_rembg_itself_outlines_a_portrait(in_the_studio: Path, by_ourselves: Portrait, tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "studio.onnx", (0.5, -1.0, 0.5), -0.12, 320)
    found = prepare_portrait(in_the_studio, PortraitConfig(size_px=SIZE, matte=f"rembg:{path}"))
    assert (found.matte, found.notices) == ("rembg:studio.onnx", ())
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in found.weights[-1]
    assert overlap(found.alpha_unit, by_ourselves.alpha_unit) > 0.93
    assert not np.array_equal(found.alpha_unit, by_ourselves.alpha_unit)
