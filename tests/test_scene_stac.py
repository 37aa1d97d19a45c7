"""Scenes: STAC items."""

import json

import numpy as np
import pytest
from scene_files import bands_of, dn, write

from lakescale.scene import open_scene
from lakescale.schema import InputError


def stac_item(folder, **properties):
    scaled = {"scale": 1e-4, "offset": -0.1, "nodata": 7}
    blue, red = {"name": "B02", "common_name": "blue"}, {"name": "B04", "eo:common_name": "red"}
    visual = [{"common_name": name} for name in ("red", "green", "blue")]
    assets = {
        "blue-jp2": {"href": f"{folder}/none.jp2", "type": "image/jp2", "eo:bands": [blue]},
        "blue": {"href": f"{folder}/1.tif", "type": "image/tiff", "eo:bands": [blue], "raster:bands": [scaled]},
        "red": {"href": "./2.tif", "bands": [red | {"raster:scale": 1e-4, "raster:offset": -0.1}], "nodata": 7},
        "swir16": {"href": f"{folder}/absent.tif", "eo:bands": [{"name": "swir16", "common_name": "swir16"}]},
        "visual": {"href": f"{folder}/none.tif", "eo:bands": visual},
        "thumbnail": {"href": f"{folder}/none.jpg", "roles": ["thumbnail"], "eo:bands": visual[:1]},
        "product_metadata": {"href": "metadata.xml"},
    }
    said = {"datetime": "2022-07-13T23:30:00-02:00", "platform": "sentinel-2a", **properties}
    return {"id": "S2A_22WEV_20220713_0_L2A", "collection": "sentinel-2-l2a", "properties": said, "assets": assets}


class PystacLike:
    def __init__(self, item):
        self.item = item

    def to_dict(self):
        return self.item


def test_stac_items_open_by_dict_object_and_path(tmp_path):
    for name in ("1.tif", "2.tif"):
        write(tmp_path / name, np.array([[[0, 7, 1500, 2500]]], np.uint16))
    item, path = stac_item(tmp_path), tmp_path / "item.json"
    item["links"] = [{"rel": "self", "href": str(path)}]
    path.write_text(json.dumps(item))
    for source in (item, PystacLike(item), path, str(path)):
        scene = open_scene(source, bands=["red", "blue"])
        assert bands_of(scene) == ["red", "blue"]
        assert scene["time"].values == np.datetime64("2022-07-14")
        assert scene.attrs["date_source"] == "the STAC item's datetime 2022-07-13T23:30:00-02:00"
        assert (scene.attrs["scale"], scene.attrs["offset"]) == (1e-4, -0.1)
        np.testing.assert_allclose(scene[0, 0], [np.nan, np.nan, 0.05, 0.15], atol=1e-7)
    with pytest.raises(InputError, match=r"absent\.tif"):
        open_scene(item)


def test_stac_offsets_that_a_mirror_removed(tmp_path):
    for low, flag, offset in ((1500, True, 0), (1500, False, -0.1), (300, False, 0)):
        for name in ("1.tif", "2.tif"):
            write(tmp_path / name, dn(low=low))
        item = stac_item(tmp_path, **{"earthsearch:boa_offset_applied": flag, "s2:processing_baseline": "05.09"})
        scene = open_scene(item, bands=["blue"])
        assert scene.attrs["offset"] == offset
        assert scene.attrs["baseline"] == "05.09"
        assert scene.attrs["product_level"] == "L2A"


@pytest.mark.parametrize("item", [{"type": "FeatureCollection", "features": []}, {"assets": {"a": {"href": "a.xml"}}}])
def test_what_is_no_usable_stac_item(tmp_path, item):
    with pytest.raises(InputError, match="STAC item"):
        open_scene(item)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json"):
        open_scene(tmp_path / "x.json")
