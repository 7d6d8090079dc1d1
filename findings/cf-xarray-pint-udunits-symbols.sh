#!/usr/bin/env bash
# cf-xarray 0.11.3 with pint 0.25.3, read by UDUNITS (cf-units 3.3.1): short names that mean something else.
#
# Guess: what cf-xarray's registry writes in its CF format ("cf", "~cf") UDUNITS, which defines CF's units,
# reads as the same unit, or refuses.
# Found: it writes pint's symbols. A nautical mile becomes "nmi", to UDUNITS a nano-mile: 1.6e-6 m
# instead of 1852 m, and the two convert without complaint. Gallons per minute (wells) become
# "gal min-1" and million gallons a day (water use in the United States) "Mgal d-1": accelerations, a gal
# being 1 cm s-2; an ounce becomes "oz", a volume. Rates that hydrology uses otherwise (mm d-1, mm yr-1,
# ft3 s-1, acre_foot, hPa) come back as they went.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cf-xarray==0.11.3 xarray==2026.9.0 pint==0.25.3 cf-units==3.3.1 \
    numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import cf_units
from cf_xarray.units import units


def read_back(name):
    """Return the unit as written, and what UDUNITS says of one in pint's SI unit (None: other dimension)."""
    written = format(units.Unit(name), "~cf")
    si = units.Quantity(1, name).to_base_units()
    theirs, ours = cf_units.Unit(written), cf_units.Unit(format(si.units, "~cf"))
    same = theirs.is_convertible(ours)
    return written, theirs.convert(1.0, ours) / si.magnitude if same else None


for name in ("mm/day", "mm/year", "ft**3/s", "acre_foot", "hPa"):
    written, ratio = read_back(name)
    print(name, "->", written, ratio)
    assert abs(ratio - 1) < 1e-4  # years: of 365.25 days, or tropical
written, ratio = read_back("nautical_mile")
print("nautical_mile ->", written, ratio)
assert written == "nmi" and 8.6e-10 < ratio < 8.8e-10
for name, symbol in (("gallon/minute", "gal min-1"), ("megagallon/day", "Mgal d-1"), ("ounce", "oz")):
    written, ratio = read_back(name)
    print(name, "->", written, "of another dimension:", cf_units.Unit(written).definition)
    assert written == symbol and ratio is None
PY
