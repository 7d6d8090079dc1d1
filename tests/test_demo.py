"""The tour of ``xstefa demo``."""

from __future__ import annotations

import matplotlib.pyplot as plt

from xstefa import demo, open_sample


def test_the_map_says_what_it_was_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_predicted", lambda dataset, *_, **__: dataset["vp"])
    said = []
    made = demo._maps(tmp_path, say=said.append)
    heading = plt.gcf().get_suptitle()
    plt.close("all")
    assert "interpolated from 609 CAMELS-US basins" in heading
    assert "609 basins" in open_sample("conus_grid").attrs["comment"]
    assert "interpolated" in said[0]
    assert made[1].exists()
