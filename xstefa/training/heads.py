"""Training of heads: a frozen encoder, and what learns one target on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from xstefa.errors import OptionError, TrainingError, did_you_mean
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.heads.direct import TargetDecoder
from xstefa.model.heads.hbv import KNOWN_SHARE
from xstefa.model.network import StefaLand
from xstefa.model.ranges import Ranges, join_ranges
from xstefa.model.registry import ModelLike, foundation_model
from xstefa.model.scaler import Moments
from xstefa.model.variants import DRIVERS, EncoderUse, completed, deaf_kind
from xstefa.options import Precision
from xstefa.schema import Needs, Schema, Target, load_tokens
from xstefa.training.data import Datasets, TrainingData, read_all, require_added
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.embeddings import encode_windows
from xstefa.training.ensemble import filled_first
from xstefa.training.losses import Estimation, Objective
from xstefa.training.options import HeadOptions, HeadRecipe
from xstefa.training.perturbation import Perturbation
from xstefa.training.runs import Training
from xstefa.training.sampling import Windows
from xstefa.windows import Floats, SegmentPolicy, WindowPolicy


@dataclass(frozen=True, kw_only=True)
class HeadTask:
    """A target, the model under its heads, and what these read.

    Attributes
    ----------
    foundation : Model
    target : Target
    schema : Schema
        That of the foundation, with the target and the tokens that are added.
    how : HeadOptions
    recipe : HeadRecipe
        Of these options, or by default.
    windows : WindowPolicy
        Of the recipe or the foundation.
    needs : tuple of tuple of str
        What training data have to have.
    added : tuple of str
        Tokens beside those of the foundation, of which one dataset has to have each.
    """

    foundation: Model
    target: Target
    schema: Schema
    how: HeadOptions
    recipe: HeadRecipe
    windows: WindowPolicy
    needs: Needs
    added: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: str | Target, *, model: ModelLike | None, how: HeadOptions) -> HeadTask:
        """Find the model and the target.

        Raises
        ------
        OptionError
            If the recipe has windows of another kind than the encoder reads, or needs what is no
            forcing; or tokens are added that the heads cannot read.
        SchemaError
            If what is added is no new site attribute.
        """
        foundation = foundation_model(model, causal=True)
        spec, schema, recipe = foundation.spec, foundation.schema, how.recipe or HeadRecipe()
        found = target if isinstance(target, Target) else schema.target(target)
        windows = spec.windows if recipe.windows is None else recipe.windows
        if windows.causal != spec.windows.causal:
            raise OptionError(
                variable="windows",
                found=repr(windows),
                expected="a SegmentPolicy, for a model that looks back only"
                if spec.windows.causal
                else "a WindowPolicy, for a model that reads windows as a whole",
                fix="leave it out for those of the model",
            )
        forcings = schema.forcing_names
        if found not in schema.targets:
            schema = schema.with_targets(found)
        added = load_tokens(how.tokens)
        schema = schema.with_extras(added)
        if schema.extras and (kind := deaf_kind(how.head)):
            raise OptionError(
                "this head reads nothing but what the encoder makes of its own tokens",
                variable="tokens",
                found=f"{', '.join(v.name for v in schema.extras)} with head={kind!r}",
                expected="a head that reads attributes",
                fix='head="resconn"',
            )
        if how.head is None and schema.extras != foundation.schema.extras:
            raise OptionError(
                "heads that were trained without tokens cannot read them",
                variable="tokens",
                found=f"{', '.join(v.name for v in added)} with head=None",
                expected="a new head",
                fix='head="resconn"',
            )
        if recipe.needs is not None and not schema.allows(recipe.needs, forcings):
            wrong = [name for group in recipe.needs for name in group if name not in forcings]
            raise OptionError(
                "a model needs groups of forcings",
                variable="needs",
                found=", ".join(map(repr, wrong)) or "a group of none",
                expected=f"some of {', '.join(forcings)}",
                fix=did_you_mean(wrong[0] if wrong else "", forcings) or "leave it out",
            )
        return cls(
            foundation=foundation,
            target=found,
            schema=schema,
            how=how,
            recipe=recipe,
            windows=windows,
            needs=spec.needs if recipe.needs is None else recipe.needs,
            added=tuple(variable.name for variable in added),
        )

    def read(
        self,
        datasets: Datasets,
        *,
        rename: Mapping[str, str] | None,
        sites: str | Mapping[str, str] | None,
        memory: str | int | None = None,
    ) -> list[TrainingData]:
        """Match and read datasets, see `read_all`.

        Raises
        ------
        MissingTokenError
            If no dataset has a token that is to be added.
        """
        found = read_all(
            datasets,
            schema=self.schema,
            target=self.target.name,
            length=self.windows.length,
            rename=rename,
            sites=sites,
            needs=self.needs,
            memory=memory,
            added=self.added,
            hidden=self.hidden,
        )
        require_added(self.added, [part.binding for part in found])
        return found

    @property
    def hidden(self) -> tuple[str, ...]:
        """Tokens that the model does not read: they tell the target, or are it."""
        kind = deaf_kind(self.how.head or self.foundation.spec.architecture.heads)
        own = (self.target.name,) if kind == "direct" else ()  # the network hides it
        return (*self.target.hidden, *own)

    def spec(
        self,
        *,
        name: str,
        support: str,
        encoder: EncoderUse,
        sizes: tuple[HeadSize, ...],
        ranges: Ranges,
        attributes: Floats,
        provenance: Mapping[str, Any],
    ) -> ModelSpec:
        """Describe the model that the foundation becomes with heads.

        Parameters
        ----------
        encoder : {"frozen", "tuned", "scratch", "none"}
            Keep the pretrained encoder as it is, train it on, train it from random weights, or
            leave it out.
        sizes : tuple of HeadSize
            Several are trained side by side, and their answers are averaged.
        ranges : mapping of str to Range
            What training sites hold of each token that they have.
        attributes : ndarray of float32, shape (site, S)
            Of the training sites, in canonical units; NaN where missing.

        Raises
        ------
        TrainingError
            If the needs are not those of the heads, or not in the training data; or no training
            site has a token that is added.
        ModelError
            If a head does not fit the foundation.
        """
        foundation, schema, windows, target = (
            self.foundation.spec,
            self.schema,
            self.windows,
            self.target.name,
        )
        if encoder != "none":
            self.foundation.require("encoder")
        needs = self.recipe.needs
        tokens = tuple(
            token.name
            for token in schema.tokens
            if token.columns[0] in ranges and token.name not in self.target.hidden
        )
        if unseen := [name for name in self.added if name not in tokens]:
            raise TrainingError(
                "nothing to learn a token from",
                variable=unseen[0],
                found="no training site at which it is known",
                expected="values at sites that are not held out",
                fix=f"leave it out of tokens=, or see what ds[{unseen[0]!r}].count() says",
            )
        if encoder == "frozen":
            # Weights that no training value ever reached would answer with noise, and cannot learn.
            learned = {*foundation.tokens, *(token.name for token in schema.extras)}
            tokens = tuple(token for token in tokens if token in learned)
        heads = tuple(completed(s, spec=foundation, tokens=tokens, target=target) for s in sizes)
        if all(size.kind == "hbv" for size in sizes):
            drivers = tuple((name,) for name in DRIVERS)
            needs = needs or drivers
            if not set(drivers) <= set(needs):
                raise TrainingError(
                    "the physics leaves out none of what drives it",
                    variable="needs",
                    found=", ".join(map(" or ".join, needs)),
                    expected=", ".join(DRIVERS),
                    fix="leave needs out of HeadRecipe",
                )
        if isinstance(windows, SegmentPolicy):  # stores begin empty
            spun_up = replace(windows, known=max(windows.known, KNOWN_SHARE))
            if all(size.kind == "hbv" for size in sizes):
                windows = spun_up
            heads = tuple(filled_first(size, spun_up, windows) for size in heads)
        if needs is None:
            groups = (tuple(filter(tokens.__contains__, group)) for group in foundation.needs)
            needs = tuple(filter(None, groups))
        elif not schema.allows(needs, tokens):
            raise TrainingError(
                "a model cannot need what it has not learned to read",
                variable="needs",
                found=", ".join(map(" or ".join, needs)),
                expected=f"some of what training data and foundation have: {', '.join(tokens)}",
                fix="add a dataset that has them, or leave them out of HeadRecipe(needs=...)",
            )
        if encoder in ("frozen", "tuned"):
            ranges = join_ranges(foundation.ranges, ranges)
        moments = {
            column: foundation.scaler.statics.get(column)
            or Moments.fit(attributes[:, i], transform=variable.transform)
            for i, (column, variable) in enumerate(schema.site_columns.items())
        }
        return replace(
            foundation,
            name=name,
            target=target,
            support=support,
            architecture=replace(
                foundation.architecture,
                decoder=False,
                heads=heads,
                encoder=None if encoder == "none" else foundation.architecture.encoder,
                extras=tuple(token.length for token in schema.extras),
            ),
            schema=schema,
            scaler=replace(foundation.scaler, statics=moments),
            windows=windows,
            tokens=tokens,
            ranges={c: ranges[c] for token in tokens for c in schema[token].columns},
            provenance=provenance,
            card="",
            needs=needs,
            distribution=None,  # other heads err otherwise
            neighbourhood=None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTraining(Training):
    """Training of heads on an encoder, equations (1)-(3).

    Attributes
    ----------
    task : HeadTask
        Its foundation gives the encoder and, if its head is None, the heads to start from.
    encoder : {"frozen", "tuned", "scratch", "none"}
    encoding : {"fp32", "bf16"}, optional
        Precision of cached embeddings; by default there are none.
    """

    task: HeadTask
    encoder: EncoderUse
    encoding: Precision | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the result, as JSON; the rest is in the model's provenance."""
        own = {"encoding": self.encoding, "warm_start": self.task.how.head is None}
        return super().recipe | own

    def windows(self) -> Windows:
        """List the windows in which a tenth of the days has observations."""
        policy = self.spec.windows
        return Windows.find(
            self.records,
            length=policy.length,
            spin_up=policy.spin_up,
            strides=self.strides,
            seed=self.schedule.seed,
        )

    def objective(self, runner: Runner) -> Estimation:
        """Build encoder and heads, and the dropout of tokens."""
        spec, how, seed = self.spec, self.task.recipe, self.schedule.seed
        network = self.network()
        perturbed = None
        if how.perturbation:
            moments = spec.scaler.forcings
            perturbed = Perturbation(moments, probability=how.perturbation, seed=seed)
        dropout = TokenDropout(
            spec.schema,
            probability=how.token_dropout,
            seed=seed,
            needs=spec.needs,
            groups=how.group_dropout,
            perturbation=perturbed,
        )
        return Estimation(
            network,
            runner=runner,
            encoder=self.encoder,
            windows=spec.windows,
            dropout=dropout,
            centred=how.centred,
        ).to(runner.device)

    def encoded(self, objective: Objective, windows: Windows, runner: Runner) -> Tensor | None:
        """Return the embeddings of all windows from the cache, if they are to be there."""
        found = None
        if self.encoding is not None:
            assert isinstance(objective, Estimation)
            # The first process writes the file that the others find.
            for turn in (runner.is_first, not runner.is_first):
                if turn:
                    found = encode_windows(
                        objective.network,
                        windows,
                        objective.dropout,
                        precision=self.encoding,
                        device=runner.device,
                    )
                runner.barrier()
        return found

    def network(self) -> StefaLand:
        """Build the network, with those weights that it does not have to learn anew."""
        network = StefaLand(self.spec.architecture)
        if network.encoder is None or self.encoder == "scratch":
            return network
        foundation = self.task.foundation.network()
        assert foundation.encoder is not None
        network.encoder.load_state_dict(foundation.encoder.state_dict())
        network.encoder.requires_grad_(self.encoder == "tuned")
        for head in network.heads:
            if isinstance(head, TargetDecoder) and foundation.decoder is not None:
                head.start_from(foundation.decoder)
        if self.task.how.head is None:
            network.heads.load_state_dict(foundation.heads.state_dict())
        return network
