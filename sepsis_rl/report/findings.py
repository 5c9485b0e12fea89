"""What the essay claims, and what becomes of it: verdict, numbers, what its protocol could show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.stats

from sepsis_rl.policies import Policy
from sepsis_rl.report.claims import CLAIMS as CLAIMS  # as they are entered below
from sepsis_rl.report.claims import (
    FAILS,
    HOLDS,
    NO_ROLLOUTS,
    NOT_EXAMINED,
    UNDECIDED,
    Finding,
    claim,
)
from sepsis_rl.report.experiment import ESSAY_ORDER, Experiment
from sepsis_rl.report.protocol import REPORTED, Protocol, share_in_order
from sepsis_rl.report.statistics import Difference, difference, paired, pooled_variance

ADMISSIONS: Final = 20_000
LIVES: Final = 1600
_ONE_DATA_SET: Final = "needs two data sets at least"
COVERAGE: Final = 0.517
"""The essay's share of state-action pairs that its data have."""


@claim(
    "CQL 86.0 > BC 84.0 > DQN 82.0 > random 81.7 %",
    "each of the three differences lies above 0 with its whole interval",
    "CQL α=0.5",
    "BC",
    "DQN",
)
def _order(experiment: Experiment, protocol: Protocol) -> Finding:
    pairs = [("CQL α=0.5", "BC"), ("BC", "DQN"), ("DQN", "random")]
    found = {pair: difference(experiment, *pair) for pair in pairs}
    at_random = list(protocol.random.mean(axis=0))
    reported = [protocol.reported(experiment.compared[name]) for name in ESSAY_ORDER]
    reported.append(at_random[-1])
    means = " > ".join(f"{100 * float(row.mean()):.1f}" for row in reported)
    said = (
        f"no: for these policies it reports {means} on average and the essay's order in "
        f"{100 * share_in_order(reported):.0f} % of the tries; for four policies that all act "
        f"at random in {100 * share_in_order(at_random):.0f} %"
    )
    exact = "; ".join(
        f"{one} − {two} {_ONE_DATA_SET if value is None else value}"
        for (one, two), value in found.items()
    )
    return Finding(_above_zero(list(found.values())), exact, said)


@claim(
    "DQN's loss explodes, past 200 after 60,000 steps",
    "in every run the mean of the last ten points is above 1 and 100 times the smallest",
    "DQN",
    steps=60_000,
)
def _explosion(experiment: Experiment, protocol: Protocol) -> Finding:
    curves = {
        algorithm: [experiment.loss(member).values for member in members]
        for algorithm, members in experiment.compared.items()
    }
    losses = {name: [loss for loss in own if len(loss)] for name, own in curves.items()}
    ends = {name: [float(loss[-10:].mean()) for loss in own] for name, own in losses.items()}
    if not ends["DQN"]:
        return Finding(NOT_EXAMINED, "needs DQN's loss, which was not logged", "")
    exploded = [loss[-10:].mean() > max(1, 100 * loss.min()) for loss in losses["DQN"]]
    told = f", that of CQL at {_range(ends['CQL'])}" if ends.get("CQL") else ""
    return Finding(
        HOLDS if all(exploded) else FAILS, f"its loss ends at {_range(ends['DQN'])}{told}"
    )


@claim(
    "survival is an inverted U in α with its peak at 0.5",
    "0.5 has the highest mean, and its difference to the smallest and to the largest α lies above "
    "0 with its whole paired-t interval over seeds",
    "CQL α=0.5",
)
def _peak(experiment: Experiment, protocol: Protocol) -> Finding:
    by_alpha = experiment.by_alpha
    alphas = sorted(by_alpha)
    seeds = [{member.seed for member in members} for members in by_alpha.values()]
    common = set.intersection(*seeds) if seeds else set()
    if 0.5 not in alphas[1:-1] or len(common) < 2:
        missing = "needs two seeds of α 0.5, of a smaller and of a larger one"
        return Finding(NOT_EXAMINED, missing, "")
    survival = {
        alpha: np.array([member.survival for member in members if member.seed in common])
        for alpha, members in by_alpha.items()
    }
    best = max(alphas, key=lambda alpha: survival[alpha].mean())
    gaps = [paired(survival[0.5], survival[end]) for end in (alphas[0], alphas[-1])]
    reported = np.array([protocol.reported(by_alpha[alpha]) for alpha in alphas])
    peaks = np.bincount(reported.argmax(axis=0), minlength=len(alphas)) / reported.shape[1]
    return Finding(
        _above_zero(gaps) if best == 0.5 else FAILS,
        f"the highest mean is at α={best:g}; 0.5 minus {alphas[0]:g} is {gaps[0]}, minus "
        f"{alphas[-1]:g} {gaps[1]}",
        f"no: for these policies it puts the peak at 0.5 in "
        f"{100 * peaks[alphas.index(0.5)]:.0f} % of the tries and at α="
        f"{alphas[int(peaks.argmax())]:g} in {100 * peaks.max():.0f} %; blindly it would be "
        f"{100 / len(alphas):.0f} %",
    )


@claim(
    "seeds spread less with larger α",
    "the pooled variance over seeds at α ≤ 0.1 is larger than that at α ≥ 2, p < 0.05 in a "
    "one-sided F test",
    "CQL",
)
def _seed_spread(experiment: Experiment, protocol: Protocol) -> Finding:
    members = experiment.of("DQN") + experiment.of("CQL")
    groups = [m for m in members if m.alpha <= 0.1], [m for m in members if m.alpha >= 2]
    small, large = (pooled_variance(own, np.array([m.survival for m in own])) for own in groups)
    if small is None or large is None:
        return Finding(NOT_EXAMINED, "needs two seeds of small and large α", "")
    best = {member: protocol.rates[member].max(axis=0) for member in members}
    spreads = [pooled_variance(own, np.stack([best[m] for m in own])) for own in groups]
    wider = np.mean(np.greater(*(variance for variance, _ in filter(None, spreads))))
    ratio = float(small[0] / large[0])
    p = float(scipy.stats.f.sf(ratio, small[1], large[1]))
    return Finding(
        HOLDS if p < 0.05 else UNDECIDED,
        f"standard deviation {100 * small[0] ** 0.5:.2f} points at small, "
        f"{100 * large[0] ** 0.5:.2f} at large α; F = {ratio:.2f}, p = {p:.3f}",
        f"no: it finds more spread at small α in {100 * wider:.0f} % of the tries; "
        "its own noise, some 4 points for 100 patients, covers it",
    )


@claim(
    "CQL concentrates on few actions: 0, 10 and 20",
    "in every run of α 0.5 its three most frequent actions, by its own visits, are 0, 10 and 20, "
    "with a larger share than the clinicians' three",
    "CQL α=0.5",
)
def _concentration(experiment: Experiment, protocol: Protocol) -> Finding:
    members = [m for m in experiment.everywhere if m.setting == "CQL α=0.5"]
    _, clinicians = _most_frequent(experiment, experiment.references["clinician"])
    found = [_most_frequent(experiment, member.policy) for member in members]
    same = sum(actions == [0, 10, 20] for actions, _ in found)
    shares = [share for _, share in found]
    more = sum(share > clinicians for share in shares)
    return Finding(
        HOLDS if same == more == len(found) else FAILS,
        f"0, 10 and 20 come first in {same} of {len(found)} runs; CQL's first three make up "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of its decisions, the clinicians' "
        f"{100 * clinicians:.0f} %",
    )


def _most_frequent(experiment: Experiment, policy: Policy) -> tuple[list[int], float]:
    """A policy's three most frequent actions by its own visits, and their share of all."""
    visits = experiment.exact(policy).visits.sum(axis=0)
    three = np.argsort(-visits)[:3]
    return sorted(three.tolist()), float(visits[three].sum() / visits.sum())


@claim(
    "on rare actions CQL's Q is negative, and DQN's flat, between 0 and 1",
    "in every run the mean of CQL's Q (α 0.5) over pairs never recorded is below 0, and DQN's "
    "lies in [0, 1] with a standard deviation over actions below 0.1",
    "CQL α=0.5",
    "DQN",
)
def _rare_actions(experiment: Experiment, protocol: Protocol) -> Finding:
    alive = ~experiment.mdp.terminal
    unseen = (experiment.data.pair_counts == 0) & alive[:, None]
    cql, dqn = ([member.scores for member in experiment.compared[name]] for name in ("CQL", "DQN"))
    low, flat = ([float(scores[unseen].mean()) for scores in own] for own in (cql, dqn))
    deviations = [float(scores[alive].std(axis=1).mean()) for scores in dqn]
    is_flat = min(flat) >= 0 and max(flat) <= 1 and max(deviations) < 0.1
    return Finding(
        HOLDS if max(low) < 0 and is_flat else FAILS,
        f"CQL's mean over them is {min(low):.2f} to {max(low):.2f}; DQN's {_range(flat)}, with a "
        f"standard deviation over a state's actions of {_range(deviations)}",
    )


@claim("the data cover 51.7 % of the state-action pairs", "within a point", steps=0)
def _coverage(experiment: Experiment, protocol: Protocol) -> Finding:
    seen = float((experiment.data.pair_counts > 0).mean())
    support = float((experiment.mdp.clinician > 0).mean())
    return Finding(
        HOLDS if abs(seen - COVERAGE) <= 0.01 else FAILS,
        f"{experiment.data.train.n_episodes:,} episodes have {100 * seen:.1f} % of the pairs; "
        f"{100 * support:.1f} % is what clinicians might do at all",
    )


@claim("the optimum survives 88 %", "rounds to 88", steps=0)
def _optimum(experiment: Experiment, protocol: Protocol) -> Finding:
    value = experiment.reference_survival["optimum"]
    verdict = HOLDS if round(100 * value) == 88 else FAILS
    return Finding(verdict, f"{100 * value:.2f} % by value iteration")


@claim(
    "actions 20 to 24 are the high-vasopressor region",
    "their vasopressor level is 4, by the source of the environment's tables",
    steps=0,
)
def _dose_region(experiment: Experiment, protocol: Protocol) -> Finding:
    fluids, vasopressors = experiment.mdp.dose_grid.levels(np.arange(20, 25))
    return Finding(
        HOLDS if (vasopressors == 4).all() else FAILS,
        f"they have IV-fluid level {fluids.min()} and vasopressor level {vasopressors.min()} to "
        f"{vasopressors.max()}",
    )


@claim(
    "CQL instead of DQN saves 1,600 lives a year among 20,000 admissions",
    "1,600 lies in the interval of the exact difference times 20,000, and 0 does not",
    "CQL α=0.5",
    "DQN",
)
def _lives(experiment: Experiment, protocol: Protocol) -> Finding:
    found = difference(experiment, "CQL α=0.5", "DQN")
    gap = REPORTED["CQL"] - REPORTED["DQN"]
    arithmetic = f"its own 4 points are {gap * ADMISSIONS:.0f} lives"
    if found is None:
        return Finding(NOT_EXAMINED, f"{_ONE_DATA_SET}; {arithmetic}", "")
    low, mean, high = (ADMISSIONS * value for value in (found.low, found.mean, found.high))
    return Finding(
        FAILS if not low <= LIVES <= high else UNDECIDED if low <= 0 else HOLDS,
        f"{arithmetic}; exactly {mean:+.0f} ({low:+.0f}, {high:+.0f}), in this simulator",
        "no: see the first line",
    )


@claim(
    "CQL's Q is a lower bound of the true value",
    "at every evaluation of every run with α > 0 the network's value of the start is at most the "
    "exact value of its policy at the training γ",
    "CQL",
)
def _lower_bound(experiment: Experiment, protocol: Protocol) -> Finding:
    below = [experiment.is_below(member) for member in experiment.of("CQL")]
    at = np.concatenate(below)
    return Finding(
        HOLDS if at.all() else FAILS,
        f"it lies below at {at.sum()} of {len(at)} evaluations",
        f"{NO_ROLLOUTS}, but the exact value, which the essay did not have",
    )


def _above_zero(differences: Sequence[Difference | None]) -> str:
    """Verdict of a claim that holds where all differences are above 0."""
    there = [found for found in differences if found is not None]
    if len(there) < len(differences):
        return NOT_EXAMINED
    if any(found.high < 0 for found in there):
        return FAILS
    return HOLDS if all(found.low > 0 for found in there) else UNDECIDED


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"
