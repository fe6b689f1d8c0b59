"""What covers a head behind is what covers it in front: no hat begins where a portrait stops showing hair."""

from __future__ import annotations

from dataclasses import replace

from .head_field import HAIR, HEADGEAR, HeadField
from .observed_field import ObservedField

_LEAST_CELLS, _MOST_SHARE = 40.0, 0.03
"""With so many cells of hair and headgear to be seen, and at most such a share of headgear among them, none is worn."""


def with_seen_cover(field: HeadField, observed: ObservedField) -> HeadField:
    """The field with hair for headgear, where the portrait shows a head of hair and no headgear on it.

    Coiffures that no composed head has, and those of painters, look like caps to the networks.

    Args:
        field: estimated or drawn.
        observed: what the portrait shows.
    """
    hair, worn = (float((observed.visibility * observed.material[kind]).sum()) for kind in (HAIR, HEADGEAR))
    if hair + worn < _LEAST_CELLS or worn > _MOST_SHARE * (hair + worn):
        return field
    return all_hair(field)


def all_hair(field: HeadField) -> HeadField:
    """The field with hair for headgear: what there would be, or is below headgear that is a thing of its own."""
    material = field.material.copy()
    material[HAIR] += material[HEADGEAR]
    material[HEADGEAR] = 0
    return replace(field, material=material)
