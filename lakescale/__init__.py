"""Map the lakes that melt makes on ice sheets, from mosaics of any size, exactly whatever the chunks."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cog": ["export_cog"],
        "cube": ["open_cube", "write_cube"],
        "dem": ["open_dem"],
        "evidence.cloud": ["assess_cloud"],
        "evidence.color": ["color_mask", "index_mask", "water_index"],
        "evidence.ice": ["ice_mask"],
        "evidence.lids": ["assess_lids"],
        "evidence.model": ["count_windows", "lake_probability"],
        "evidence.model_source": ["ModelSource", "checkpoint_source", "drop_models"],
        "evidence.sink_regions": ["sink_regions"],
        "evidence.sinks": ["fill_depressions", "sink_depth", "sink_mask"],
        "evidence.volumes": ["lake_volumes"],
        "evidence.water_depth": ["water_depth"],
        "evidence.water_depth_raster": ["depth_raster"],
        "evidence.zonal": ["polygon_evidence"],
        "evidence.zonal_distance": ["distance_to_unseen"],
        "flats": ["drain_flats", "flat_steps"],
        "fusion": ["Lakescale", "Seed", "fuse"],
        "grid": ["Grid"],
        "models": ["ModelSpec", "convert_checkpoint", "describe_checkpoint", "load_model", "save_checkpoint"],
        "pixel_scoring": ["PixelScore", "score_areas", "score_pixels"],
        "polygons": ["polygonize"],
        "regrid": ["regrid"],
        "regions": ["fill_holes", "label_regions"],
        "rules": ["PolygonRules"],
        "scene": ["open_scene", "seen_mask"],
        "scoring": ["Score", "score"],
        "series": ["TrackRules", "Tracks", "track"],
        "synthetic": ["make_region"],
        "store": ["open_layer", "write_layer"],
        "schema": ["InputError", "LakescaleError", "RunError"],
    },
)
