"""How a comparison of runs is shown: on the screen, and as a page with its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, tell
from sepsis_rl.pages import CONTENTS, Exhibit, Rows, Shown, files_of, html_page, list_contents, save
from sepsis_rl.report.comparison import RESAMPLES, Comparison
from sepsis_rl.report.figures.compared_curves import curves
from sepsis_rl.runs.described import NONE, setting_differences

PAGE: Final = "compare.html"
TITLE: Final = "Runs side by side"
_RUNS_ACROSS: Final = 4  # that a screen of 80 columns holds beside the settings' names


def print_comparison(comparison: Comparison) -> None:
    """Prints what the policies are worth, and in which settings the runs differ."""
    console = Console(markup=False)
    rows = policies_shown(policy_rows(comparison))
    caption = f"{how_to_read(comparison)}\n{NOT_FOR_CLINICAL_USE}"
    table = framed_table(_about(comparison), caption)
    _fill(table, rows, comparison.best, len(comparison.entrants) - 1)
    console.print(table)
    console.print()
    runs = len(comparison.runs)
    differing = setting_rows(comparison)
    for first in range(0, runs if differing else 0, _RUNS_ACROSS):
        labels = comparison.labels[first : first + _RUNS_ACROSS]
        table = framed_table("Settings that differ between the runs", _without(differing).strip())
        _fill(table, settings_shown([row for row in differing if row["run"] in labels]))
        console.print(table)
    if runs > 1 and not differing:
        tell("The settings of the runs are the same.")
    for problem in comparison.problems:
        tell(problem)


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Writes the page, its figure and its tables.

    Args:
        comparison: What is shown.
        output: Folder to write to; new.
    """
    exhibits = [
        Exhibit(
            "1-policies",
            "What the policies are worth",
            how_to_read(comparison),
            policy_rows(comparison),
        ),
        curves(comparison),
    ]
    if differing := setting_rows(comparison):
        text = f"The settings that differ between the runs.{_without(differing)}"
        exhibits.append(Exhibit("3-settings", "In what the runs differ", text, differing))
    found = [exhibit for exhibit in exhibits if exhibit is not None]
    files = {exhibit.name: files_of(exhibit) for exhibit in found}
    for content in files.values():
        save(output, content)
    about = f"{_about(comparison)}. {', '.join(run.name for run in comparison.runs)}."
    text = "\n\n".join([about, *comparison.problems])
    save(output, {CONTENTS: list_contents(TITLE, text, found)})
    show = {"1-policies": policies_shown, "3-settings": settings_shown}
    texts = {"title": TITLE, "about": about, "warning": NOT_FOR_CLINICAL_USE}
    save(output, {PAGE: html_page(found, files, show, problems=comparison.problems, **texts)})
    tell(str(output / PAGE))


def policy_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Figures of all policies, in full precision."""
    columns: dict[str, Sequence[Any]] = {
        "policy": [policy.name for policy in comparison.policies],
        "run": [entrant.run for entrant in comparison.entrants],
        "member": [entrant.member for entrant in comparison.entrants],
    }
    without = [""] * len(comparison.baselines)
    columns |= {name: [*columns[name], *without] for name in ("run", "member")}
    scores = comparison.scores
    if scores is not None:
        columns["survival_exact"] = scores.survival_exact.tolist()
        for part, values in zip(("", "_low", "_high"), scores.survival_rate, strict=True):
            columns[f"survival_rate{part}"] = values.tolist()
    columns["supported_value"] = comparison.supported.value.tolist()
    columns["anchored_value"] = comparison.supported.anchored.tolist()
    for part, differences in zip(("", "_low", "_high"), comparison.gap, strict=True):
        columns[f"minus_best{part}"] = differences.tolist()
    columns["best"] = [index == comparison.best for index in range(len(comparison.policies))]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def policies_shown(rows: Rows) -> Shown:
    """The figures as people read them."""
    shown = []
    for row in rows:
        texts = {"policy": row["policy"]}
        if "survival_exact" in row:
            rate, low, high = (100 * row[f"survival_rate{part}"] for part in ("", "_low", "_high"))
            texts["exact %"] = f"{100 * row['survival_exact']:.2f}"
            texts["rollout %"] = f"{rate:.1f} ({low:.1f}–{high:.1f})"
        texts["all %"] = f"{100 * row['supported_value']:.2f}"
        if "survival_exact" not in row:
            texts["anchored %"] = f"{100 * row['anchored_value']:.2f}"
        gap, low, high = (100 * row[f"minus_best{part}"] for part in ("", "_low", "_high"))
        between = "the best" if row["best"] else f"{gap:+.1f} ({low:+.1f}, {high:+.1f})"
        texts["minus best"] = between
        shown.append(texts)
    return shown


def setting_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The settings that differ, a row for each and each run."""
    return [
        {"setting": name, "run": label, "value": value}
        for name, values in setting_differences(comparison.runs).items()
        for label, value in zip(comparison.labels, values, strict=True)
    ]


def settings_shown(rows: Rows) -> Shown:
    """The settings with a column for each run."""
    shown: dict[str, dict[str, str]] = {}
    for row in rows:  # no run's name has a slash between spaces, so no column hides the first
        texts = shown.setdefault(row["setting"], {"setting / run": row["setting"]})
        texts[row["run"]] = row["value"]
    return list(shown.values())


def _without(rows: Rows) -> str:
    return f" {NONE}: has none." if NONE in {row["value"] for row in rows} else ""


def how_to_read(comparison: Comparison) -> str:
    """What the columns mean, and what the best is."""
    records = (
        "all %: the supported value, by training and held-out episodes together, less a price for "
        "rare decisions. The best of the members by it is what the others are compared with. "
    )
    if comparison.scores is not None:
        return (
            "exact %: 90-day survival without sampling. rollout %: of simulated patients. "
            f"{records}minus best: survival in rollouts less its, paired on the same patients. In "
            "parentheses 95 % intervals."
        )
    return (
        "No environment simulates these patients: survival in rollouts, exact survival and the "
        f"optimum are left out. {records}anchored %: that without the price, moved by what the "
        "records show to be wrong of recorded decisions. minus best: all % less its, paired, "
        f"in parentheses with the 95 % interval over {RESAMPLES} resamples of the episodes. "
        "The records that chose the best flatter it."
    )


def _about(comparison: Comparison) -> str:
    data, members, runs = comparison.data.train, len(comparison.entrants), len(comparison.runs)
    of = f"{members} {_plural('member', members)} of {runs} {_plural('run', runs)}"
    trained = f"trained on {data.n_episodes:,} episodes"
    if comparison.scores is None:
        return f"{of}, {trained}"
    patients = f"{comparison.patients:,} simulated patients"
    return f"{of}, {trained}; {patients}, inadmissible actions: {comparison.runs[0].strategy}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _fill(table: Table, rows: Shown, best: int | None = None, end: int | None = None) -> None:
    """Fills a table with texts, none of which is markup."""
    for heading in rows[0]:
        figures = heading.endswith("%") or heading == "minus best"
        table.add_column(
            Text(heading),
            justify="right" if figures else "left",
            overflow="fold",  # members and runs differ at the end of their names
            no_wrap=figures,
        )
    for index, row in enumerate(rows):
        cells = (Text(text) for text in row.values())
        table.add_row(*cells, style="bold" if index == best else "", end_section=index == end)
