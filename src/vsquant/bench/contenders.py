"""The registry of contenders: vsquant in each format, and every peer."""

from __future__ import annotations

from vsquant.bench.cases import Case, CellCase, FakeQuantizeCase, ModelCase
from vsquant.bench.contender import Contender
from vsquant.bench.our_networks import VsquantCell, VsquantNetwork
from vsquant.bench.ours import PREFIX, VsquantFakeQuantize, VsquantLayer
from vsquant.bench.peers import PEERS


def contenders_of(case: Case) -> tuple[Contender, ...]:
    """All contenders of a case, ours first."""
    return (*(_ours(case, spec) for spec in case.specs), *(peer for peer in PEERS if peer.runs(case)))


def find_contender(case: Case, name: str) -> Contender:
    """The contender of that name; a `KeyError` is a bug of the caller."""
    return {contender.name: contender for contender in contenders_of(case)}[name]


def is_ours(contender: Contender) -> bool:
    """Whether it is vsquant."""
    return contender.name.startswith(PREFIX)


def _ours(case: Case, spec: str) -> Contender:
    if isinstance(case, FakeQuantizeCase):
        return VsquantFakeQuantize(spec)
    if isinstance(case, ModelCase):
        return VsquantNetwork(spec)
    return VsquantCell(spec) if isinstance(case, CellCase) else VsquantLayer(spec)
