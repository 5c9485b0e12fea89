"""Draws docs/images/survival.png, the picture at the head of the README.

Lines are the exact survival of nine runs of 100,000 steps, from docs/essay; reference lines are
solved here; the points at the right are what the essay reports. `python docs/draw_survival.py`
draws it anew.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.data import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.figures import label_axes, label_steps, new_figure, picture, setting_style
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy, random_policy

DOCS = Path(__file__).parent
EVALUATIONS = DOCS / "essay" / "2-survival-in-training.csv"

# https://github.com/anishmariathasan/CQL-sepsis: the best of 20 evaluations on 100 patients each.
ESSAY = {"CQL": 0.86, "BC": 0.84, "DQN": 0.82, "random": 0.817}
DATA_SEED = 42


def references() -> dict[str, float]:
    """Exact survival of what the learned policies are held against, by name."""
    mdp = load_icu_sepsis()
    clinician = clinician_policy(mdp)
    episodes = collect(mdp, clinician, episodes=5000, seed=DATA_SEED)
    counts = episodes.counts(mdp.n_states, mdp.n_actions)
    policies = {
        "optimum": optimal_policy(mdp),
        "tabular, same data": tabular_policy(counts, mdp),
        "clinician": clinician,
        "random": random_policy(mdp),
    }
    truth = true_dynamics(mdp)
    return {name: evaluate(truth, p.probabilities).survival for name, p in policies.items()}


def draw() -> Figure:
    """Survival in training, and what was reported of it."""
    figure = new_figure(8.4, 3.9, dpi=120)
    axes, reported = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    runs = pd.read_csv(EVALUATIONS).groupby(["algorithm", "seed"], sort=False)
    labeled = set()
    for (algorithm, _), run in runs:
        style = setting_style(algorithm) | {"marker": "", "linewidth": 1.2}
        label = None if algorithm in labeled else {"CQL": "CQL, α 0.5"}.get(algorithm, algorithm)
        labeled.add(algorithm)
        axes.plot(run["step"], 100 * run["survival_exact"], label=label, **style)
    for name, survival in references().items():
        for panel in (axes, reported):
            panel.axhline(100 * survival, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
        # The runs lie over the lowest two lines.
        panel, x = (reported, -0.017) if name in ("clinician", "random") else (axes, 2000)
        below = name == "random"
        panel.annotate(
            f"{name} {100 * survival:.1f} %",
            (x, 100 * survival),
            xytext=(0, -2 if below else 2),
            textcoords="offset points",
            va="top" if below else "bottom",
            fontsize=8,
            color="0.2",
        )
    label_axes(axes, y="90-day survival, %", title="what each policy is worth, exactly; 3 seeds")
    label_steps(axes)
    axes.set(xlim=(0, 100_000), ylim=(76, 88.5))
    axes.legend(loc="center right", fontsize=8, frameon=False, bbox_to_anchor=(1, 0.66))
    for name, survival in ESSAY.items():
        style = setting_style(name)
        reported.plot(0, 100 * survival, color=style["color"], marker=style["marker"], ms=8)
        height = 100 * survival + {"DQN": 0.1, "random": -0.4}.get(name, -0.15)
        reported.annotate(f"{name} {100 * survival:g} %", (0.01, height), fontsize=8)
    label_axes(reported, title="the essay's report")
    reported.set(xticks=[], xlim=(-0.02, 0.06))
    return figure


if __name__ == "__main__":
    (DOCS / "images" / "survival.png").write_bytes(picture(draw(), "survival")["survival.png"])
