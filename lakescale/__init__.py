"""Map the lakes that melt makes on ice sheets, from mosaics of any size, exactly whatever the chunks."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "evidence.color": ["color_mask", "index_mask", "water_index"],
        "grid": ["Grid"],
        "polygons": ["polygonize"],
        "regrid": ["regrid"],
        "regions": ["fill_holes", "label_regions"],
        "rules": ["PolygonRules"],
        "scene": ["open_scene", "seen_mask"],
        "scoring": ["Score", "score"],
        "schema": ["InputError", "LakescaleError", "RunError"],
    },
)
