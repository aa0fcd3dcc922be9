"""The registry: models, versions, aliases, and the record of every move of an alias, kept in the registry itself.

Each move is a tag of the registered model, `theracast.move.NUMBER.TOKEN`, written before the alias moves and never
changed afterwards. The token makes the key the writer's own, so that nobody can overwrite another's record; the number
is claimed by whoever, after writing, sees no second record of it. Of two that move at once the later writer surely sees
both, so at most one goes on; the other withdraws its claim and tries again from what it finds then.
"""

from __future__ import annotations

import difflib
import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from theracast_data.errors import RegistryError
from theracast_data.home import prepare_mlflow, tracking_uri
from theracast_training.gates import GateReport

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"

_PREFIX = "theracast.move."
_KEY = re.compile(r"^theracast\.move\.(\d{6,})\.[0-9a-f]+$")
_ATTEMPTS = 12
_SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Move:
    """One move of an alias: from which version to which, who, when, why, and what the gates said."""

    number: int
    when: str
    who: str
    alias: str
    from_version: int | None
    to_version: int | None
    why: str
    kind: Literal["set", "rollback"] = "set"
    overridden: bool = False
    gates: dict[str, Any] | None = None
    undoes: int | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the move as plain JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the move as one line."""
        change = f"{_shown(self.from_version)} -> {_shown(self.to_version)}"
        kind = f"rollback of move {self.undoes}" if self.kind == "rollback" else self.kind
        marks = " [gates overridden]" if self.overridden else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.number:>4}  {self.when}  {self.alias}: {change}  {self.who}  {kind}{marks}: {self.why}{note}"


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    aliases: tuple[str, ...]
    created: str
    run_id: str | None
    source: str | None
    description: str | None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The reference that names this version for good."""
        return f"models:/{self.name}/{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Return the version as plain JSON."""
        return {"uri": self.uri, **asdict(self)}


@dataclass(frozen=True)
class RegisteredModel:
    """One name of the registry: its versions (newest first), where the aliases stand, and every move there was."""

    name: str
    description: str | None
    aliases: Mapping[str, int]
    versions: tuple[Version, ...]
    moves: tuple[Move, ...]

    @property
    def drift(self) -> tuple[str, ...]:
        """Aliases that do not stand where their last recorded move left them."""
        last = {move.alias: move for move in self.moves}
        return tuple(
            f"{alias} stands at {_shown(self.aliases.get(alias))}, although move {move.number} left it at "
            f"{_shown(move.to_version)}: it was moved without Theracast, or a move was interrupted"
            for alias, move in sorted(last.items())
            if self.aliases.get(alias) != move.to_version
        )

    def to_json(self) -> dict[str, Any]:
        """Return the model, its versions and its moves as plain JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "aliases": dict(self.aliases),
            "versions": [version.to_json() for version in self.versions],
            "moves": [move.to_json() for move in self.moves],
            "drift": list(self.drift),
        }


def list_models(*, uri: str | None = None) -> list[RegisteredModel]:
    """Return every registered model by name; none when the embedded store does not exist yet."""
    if _embedded_store_missing(uri or tracking_uri()):
        return []
    with _registry(uri) as client:
        return [_read(client, name) for name in _names(client)]


def show(reference: str, *, uri: str | None = None) -> Version:
    """Return the version that `reference` names: NAME (its champion, else challenger, else newest), NAME@ALIAS,
    `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""
    name, version, alias = parse_reference(reference)
    with _registry(uri) as client:
        model = _find(client, name)
        if version is not None:
            return _version(model, version)
        if alias is not None:
            return _version(model, _aliased(model, alias))
        preferred = next((model.aliases[one] for one in (CHAMPION, CHALLENGER) if one in model.aliases), None)
        if preferred is not None:
            return _version(model, preferred)
        if model.versions:
            return model.versions[0]
    raise RegistryError(f"{name} has no version yet. `theracast train STUDY` registers one.")


def history(name: str, *, uri: str | None = None) -> tuple[Move, ...]:
    """Return every move of the model's aliases, oldest first."""
    with _registry(uri) as client:
        return _find(client, name).moves


def set_alias(
    name: str,
    version: int | str,
    alias: str,
    *,
    actor: str,
    now: datetime,
    gate_report: GateReport | None = None,
    override: str | None = None,
    why: str | None = None,
    uri: str | None = None,
) -> Move:
    """Move `alias` to `version` and return the record of it.

    `champion` asks for a gate report that passed and speaks of this version and the present champion, or for the
    reason of an override. Other aliases are free.

    Raises:
        RegistryError: unknown name or version; gates not passed; the alias moved meanwhile.
    """
    number = _version_number(version)
    reason = _reason(override, "--override")
    with _registry(uri) as client:
        model = _find(client, name)
        _version(model, number)
        _check_alias(alias)
        if alias == CHAMPION:
            _check_gates(model, number, gate_report, override=reason)
        if model.aliases.get(alias) == number:
            raise RegistryError(f"{alias} of {name} is version {number} already; nothing was moved.")
        failed = gate_report is not None and not gate_report.passed
        return _move(
            client,
            name,
            _wanted(
                model,
                alias,
                to_version=number,
                actor=actor,
                now=now,
                why=reason or why or ("gates passed" if gate_report else "set by hand"),
                overridden=alias == CHAMPION and reason is not None and (gate_report is None or failed),
                gates=gate_report.to_json() if gate_report else None,
            ),
        )


def rollback(
    name: str,
    *,
    actor: str,
    now: datetime,
    alias: str = CHAMPION,
    why: str | None = None,
    uri: str | None = None,
) -> Move:
    """Undo the last move of `alias` that is not undone yet, and return the record of that.

    The alias goes back to where it stood before, or is removed when it stood nowhere. No gate is asked: a rollback
    must work at night. A second rollback goes back one move further.
    """
    with _registry(uri) as client:
        model = _find(client, name)
        undone = {move.undoes for move in model.moves if move.kind == "rollback"}
        open_moves = [
            move for move in model.moves if move.alias == alias and move.kind == "set" and move.number not in undone
        ]
        if not open_moves:
            others = sorted({move.alias for move in model.moves if move.kind == "set"} - {alias})
            hint = f" Moves are on record for: {', '.join(others)}." if others else ""
            raise RegistryError(f"{name}: there is no move of {alias} left to undo.{hint}")
        last = open_moves[-1]
        if last.from_version is not None:
            _version(model, last.from_version)
        return _move(
            client,
            name,
            _wanted(
                model,
                alias,
                to_version=last.from_version,
                actor=actor,
                now=now,
                why=why or f"undoes move {last.number} of {last.when}",
                kind="rollback",
                undoes=last.number,
            ),
        )


def parse_reference(reference: str) -> tuple[str, int | None, str | None]:
    """Return (name, version, alias) of NAME, NAME@ALIAS, `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""
    rest = reference.removeprefix("models:/")
    if "@" in rest:
        name, _, alias = rest.rpartition("@")
        if name and alias:
            return name, None, alias
    elif reference.startswith("models:/") and "/" in rest:
        name, _, version = rest.rpartition("/")
        if name:
            return name, _version_number(version), None
    elif rest and "/" not in rest:
        return rest, None, None
    raise RegistryError(
        f"{reference!r} names no model. Write NAME, NAME@ALIAS, models:/NAME@ALIAS or models:/NAME/VERSION."
    )


def _wanted(
    model: RegisteredModel, alias: str, *, to_version: int | None, actor: str, now: datetime, why: str, **rest: Any
) -> Move:
    """Return a move from where the alias stands, which has no number yet."""
    return Move(
        number=0,
        when=_timestamp(now),
        who=actor,
        alias=alias,
        from_version=model.aliases.get(alias),
        to_version=to_version,
        why=why,
        **rest,
    )


def _move(client: MlflowClient, name: str, wanted: Move) -> Move:
    """Record `wanted` under a number of its own, then move the alias."""
    move, key = _claim(client, name, wanted)
    try:
        if move.to_version is None:
            client.delete_registered_model_alias(name, move.alias)
        else:
            client.set_registered_model_alias(name, move.alias, str(move.to_version))
    except Exception:
        client.delete_registered_model_tag(name, key)
        raise
    return move


def _claim(client: MlflowClient, name: str, wanted: Move) -> tuple[Move, str]:
    for _ in range(_ATTEMPTS):
        model = _settled(client, name, wanted.alias)
        present = model.aliases.get(wanted.alias)
        if present != wanted.from_version:
            raise RegistryError(
                f"{wanted.alias} of {name} moved from {_shown(wanted.from_version)} to {_shown(present)} while this "
                "move was under way. Look at `theracast models list` and try again."
            )
        drift = next((text for text in model.drift if text.startswith(f"{wanted.alias} ")), None)
        number = 1 + max((move.number for move in model.moves), default=0)
        move = replace(wanted, number=number, note=drift)
        key = f"{_PREFIX}{number:06d}.{secrets.token_hex(4)}"
        client.set_registered_model_tag(name, key, json.dumps(move.to_json(), ensure_ascii=False))
        rivals = [other for other in _move_keys(client.get_registered_model(name).tags) if other != key]
        if not any(_number_of(other) == number for other in rivals):
            return move, key
        client.delete_registered_model_tag(name, key)
        time.sleep(random.uniform(0.02, 0.3))
    raise RegistryError(f"{name}: others keep moving its aliases at this moment. Try again in a minute.")


def _settled(client: MlflowClient, name: str, alias: str) -> RegisteredModel:
    """Return the model once its last recorded move of `alias` is done, or as it is when that does not come."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    model = _read(client, name)
    while any(text.startswith(f"{alias} ") for text in model.drift) and time.monotonic() < deadline:
        time.sleep(0.1)
        model = _read(client, name)
    return model


def _check_gates(model: RegisteredModel, version: int, report: GateReport | None, *, override: str | None) -> None:
    if override is not None:
        return
    if report is None:
        raise RegistryError(
            f"{model.name} version {version} cannot become champion without its gates being looked at. Use "
            f"`theracast models alias {model.name} {version} champion`, or give the reason of an override."
        )
    present = model.aliases.get(CHAMPION)
    expected = None if present in (None, version) else f"models:/{model.name}/{present}"
    if report.model != f"models:/{model.name}/{version}" or report.champion != expected:
        raise RegistryError(
            f"the gates were looked at for {report.model} against {report.champion or 'no champion'}, but "
            f"{model.name} version {version} would now follow {expected or 'no champion'}. Try again."
        )
    if not report.passed:
        raise RegistryError(
            f"{model.name} version {version} does not become champion:\n{report.to_text()}\n"
            "Mend what failed and train again, or say why it may pass all the same with --override REASON."
        )


def _find(client: MlflowClient, name: str) -> RegisteredModel:
    names = _names(client)
    if name in names:
        return _read(client, name)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        raise RegistryError(f"the registry knows no model {name!r}. Did you mean {near[0]!r}?")
    known = f"It knows: {', '.join(names)}." if names else "It is empty: `theracast train STUDY` registers a model."
    raise RegistryError(f"the registry knows no model {name!r}. {known}")


def _names(client: MlflowClient) -> list[str]:
    names: list[str] = []
    token: str | None = None
    while True:
        page = client.search_registered_models(max_results=200, page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(names)


def _read(client: MlflowClient, name: str) -> RegisteredModel:
    model = client.get_registered_model(name)
    aliases = {alias: int(version) for alias, version in model.aliases.items()}
    versions: list[Version] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = {_quoted(name)}", max_results=200, page_token=token)
        versions += [_as_version(one, aliases) for one in page]
        token = page.token
        if not token:
            break
    return RegisteredModel(
        name=name,
        description=model.description or None,
        aliases=aliases,
        versions=tuple(sorted(versions, key=lambda one: -one.version)),
        moves=_moves(model.tags),
    )


def _as_version(found: Any, aliases: Mapping[str, int]) -> Version:
    number = int(found.version)
    return Version(
        name=found.name,
        version=number,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        created=_timestamp(datetime.fromtimestamp(found.creation_timestamp / 1000, tz=UTC)),
        run_id=found.run_id or None,
        source=found.source,
        description=found.description or None,
        tags=dict(found.tags),
    )


def _moves(tags: Mapping[str, str]) -> tuple[Move, ...]:
    moves = []
    for key in _move_keys(tags):
        try:
            moves.append(Move(**json.loads(tags[key])))
        except (json.JSONDecodeError, TypeError) as error:
            raise RegistryError(
                f"the registry's tag {key} is no record of a move: it was changed by hand. Restore it from a backup "
                "of the registry, or delete that tag and keep its text elsewhere."
            ) from error
    return tuple(sorted(moves, key=lambda move: (move.number, move.when)))


def _move_keys(tags: Mapping[str, str]) -> list[str]:
    return sorted(key for key in tags if _KEY.match(key))


def _number_of(key: str) -> int:
    found = _KEY.match(key)
    return int(found.group(1)) if found else 0


def _version(model: RegisteredModel, number: int) -> Version:
    for version in model.versions:
        if version.version == number:
            return version
    known = ", ".join(str(version.version) for version in reversed(model.versions))
    raise RegistryError(f"{model.name} has no version {number}. Known versions: {known or 'none'}.")


def _aliased(model: RegisteredModel, alias: str) -> int:
    if alias in model.aliases:
        return model.aliases[alias]
    near = difflib.get_close_matches(alias, list(model.aliases), n=1, cutoff=0.5)
    known = ", ".join(f"{one} (version {number})" for one, number in sorted(model.aliases.items()))
    hint = f"Did you mean {near[0]!r}?" if near else f"Its aliases: {known or 'none'}."
    raise RegistryError(f"{model.name} has no alias {alias!r}. {hint}")


def _check_alias(alias: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", alias) or re.fullmatch(r"[vV]\d+|latest", alias):
        raise RegistryError(
            f"{alias!r} cannot be an alias: use letters, digits, - and _, beginning with a letter; `latest` and v1, "
            "v2, ... are MLflow's own. Usual ones are champion and challenger."
        )


def _version_number(version: int | str) -> int:
    try:
        return int(version)
    except ValueError as error:
        raise RegistryError(f"{version!r} is no version: versions are whole numbers, such as 3.") from error


def _reason(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    if not text.strip():
        raise RegistryError(f"{option} needs a reason: it stands in the registry for whoever asks later.")
    return text.strip()


def _timestamp(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; give an aware moment such as datetime.now(UTC)")
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


def _embedded_store_missing(uri: str) -> bool:
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()


@contextmanager
def _registry(uri: str | None) -> Iterator[MlflowClient]:
    """Yield a client of the registry; what MLflow reports comes out as a RegistryError."""
    place = uri or tracking_uri()
    if _embedded_store_missing(place):
        raise RegistryError(
            f"there is no registry at {place} yet. `theracast train STUDY` makes one; or set THERACAST_HOME to the "
            "folder that has it, or MLFLOW_TRACKING_URI to a shared server."
        )
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(tracking_uri=place, registry_uri=place)
    except MlflowException as error:
        raise RegistryError(f"the registry at {_without_password(place)} refuses: {_explained(error)}") from error


def _explained(error: Exception) -> str:
    text = str(error).strip()
    if "401" in text or "not authenticated" in text.lower():
        return "user name or password are wrong. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    if "403" in text or "permission denied" in text.lower():
        return "this user may not do that. Ask the server's administrator for the permission (EDIT to move an alias)."
    if "Max retries exceeded" in text or "Connection refused" in text:
        return "nobody answers there. Check MLFLOW_TRACKING_URI and that the server runs."
    return text.splitlines()[0] if text else type(error).__name__


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
