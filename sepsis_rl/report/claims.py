"""What the essay claims, held against the truth and against its own protocol.

The thresholds were written down before the runs that decide were looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.stats

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import FloatArray
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy
from sepsis_rl.report.curves import read_curve
from sepsis_rl.report.differences import (
    Difference,
    by_data_set,
    difference,
    paired,
    pooled_variance,
)
from sepsis_rl.report.experiment import Experiment, Member
from sepsis_rl.report.protocol import REPORTED, Protocol, share_in_order
from sepsis_rl.report.style import Exhibit

ADMISSIONS: Final = 20_000
LIVES: Final = 1600
COVERAGE: Final = 0.517
"""The essay's share of state-action pairs that its data have."""
FEWEST_DATA_SETS: Final = 5

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not shown"


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        claim: What the essay says.
        threshold: What counts as true, written down before the runs.
        verdict: HOLDS, FAILS, or UNDECIDED, where the interval holds both.
        exact: What was found.
        protocol: Whether the essay's protocol could have shown it.
    """

    claim: str
    threshold: str
    verdict: str
    exact: str
    protocol: str


def claims(experiment: Experiment, protocol: Protocol, bound: Exhibit | None) -> Exhibit:
    """Holds the essay's claims against what the runs show.

    Args:
        experiment: With the grid, and the same settings on other data sets.
        protocol: Carried out on the grid.
        bound: The network's values next to the exact ones, as `lower_bound` makes it.

    Returns:
        A table. A claim whose runs are missing stands there as not examined.
    """
    examined = [examine(experiment, protocol) for examine in _EXAMINATIONS]
    examined.append(_bound(bound))
    shown = [
        {
            "the essay": row.claim,
            "is it true?": f"{row.verdict}: {row.exact}",
            "could its protocol show it?": row.protocol,
            "counts as true": row.threshold,
        }
        for row in examined
    ]
    data_sets = len(by_data_set(experiment, []))
    few = (
        ""
        if data_sets >= FEWEST_DATA_SETS
        else f" Only {data_sets} of the {FEWEST_DATA_SETS} data sets are there."
    )
    return Exhibit(
        name="0-claims",
        title="The essay's claims",
        text="Exact survival of the last checkpoints. A difference is a mean over data sets, each "
        f"the mean of its training seeds after {experiment.common_step:,} steps, with a 95 % "
        "paired-t interval over data sets. The last "
        f"column was written down before the runs were looked at.{few}",
        figure=None,
        rows=[vars(row) for row in examined],
        shown=shown,
    )


# -- one claim after the other ---------------------------------------------------------------------


def _order(experiment: Experiment, protocol: Protocol) -> Claim:
    pairs = [("CQL α=0.5", "BC"), ("BC", "DQN"), ("DQN", "random")]
    found = {pair: difference(experiment, *pair) for pair in pairs}
    verdict = _verdict([found[pair] for pair in pairs])
    groups = [experiment.nearest(0.5), experiment.of("BC"), experiment.of("DQN")]
    said = "needs CQL, BC and DQN"
    if all(groups):
        reported = [protocol.reported(members) for members in groups]
        alike = protocol.random.mean(axis=0)
        at_random = alike[-1]
        means = " > ".join(f"{100 * float(row.mean()):.1f}" for row in [*reported, at_random])
        order = share_in_order([*reported, at_random])
        said = (
            f"no: for these policies it reports {means} on average and the essay's order in "
            f"{100 * order:.0f} % of the tries; for four policies that all act at random in "
            f"{100 * share_in_order(list(alike)):.0f} %"
        )
    exact = "; ".join(
        f"{one} − {two} {'not examined' if value is None else value}"
        for (one, two), value in found.items()
    )
    return Claim(
        claim="CQL 86.0 > BC 84.0 > DQN 82.0 > random 81.7 %",
        threshold="each of the three differences lies above 0 with its whole interval",
        verdict=verdict,
        exact=exact,
        protocol=said,
    )


def _explosion(experiment: Experiment, protocol: Protocol) -> Claim:
    ends, lowest = [], []
    for member in experiment.of("DQN"):
        loss = read_curve(member, "train/loss")[1]
        if len(loss):
            ends.append(float(loss[-10:].mean()))
            lowest.append(float(loss.min()))
    others = [read_curve(member, "train/loss")[1] for member in experiment.nearest(0.5)]
    calm = [float(loss[-10:].mean()) for loss in others if len(loss)]
    exact, verdict = "needs DQN", "not examined"
    if ends:
        exploded = [end > max(1, 100 * low) for end, low in zip(ends, lowest, strict=True)]
        verdict = HOLDS if all(exploded) else FAILS
        exact = f"its loss ends at {min(ends):.3g} to {max(ends):.3g}"
        if calm:
            exact += f", that of CQL at {min(calm):.3g} to {max(calm):.3g}"
    return Claim(
        claim="DQN's loss explodes, past 200 after 60,000 steps",
        threshold="in every run the mean of the last ten points is above 1 and 100 times the "
        "smallest",
        verdict=verdict,
        exact=exact,
        protocol="yes: it takes no rollouts",
    )


def _peak(experiment: Experiment, protocol: Protocol) -> Claim:
    by_alpha: dict[float, list[Member]] = {}
    for member in experiment.of("DQN") + experiment.of("CQL"):
        by_alpha.setdefault(member.alpha, []).append(member)
    alphas = sorted(by_alpha)
    each = [{member.seed for member in own} for own in by_alpha.values()]
    seeds = set.intersection(*each) if each else set()
    claim = "survival is an inverted U in α with its peak at 0.5"
    threshold = (
        "0.5 has the highest mean, and its difference to the smallest and to the largest α lies "
        "above 0 with its whole paired-t interval over seeds"
    )
    if 0.5 not in alphas[1:-1] or len(seeds) < 2:
        missing = "needs two seeds of α 0.5, of a smaller and of a larger one"
        return Claim(claim, threshold, "not examined", missing, "")
    survival = {
        alpha: np.array([m.survival for m in own if m.seed in seeds])
        for alpha, own in by_alpha.items()
    }
    best = max(alphas, key=lambda a: survival[a].mean())
    gaps = [paired(survival[0.5], survival[end]) for end in (alphas[0], alphas[-1])]
    verdict = _verdict(gaps) if best == 0.5 else FAILS
    reported = np.array([protocol.reported(by_alpha[a]) for a in alphas])
    peaks = np.bincount(reported.argmax(axis=0), minlength=len(alphas)) / reported.shape[1]
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=verdict,
        exact=f"the highest mean is at α={best:g}; 0.5 minus {alphas[0]:g} is {gaps[0]}, minus "
        f"{alphas[-1]:g} {gaps[1]}",
        protocol=f"no: for these policies it puts the peak at 0.5 in "
        f"{100 * peaks[alphas.index(0.5)]:.0f} % of the tries and at α="
        f"{alphas[int(peaks.argmax())]:g} in {100 * peaks.max():.0f} %; blindly it would be "
        f"{100 / len(alphas):.0f} %",
    )


def _seed_spread(experiment: Experiment, protocol: Protocol) -> Claim:
    members = experiment.of("DQN") + experiment.of("CQL")
    small = [m for m in members if m.alpha <= 0.1]
    large = [m for m in members if m.alpha >= 2]
    claim = "seeds spread less with larger α"
    threshold = (
        "the pooled variance over seeds at α ≤ 0.1 is larger than that at α ≥ 2, p < 0.05 in a "
        "one-sided F test"
    )
    ours, theirs = (pooled_variance(g, np.array([m.survival for m in g])) for g in (small, large))
    if ours is None or theirs is None:
        return Claim(claim, threshold, "not examined", "needs two seeds of small and large α", "")
    reported = [
        pooled_variance(group, np.stack([protocol.rates[m].max(axis=0) for m in group]))
        for group in (small, large)
    ]
    ratio = float(ours[0] / theirs[0])
    p = float(scipy.stats.f.sf(ratio, ours[1], theirs[1]))
    spreads = [found[0] for found in reported if found is not None]
    wider = float((spreads[0] > spreads[1]).mean())
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=HOLDS if p < 0.05 else UNDECIDED,
        exact=f"standard deviation {100 * float(ours[0]) ** 0.5:.2f} points at small, "
        f"{100 * float(theirs[0]) ** 0.5:.2f} at large α; F = {ratio:.2f}, p = {p:.3f}",
        protocol=f"no: it finds more spread at small α in {100 * wider:.0f} % of the tries; "
        "its own noise, some 4 points for 100 patients, covers it",
    )


def _concentration(experiment: Experiment, protocol: Protocol) -> Claim:
    claim = "CQL concentrates on few actions: 0, 10 and 20"
    threshold = (
        "in every run of α 0.5 its three most frequent actions, by its own visits, are 0, 10 and "
        "20, with a larger share than the clinicians' three"
    )
    members = [m for m in experiment.everywhere if m.setting == "CQL α=0.5"]
    if not members:
        return Claim(claim, threshold, "not examined", "needs CQL α=0.5", "")
    mdp = experiment.mdp

    def top(table: FloatArray) -> tuple[list[int], float]:
        visits = evaluate(true_dynamics(mdp), table).visits.sum(axis=0)
        three = np.argsort(-visits)[:3]
        return sorted(three.tolist()), float(visits[three].sum() / visits.sum())

    _, clinicians = top(clinician_policy(mdp).probabilities)
    found = [top(member.tables()[-1]) for member in members]
    same = sum(actions == [0, 10, 20] for actions, _ in found)
    more = sum(share > clinicians for _, share in found)
    shares = [share for _, share in found]
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=HOLDS if same == more == len(found) else FAILS,
        exact=f"0, 10 and 20 come first in {same} of {len(found)} runs; CQL's first three make up "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of its decisions, the clinicians' "
        f"{100 * clinicians:.0f} %",
        protocol="yes: it takes no rollouts",
    )


def _rare_actions(experiment: Experiment, protocol: Protocol) -> Claim:
    claim = "on rare actions CQL's Q is negative, and DQN's flat, between 0 and 1"
    threshold = (
        "in every run the mean of CQL's Q (α 0.5) over pairs never recorded is below 0, and DQN's "
        "lies in [0, 1] with a standard deviation over actions below 0.1"
    )
    alive = ~experiment.mdp.terminal
    unseen = (experiment.data.pair_counts == 0) & alive[:, None]
    cautious = [float(m.scores()[unseen].mean()) for m in experiment.nearest(0.5)]
    credulous = [m.scores() for m in experiment.of("DQN")]
    if not cautious or not credulous:
        return Claim(claim, threshold, "not examined", "needs CQL and DQN", "")
    means = [float(q[unseen].mean()) for q in credulous]
    deviations = [float(q[alive].std(axis=1).mean()) for q in credulous]
    negative = max(cautious) < 0
    flat = min(means) >= 0 and max(means) <= 1 and max(deviations) < 0.1
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=HOLDS if negative and flat else FAILS,
        exact=f"CQL's mean over them is {min(cautious):.2f} to {max(cautious):.2f}; DQN's "
        f"{min(means):.3g} to {max(means):.3g}, with a standard deviation over a state's actions "
        f"of {min(deviations):.3g} to {max(deviations):.3g}",
        protocol="yes: it takes no rollouts",
    )


def _coverage(experiment: Experiment, protocol: Protocol) -> Claim:
    mdp = experiment.mdp
    seen = float((experiment.data.pair_counts > 0).mean())
    support = float((mdp.clinician > 0).mean())
    return Claim(
        claim="the data cover 51.7 % of the state-action pairs",
        threshold="within a point",
        verdict=HOLDS if abs(seen - COVERAGE) <= 0.01 else FAILS,
        exact=f"{experiment.data.train.n_episodes:,} episodes have {100 * seen:.1f} % of the "
        f"pairs; {100 * support:.1f} % is what clinicians might do at all",
        protocol="yes: it takes no rollouts",
    )


def _optimum(experiment: Experiment, protocol: Protocol) -> Claim:
    mdp = experiment.mdp
    value = evaluate(true_dynamics(mdp), optimal_policy(mdp).probabilities).survival
    return Claim(
        claim="the optimum survives 88 %",
        threshold="rounds to 88",
        verdict=HOLDS if round(100 * value) == 88 else FAILS,
        exact=f"{100 * value:.2f} % by value iteration",
        protocol="yes: it takes no rollouts",
    )


def _dose_region(experiment: Experiment, protocol: Protocol) -> Claim:
    fluids, vasopressors = experiment.mdp.dose_grid.levels(np.arange(20, 25))
    high = bool((vasopressors == 4).all())
    return Claim(
        claim="actions 20 to 24 are the high-vasopressor region",
        threshold="their vasopressor level is 4, by the source of the environment's tables",
        verdict=HOLDS if high else FAILS,
        exact=f"they have IV-fluid level {_levels(fluids)} and vasopressor level "
        f"{_levels(vasopressors)}",
        protocol="yes: it takes no rollouts",
    )


def _lives(experiment: Experiment, protocol: Protocol) -> Claim:
    claim = "CQL instead of DQN saves 1,600 lives a year among 20,000 admissions"
    threshold = "1,600 lies in the interval of the exact difference times 20,000, and 0 does not"
    found = difference(experiment, "CQL α=0.5", "DQN")
    gap = REPORTED["CQL"] - REPORTED["DQN"]
    arithmetic = f"its own 4 points are {gap * ADMISSIONS:.0f} lives"
    if found is None:
        return Claim(claim, threshold, "not examined", arithmetic, "")
    low, mean, high = (ADMISSIONS * value for value in (found.low, found.mean, found.high))
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=FAILS if not low <= LIVES <= high else UNDECIDED if low <= 0 else HOLDS,
        exact=f"{arithmetic}; exactly {mean:+.0f} ({low:+.0f}, {high:+.0f}), in this simulator",
        protocol="no: see the first line",
    )


def _bound(exhibit: Exhibit | None) -> Claim:
    claim = "CQL's Q is a lower bound of the true value"
    threshold = (
        "at every evaluation of every run with α > 0 the network's value of the start is at most "
        "the exact value of its policy at the training γ"
    )
    rows = [] if exhibit is None else [r for r in exhibit.rows if r["algorithm"] == "CQL"]
    if not rows:
        return Claim(claim, threshold, "not examined", "needs CQL", "")
    below = sum(row["value_estimate"] <= row["exact_value"] for row in rows)
    return Claim(
        claim=claim,
        threshold=threshold,
        verdict=HOLDS if below == len(rows) else FAILS,
        exact=f"it lies below at {below} of {len(rows)} evaluations",
        protocol="yes: it takes no rollouts, but the exact value, which the essay did not have",
    )


_EXAMINATIONS: Final[tuple[Callable[[Experiment, Protocol], Claim], ...]] = (
    _order,
    _explosion,
    _peak,
    _seed_spread,
    _concentration,
    _rare_actions,
    _coverage,
    _optimum,
    _dose_region,
    _lives,
)


def _levels(levels: FloatArray) -> str:
    distinct = sorted({int(level) for level in np.atleast_1d(levels)})
    return f"{distinct[0]}" if len(distinct) == 1 else f"{distinct[0]} to {distinct[-1]}"


def _verdict(differences: Sequence[Difference | None]) -> str:
    there = [found for found in differences if found is not None]
    if len(there) < len(differences):
        return "not examined"
    if all(found.low > 0 for found in there):
        return HOLDS
    return FAILS if any(found.high < 0 for found in there) else UNDECIDED
