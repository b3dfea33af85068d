"""Who calls whom.

A person or CI calls `make run`, `dvc repro` or `python -m pipelines` (``__main__``; ``parser`` says what
it understands, ``line`` has the commands about the line).
``flows`` holds the Prefect flows; it walks ``dag`` and runs each stage through ``dvc_cli``, the one door to DVC.
DVC runs `python -m pipelines.stage NAME` (``stage``), the one command of every stage.
``diff``, ``audit`` and ``predict`` read bundles, which ``bundles`` opens and ``versions`` finds in git and DVC's cache.
``release`` signs a bundle, ``verify`` checks it, ``reproduce`` makes its model again.
``new`` makes a project around data, ``summary`` tells in ten lines what a run came to.
"""
