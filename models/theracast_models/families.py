"""The model families by name: how a recipe becomes a model, and how a saved one comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from theracast_data.errors import ArtifactError
from theracast_data.modality import Modality
from theracast_models.boosting import Boosting
from theracast_models.convolution import Convolution
from theracast_models.elasticnet import ElasticNet
from theracast_models.gated import Gated
from theracast_models.harmonised import Harmonised
from theracast_models.late import Late
from theracast_models.logodds import ReplicableModel
from theracast_models.neural import Neural
from theracast_models.published import Published
from theracast_models.restricted import Restricted
from theracast_models.stack import Stack

FAMILIES: Mapping[str, Any] = {
    family.family: family
    for family in (
        ElasticNet,
        Boosting,
        Neural,
        Stack,
        Published,
        Convolution,
        Late,
        Gated,
        Restricted,
        Harmonised,
    )
}
_OF_MODELS = frozenset({Stack.family, Late.family, Restricted.family, Harmonised.family})
_AROUND_ANOTHER = frozenset({Restricted.family, Harmonised.family})
LEARNS_SCALES = frozenset({ElasticNet.family, Boosting.family, Neural.family, Late.family, Gated.family})
"""Families that can be harmonised over scanners."""


@dataclass(frozen=True)
class Recipe:
    """All that is chosen before a model is fitted, as plain JSON values.

    Attributes:
        family: elasticnet, lightgbm, neural, cnn, stack, late, gated or published.
        params: of the family. elasticnet: c, l1_ratio. lightgbm: any of `boosting.PARAMETERS`. neural: any of
            `neural.PARAMETERS`. cnn: learning_rate, weight_decay, channels, epochs. stack: members (a list of recipes or
            of their JSON), folds. late: members (of one modality each, none is needed), l1_ratio, folds. gated: decay,
            gate_decay, dropout, hidden. published: score, inputs.
        modality: the model sees only features of it; None for all.
        harmonise: the features whose spec names a batch are harmonised over it before the model sees them; for
            elasticnet, lightgbm, neural, late and gated. The members of a stack say it for themselves.
    """

    family: str
    params: Mapping[str, Any] = field(default_factory=dict)
    modality: Modality | None = None
    harmonise: bool = False

    def __post_init__(self) -> None:
        known = [name for name in FAMILIES if name not in _AROUND_ANOTHER]
        if self.family not in known:
            raise ValueError(f"there is no model family {self.family!r}. Known: {', '.join(known)}.")
        if self.modality is not None and self.modality not in get_args(Modality):
            raise ValueError(f"there is no modality {self.modality!r}. Known: {', '.join(get_args(Modality))}.")
        if self.harmonise and self.family not in LEARNS_SCALES:
            raise ValueError(
                f"a model of the family {self.family!r} is not harmonised itself. Say `harmonise` of "
                f"{' or '.join(sorted(LEARNS_SCALES))}, or of the members of the stack."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        params = dict(self.params)
        if "members" in params:
            params["members"] = [as_recipe(member).to_json() for member in params["members"]]
        record = {"family": self.family, "params": params, "modality": self.modality}
        return record | ({"harmonise": True} if self.harmonise else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` wrote."""
        return cls(
            record["family"],
            dict(record.get("params", {})),
            record.get("modality"),
            bool(record.get("harmonise", False)),
        )


def as_recipe(recipe: Recipe | Mapping[str, Any]) -> Recipe:
    """Return a recipe, given itself or its JSON."""
    return recipe if isinstance(recipe, Recipe) else Recipe.from_json(recipe)


def build_model(recipe: Recipe, seed: int) -> ReplicableModel:
    """Return the unfitted model of a recipe."""
    params = dict(recipe.params)
    if recipe.family == "stack":
        members = [build_model(as_recipe(member), seed) for member in params.pop("members")]
        model: ReplicableModel = Stack(members, seed=seed, **params)
    elif recipe.family == "late":
        members = [build_model(as_recipe(member), seed) for member in params.pop("members", ())]
        model = Late(members, **({"seed": seed} | params))
    elif recipe.family == "gated":
        model = Gated(**({"seed": seed} | params))
    elif recipe.family == "lightgbm":
        model = Boosting(**({"seed": seed} | params))
    elif recipe.family == "neural":
        model = Neural(**({"seed": seed} | params))
    elif recipe.family == "cnn":
        model = Convolution(**({"seed": seed} | params))
    elif recipe.family == "elasticnet":
        model = ElasticNet(**params)
    else:
        model = Published(**params)
    if recipe.harmonise:
        model = Harmonised(model)
    return model if recipe.modality is None else Restricted(model, recipe.modality)


def load_model(folder: Path) -> ReplicableModel:
    """Return the model in a folder, whatever its family."""
    family = json.loads((folder / "model.json").read_text(encoding="utf-8")).get("family")
    if family not in FAMILIES:
        raise ArtifactError(
            f"{folder.name}: the model is of the family {family!r}, which this version of Theracast does not know. "
            "Use the version that saved it."
        )
    # Members are loaded by this function, so that a model of models need not know the families.
    members = {"load_member": load_model} if family in _OF_MODELS else {}
    return cast(ReplicableModel, FAMILIES[family].load(folder, **members))
