"""Processes that are forked from one that has predicted."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FORK = """
    import faulthandler, multiprocessing, sys, threading
    import numpy as np, torch, xarray as xr, xstefa
    from dask import array

    model, source, running = xstefa.load_model(sys.argv[1]), sys.argv[2], sys.argv[3] == "running"

    with xr.open_dataset(source) as opened:
        ds = opened.load()

    def everything():
        eager = ds.stefa.predict(model, device="cpu").values
        lazy = ds.chunk(lat=1).stefa.predict(model, device="cpu").values
        torch.ones(600, 600) @ torch.ones(600, 600)
        assert array.ones(9, chunks=3).sum().compute() == 9
        return np.stack([eager, lazy])

    def child(results):
        faulthandler.dump_traceback_later(300, exit=True)  # fails instead of hanging
        assert torch.get_num_threads() == 1
        results.put(everything())
        assert torch.get_num_threads() == 1

    def predict_until(done):
        while not done.is_set():
            everything()

    if __name__ == "__main__":
        torch.set_num_threads(4)
        expected, done = everything(), threading.Event()
        if running:
            thread = threading.Thread(target=predict_until, args=(done,))
            thread.start()
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        process = context.Process(target=child, args=(results,))
        process.start()
        process.join()
        done.set()
        if running:
            thread.join()
        assert process.exitcode == 0
        np.testing.assert_array_equal(results.get(), expected)
        print("equal")
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system does not fork"
)
@pytest.mark.parametrize("parent", ["idle", "running"])
def test_a_forked_process_predicts_what_its_parent_did(parent, dataset, tiny_model, tmp_path):
    dataset.to_netcdf(tmp_path / "input.nc")
    places = [str(tiny_model.path), str(tmp_path / "input.nc")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK), *places, parent],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "equal\n", done.stderr
