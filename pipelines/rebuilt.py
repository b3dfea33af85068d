"""What was made again, against what was recorded and against the given bundle: every output and every file, both ways.

What counts are the given bundle's own files, not what it says of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components import lineage
from components.contracts import read_json
from components.params import flat
from pipelines import claims, dvc_cli
from pipelines.claims import PROVENANCE
from pipelines.comparison import BUNDLES, Comparison, Difference
from pipelines.stage import DECISIONS

UNEXPLAINED = "not known: inputs, code, params and libraries are the recorded ones, so this stage is not deterministic"
OF_MACHINES = ("library", "threads", "instruction set", "machine")
"""Causes that a provenance tells of its environment."""
ENVIRONMENT = "buildDefinition.internalParameters.environment"
MAX_NAMED = 4


@dataclass(frozen=True)
class Rebuilt:
    """A workspace in which the line ran."""

    comparison: Comparison
    known: list[Difference]
    """What was known before to differ."""
    given: Path
    """The bundle."""
    folder: Path
    outcome: dvc_cli.Outcome

    @cached_property
    def bundle(self) -> Path:
        """The bundle that was made."""
        return self.folder / "artifacts" / BUNDLES / "bundle"

    def same(self) -> bool:
        """Tell every stage, the bundle, and the first stage that differs."""
        told = self.comparison.told
        print(f"\n{'stage':10} {'outputs':>8}  rebuilt")
        differing = [s for s in self.comparison.order if self._stage_differs(s)]
        files = claims.files(self.given)
        if self._bundle_differs(files) | self._provenance_differs():
            differing.append(BUNDLES)
        differing += self.outcome.failed
        self._tell_decision()
        if differing:
            print(f"\nNOT REPRODUCED: the first stage that differs is {differing[0]}; the cause: ", end="")
            print(self._cause(differing[0]))
            if self.outcome.told:
                print(self.outcome.told)
            return False
        num = "1 file" if len(files) == 1 else f"{len(files)} files"
        print(f"\nREPRODUCED: every output of {len(told.stages)} stages, and {num} of the bundle, byte for byte")
        return True

    # --- what differs ---

    def _stage_differs(self, stage: str) -> bool:
        recorded = self.comparison.told.stages[stage]["outputs"]
        made = lineage.hashes(self.folder, recorded)
        return _row(stage, len(recorded), sorted(p for p, digest in recorded.items() if made.get(p) != digest))

    def _bundle_differs(self, files: dict[str, str]) -> bool:
        made = claims.files(self.bundle)
        others = [name for name in sorted(files.keys() | made.keys()) if files.get(name) != made.get(name)]
        lacking = {name: "was not made" if name in files else "is not in the bundle" for name in files.keys() ^ made}
        lines = [f"{name} ({lacking[name]})" if name in lacking else name for name in others]
        if claims.MODEL not in files or claims.MODEL not in made:
            lines = lines or [f"{claims.MODEL} (there is none)"]
        return _row("bundle", len(files), lines)

    def _provenance_differs(self) -> bool:
        """Whether more of it differs than the words on the code's history, which name the commits around it."""
        if not (self.bundle / PROVENANCE).is_file():
            return True
        (before, history), (now, history_now) = (_statement(one / PROVENANCE) for one in (self.given, self.bundle))
        others = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if any(one.cause in OF_MACHINES for one in self.known):  # told, and wanted anyway
            others = [k for k in others if ENVIRONMENT not in k]
        if others:
            _row("", 1, [f"{PROVENANCE}: {k.removeprefix('predicate.')}" for k in others])
        elif history != history_now:
            print(f"{'':19}  {PROVENANCE} names another commit or another state of the tree, and is the same else")
        return bool(others)

    # --- why ---

    def _cause(self, stage: str) -> str:
        """Of what was known before, all that reaches that stage; else what the new lineage names otherwise."""
        line, told = self.comparison.line, self.comparison.told
        earlier = [d for d in self.known if stage in (d.stage, BUNDLES, *dvc_cli.needing(line, [d.stage]))]
        if earlier:
            return causes(earlier)
        if stage not in told.stages:
            return self._cause_of_bundle()
        clock = [one for one in self.comparison.by_the_clock() if one.startswith(f"{stage}.")]
        made = self.folder / "artifacts" / stage / "lineage.json"
        if not made.is_file():
            return "it was not made"
        return self._otherwise(read_json(made), stage) or (
            f"perhaps a time that was measured otherwise, which {' and '.join(clock)} asks for"
            if clock
            else UNEXPLAINED
        )

    def _otherwise(self, now: dict[str, Any], stage: str) -> str:
        """What a stage's new lineage names otherwise than its record."""
        told = self.comparison.told
        record = told.stages.get(stage, {})
        pairs = (
            ("code", {p: told.code.get(p) for p in now["code"]}, now["code"]),
            ("params", {k: v for k, v in self.comparison.params.items() if k in now["params"]}, now["params"]),
            ("library", told.environment.get("packages", {}), now["environment"]["packages"]),
            ("threads", told.environment.get("pins", {}), now["environment"]["pins"]),
            ("data", record.get("inputs", {}), now["inputs"]),
        )
        for cause, before, after in pairs:
            changed = sorted(k for k in after if k in before and before[k] != after[k])
            if changed:
                return f"{cause} ({', '.join(_short(changed))})"
        return ""

    def _cause_of_bundle(self) -> str:
        if not (self.bundle / PROVENANCE).is_file():
            return "it was not made"
        if claims.files(self.given) == claims.files(self.bundle):
            return f"what {PROVENANCE} says does not come out when it is made again"
        if len({str(_statement(one / PROVENANCE)[1]) for one in (self.given, self.bundle)}) > 1:
            return "code (the history of it, which the bundle's files name, is another here), or these files"
        return "these files, or the stage's own params or code, which a bundle does not record"

    def _tell_decision(self) -> None:
        """Whether measuring again would have decided otherwise, as the stage says it of a decision it was given."""
        try:
            again = read_json(self.folder / "reports" / "export" / "ladder.json")["measured"]
            told = read_json(self.folder / DECISIONS[1])["export"]["variant"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        now = "and measured here it would ship again" if again == told else f"but measured here {again} would ship"
        print(f"\nThe variant was pinned to the recorded {told}, {now}.")


def _statement(path: Path) -> tuple[dict[str, Any], Any]:
    """A provenance flat without what it says of the code's history, and that."""
    value = json.loads(path.read_bytes())
    built = value["predicate"]["buildDefinition"]
    depends = built["resolvedDependencies"]
    source = [i for i, one in enumerate(depends) if one["name"] == "source"][:1]
    history = [built["internalParameters"].pop("source"), *(depends.pop(i) for i in source)]
    built["resolvedDependencies"] = {f"{i} {one['name']}": one for i, one in enumerate(depends)}
    return flat("", value), history


def causes(found: Iterable[Difference]) -> str:
    """All of them, the first one of the line first."""
    told = list(dict.fromkeys(f"{d.cause} ({d.what})" for d in found))
    more = [f"and {len(told) - MAX_NAMED} more"] if len(told) > MAX_NAMED else []
    return ", ".join([*told[:MAX_NAMED], *more])


def _row(name: str, num: int, others: list[str]) -> bool:
    """Tell a line, and whether anything differs."""
    state = f"differs: {', '.join(_short(others))}" if others else "same"
    print(f"{name:10} {num:8}  {state}")
    return bool(others)


def _short(paths: list[str]) -> list[str]:
    names = ["/".join(p.split("/")[2:]) if p.startswith("artifacts/") else p for p in paths]
    return names if len(names) <= MAX_NAMED else [*names[:MAX_NAMED], f"and {len(names) - MAX_NAMED} more"]
