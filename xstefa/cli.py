"""The ``xstefa`` command: the same verbs as in Python, for a terminal."""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import xarray as xr

import xstefa
from xstefa.accessor import StefaAccessor
from xstefa.arguments import described, hints
from xstefa.inference.command import (
    Kind,
    check_place,
    cluster,
    open_lazily,
    open_state,
    save_state,
    write,
)
from xstefa.inference.forecast import alone
from xstefa.splits.holdout import Holdout
from xstefa.splits.spelling import holdout_from
from xstefa.training.options import HeadOptions

# Options of glibc's mallopt(3). Of M_MMAP_THRESHOLD glibc before 2.35 takes no more than 32 MiB.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


class _Group(click.Group):
    """Commands whose errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (xstefa.XstefaError, OSError) as error:
            raise click.ClickException(_in_a_terminal(str(error))) from error


def _in_a_terminal(text: str) -> str:
    """Say what is to be typed as it is typed here."""
    for said, typed in _TYPED.items():
        text = re.sub(said, typed, text)
    return text


# What messages say for Python, and how it is typed here.
_TYPED: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"rename=\{'(.*?)': '(.*?)'\}": r"--rename '\1=\2'",
    r"period=\('(.*?)', '(.*?)'\)": r"--period \1 \2",
    r"state = \w+\.stefa\.spin_up\(model='(.*?)'\)": r"xstefa spin-up IN STATE.zarr --model \1",
    r"\bmodel=\"(.*?)\"": r"--model \1",
    r"\bhistory=(?=<)": "--history ",
    r"\bperiod=\.\.\.": "--period FIRST LAST",
    r"\b(period|history)=(?=\W|$)": r"--\1",
    r"\bstate=(?=\W|$)": "--state-in",
    r"ds\.stefa\.tokens\(check=True\)": "--check",
    r"\bmodel = \w+\.stefa\.calibrate\(model='(.*?)'\)": r"xstefa calibrate IN OUT --model \1",
    r"\b(target|sites|scores)=(?:\"(.*?)\"|(?=<))": r"--\1 \2",
    r"\b([a-z_]+)=True\b": lambda found: f"--{found[1].replace('_', '-')}",
}


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xstefa.__version__, prog_name="xstefa")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Predict streamflow and soil moisture from any labeled dataset."""
    _keep_freed_memory()
    ctx.with_resource(xstefa.set_options(progress=True))
    ctx.with_resource(_warnings_as_lines())


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Say warnings as errors are said, without places in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: click.echo(
            f"Warning: {_in_a_terminal(str(message))}", err=True
        )
        yield


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: this process is ours, and page faults cost a quarter of it."""
    # Where there is no glibc there is no such option.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**30)


# ---- methods of the accessor


def _verb(
    name: str,
    *places: str,
    call: Callable[..., Any] | None = None,
    show: Callable[[Any], str] | None = None,
    kind: Kind = "result",
) -> None:
    """Make a command of a method: its keywords are the options, its docstring is their help.

    Parameters
    ----------
    name : str
        Of the method.
    *places : str
        What stands after the dataset: arguments of the method, and ``"out"`` for the result; in
        brackets if it can be left out.
    call : callable, optional
        What to call in place of the method.
    show : callable, optional
        Says the result as text, to be printed.
    kind : {"result", "model", "state"}
        What the result is. Only results can be gone on with.
    """
    method, more = getattr(StefaAccessor, name), _MORE.get(name)
    told, parameters = described(method), {**inspect.signature(method).parameters}
    known = hints(method)
    if more is not None:  # keywords that it passes on
        told |= {key: text for key, text in described(more).items() if key not in told}
        parameters = {**inspect.signature(more).parameters, **parameters}
        known = {key: kind for key, kind in hints(more).items() if key in _TRAINING} | known
    arguments = [place.strip("[]") for place in places]
    options = [
        _option(key, kind, help=told.get(key), required=parameters[key].default is inspect._empty)
        for key, kind in known.items()
        if key not in arguments
    ]
    if "out" in arguments:
        options += [_RESUME, _OVERWRITE] if kind == "result" else [_OVERWRITE]
    if name == "predict":
        options.append(_STATE_OUT)

    def run(dataset: str, scheduler: str | None, **given: Any) -> None:
        # What is not given is not passed on: defaults stand with the method.
        given = {key: value for key, value in given.items() if value not in (None, (), {})}
        place, end = given.pop("out", None), given.pop("state_out", None)
        how = {key: given.pop(key, False) for key in ("resume", "overwrite")}
        if place is not None:
            # A state is replaced by the one that goes on from it.
            check_place(place, kind=kind, **how | _over(place, given))
        if end is not None:
            again = {"resume": False, "overwrite": how["resume"] or how["overwrite"]}
            check_place(end, kind="state", **again | _over(end, given))
        with cluster(scheduler), open_lazily(dataset) as opened:
            if end is not None:
                alone(opened)  # before anything is written
            for key, opening in _OPENED.items():
                if key in given:
                    given[key] = opening(given[key])
            result = (call or method)(opened.stefa, **given)
            if show is not None:
                click.echo(_in_a_terminal(show(result)))
            if place is not None:
                write(result, place, kind=kind, **how)
            if end is not None:
                known = hints(StefaAccessor.spin_up)
                same = {key: value for key, value in given.items() if key in known}
                save_state(opened.stefa.spin_up(**same), end)

    stand = [
        click.Argument([key], metavar=place.upper(), required=place[0] != "[")
        for key, place in zip(["dataset", *arguments], ["in", *places], strict=True)
    ]
    params = [*stand, *filter(None, options), _SCHEDULER]
    summary = (inspect.getdoc(method) or "").partition("\n\n")[0]
    name = name.replace("_", "-")
    main.add_command(click.Command(name, callback=run, params=params, help=summary))


_RESUME = click.Option(["--resume"], is_flag=True, help="Go on with a store that was interrupted.")
_OVERWRITE = click.Option(["--overwrite"], is_flag=True, help="Replace what exists.")
_STATE_OUT = click.Option(
    ["--state-out"], metavar="STATE", help="Where to save the state after the last day."
)
_SCHEDULER = click.Option(["--scheduler"], metavar="ADDRESS", help="Run on the dask cluster there.")


_TRAINING = {item.name for item in fields(HeadOptions)}
_MORE = {"cross_validate": StefaAccessor.finetune}

_OPENED: Mapping[str, Callable[[str], xr.Dataset]] = {
    "static": open_lazily,
    "history": open_lazily,
    "state": open_state,
}


def _over(place: str, given: Mapping[str, Any]) -> dict[str, bool]:
    """Let a state take the place of the one that it goes on from."""
    return {"overwrite": True} if place == given.get("state") else {}


def _option(name: str, annotation: Any, **how: Any) -> click.Option | None:
    """Return the option for a keyword; None if a terminal cannot say it."""
    key, name = name, {"state": "state-in"}.get(name, name)
    flag, kinds = "--" + name.replace("_", "-"), (str, int, float)
    kind: dict[str, Any] | None = None
    union = get_origin(annotation) in (Union, UnionType)
    for part in get_args(annotation) if union else (annotation,):
        if get_origin(part) is Annotated:
            part = get_args(part)[0]
        origin, items = get_origin(part), get_args(part)
        if origin is Mapping:
            kind = {"multiple": True, "callback": _pairs, "metavar": "VARIABLE=TOKEN"}
        elif origin in (Iterable, Sequence) and (said := _sayable(items[0])) is not None:
            flag, kind = flag.removesuffix("s"), {"multiple": True, "type": said}
        elif origin is tuple and Ellipsis not in items and kind is None:
            kind = {"nargs": len(items), "type": items[0] if items[0] in kinds else str}
        elif origin is Literal:
            kind = {"type": click.Choice(items)}
        elif part is Holdout:
            kind = {"callback": _holdout, "metavar": "HOLDOUT"}
        elif part is xr.Dataset:
            kind = {"metavar": "FILE"}
        elif part is bool:
            flag, kind = f"{flag}/--no-{flag[2:]}", {"default": None}
        elif part in kinds and kind is None:
            kind = {"type": part}
    return None if kind is None else click.Option([flag, key], **how, **kind)


def _sayable(item: Any) -> type | None:
    """Return as what a terminal gives an item of a sequence, if it can."""
    return next((kind for kind in (str, int, float) if kind in (item, *get_args(item))), None)


def _holdout(_: click.Context, __: click.Parameter, text: str | None) -> Holdout | None:
    return None if text is None else holdout_from(text)


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("expected VARIABLE=TOKEN")
    return {variable: token for variable, _, token in pairs}


def _predict(
    stefa: StefaAccessor,
    *,
    target: Sequence[str],
    coverage: bool = True,
    quantiles: Sequence[float] = (),
    interval: float | None = None,
    **how: Any,
) -> xr.Dataset:
    """Predict the mean and, in the same pass, coverage, quantiles and an interval beside it."""
    result = stefa.predict(target, coverage=coverage, **how)
    if quantiles:
        spread = stefa.predict(target, quantiles=quantiles, **how)
        result = result.assign({f"{name}_quantiles": spread[name] for name in spread})
    if interval is not None:
        bounds = stefa.predict(target, interval=interval, **how)
        for bound, other in (("lower", "upper"), ("upper", "lower")):
            beside = {"ancillary_variables": f"{target[0]}_{other}"}
            result[f"{target[0]}_{bound}"] = bounds[bound].assign_attrs(beside)
    return result


def _evaluate(stefa: StefaAccessor, **how: Any) -> xr.Dataset:
    return stefa.evaluate(**how).compute()


def _over_sites(scores: xr.Dataset) -> str:
    """Say the quartiles of scores over sites; of static targets the scores, which are one each."""
    if "days" not in scores:
        of_sites = scores.training if "training" in scores else scores.fold
        frame = scores.drop_dims(of_sites.dims).to_dataframe()
        return frame.to_string(float_format="{:.3f}".format)
    one = [
        name
        for name, each in scores.items()
        if each.dtype.kind == "f" and each.dims == scores.days.dims
    ]
    frame = scores[one].to_dataframe()[one]
    table = frame.quantile([0.25, 0.5, 0.75]).T.set_axis(["25 %", "median", "75 %"], axis=1)
    table.insert(0, "sites", frame.count())
    return table.to_string(float_format="{:.3f}".format)


def _embed(stefa: StefaAccessor, **how: Any) -> xr.Dataset:
    return stefa.embed(**how).to_dataset()


def _explain(stefa: StefaAccessor, **how: Any) -> xr.Dataset:
    return stefa.explain(**how).compute()


def _contributions(found: xr.Dataset) -> str:
    """Say what adds up to an answer, on average over sites."""
    mean = found.mean(found.prediction.dims)
    units = found.prediction.attrs["units"]
    alone = {
        "nothing known": mean.baseline,
        "earlier": mean.contribution_earlier,
        "prediction": mean.prediction,
    }
    parts = [
        mean.contribution.to_pandas().to_string(float_format="{:.3g}".format),
        mean.contribution_static.to_pandas().to_string(float_format="{:.3g}".format),
        "\n".join(f"{name}: {value.item():.4g} {units}" for name, value in alone.items()),
    ]
    return "\n\n".join(parts)


def _ablate(stefa: StefaAccessor, **how: Any) -> xr.Dataset:
    return stefa.ablate(**how).compute()


def _worth(found: xr.Dataset) -> str:
    """Say what tokens are worth, the median over sites."""
    names = [name for name in ("known", "needed", "lost", "expected") if name in found]
    table = xr.Dataset(
        {name: found[name].median([d for d in found[name].dims if d != "token"]) for name in names}
    ).reset_coords(drop=True)
    return f"{found.attrs['score']}\n{table.to_pandas().to_string(float_format='{:.3f}'.format)}"


_verb("tokens", show=repr)
_verb("predict", "out", call=_predict)
_verb("evaluate", "[out]", call=_evaluate, show=_over_sites)
_verb("spin_up", "out", kind="state")
_verb("embed", "out", call=_embed)
_verb("finetune", "out", show=repr, kind="model")
_verb("cross_validate", "[out]", show=_over_sites)
_verb("calibrate", "out", show=repr, kind="model")
_verb("trust", "out")
_verb("ablate", "[out]", call=_ablate, show=_worth)
_verb("explain", "[out]", call=_explain, show=_contributions)
_verb("report", "path", show=str)
_verb("daily", "out")
_verb("attach", "static", "out")
_verb("aggregate", "polygons", "out")


# ---- and others


@main.command(params=[_OVERWRITE])
@click.argument("dataset", metavar="[IN]", required=False)
@click.argument("out", metavar="[OUT]", required=False)
@click.option("--model", required=True, help="Name or path of a model.")
@click.option("--sites", type=int, default=3, show_default=True, help="How many sites to ask.")
@click.option("--rename", multiple=True, callback=_pairs, metavar="VARIABLE=TOKEN")
def probe(dataset: str | None, out: str | None, model: str, overwrite: bool, **how: Any) -> None:
    """See whether a model behaves like water, when the weather is changed.

    Without a dataset it is asked at basins of the bundled sample.
    """
    if out is not None:
        check_place(out, kind="result", resume=False, overwrite=overwrite)
    with open_lazily(dataset) if dataset else xstefa.open_sample("camels_us") as opened:
        found = opened.stefa.probe(model, **how)
        click.echo(repr(found))
        if out is not None:
            write(found.to_dataset(), out, kind="result", resume=False, overwrite=overwrite)


@main.command()
def models() -> None:
    """List the models that come with the package."""
    click.echo(repr(xstefa.list_models()))


@main.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo_output"),
    show_default=True,
    help="Folder for pictures and stores.",
)
def demo(output: Path) -> None:
    """Predict the bundled samples, and draw maps, hydrographs and a soil-moisture series."""
    from xstefa.demo import run

    made = run(output, say=click.echo)
    click.echo("\nMade:")
    for path in made:
        click.echo(f"  {path}")
