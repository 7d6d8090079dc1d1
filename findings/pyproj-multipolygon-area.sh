#!/usr/bin/env bash
# pyproj 3.7.2: the geodesic area of a multipolygon whose parts are turned differently.
#
# Guess: geometry_area_perimeter of a valid MultiPolygon is the area of its parts, up to the sign.
# Found: it adds signed areas ring by ring. Two equal boxes of 8,056 km2, one clockwise and one
# counter-clockwise (valid in shapely, and usual in shapefiles that passed through several programs),
# have an area of 0; a box with a hole turned as its shell has the hole added: 10,956 km2 instead of
# 5,156. shapely.geometry.polygon.orient on each part first gives the area.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyproj==3.7.2 shapely==2.1.2 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
from pyproj import Geod
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.polygon import orient

geod = Geod(ellps="WGS84")


def area(shape):
    assert shape.is_valid
    return geod.geometry_area_perimeter(shape)[0] / 1e6


left, right = box(0, 49, 1, 50), box(2, 49, 3, 50)
alike, mixed = MultiPolygon([left, right]), MultiPolygon([left, right.reverse()])
ring = list(box(0.2, 49.2, 0.8, 49.8).exterior.coords)
holes = [area(Polygon(left.exterior, [each])) for each in (ring, ring[::-1])]
print(f"parts turned alike {area(alike):.0f} km2, differently {area(mixed):.0f} km2")
print(f"with a hole {holes[1]:.0f} km2 or {holes[0]:.0f} km2")
assert round(area(alike)) == 16112 and abs(area(mixed)) < 1e-6
assert [round(found) for found in holes] == [10956, 5156]
parts = [geod.geometry_area_perimeter(orient(part))[0] / 1e6 for part in mixed.geoms]
assert round(sum(parts)) == 16112
PY
