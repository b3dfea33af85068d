"""The network as it was trained, float32: the rung that every other one is held against.

What: nothing is changed.
When: always there; ships where nothing else is clearly faster within the loss allowed.
Not when: never left out.
Settings: none.
Cost: none.
Evidence here: parity in artifacts/export/export.json; tests/contracts/test_rungs.py.
Source: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components import params

if TYPE_CHECKING:
    import onnx

    from components.export.graph import Samples

CALIBRATED = False
LIMITS: tuple[str, ...] = ()
"""What a card says of a model of this rung."""


class Params(params.Params):
    """No options."""


def not_worth(network: onnx.ModelProto) -> str:
    """Why there is nothing to gain with this network; empty: it is tried."""
    del network
    return ""


def made(network: onnx.ModelProto, samples: Samples, params: Params) -> tuple[onnx.ModelProto, str]:
    """The network itself, and what there is to tell about it."""
    del samples, params
    return network, ""
