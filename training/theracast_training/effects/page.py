"""The page of a comparison of treatments: its figures and its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2 import Template
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theracast_training import figures, wording
from theracast_training.effects import text
from theracast_training.report import page_environment

TREATED, CONTROL = figures.PALETTE[0], figures.PALETTE[1]


def effects_page(content: Mapping[str, Any]) -> str:
    """Return the comparison as one HTML page that asks nothing of the network."""
    return _template("effects_page.html.j2").render(c=content, section=Markup(effects_section(content)))


def effects_section(content: Mapping[str, Any]) -> str:
    """Return the comparison as a section of a page, for the study report.

    Args:
        content: `Comparison.to_json()`.
    """
    compared = content.get("comparisons") or []
    overlaps = [one["overlap"] for one in compared] or content.get("overlaps") or []
    pairs = [(one["arm"], one["control"]) for one in (compared or content.get("overlaps") or [])]
    return _template("effects.html.j2").render(
        c=content,
        measure=text.measure(content),
        unit=text.unit_of(content["scale"]),
        average=Markup(_average_panel(content)) if compared else None,
        validation=[
            {
                "title": _pair(*pair),
                "toc": Markup(_toc_panel(one, content)),
                "groups": Markup(_group_panel(one, content)),
            }
            for pair, one in zip(pairs, compared, strict=False)
        ],
        overlap=[
            {"title": _pair(*pair), "svg": Markup(_overlap_panel(one, *pair)), "judged": one}
            for pair, one in zip(pairs, overlaps, strict=True)
        ],
    )


def _template(name: str) -> Template:
    environment = page_environment(autoescape=True)
    environment.filters |= {
        "amount": text.amount,
        "estimate": text.interval,
        "ratio": text.ratio,
        "arm": text.plain_arm,
    }
    environment.globals |= {"LEARNERS": text.LEARNERS}
    return environment.get_template(name)


def _pair(arm: str, control: str) -> str:
    return f"{text.plain_arm(arm)} against {text.plain_arm(control)}"


def _average_panel(content: Mapping[str, Any]) -> str:
    """Return the average effects, adjusted, and those of the subgroups, hollow."""
    scale = content["scale"]
    factor, unit = _shown_scale(content)
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(content["comparisons"]):
        colour = figures.PALETTE[place % len(figures.PALETTE)]
        own = {key: factor * one["adjusted"][key] for key in ("value", "low", "high")}
        label = {"label": text.plain_arm(one["arm"]), "colour": colour, "text": text.interval(one["adjusted"], scale)}
        rows.append(label | own)
        for sub in one["subgroups"]:
            if sub["difference"]:
                shown = {key: factor * sub["difference"][key] for key in ("value", "low", "high")}
                named = {"label": sub["name"], "colour": colour, "hollow": True}
                rows.append(named | shown | {"text": text.interval(sub["difference"], scale)})

    def draw(figure: Figure) -> None:
        label = f"Difference to {text.plain_arm(content['control'])}{unit}, 95 % interval"
        figures.forest(rows, figure.subplots(), xlabel=label, reference=0.0)

    return figures.svg(draw, width=9.2, height=0.75 + 0.26 * len(rows), title="Average effects")


def _toc_panel(comparison: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return the targeting curve of every learner."""
    factor, unit = _shown_scale(content)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.axhline(0, color="#b6c0ca", linewidth=0.9, zorder=1)
        for place, (name, found) in enumerate(comparison["learners"].items()):
            points = found["toc"]
            ax.plot(
                [one["share"] for one in points],
                [factor * one["value"] for one in points],
                color=figures.PALETTE[place],
                linestyle=figures.DASHES[place],
                label=text.LEARNERS[name],
            )
        ax.set(xlabel="Share of patients with the highest predicted effect", ylabel=f"Effect minus that of all{unit}")
        ax.legend(loc="upper right")

    return figures.svg(draw, width=4.3, height=3.2, title="Targeting operator characteristic")


def _group_panel(comparison: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return the observed effect of each group by predicted effect against the predicted one, of the first learner."""
    groups = comparison["learners"][comparison["primary"]]["groups"]
    factor, unit = _shown_scale(content)

    def draw(figure: Figure) -> None:
        average = factor * comparison["adjusted"]["value"]
        ax = _draw_groups(groups, figure.subplots(), factor=factor, average=average)
        ax.set(xlabel=f"Predicted effect, mean of the group{unit}", ylabel=f"Observed effect{unit}")

    return figures.svg(draw, width=4.3, height=3.2, title="Observed effect by predicted effect")


def _draw_groups(groups: list[Mapping[str, float]], ax: Axes, *, factor: float, average: float) -> Axes:
    """Draw observed against predicted effects with intervals; the diagonal is perfect, the dashed line the average."""
    predicted = factor * np.array([one["predicted"] for one in groups])
    observed, low, high = (factor * np.array([one[key] for one in groups]) for key in ("value", "low", "high"))
    ax.axhline(average, color=figures.MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    ax.axline((average, average), slope=1.0, color="#b6c0ca", linewidth=0.9, zorder=1)
    ax.vlines(predicted, low, high, color=TREATED, linewidth=1.5)
    ax.plot(predicted, observed, "s", color=TREATED, markersize=5)
    return ax


def _shown_scale(content: Mapping[str, Any]) -> tuple[float, str]:
    """Return by how much a value is multiplied on an axis, and the unit there."""
    unit = text.unit_of(content["scale"])
    return 100.0 if content["scale"] in {"risk", "survival"} else 1.0, f" ({unit})" if unit else ""


def _overlap_panel(judged: Mapping[str, Any], arm: str, control: str) -> str:
    """Return how the probability of the treatment is spread in both arms."""
    found = judged["histogram"]
    edges = np.array(found["edges"])

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for place, (name, colour) in enumerate(((arm, TREATED), (control, CONTROL))):
            counts = found["treated" if place == 0 else "control"]
            label = f"{text.plain_arm(name)} ({wording.count(sum(counts))})"
            heights = np.array(counts) * (1 if place == 0 else -1)
            ax.bar(edges[:-1], heights, width=np.diff(edges), align="edge", color=colour, label=label)
        for limit in judged["limits"]:
            ax.axvline(limit, color=figures.MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
        ax.axhline(0, color=figures.INK, linewidth=0.8)
        ax.set(xlabel=f"Probability of {text.plain_arm(arm)} given the features", ylabel="Patients", xlim=(0, 1))
        ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        ax.margins(y=0.3)
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.02), ncols=2)

    return figures.svg(draw, width=4.3, height=3.2, title="Overlap of the arms")
