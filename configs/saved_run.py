"""A folder that ns-train left, read without executing anything: its method, its data set, its newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import TRANSFORMS
from dp360.reconstruction.splat_fit import VARIABLES, splats_from_parameters
from dp360.reconstruction.splats import Splats

CHECKPOINTS_NAME = "nerfstudio_models"


@dataclass(frozen=True)
class SavedRun:
    """What a run's `config.yml` says that matters when it is opened again."""

    folder: Path
    """Where config.yml lies today."""
    method_name: str
    """Such as dp360-splat."""
    named_data: Path | None
    """The data set as it was named when the run was made."""
    data_from_run: Path | None
    """The way from the run's folder to its data set, when the run was made."""

    @classmethod
    def read(cls, config_path: Path) -> SavedRun:
        """Read a `config.yml` as text: tags that name code are passed over.

        Raises:
            InputError: it is no configuration of ns-train.
        """
        try:
            root = yaml.compose(config_path.read_text("utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"Cannot read {config_path}: {' '.join(str(error).split())}") from error
        named = _plain(root)
        if not isinstance(named, dict) or not isinstance(named.get("method_name"), str):
            raise InputError(f"Cannot read {config_path}: expected the config.yml of a run of ns-train")
        return cls(
            config_path.parent, named["method_name"], _path(named.get("data")), _path(named.get("data_from_run"))
        )

    @property
    def data(self) -> Path | None:
        """The data set: beside the run as it was, else where it was named; None where it is gone."""
        beside = None if self.data_from_run is None else self.folder / self.data_from_run
        for path in (beside, self.named_data):
            if path is not None and (path / TRANSFORMS).is_file():
                return path
        return None

    def splats(self) -> Splats:
        """The Gaussians of a run of dp360-splat as they were last saved.

        Raises:
            InputError: no checkpoint, or one that is damaged.
        """
        found = sorted((self.folder / CHECKPOINTS_NAME).glob("step-*.ckpt"))
        if not found:
            raise InputError(
                f"Cannot open the run in {self.folder}: no checkpoint step-*.ckpt in its folder {CHECKPOINTS_NAME}; "
                "train on, or move the whole folder of the run"
            )
        path = found[-1]
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["pipeline"]
            return splats_from_parameters({name: state[f"_model.gauss_params.{name}"] for name in VARIABLES})
        except Exception as error:  # torch names damage in many ways
            raise InputError(f"Cannot read {path}: it is damaged, or no checkpoint of dp360-splat") from error


def _plain(node: yaml.Node | None) -> Any:
    """Mappings, lists and texts of a YAML tree; tags count for nothing."""
    if isinstance(node, yaml.MappingNode):
        return {str(_plain(key)): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _path(saved: Any) -> Path | None:
    """A path: yaml writes it as a list of its parts, or as text."""
    if isinstance(saved, list) and saved:
        return Path(*map(str, saved))
    return Path(saved) if isinstance(saved, str) and saved not in ("", "null") else None
