"""Pipeline parts, in the order of the line. Nothing here knows of Prefect or DVC.

ingest -> validate -> augment -> select -> finetune -> evaluate -> bias, drift -> gate -> export -> report -> handoff

Shared, from the ground up: ``contracts`` (what crosses stage borders), ``params`` (typed sections of
params.yaml), ``job`` (what one stage run may know), ``plugins`` (name -> module of a family), ``tasks`` and
``backbones`` (families), ``samples`` and ``model`` (reading samples, the network that is trained).
"""
