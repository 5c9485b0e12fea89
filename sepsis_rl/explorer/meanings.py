"""What the numbers of ICU-Sepsis mean: its features by name, and its levels of doses.

The installed package has no names. They are those of the program that made its tables,
`icu_sepsis_helpers/mdp_creation/create_rl_table.py` of github.com/icu-sepsis/icu-sepsis: its list
`all_cols` is the order of a center's features, and its `get_action_nums` makes levels of doses. It
has no boundaries in mL or µg/kg/min, nor has the package, so there are none here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sepsis_rl.mdp import FloatArray, TabularMDP

SOURCE: Final = "create_rl_table.py of github.com/icu-sepsis/icu-sepsis"

LEVELS: Final = (
    "Level 0 is none. Levels 1 to 4 are the quarters of the non-zero doses of the cohort "
    "(MIMIC-III), from the lowest to the highest: of IV fluid the volume given in 4 hours, of "
    "vasopressors the highest dose within them. Neither the package nor that program has the "
    f"boundaries in mL or µg/kg/min. Source: {SOURCE}, get_action_nums."
)
CENTERS: Final = (
    "The features of a state are the center of its cluster, as deviations from the mean of the "
    "cohort in standard deviations (SD); those marked log are of the logarithm. Features of two "
    "values are shares of its patients (gender as the source codes it), and the vasopressor dose "
    f"is in the unit of the source, which does not name it. Source: {SOURCE}, all_cols."
)

Kind = Literal["SD", "log SD", "share", "dose"]


@dataclass(frozen=True)
class Feature:
    """A feature of a state's center.

    Attributes:
        name: In words.
        kind: What its values are.
        shift: Added to the environment's number.
        factor: That sum is multiplied by it.
    """

    name: str
    kind: Kind
    shift: float = 0.0
    factor: float = 1.0

    def read(self, column: FloatArray) -> FloatArray:
        """Values of its kind from the environment's numbers, both (n_states,)."""
        values: FloatArray = (column + self.shift) * self.factor
        return values


# The program takes 0.5 off what has two values, and off the vasopressor dose; it adds 0.6 to
# readmission, and doubles the 4-hour input.
FEATURES: Final = (
    Feature("gender, as coded", "share", 0.5),
    Feature("mechanical ventilation", "share", 0.5),
    Feature("highest vasopressor dose, 4 h", "dose", 0.5),
    Feature("readmission", "share", -0.1),
    *(
        Feature(name, "SD")
        for name in (
            *("age", "weight", "Glasgow coma scale", "heart rate", "systolic pressure"),
            *("mean pressure", "diastolic pressure", "respiratory rate", "temperature", "FiO2"),
            *("potassium", "sodium", "chloride", "glucose", "magnesium", "calcium", "hemoglobin"),
            *("white cells", "platelets", "PTT", "PT", "arterial pH", "PaO2", "PaCO2"),
            *("base excess", "bicarbonate", "lactate", "SOFA", "SIRS", "shock index"),
            *("PaO2/FiO2", "cumulated fluid balance"),
        )
    ),
    *(
        Feature(name, "log SD")
        for name in (
            *("SpO2", "blood urea nitrogen", "creatinine", "AST (SGOT)", "ALT (SGPT)"),
            *("total bilirubin", "INR", "fluid input, total"),
        )
    ),
    Feature("fluid input, 4 h", "log SD", factor=0.5),
    Feature("fluid output, total", "log SD"),
    Feature("fluid output, 4 h", "log SD"),
)


def features_of(mdp: TabularMDP) -> Sequence[Feature]:
    """The features of a process; numbered where they are not ICU-Sepsis's."""
    count = mdp.state_vectors.shape[1]
    if mdp.environment_id.startswith("Sepsis/ICU-Sepsis") and count == len(FEATURES):
        return FEATURES
    return [Feature(f"feature {number}", "SD") for number in range(count)]
