"""Draws docs/images/rooms.svg: the package's rooms, and which of them import which.

    python docs/draw_rooms.py

A room is a file or a folder of `sepsis_rl/`. The lines are read from the imports. One that follows
from others is left out: what imports `ope` need not show that it imports `dynamics` too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sepsis_rl"
PICTURE = Path(__file__).parent / "images" / "rooms.svg"

ROWS: tuple[dict[str, str], ...] = (
    {
        "errors": "wrong input, in one message",
        "files": "files that are whole or not there",
        "randomness": "draws by their address",
        "display": "what people see on screen",
        "registration": "what gymnasium knows",
    },
    {"mdp": "the simulator's tables"},
    {"dynamics": "what follows a decision"},
    {"planning": "exact values, best policies"},
    {
        "policies": "tables of probabilities",
        "baselines": "policies of records alone",
    },
    {
        "envs": "the environment, batched",
        "vector_env": "the same, for gymnasium",
        "metrics": "survival with intervals",
        "rollouts": "patients treated by a policy",
        "evaluation": "scores of policies",
    },
    {"data": "records, and how they are read"},
    {"algorithms": "BC, DQN, CQL"},
    {"ope": "what records say of a policy"},
    {
        "figures": "what drawings share",
        "loggers": "curves of a run",
        "callbacks": "what happens around training",
    },
    {"runs": "finished runs, choosing"},
    {
        "pages": "pages of figures and tables",
        "report": "the experiment and the truth",
        "scorecard": "estimators against the truth",
        "explorer": "policies, state by state",
    },
    {"cli": "the lightning command"},
)
"""The rooms in order, with what lives there. A room imports only from rooms before it."""

ORDER = [room for row in ROWS for room in row]

_STEP, _BOX_WIDTH, _BOX_HEIGHT, _WIDTH = 40, 345, 30, 735
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666")


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports from, wherever in its files the imports stand."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__"):  # the doors, which lead to every room
            found.setdefault(parts[0], set()).update(_imported(path))
    return {room: others - {room} for room, others in found.items()}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == PACKAGE.name and rest and not rest[0].startswith("__"):
                yield rest[0]


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph without the imports that follow from others."""
    reached: dict[str, set[str]] = {}
    for room in ORDER:
        others = graph.get(room, set())
        reached[room] = others.union(*(reached.get(other, set()) for other in others))
    return {
        room: {
            other
            for other in others
            if not any(other in reached.get(between, set()) for between in others - {other})
        }
        for room, others in graph.items()
    }


def draw() -> str:
    """The picture, as SVG."""
    height = _STEP * len(ORDER) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="14">',
        "<title>The rooms of sepsis_rl; each imports only from those above it</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#333"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, row in enumerate(ROWS):
        top = _middle(next(iter(row))) - _STEP / 2
        lines.append(
            f'<rect x="0" y="{top:g}" width="{_BOX_WIDTH + 20}" height="{_STEP * len(row)}" '
            f'fill="{("#ffffff", "#f1f1f1")[number % 2]}"/>'
        )
        for room, about in row.items():
            y, folder = _middle(room), "/" if (PACKAGE / room).is_dir() else ".py"
            lines += [
                f'<rect x="10" y="{y - _BOX_HEIGHT / 2:g}" rx="5" width="{_BOX_WIDTH}" '
                f'height="{_BOX_HEIGHT}" fill="#e8f0f6" stroke="#333"/>',
                f'<text x="22" y="{y + 5:g}"><tspan font-weight="bold">{room}{folder}</tspan>'
                f'<tspan x="142">{escape(about)}</tspan></text>',
            ]
    graph = reduced(imports())
    for room in ORDER:
        lines += [_arc(room, other) for other in sorted(graph[room], key=ORDER.index)]
    return "\n".join([*lines, "</svg>", ""])


def _middle(room: str) -> float:
    return 10 + _STEP * (ORDER.index(room) + 0.5)


def _arc(room: str, other: str) -> str:
    """From a room to the one that it imports; the farther apart, the wider."""
    y, end, x = _middle(room) - 5, _middle(other) + 5, _BOX_WIDTH + 10
    out = x + 24 + 0.55 * (y - end)
    color = _COLORS[ORDER.index(room) % len(_COLORS)]
    return (
        f'<path d="M{x} {y:g} C{out:g} {y:g} {out:g} {end:g} {x} {end:g}" fill="none" '
        f'stroke="{color}" stroke-width="1.6" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
