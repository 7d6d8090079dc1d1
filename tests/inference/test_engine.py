"""The engine: batches, memory, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from xstefa.errors import OptionError
from xstefa.inference import engine as module
from xstefa.inference.engine import Answer, Engine, EngineKey, MemoryWarning, get_engine
from xstefa.inference.predict import Members
from xstefa.model.architecture import ROWS


def block(model, *, sites=5, days=100, seed=0):
    random = np.random.default_rng(seed)
    schema = model.schema
    forcing = random.standard_normal((sites, days, len(schema.forcings))).astype(np.float32)
    static = random.uniform(1, 50, (sites, len(schema.statics))).astype(np.float32)
    return forcing, static, np.arange(100, 100 + days)


def answer(engine, model, **kwargs):
    forcing, static, days = block(model, **kwargs)
    return engine.answer(Members(), forcing, static, days=days, record=days, out=days)


def in_threads(count, work):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def arrivals(count):
    """Return what to call on arrival, and an event: that so many have arrived."""
    complete = threading.Event()
    before_last = iter(range(count - 1))

    def arrive():
        if next(before_last, None) is None:
            complete.set()

    return arrive, complete


def key(model, **changes):
    return EngineKey(model=model, device="cpu", **changes)


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("sites", [1, 3, 16, 17, 40])
def test_a_site_does_not_depend_on_its_place(make_model, encoder, sites):
    model = make_model(encoder=encoder)
    forcing, static, days = block(model, sites=sites)
    engine = Engine(key(model, batch_size=32))

    def run(*block):
        return engine.answer(Members(), *block, days=days, record=days, out=days)[0]

    together = run(forcing, static)
    order = np.random.default_rng(1).permutation(sites)
    turned = run(forcing[order], static[order])
    np.testing.assert_array_equal(turned, together[order])
    alone = run(forcing[:1], static[:1])
    np.testing.assert_array_equal(alone, together[:1])


def test_engines_are_shared_in_a_process(tiny_model):
    assert get_engine(key(tiny_model)) is get_engine(key(tiny_model))
    assert get_engine(key(tiny_model)) is not get_engine(key(tiny_model, precision="bf16"))


def test_weights_are_loaded_once_however_many_threads(tiny_model, monkeypatch):
    arrive, complete = arrivals(4)
    loads = []
    network = type(tiny_model).network

    class Arriving(Members):
        def width(self, spec):
            arrive()
            return super().width(spec)

    def slow(self):
        loads.append(1)
        complete.wait()
        return network(self)

    monkeypatch.setattr(type(tiny_model), "network", slow)
    engine = Engine(key(tiny_model))
    forcing, static, days = block(tiny_model)
    in_threads(
        4, lambda: engine.answer(Arriving(), forcing, static, days=days, record=days, out=days)
    )
    assert len(loads) == 1


class Hungry(Answer):
    """An answer that needs more memory than there is for more than 16 rows."""

    def width(self, spec):
        return 1

    def run(self, network, forcing, static):
        import torch

        if len(forcing) > ROWS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network.members(forcing, static)


def test_batch_is_halved_when_memory_runs_out(tiny_model):
    forcing, static, days = block(tiny_model, sites=30)
    engine = Engine(key(tiny_model, batch_size=64))
    with pytest.warns(MemoryWarning, match="do not fit the memory of cpu; going on with") as said:
        values, _ = engine.answer(Hungry(), forcing, static, days=days, record=days, out=days)
    assert [str(w.message).split()[0] for w in said] == ["64", "32"]
    expected, _ = answer(Engine(key(tiny_model)), tiny_model, sites=30)
    np.testing.assert_array_equal(values, expected)


def test_other_errors_are_not_taken_for_memory(tiny_model):
    class Broken(Hungry):
        def run(self, network, forcing, static):
            raise RuntimeError("shapes cannot be multiplied")

    forcing, static, days = block(tiny_model)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Engine(key(tiny_model)).answer(Broken(), forcing, static, days=days, record=days, out=days)


def test_torch_gets_its_threads_back(tiny_model):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        answer(Engine(key(tiny_model)), tiny_model)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_torch_gets_its_threads_back_from_a_thread_that_left_while_another_computed():
    import torch

    slots, before = module._Slots("cpu"), torch.get_num_threads()
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        held = {pool: ExitStack() for pool in (first, second)}
        try:
            torch.set_num_threads(3)
            slots._free = threading.Semaphore(2)
            for pool in (first, second):
                pool.submit(held[pool].enter_context, slots.one()).result()
            for pool in (first, second):
                pool.submit(held[pool].close).result()

            def alone():
                with slots.one():
                    return torch.get_num_threads()

            assert first.submit(alone).result() == 1
            with ThreadPoolExecutor(1) as new:
                assert new.submit(torch.get_num_threads).result() == 3
        finally:
            torch.set_num_threads(before)


def test_no_more_threads_compute_than_there_are_cores(tiny_model, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(module, "_slots", {})
    arrive, complete = arrivals(6)
    pair = threading.Barrier(2)
    running, most = [], []

    class Counting(Hungry):
        def width(self, spec):
            arrive()
            return 1

        def run(self, network, forcing, static):
            running.append(1)
            complete.wait()
            pair.wait()  # passes only if two compute at once
            most.append(len(running))
            pair.wait()
            running.pop()
            return forcing[..., :1]

    forcing, static, days = block(tiny_model)
    engine = Engine(key(tiny_model, batch_size=64))
    in_threads(
        6, lambda: engine.answer(Counting(), forcing, static, days=days, record=days, out=days)
    )
    assert most == [2] * 6


class Sites(Answer):
    """Two numbers a site."""

    daily = False

    def width(self, spec):
        return 2

    def run(self, network, forcing, static):
        return static[:, :2]


def test_answers_for_sites(tiny_model):
    forcing, static, days = block(tiny_model)
    engine = Engine(key(tiny_model))
    values, coverage = engine.answer(Sites(), forcing, static, days=days, record=days, out=days)
    assert values.shape == (5, 2)
    np.testing.assert_allclose(values, (static[:, :2] - 1) / 5, rtol=1e-5)
    np.testing.assert_allclose(coverage, 1)


def test_nothing_known_is_not_answered(tiny_model):
    forcing, static, days = block(tiny_model)
    forcing[1] = np.nan
    forcing[2, :, 0] = np.nan  # precipitation is required
    engine = Engine(key(tiny_model))
    values, coverage = engine.answer(Members(), forcing, static, days=days, record=days, out=days)
    assert np.isnan(values).all(axis=(1, 2)).tolist() == [False, True, True, False, False]
    assert coverage[:3, 20].tolist() == [1, 0, 0]


def test_days_before_a_site_begins_are_not_answered(tiny_model):
    forcing, static, days = block(tiny_model)
    forcing[1, :45] = np.nan
    forcing[2, :45, 4] = np.nan  # not required
    engine = Engine(key(tiny_model))
    values, coverage = engine.answer(Members(), forcing, static, days=days, record=days, out=days)
    missing = np.isnan(values).all(axis=2)
    np.testing.assert_array_equal(coverage == 0, missing)
    assert np.flatnonzero(missing[1]).tolist() == list(range(50))
    assert (missing[[0, 2, 3, 4]] == (days < days[0] + 5)).all()


def test_one_batch_at_a_time_on_a_gpu_whatever_the_models(monkeypatch):
    monkeypatch.setattr(module, "_slots", {})
    arrive, complete = arrivals(4)
    running, most = [], []

    def work():
        arrive()
        with module._slots_of("cuda:0").one():
            running.append(1)
            complete.wait()
            most.append(len(running))
            running.pop()

    in_threads(4, work)
    assert most == [1] * 4


def test_a_gpu_that_is_not_there_is_named(tiny_model, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match=r"device.*no GPU that torch can use"):
        answer(Engine(EngineKey(model=tiny_model, device="cuda:1")), tiny_model)
