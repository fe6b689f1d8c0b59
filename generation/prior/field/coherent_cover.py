"""One reading of what is not seen: hair or skin in whole pieces, and no patches of either where the field hesitates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from ...cameras import UNITS_PER_MM
from .chart import COLUMNS, ROWS, cell_shares
from .head_field import HAIR, HEADGEAR, SKIN, HeadField

_BORDER = 1.0
"""What a border of one cell's width costs, beside the logarithms of the probabilities of one cell."""
_LEAST, _MOST = 0.02, 0.98
_RISE, _SURE = 0.1, 0.8
"""By how much the share of hair is at least above one half for each further cell away from the border, and up to which
share: hairlines stay as soft as they are."""
_PATCH, _MOST_ADDED = 0.1, 10 * UNITS_PER_MM
"""What was added to a cell's share from which on it is a patch, and the most hair that is put there."""
_SCALE = 1000
"""The cut counts in whole numbers: of so many to one."""


def with_coherent_cover(field: HeadField) -> HeadField:
    """The field with hair and headgear, or skin, in whole pieces; shares that leave no doubt stay as they are.

    The expected share of hair of a head that may be bald or not is a half, with a little more here and less there;
    what is made of that has holes. The likeliest head under a smoothness prior has none.
    """
    cover = np.asarray(field.material[HAIR] + field.material[HEADGEAR], np.float64)
    covered = likeliest_cover(cover)
    depth = _cells_inside(covered) - _cells_inside(~covered)  # positive in the cover
    least = np.clip(0.5 + _RISE * (depth - 1), 0, _SURE) * covered
    most = np.where(covered, 1, np.clip(0.5 + _RISE * (depth + 1), 1 - _SURE, 1))
    wanted = np.clip(cover, least, most)
    material = field.material.astype(np.float64)
    skin = material[SKIN]
    more = np.clip(wanted - cover, 0, skin)  # cloth stays cloth
    kept = np.where(wanted < cover, wanted / np.maximum(cover, 1e-6), 1)
    hair = np.where(material[HAIR] >= material[HEADGEAR], 1.0, 0.0)
    material[SKIN] += cover * (1 - kept) - more
    material[HAIR] = material[HAIR] * kept + more * hair
    material[HEADGEAR] = material[HEADGEAR] * kept + more * (1 - hair)
    usual = field.thickness[cover > _SURE]
    added = min(float(np.median(usual)), _MOST_ADDED) if len(usual) else 0.0
    thickness = np.where(more > _PATCH, np.maximum(field.thickness, np.float32(added)), field.thickness)
    return replace(field, material=material.astype(np.float32), thickness=thickness.astype(np.float32))


def likeliest_cover(probability: Float[np.ndarray, "56 64"]) -> Bool[np.ndarray, "56 64"]:
    """The likeliest set of covered cells, where borders cost their length: the minimum cut of the chart.

    Source: Greig, Porteous, Seheult, "Exact Maximum A Posteriori Estimation for Binary Images", JRSS B 1989.

    Args:
        probability: of a cover in each cell.
    """
    p = np.clip(probability, _LEAST, _MOST)
    size = np.broadcast_to(cell_shares() / cell_shares().mean(), p.shape)  # of cells: narrow about the pole
    cell = np.arange(p.size).reshape(p.shape)
    source, sink = p.size, p.size + 1
    width = _BORDER * np.minimum(size[:-1], size[1:])
    right = np.roll(cell, -1, axis=1)
    edges = [
        (np.full_like(cell, source), cell, -np.log(1 - p) * size),
        (cell, np.full_like(cell, sink), -np.log(p) * size),
        (cell, right, np.full(p.shape, _BORDER)),
        (right, cell, np.full(p.shape, _BORDER)),
        (cell[:-1], cell[1:], width),
        (cell[1:], cell[:-1], width),
    ]
    tails, heads, costs = (np.concatenate([np.ravel(edge[k]) for edge in edges]) for k in range(3))
    whole = np.round(_SCALE * costs).astype(np.int32)
    graph = coo_matrix((whole, (tails, heads)), shape=(p.size + 2, p.size + 2)).tocsr()
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = np.zeros(p.size + 2, bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return reached[: p.size].reshape(ROWS, COLUMNS)


def _cells_inside(mask: Bool[np.ndarray, "56 64"]) -> Float[np.ndarray, "56 64"]:
    """Distance to the border from inside, cells, round the axis; 0 outside."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    turns = np.concatenate([mask] * 3, axis=1)
    return np.asarray(ndimage.distance_transform_edt(turns))[:, COLUMNS : 2 * COLUMNS]
