"""The learning curve of a model as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xstefa.errors import ModelError
from xstefa.model.checkpoint import Model
from xstefa.plotting.look import FAINT, pyplot, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHED_POINTS = 25


def plot_learning(model: Model) -> Figure:
    """Draw the training loss, smoothed, and the loss at validation sites, if any were watched.

    Parameters
    ----------
    model : Model
        Made by `pretrain` or `finetune`; the curve is in its provenance.

    Returns
    -------
    Figure

    Raises
    ------
    ModelError
        If it carries no curve.
    """
    plt = pyplot()
    from matplotlib.ticker import LogLocator

    curve = model.spec.provenance.get("learning_curve")
    if curve is None:
        raise ModelError(
            variable=model.name,
            found="a model without a learning curve",
            expected="one made by xstefa.pretrain or .stefa.finetune",
        )
    losses = np.array(curve["training"])
    steps = curve["steps_per_point"] * np.arange(1, len(losses) + 1)
    width = max(1, len(losses) // SMOOTHED_POINTS)
    with style():
        figure = plt.figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.add_subplot()
        axis.plot(steps, losses, color=FAINT, linewidth=0.5, alpha=0.6)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth, label="training", linewidth=1.6)
        if curve["validation"]:
            looked, found = zip(*curve["validation"], strict=True)
            axis.plot(looked, found, label="validation sites", linewidth=1.6)
        if curve["best_step"] is not None:
            axis.axvline(curve["best_step"], color=FAINT, linewidth=0.8, linestyle=":")
            axis.text(
                curve["best_step"], 1, " kept", transform=axis.get_xaxis_transform(), va="top"
            )
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        if losses.min() > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        axis.set_title(model.name)
        axis.legend()
    return figure
