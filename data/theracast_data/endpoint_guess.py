"""Which columns of an unknown table are outcomes, as endpoints for a drafted study file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import yaml

from theracast_data.column_guess import ColumnGuess
from theracast_data.spelling import cell_key, cell_text

_RESPONSE = {"response", "responder", "resp", "recist", "bcor", "bor", "orr", "pcr", "remission"}
_TIMED = ("os", "pfs", "dfs", "efs", "rfs", "ttp", "dor", "ttf", "survival", "followup")
_FLAG = {"event", "cnsr", "censor", "censored", "status", "flag", "died", "dead", "death", "deceased", "cens", "fustat"}
_BARE_TIMES = {"time", "futime", "days", "months"}
_CENSORED = {"cnsr", "censor", "censored", "cens"}
_UNITS = {
    "month": {"month", "months", "mo", "mos"},
    "day": {"day", "days"},
    "week": {"week", "weeks", "wk", "wks"},
    "year": {"year", "years", "yr", "yrs"},
}
_YES = {"1", "yes", "y", "true", "positive", "pos", "responder", "response", "r", "pcr"}
_LABELS = {
    "os": "overall survival",
    "pfs": "progression-free survival",
    "dfs": "disease-free survival",
    "pcr": "pathological complete response",
}


@dataclass(frozen=True)
class EndpointDraft:
    """One endpoint as the lines of a study file, and the raw columns it needs."""

    items: tuple[tuple[str, str], ...]
    headers: tuple[str, ...]


def guess_endpoints(guesses: Sequence[ColumnGuess], frame: pd.DataFrame) -> tuple[list[EndpointDraft], bool]:
    """Return the endpoints that a table seems to hold, binary ones first, and whether a placeholder had to be taken."""
    outcomes = [guess for guess in guesses if guess.is_outcome]
    drafts = [draft for guess in outcomes if guess.words & _RESPONSE for draft in [_binary(guess)] if draft is not None]
    timed = [draft for word in _TIMED for draft in [_time_to_event(word, outcomes)] if draft is not None]
    if not timed:
        bare = [guess for guess in guesses if guess.is_outcome or guess.header.lower() in _BARE_TIMES]
        timed = [draft for draft in [_time_to_event(None, bare)] if draft is not None]
    if not drafts and timed:
        drafts.append(_within_a_year(timed[0]))
    if drafts:
        return _with_own_names(drafts[:1] + timed + drafts[1:]), False
    rest = [guess for guess in outcomes if guess.kind == "boolean" and guess.levels == (0, 1)]
    if not rest:
        rest = [guess for guess in reversed(guesses) if guess.kind == "boolean" and guess.levels == (0, 1)]
        rest = [guess for guess in rest if guess.known == len(frame)] or rest
    if rest:
        return [_zero_one(rest[0])], not rest[0].is_outcome
    numeric = [guess for guess in outcomes if guess.kind == "numeric" and not guess.limits]
    numeric = numeric or [guess for guess in reversed(guesses) if guess.kind == "numeric" and not guess.limits]
    return ([_continuous(numeric[0])], not numeric[0].is_outcome) if numeric else ([], True)


def _binary(guess: ColumnGuess) -> EndpointDraft | None:
    if guess.kind == "boolean" and guess.levels == (0, 1):
        return _zero_one(guess)
    if guess.kind not in ("categorical", "boolean"):
        return None
    levels = {cell_key(level): cell_text(level) for level in guess.levels}
    best, stable = (
        [levels[key] for key in ("cr", "pr") if key in levels],
        [levels[key] for key in ("sd", "pd") if key in levels],
    )
    if best and stable:
        other = [level for level in levels.values() if level not in best + stable] + list(guess.missing)
        items = [("column", _text(guess.header)), ("positive", _text(best)), ("negative", _text(stable))]
        if other:
            items.append(("not_evaluable", _text(other)))
            items.append(("not_evaluable_as", "missing # or negative: decide, and say why"))
        return _draft(guess, "binary", items)
    yes = [level for key, level in levels.items() if key in _YES]
    if len(levels) != 2 or len(yes) != 1:
        return None
    no = [level for level in levels.values() if level not in yes]
    items = [("column", _text(guess.header)), ("positive", _text(yes)), ("negative", _text(no))]
    if guess.missing:
        items += [("not_evaluable", _text(list(guess.missing))), ("not_evaluable_as", "missing # or negative")]
    return _draft(guess, "binary", items)


def _zero_one(guess: ColumnGuess) -> EndpointDraft:
    items = [("column", _text(guess.header)), ("positive", "1"), ("negative", "[0]")]
    codes = [*guess.missing, *guess.limits]
    if codes:
        items += [("not_evaluable", _text(codes)), ("not_evaluable_as", "missing # or negative")]
    return _draft(guess, "binary", items)


def _continuous(guess: ColumnGuess) -> EndpointDraft:
    return _draft(guess, "continuous", [("column", _text(guess.header))])


def _draft(guess: ColumnGuess, kind: str, items: list[tuple[str, str]]) -> EndpointDraft:
    name = next((word for word in ("pcr", "response") if word in guess.words), "response")
    head = [("name", name if kind == "binary" else "outcome"), ("kind", kind)]
    if name in _LABELS:
        head.append(("label", _LABELS[name]))
    return EndpointDraft((*head, *items), (guess.header,))


def _time_to_event(word: str | None, outcomes: Sequence[ColumnGuess]) -> EndpointDraft | None:
    """Return the endpoint of a numeric column and a 0/1 column that share the word, e.g. OS_Months and OS_Event."""
    named = [guess for guess in outcomes if word is None or word in guess.words]
    flags = [
        guess for guess in named if guess.kind == "boolean" and guess.words & _FLAG and set(guess.levels) == {0, 1}
    ]
    times = [guess for guess in named if guess.kind == "numeric" and not guess.words & _FLAG and not guess.limits]
    if not flags or not times or flags[0].missing or times[0].missing:
        return None
    if word is None:
        times = [guess for guess in times if guess.header.lower() in _BARE_TIMES]
        if not times:
            return None
    time, flag = times[0], flags[0]
    unit = next((unit for unit, words in _UNITS.items() if time.words & words), None)
    guessed = "" if unit else " # CHECK: guessed from the size of the times"
    unit = unit or ("day" if time.median > 60 else "month")
    censored = bool(flag.words & _CENSORED)
    key, meaning = ("censored", "1 = censored") if censored else ("event", "1 = event")
    items = [("name", word or "event"), ("kind", "time_to_event")]
    if word in _LABELS:
        items.append(("label", _LABELS[word]))
    items += [
        ("time", _text(time.header)),
        (
            key,
            f"{_text(flag.header)} # CHECK: {meaning}; if it is the other way, `{'event' if censored else 'censored'}`",
        ),
        ("unit", unit + guessed),
    ]
    return EndpointDraft(tuple(items), (time.header, flag.header))


def _within_a_year(timed: EndpointDraft) -> EndpointDraft:
    """Return the event within one year as a binary endpoint."""
    fields = {key: value.split(" #")[0] for key, value in timed.items}
    unit = fields["unit"]
    horizon = {"day": "365", "week": "52", "month": "12", "year": "1"}[unit]
    flag = "event" if "event" in fields else "censored"
    followed = f"{{time: {fields['time']}, {flag}: {fields[flag]}, unit: {unit}}}"
    items = (
        ("name", f"{fields['name']}_1y"),
        ("kind", "binary"),
        ("label", f"event in {_LABELS.get(fields['name'], fields['name'])} within a year"),
        ("follow_up", followed),
        ("horizon", f"{horizon} # CHECK: the horizon that matters"),
    )
    return EndpointDraft(items, timed.headers)


def _with_own_names(drafts: list[EndpointDraft]) -> list[EndpointDraft]:
    seen: dict[str, int] = {}
    named = []
    for draft in drafts:
        name = draft.items[0][1]
        seen[name] = seen.get(name, 0) + 1
        own = name if seen[name] == 1 else f"{name}_{seen[name]}"
        named.append(EndpointDraft((("name", own), *draft.items[1:]), draft.headers))
    return named


def _text(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
