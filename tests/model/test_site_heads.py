"""Heads of static targets: ranks of attributes, kernel ridge regression, members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from xstefa.model.architecture import HeadSize
from xstefa.model.heads.attributes import Attributes
from xstefa.model.heads.kernel import REACH, RIDGE, KernelHead
from xstefa.model.heads.site import SiteHead

SIZES = {"statics": 3, "width": 0}


def table(count: int = 40) -> torch.Tensor:
    found = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    found[:, 1] = found[:, 1].exp()  # skewed
    found[::5, 2] = torch.nan
    return found


def test_scores_are_those_of_ranks():
    read = Attributes(3)
    read.fit(table(1000))
    values, missing = read(table(1000))
    ranks = table(1000)[:, 1].argsort().argsort().numpy()
    inner = (ranks > 50) & (ranks < 950)
    expected = norm.ppf((ranks + 0.5) / 1000)
    np.testing.assert_allclose(values[:, 1].numpy()[inner], expected[inner], atol=0.05)
    np.testing.assert_array_equal(missing[:, 2].numpy(), np.arange(1000) % 5 == 0)
    assert (values[::5, 2] == 0).all()
    beyond, _ = read(torch.tensor([[100.0, -5.0, 0.0]]))
    assert beyond[0, 0] == pytest.approx(norm.ppf(0.99), abs=1e-4)
    assert beyond[0, 1] == pytest.approx(norm.ppf(0.01), abs=1e-4)


def test_equal_values_have_the_score_of_their_middle():
    read = Attributes(1)
    read.fit(torch.tensor([[0.0]] * 60 + [[1.0]] * 40))
    values, _ = read(torch.tensor([[0.0], [1.0]]))
    np.testing.assert_allclose(values[:, 0], norm.ppf([0.3, 0.8]), atol=0.15)


def test_vectors_stay_as_they_are_and_count_as_one():
    read = Attributes(5, (1, 3))
    read.fit(torch.randn(50, 5))
    static = torch.tensor([[0.0, 0.0, 7.0, 8.0, 9.0], [0.0, 0.0, *[torch.nan] * 3]])
    values, missing = read(static)
    assert values[0, 2:].tolist() == [7, 8, 9]
    assert missing.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert read.width == 5 + 3


def test_solves_kernel_ridge_regression():
    static = table()
    target = torch.stack([static[:, 0], -static[:, 0]], dim=1)[..., None] + 3
    head = KernelHead(HeadSize(kind="kernel", hidden=40, outputs=2), **SIZES)
    head.attributes.fit(static)
    head.fit(static, target)
    values, missing = (each.double().numpy() for each in head.attributes(static))
    apart = np.abs(values[:, None] - values).sum(-1)
    apart += 0.5 * np.abs(missing[:, None] - missing).sum(-1)
    kernel = np.exp(-REACH / 3 * apart)
    wanted = target[..., 0].double().numpy()
    centred = wanted - wanted.mean(0)
    expected = kernel @ np.linalg.solve(kernel + RIDGE * np.eye(40), centred) + wanted.mean(0)
    np.testing.assert_allclose(head(static, None)[..., 0], expected, atol=2e-3)


def test_few_centres_serve_many_sites():
    static = table(200)
    target = static[:, :1, None]
    head = KernelHead(HeadSize(kind="kernel", hidden=50), **SIZES)
    head.attributes.fit(static)
    head.fit(static, target)
    error = head(static, None) - target
    assert float(error.square().mean()) < 0.1 * float(target.var())


@pytest.mark.parametrize("kind", [SiteHead, KernelHead])
def test_answers_keep_their_range(kind):
    static = table()
    for link, size in (("softmax", {"outputs": 3}), ("logistic", {}), ("softplus", {})):
        head = kind(HeadSize(kind="site", hidden=40, link=link, levels=2, **size), **SIZES).eval()
        head.attributes.fit(static)
        if kind is KernelHead:
            head.fit(static, 2 * torch.rand(40, *head.shape) - 0.5)
        with torch.no_grad():
            found = head(static, None)
        assert found.shape == (40, *head.shape)
        assert (found > 0).all()
        if link == "softmax":
            torch.testing.assert_close(found.sum(1), torch.ones(40, 2))
        if link == "logistic":
            assert (found < 1).all()


def test_members_differ_and_are_averaged():
    torch.manual_seed(0)
    head = SiteHead(HeadSize(kind="site", hidden=8, members=3), **SIZES).eval()
    head.attributes.fit(table())
    each = head.each(table(), None)
    assert each.shape == (3, 40, 1, 1)
    assert float(each.std(0).min()) > 0
    torch.testing.assert_close(head(table(), None), each.mean(0))
