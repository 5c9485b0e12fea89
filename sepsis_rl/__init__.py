"""Offline reinforcement learning for ICU sepsis treatment.

Policies are learned from recorded clinician decisions with CQL, DQN and behavior cloning, and
judged by exact survival, rollouts and the data itself. For research only: not for clinical use.
"""

__version__ = "0.1.0"
