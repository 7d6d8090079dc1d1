"""The order of the pages of the gallery: what a newcomer asks first comes first."""

from __future__ import annotations

PAGES = (
    "first_prediction",
    "other_names",
    "own_basin",
    "grid_map",
    "finetune",
    "similar_basins",
    "uncertainty",
    "flood",
    "water_balance",
    "routing",
    "soil_texture",
    "landslides",
    "own_target",
    "published",
    "cluster",
)


def place(filename: str) -> int:
    """Return where a script stands; one that is not listed is an error."""
    return PAGES.index(filename.removeprefix("plot_").removesuffix(".py"))
