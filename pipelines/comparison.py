"""What a bundle was made of, against what is at hand: code, params, libraries, processor, data, weights, by hash.

Takes seconds, so that `reproduce` tells before anything long what cannot come out the same.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components import lineage
from components.params import ParamsError, flat, load_yaml
from pipelines import base_weights, claims, dag, libraries

if TYPE_CHECKING:
    from components.handoff.provenance import Provenance

CAUSES = ("data", "code", "params", "weights", "library", "threads", "instruction set", "machine")
_OF_RUN = {"run.threads": "threads", "run.instruction_set": "instruction set"}
_ABSENT = "not there"
MAX_NAMED = 3
BY_THE_CLOCK = ("select.budget.max_latency_ms", "export.max_latency_ms", "export.max_memory_mb")
BUNDLES = "handoff"
"""The stage that makes the bundle, and so stands in no record of it."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    cause: str
    """One of CAUSES."""
    stage: str
    """The first of the line that it reaches."""
    what: str
    recorded: str
    here: str
    mended: bool = False
    """The recorded commit brings the recorded one along."""
    missing: bool = False
    """It is to be had elsewhere, and `here` says where."""

    def __str__(self) -> str:
        return f"{self.cause}: {self.what}: recorded {self.recorded}, here {self.here}"


@dataclass(frozen=True)
class Comparison:
    """`root` is the project at hand, `told` what the bundle says of its making."""

    root: Path
    told: Provenance

    @cached_property
    def line(self) -> tuple[dag.Stage, ...]:
        """The stages of the project at hand."""
        return dag.load(self.root)

    @cached_property
    def order(self) -> list[str]:
        """The recorded stages, in the order in which they run; those that are no more come last."""
        names = [s.name for s in self.line]
        return sorted(self.told.stages, key=lambda s: (names.index(s) if s in names else len(names), s))

    @cached_property
    def values(self) -> dict[str, Any]:
        """params.yaml at hand, typed and written out as a lineage has them; as it stands, if it has mistakes."""
        from pipelines import stage

        try:
            return {name: one.model_dump(mode="json") for name, one in stage.read_params(self.root).items()}
        except ParamsError:
            return load_yaml(self.root / "params.yaml")

    @cached_property
    def outside(self) -> dict[str, str]:
        """What a record calls `outside/NAME` -> the absolute path that params.yaml at hand gives for it."""
        paths = [v for v in flat("", self.values).values() if isinstance(v, str) and Path(v).is_absolute()]
        return {f"outside/{PurePosixPath(p).name}": p for p in paths}

    def place(self, path: str) -> Path:
        """Where a recorded path lies here."""
        return self.root / self.outside.get(path, path)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The recorded params, with the absolute paths of this machine."""
        return dict(_restored(self.told.params, self.outside))

    def __post_init__(self) -> None:
        claims.judged(self.told)

    def by_the_clock(self) -> list[str]:
        """Params that decide by a measured time or by memory, which nothing can pin."""
        values = flat("", self.params)
        return [f"{key} {values[key]:g}" for key in BY_THE_CLOCK if isinstance(values.get(key), int | float)]

    def differences(self) -> list[Difference]:
        """All of them, in the order of the line and then of CAUSES."""
        found = [*self._code(), *self._params(), *self._libraries(), *self._machine(), *self._data(), *self._weights()]
        return sorted(found, key=self._place_in_line)

    def _place_in_line(self, one: Difference) -> tuple[int, int, str]:
        at = self.order.index(one.stage) if one.stage in self.order else len(self.order)
        return at, CAUSES.index(one.cause), one.what

    def in_workspace(self, folder: Path) -> list[Difference]:
        """What of the files that are about to run is not the recorded one: code, the lock, the stages themselves."""
        found = [replace(d, mended=False) for d in (*self._code(folder), *self._lock(folder))]
        line = {s.name: s for s in dag.load(folder)}
        for name, one in line.items():
            record = self.told.stages.get(name, {})
            declared = sorted(o for o in one.outs if o != f"artifacts/{name}/lineage.json")
            if one.cmd != f"python -m pipelines.stage {name}":
                found.append(Difference("code", name, f"the command of {name}", "a stage of the line", one.cmd))
            if name != BUNDLES and sorted(record.get("outputs", ())) != declared:
                told = f"{len(record['outputs'])} others" if record else "none"
                found.append(Difference("code", name, f"the outputs of {name}", told, f"{len(declared)} in dvc.yaml"))
        gone = sorted(self.told.stages.keys() - line.keys())
        found += [Difference("code", name, f"the stage {name}", "it ran", "dvc.yaml has none") for name in gone]
        return sorted(found, key=self._place_in_line)

    # --- what the recorded commit brings along ---

    def _code(self, folder: Path | None = None) -> Iterator[Difference]:
        for path, digest in self.told.code.items():
            here = lineage.hashes(folder or self.root, [path]).get(path)
            if here != digest:
                stage = next((s for s in self.order if path in self.told.stages[s].get("code", [])), self.order[0])
                yield Difference("code", stage, path, digest[:12], (here or _ABSENT)[:12], mended=True)

    def _params(self) -> Iterator[Difference]:
        for section, values in self.params.items():
            before, now = flat(section, values), flat(section, self.values.get(section, {}))
            stage = section if section in self.order or section == BUNDLES else self.order[0]
            for key in sorted(before.keys() | now.keys()):
                was, here = before.get(key, "not set"), now.get(key, "not set")
                if was != here:
                    yield Difference(_OF_RUN.get(key, "params"), stage, key, str(was), str(here), mended=True)

    # --- what only this machine can bring ---

    def _libraries(self) -> Iterator[Difference]:
        recorded = dict(self.told.environment.get("packages", {}))
        here, locked = libraries.installed(recorded), libraries.locked(self.root)
        for name, version in recorded.items():
            if here.get(name) != version:
                yield Difference("library", self._first_use(name), name, version, here.get(name, "not installed"))
            elif locked.get(name, version) != version:
                yield Difference(
                    "library", self._first_use(name), f"{name} in {libraries.LOCK}", version, locked[name], mended=True
                )
        if all(locked.get(name, version) == version for name, version in recorded.items()):
            yield from self._lock(self.root)
        for stage, other in self.told.environments_that_differ.items():
            for name, version in other.get("packages", {}).items():
                yield Difference("library", stage, f"{name}, of that stage alone", version, recorded.get(name, _ABSENT))
        python = self.told.environment.get("python")
        if python and python != platform.python_version():
            yield Difference("library", self.order[0], "python", python, platform.python_version())

    def _lock(self, folder: Path) -> Iterator[Difference]:
        told, here = self.told.lock_sha256, lineage.hashes(folder, [libraries.LOCK]).get(libraries.LOCK, _ABSENT)
        if told and here != told:
            yield Difference("library", self.order[-1], libraries.LOCK, told[:12], here[:12], mended=True)

    def _first_use(self, name: str) -> str:
        for stage in self.line:
            if stage.name in self.order and name in libraries.closure(stage.libraries):
                return stage.name
        return self.order[0]

    def _machine(self) -> Iterator[Difference]:
        told, first = self.told.environment, self.order[0]
        for key, here in (("machine", platform.machine()), ("system", platform.system())):
            if told.get(key, here) != here:
                yield Difference("machine", first, key, str(told[key]), here)
        processor = lineage.processor()
        if told.get("processor", processor) != processor:
            yield Difference("instruction set", first, "processor", told["processor"], processor)
        run, pins = self.told.params.get("run", {}), told.get("pins", {})
        if pins.get("ATEN_CPU_CAPABILITY") == "avx2" and " avx2" not in processor:
            yield Difference("instruction set", first, "avx2", "pinned", "not in this processor")
        threads = str(run.get("threads", ""))
        if threads and pins.get("OMP_NUM_THREADS", threads) != threads:
            yield Difference("threads", first, "OMP_NUM_THREADS", pins["OMP_NUM_THREADS"], f"{threads} by run.threads")
        if run.get("instruction_set") == "native":  # then what is set outside holds
            for pin in lineage.PINNED[1:]:
                was, here = pins.get(pin, "not set"), os.environ.get(pin, "not set")
                if was != here:
                    yield Difference("instruction set", first, pin, was, here)
        if "accelerator" in told:
            here = _accelerator()
            if here != told["accelerator"]:
                yield Difference("machine", "finetune", "accelerator", told["accelerator"], here)

    # --- inputs ---

    def inputs(self) -> Iterator[tuple[str, str, str]]:
        """(stage, path as recorded, sha256) of what a stage read that no stage made."""
        for stage in self.order:
            for path, digest in self.told.stages[stage]["inputs"].items():
                if not path.startswith("artifacts/") and path != libraries.LOCK:
                    yield stage, path, digest

    def _data(self) -> Iterator[Difference]:
        for stage, path, digest in self.inputs():
            place = self.place(path)
            if not place.exists():
                told = f"not there: looked for at {place}; put it there{_by_dvc(self.root, path)}"
                yield Difference("data", stage, path, digest[:12], told, missing=True)
            elif (here := lineage.hash_path(place)) != digest:
                yield Difference("data", stage, path, digest[:12], f"{here[:12]}{self._which(place)}")

    def _which(self, place: Path) -> str:
        """Which samples are others, where the recorded manifest is at hand."""
        manifest = self.root / "artifacts" / "ingest" / "manifest.parquet"
        if not manifest.is_file() or lineage.hash_file(manifest) != self.told.data.get("manifest_sha256"):
            return ""
        import pandas as pd

        table = pd.read_parquet(manifest)
        if "input.path" not in table:
            return ""
        pairs = [(self.root / p, p, h) for p, h in zip(table["input.path"], table["sha256"])]
        changed = [n for p, n, h in pairs if p.is_relative_to(place) and p.is_file() and lineage.hash_file(p) != h]
        gone = [f"{n} (gone)" for p, n, _ in pairs if p.is_relative_to(place) and not p.is_file()]
        named = [*changed, *gone]
        return f" ({len(named)} samples are others: {', '.join(named[:MAX_NAMED])})" if named else ""

    def _weights(self) -> Iterator[Difference]:
        stage = "select" if "select" in self.order else self.order[0]
        for key, spec in base_weights.named_in(self.params):
            recorded = str(spec.get("sha256") or self._base(spec))
            if not recorded:
                continue
            try:
                here = base_weights.hash_at_hand(self.root, spec)
            except (OSError, ValueError, NotImplementedError) as error:  # an InputError is a ValueError
                yield Difference("weights", stage, key, recorded[:12], str(error), missing=True)
                continue
            if here != recorded:
                yield Difference("weights", stage, key, recorded[:12], here[:12])

    def _base(self, spec: dict[str, Any]) -> str:
        """The recorded hash of the base weights, if that spec names them."""
        base = self.told.base_weights
        same = all(base.get(k) == spec.get(k) for k in ("source", "package"))
        return str(base.get("sha256") or "") if same else ""


def _restored(value: Any, outside: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _restored(v, outside) for k, v in value.items()}
    if isinstance(value, list):
        return [_restored(v, outside) for v in value]
    return outside.get(value, value) if isinstance(value, str) else value


def _by_dvc(root: Path, path: str) -> str:
    return f", or run `dvc pull {path}.dvc`" if (root / f"{path}.dvc").exists() else " (params.yaml names it)"


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
