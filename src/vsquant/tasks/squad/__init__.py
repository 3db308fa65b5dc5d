"""SQuAD v1.1: extractive question answering with BERT-like models."""

from vsquant.tasks.squad.task import SquadScores, SquadTask

__all__ = ["SquadScores", "SquadTask"]
