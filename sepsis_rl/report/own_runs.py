"""The table that a report opens with: every member of the runs, beside what others are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.pages import Exhibit
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy, optimal_policy
from sepsis_rl.report.likeness import NETWORK_SHAPE, SHARED_SETTINGS, family, plain
from sepsis_rl.runs.history import LEARNED, Member

NO_TRUTH: Final = (
    "No simulator knows the patients of {names}: what those policies are worth is told from "
    "recorded episodes alone, exact survival and the optimum are left out."
)
_FIGURES: Final = ("fqe", "fqe_low", "fqe_high", "ess", "supported_value")
_LOW_ESS: Final = 100


def runs_table(members: Sequence[Member]) -> Exhibit:
    """Settings, steps, exact survival and what records say, of every member and beside it.

    Args:
        members: At least one.
    """
    rows: list[dict[str, Any]] = []
    by_data: dict[str, list[Member]] = {}
    for member in members:
        by_data.setdefault(member.data.content_hash, []).append(member)
    for own in by_data.values():
        records = name_of(own[0].data)
        settings = settings_of(own)
        rows += [_row(records, member, settings[member]) for member in own]
        rows += _beside(records, own[0])
    blind = [name_of(own[0].data) for own in by_data.values() if not own[0].has_truth]
    exact = (
        "Exact survival is 90-day survival, solved from the simulator's own tables. "
        if len(blind) < len(by_data)
        else ""
    )
    text = (
        "Each member of each run, by the data that it was trained on, then what it is held "
        f"against. {exact}"
        "By records is fitted Q evaluation on episodes that trained and chose nothing, with its "
        f"95 % interval; an effective sample (ESS) below {_LOW_ESS} of them, marked *, is too "
        "little to judge a policy by importance weights. Clinicians by records is what was "
        "recorded."
    )
    return Exhibit(
        name="runs",
        title="The runs",
        text=f"{text} {NO_TRUTH.format(names=', '.join(blind))}" if blind else text,
        rows=rows,
    )


def runs_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows as they stand on a page; columns that no row fills are left out."""
    shown = [
        {
            "policy": row["policy"],
            "exact %": _percent(row["survival_exact"], 2),
            "by records % (95 %)": _interval(row),
            "ESS": _sample(row["ess"]),
            "steps": "" if _is_empty(row["steps"]) else f"{int(row['steps']):,}",
            "run": row["run"],
            "data": row["records"],
        }
        for row in rows
    ]
    filled = [name for name in shown[0] if any(row[name] for row in shown)]
    single = ["data"] if len({row["data"] for row in shown}) == 1 else []
    return [{name: row[name] for name in filled if name not in single} for row in shown]


def name_of(data: OfflineDataModule) -> str:
    """What a report calls training data."""
    train = data.train
    episodes = f"{train.n_episodes:,} episodes"
    if data.path is not None:
        return f"{Path(data.path).name}, {episodes}"
    return f"{episodes}, seed {train.provenance.seed}"


def settings_of(members: Sequence[Member]) -> dict[Member, str]:
    """Algorithm, alpha, temperature and seed of members, and settings in which the like differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for member in members:
        for name in SHARED_SETTINGS + NETWORK_SHAPE:
            own = values.setdefault((family(member), name), set())
            own.add(plain(member.settings.get(name)))
    described = {}
    for member in members:
        parts = [member.setting, f"seed {member.seed}"]
        if member.temperature is not None:
            parts.insert(1, f"T {member.temperature:g}")
        parts += [
            f"{name} {plain(member.settings.get(name))}"
            for name in SHARED_SETTINGS + NETWORK_SHAPE
            if len(values[family(member), name]) > 1
        ]
        described[member] = ", ".join(parts)
    return described


def _row(records: str, member: Member, settings: str) -> dict[str, Any]:
    exact = member.survival if member.has_truth else math.nan
    return {
        "records": records,
        "run": str(Path(*member.run.parts[-2:])),
        "member": member.name,
        "policy": settings,
        **member.identity,
        "temperature": member.temperature,
        "steps": int(member.steps[-1]),
        "evaluations": len(member.steps),
        "survival_exact": exact,
        **_by_records(member, LEARNED),
    }


def _beside(records: str, member: Member) -> list[dict[str, Any]]:
    """Rows of what the members on the same data are held against."""
    mdp, data = member.data.mdp, member.data
    if mdp is None:
        named = {"clinicians, as recorded": "recorded", "most recorded action": "most recorded"}
        exact = dict.fromkeys(named, math.nan)
    else:
        named = {"clinician": "recorded", "tabular": "tabular", "optimum": ""}
        policies = (clinician_policy(mdp), tabular_policy(data.counts, mdp), optimal_policy(mdp))
        exact = {name: _survival(mdp, policy) for name, policy in zip(named, policies, strict=True)}
    empty = dict.fromkeys(_row("", member, ""))
    return [
        {
            **empty,
            "records": records,
            "run": "",
            "member": "",
            "policy": name,
            "survival_exact": exact[name],
            **_by_records(member, judged),
        }
        for name, judged in named.items()
    ]


def _survival(mdp: TabularMDP, policy: Policy) -> float:
    return evaluate(true_dynamics(mdp), policy.probabilities).survival


def _by_records(member: Member, policy: str) -> dict[str, float]:
    own = member.by_records.get(policy, {})
    return {name: own.get(name, math.nan) for name in _FIGURES}


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _percent(share: Any, digits: int = 1) -> str:
    return "" if _is_empty(share) else f"{100 * share:.{digits}f}"


def _interval(row: Mapping[str, Any]) -> str:
    if _is_empty(row["fqe"]):
        return ""
    ends = [_percent(row[f"fqe_{end}"]) for end in ("low", "high")]
    return f"{_percent(row['fqe'])}{f' ({ends[0]}–{ends[1]})' if all(ends) else ''}"


def _sample(size: Any) -> str:
    if _is_empty(size):
        return ""
    return f"{size:,.0f}{'*' if size < _LOW_ESS else ''}"
