"""Parts of the networks through torch.compile (CUDA graphs on a GPU), with the plain ones to fall back on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Compiled"]

log = logging.getLogger(__name__)


class Compiled:
    """A function of tensors to one tensor, compiled when it is first called (again for every other shape).

    On a GPU calls are recorded as CUDA graphs, whose memory the next call takes again: results are copies. Where torch
    cannot compile (no compiler, no Triton), a warning says so once and the plain function is used.
    """

    def __init__(self, function: Callable[..., Tensor], device: str) -> None:
        self._plain, self._graphs = function, device == "cuda"
        mode = "reduce-overhead" if self._graphs else "default"
        self._compiled: Callable[..., Tensor] | None = torch.compile(function, mode=mode, dynamic=False)

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The function's result."""
        if self._compiled is None:
            return self._plain(*tensors)
        try:
            result = self._compiled(*tensors)
        except Exception as error:  # torch's compilers raise whatever their parts do
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("--compile: torch cannot compile the networks here (%s); they run as they are", reason[:200])
            self._compiled = None
            return self._plain(*tensors)
        return result.clone() if self._graphs else result
