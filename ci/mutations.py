"""Whether tests notice: change the package in one place at a time, and see whether a test fails.

    python ci/mutations.py [word ...]

With words only files are changed whose name holds one of them. It works on a copy in a temporary
folder. Which changes survive, and why, is in docs/structure.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A file of xstefa/, what of tests/ has to notice, and pairs: a text found there once, another.
MUTATIONS = [
    (
        "windows.py",
        "test_windows.py",
        [
            ("self.stride - self.spin_up - self.blend // 2", "self.stride - self.spin_up"),
            ("rise = (days + 0.5 - (begin", "rise = (days - (begin"),
            ("latest = last - self.length + 1", "latest = last - self.length"),
            ("return self.spin_up // 2 + 1", "return self.spin_up // 2"),
            ("(days[before] - first) % YEAR", "(days[before] - first) % (YEAR - 1)"),
            ("+ 1 - days, 0)", "- days, 0)"),
            ("end = min((window + 1) * self.span - 1, last)", "end = last"),
            ("BRIDGED = 3", "BRIDGED = 4"),
            ("np.float32(day / (length + 1))", "np.float32(day / length)"),
        ],
    ),
    (
        "binding/units.py",
        "binding/test_units.py",
        [
            ("result + np.float32(self.offset)", "result - np.float32(self.offset)"),
            ('_WATER = "0.001 m**3 / kg"', '_WATER = "0.01 m**3 / kg"'),
            ('if time_method == "sum" or not daily:', "if True:"),
            ('["1 / day"] * daily', '["2 / day"] * daily'),
            ("_is_angle(unit) != _is_angle(target)", "False"),
            ("1.0 / float(interval[1])", "float(interval[1])"),
            ("{factor * (one - zero) / target_factor:", "{(one - zero) / target_factor:"),
            ('used.startswith("mm")', 'used.startswith("m")'),
        ],
    ),
    (
        "binding/sources.py",
        "binding/test_bad_inputs.py::test_values_that_cannot_be_in_their_units_are_refused",
        [("return outside <= tolerated * known.size", "return True")],
    ),
    (
        "prepare/area_mean.py",
        "binding/test_attach.py",
        [
            ("_sine if sphere else np.asarray", "np.asarray"),
            ("away += [away[0] + cells.period]", "pass"),
        ],
    ),
    (
        "model/masking.py",
        "model/test_masking.py",
        [
            ("randint(1 - self.shortest, days,", "randint(2 - self.shortest, days + 1,"),
            ("randint(1 - self.shortest, days,", "randint(-self.shortest, days - 1,"),
            ("torch.where(chosen, lengths, 0)", "torch.where(chosen, lengths + 1, 0)"),
            ("repeats: int = 6", "repeats: int = 5"),
            ("probability: float = 0.5", "probability: float = 0.6"),
            ("(starts + lengths).clamp", "(starts + lengths - 1).clamp"),
            ("forcing.float() @ self.forcing > 0", "forcing.float() @ self.forcing > 1"),
        ],
    ),
    (
        "training/losses.py",
        "training/test_losses.py",
        [
            ("static_weight: float = 0.5", "static_weight: float = 5"),
            ("predicted[:, spin_up:].float(), target[:, spin_up:]", "predicted.float(), target"),
            ("counted = mask & known.isfinite()", "counted = known.isfinite()"),
            ("/ known.sum(1, keepdim=True).clamp(min=1)", "/ known.shape[1]"),
            ("(squares.sum(1) * weight)", "squares.sum(1)"),
        ],
    ),
    (
        "training/losses.py",
        "training/test_losses.py",
        [("self.spin_up = windows.spin_up", "self.spin_up = 0")],
    ),
    (
        "training/sampling.py",
        "training/test_losses.py",
        [("- sums[site, column + spin_up]", "- sums[site, column]")],
    ),
    (
        "inference/store.py",
        "inference/test_store.py::test_interrupted_anywhere",
        [("if whole:", "if True:")],
    ),
    (
        "inference/store.py",
        "inference/test_store.py::test_only_what_is_missing_is_computed",
        [("if number not in written.get(name, ())", "if True")],
    ),
    (
        "inference/store.py",
        "inference/test_store.py::test_blocks_without_values_are_known_to_be_written",
        [('{"array.write_empty_chunks": True}', '{"array.write_empty_chunks": False}')],
    ),
    (
        "inference/store.py",
        "inference/test_store.py::test_a_damaged_byte_is_an_error_to_whoever_reads_it",
        [("(ZstdCodec(), Crc32cCodec())", "(ZstdCodec(),)")],
    ),
    (
        "inference/store.py",
        "inference/test_faults.py::test_damaged_stores_are_restored_or_refused"
        "[unfinished-soil_moisture/c-deleted]",
        [
            ("if prefix + array.metadata.encode_chunk_key(n) in keys", "if True"),
        ],
    ),
    (
        "inference/journal.py",
        "inference/test_store.py::test_another_prediction_is_refused_with_what_differs",
        [('if old.get("values") != new.get("values"):', "if False:")],
    ),
    (
        "inference/observed.py",
        "inference/test_observed.py",
        [
            ("[np.full_like(latest[..., :1], -1), latest]", "[latest, latest[..., -1:]]"),
            ("(days <= FARTHEST)", "(days <= FARTHEST + 1)"),
            ("days / (days + self.half)", "days / (days + 1)"),
            ("share.clip(0, MOST)", "1 + 0 * share"),
        ],
    ),
    (
        "inference/state.py",
        "inference/test_state.py",
        [
            ("part[:, max(shape[0] - days, 0) :] if name", "part if name"),
            ("[state[KNOWN], known]", "[state[KNOWN][:, :0], known]"),
            ("[state[ANSWERS], answers]", "[state[ANSWERS][:, :0], answers]"),
            ("last + 1 != layout.days[0]", "last + 1 > layout.days[0]"),
        ],
    ),
    (
        "inference/forecast.py",
        "inference/test_forecast.py",
        [
            ("past=begins)\n        found", "past=carried)\n        found"),
            ("key=lambda i: int(days[i][0])", "key=lambda i: -i"),
        ],
    ),
    (
        "evaluation/metrics.py",
        "test_metrics.py",
        [
            ("ratio((pred - obs).mean(dim), ", "ratio((obs - pred).mean(dim), "),
            ("ratio(pred.std(dim), obs.std(dim))", "ratio(obs.std(dim), pred.std(dim))"),
            ("fraction: float = 0.02", "fraction: float = 0.03"),
            ("np.rint(fraction * count)", "np.floor(fraction * count)"),
            ("np.arange(PERCENTILES) * count // PERCENTILES", "np.arange(PERCENTILES)"),
            ("both = pred.notnull() & obs.notnull()", "both = obs.notnull()"),
            (" * to_observed.scale + to_observed.offset", " * to_observed.scale"),
            ("(pred - obs).std(dim)", "((pred - obs) ** 2).mean(dim) ** 0.5"),
        ],
    ),
    (
        "inference/shapley.py",
        "inference/test_shapley.py",
        [
            ("for each in (order, order[::-1])", "for each in (order, order)"),
            ("spread / np.sqrt(samples)", "spread / samples"),
            ("factorial(count - n - 1)", "factorial(count - n)"),
        ],
    ),
    (
        "inference/coalitions.py",
        "inference/test_explain.py",
        [
            (": self.bins[piece.stop - 1]] = False", ": self.bins[piece.stop - 1] + 1] = False"),
            ("found + (found == len(self.lags))", "found"),
            ("coalitions[:, -1] & (left is not None), 0, -1", "left is not None, 0, -1"),
        ],
    ),
    (
        "evaluation/probe_weather.py",
        "evaluation/test_probes.py",
        [
            ("amount * (self.day == self.event)", "amount * (self.day == self.event - 1)"),
            ("thawed.rain.where(self.day < self.event, 0)", "thawed.rain"),
        ],
    ),
    (
        "evaluation/ablate.py",
        "evaluation/test_ablate.py",
        [
            ("if name not in names}", "if name != names[0]}"),
            ("left = has - {*hidden}", "left = has"),
        ],
    ),
]


def failing(folder: Path, tests: str) -> str:
    """Return the first test that fails, "" if all pass; end if they cannot run."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", f"tests/{tests}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    found = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode > 1 or not found:
        sys.exit(done.stdout + done.stderr)
    return found[0].partition("::")[2].partition(" - ")[0]


def main(words: list[str]) -> str | None:
    """Try all mutations; return what to say if some survive."""
    chosen = [m for m in MUTATIONS if not words or any(word in m[0] for word in words)]
    survived = tried = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("xstefa", "tests"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for file, tests, changes in chosen:
            path = folder / "xstefa" / file
            before = path.read_text()
            if test := failing(folder, tests):
                return f"{test} fails without any change"
            for old, new in changes:
                if before.count(old) != 1:
                    return f"{file} does not hold once: {old}"
                path.write_text(before.replace(old, new))
                tried += 1
                test = failing(folder, tests)
                survived += not test
                print(f"{file}: {new!r}: {test or 'SURVIVED'}", flush=True)
            path.write_text(before)
    return f"{survived} of {tried} survived" if survived else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
