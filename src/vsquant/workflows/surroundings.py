"""What vsquant runs on here and now."""

from __future__ import annotations

import platform

import torch

import vsquant
from vsquant.kernels import native, registry
from vsquant.results import InstructionSetState, Surroundings


def surroundings() -> Surroundings:
    """Versions, threads, and the kernels in use with the instruction sets they were chosen from."""
    status = native.status()
    return Surroundings(
        vsquant=vsquant.__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        isa=status.isa,
        reason=status.reason,
        instruction_sets=tuple(
            InstructionSetState(
                name=each.name, built=each.built, supported=each.supported, used=each.name == status.isa
            )
            for each in status.instruction_sets
        ),
        integer_backend=registry.forced_backend(),
    )
