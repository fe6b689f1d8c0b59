"""A composed head on disk: a nerfstudio data set of its true views, with everything else that is known beside it.

normals, labels and control are there unless views alone were asked for.

FOLDER/transforms.json, images/, masks/, sparse_pc.ply   as `dataset.write_dataset`
FOLDER/normals/NAME.png      true normals of the fitted frame, 127.5 * (n + 1); 0 where nothing is
FOLDER/labels/NAME.png       numbers of the labels that head.json names
FOLDER/control/NAME.png      what the prior shows from the same camera, RGBA; beside it control_validity and
                             control_normals, as `synthetic.head_data` says
FOLDER/portrait.png          the aligned portrait; portrait_alpha.png is its matte as it was estimated
FOLDER/portrait.npz          the same with its fitted head (`generation.portrait.portrait_file`)
FOLDER/back.png              the true view from straight behind, RGBA
FOLDER/head.json             recipe, alignment, labels
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from dp360.generation.files import directory_written_atomically
from dp360.generation.portrait import encode_portrait
from dp360.generation.synthetic.head_data import HeadData

from ..dataset.view_dataset import png_bytes, write_dataset

FACTS, PORTRAIT = "head.json", "portrait.npz"


def write_head_dataset(data: HeadData, folder: Path) -> None:
    """Write a head, whole or not at all; the same head gives the same bytes.

    Args:
        data: the head.
        folder: of this head alone; an earlier one there is replaced when the new one is complete.

    Raises:
        InputError: the folder cannot be written.
    """
    text = json.dumps(data.facts, indent=1, allow_nan=False, sort_keys=True)
    with directory_written_atomically(folder) as temporary:
        write_dataset(data.views, temporary / "views")
        for entry in sorted((temporary / "views").iterdir()):
            os.replace(entry, temporary / entry.name)
        (temporary / "views").rmdir()
        for name, pictures in data.maps.items():
            (temporary / name).mkdir()
            for view, picture in zip(data.views.names, pictures):
                (temporary / name / f"{view}.png").write_bytes(png_bytes(picture))
        matte = np.round(255 * data.portrait.alpha_unit).astype(np.uint8)
        for name, picture in (("portrait", data.portrait.rgb), ("portrait_alpha", matte), ("back", data.back)):
            (temporary / f"{name}.png").write_bytes(png_bytes(picture))
        (temporary / PORTRAIT).write_bytes(encode_portrait(data.portrait))
        (temporary / FACTS).write_text(text + "\n", encoding="utf-8")
