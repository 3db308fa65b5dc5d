"""What was found: frozen records, the store that keeps them, and the published tables as data."""

from vsquant.results.columns import Column
from vsquant.results.inspection import Diagnosis, Finding, FindingLevel, Inspection, LayerInspection
from vsquant.results.integers import CodeFlips, IntegerComparison
from vsquant.results.layers import LayerReport
from vsquant.results.profile import IntegerProfile, LayerProfile
from vsquant.results.published import PUBLISHED, PUBLISHED_TRAINING, PublishedTable, PublishedTraining
from vsquant.results.records import Candidate, CellKind, CellRecord, Provenance
from vsquant.results.scores import Aggregate, Difference, Scores
from vsquant.results.store import NUMERICS_VERSION, ResultsStore, content_key, default_store_path
from vsquant.results.surroundings import InstructionSetState, Surroundings
from vsquant.results.table import PER_CHANNEL, Table

__all__ = [
    "NUMERICS_VERSION",
    "PER_CHANNEL",
    "PUBLISHED",
    "PUBLISHED_TRAINING",
    "Aggregate",
    "Candidate",
    "CellKind",
    "CellRecord",
    "CodeFlips",
    "Column",
    "Diagnosis",
    "Difference",
    "Finding",
    "FindingLevel",
    "Inspection",
    "InstructionSetState",
    "IntegerComparison",
    "IntegerProfile",
    "LayerInspection",
    "LayerProfile",
    "LayerReport",
    "Provenance",
    "PublishedTable",
    "PublishedTraining",
    "ResultsStore",
    "Scores",
    "Surroundings",
    "Table",
    "content_key",
    "default_store_path",
]
