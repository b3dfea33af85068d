"""The files of a run sorted by the headings of Annex IV of the EU AI Act (Regulation (EU) 2024/1689).

Every item stands here: with what a machine can tell and the file that it comes from, and with what is left, marked
"human to fill". It helps with that documentation; whether the documentation is enough is for people to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.handoff.card import HUMAN, parities, shown

Facts = dict[str, Any]
Told = list[tuple[str, str]]
"""What is known, and the files of the bundle that say so."""


@dataclass(frozen=True)
class Item:
    """One item of the annex."""

    number: str
    asks: str
    left: str
    """What no file can say; empty where nothing is left."""
    tell: Callable[[Facts], Told] | None = None


def render(facts: Facts) -> str:
    """annex_iv.md. `facts` are those of the card: facts.collect, the section's params, provenance, profile."""
    lines = [
        f"# {shown(facts['name'])}: the items of Annex IV",
        "",
        "What the run's files say, sorted by Annex IV of Regulation (EU) 2024/1689 (the EU AI Act). This page helps",
        "with the technical documentation; it is not one, and it judges nothing. Who signs for an item adds a name and",
        f"a date. What no file says is marked {HUMAN.strip('*').rstrip(':').lower()!r} and was not guessed.",
        "",
        "| item | from the files | left for people |",
        "|---|---|---|",
    ]
    told = {item.number: [*(item.tell(facts) if item.tell else []), *_stated(facts, item)] for item in ITEMS}
    for item in ITEMS:
        found = told[item.number]
        lines.append(f"| {item.number} | {len(found) or 'nothing'} | {'yes' if item.left else 'no'} |")
    for item in ITEMS:
        lines += ["", f"## {item.number} {item.asks}", ""]
        lines += [f"- {shown(text)} ({files})" for text, files in told[item.number]]
        lines += [f"- {HUMAN} {item.left}"] if item.left else []
    return "\n".join(lines) + "\n"


STATED = {
    "1(a)": ("supplier", "intended_use"), "1(b)": ("domain",), "2(b)": ("users",), "2(c)": ("energy", "energy_kwh"),
    "2(d)": ("data", "data_owner", "data_licence", "personal_data"), "2(e)": ("autonomy", "explainability"),
    "3": ("ethical", "mitigation"), "5": ("safety_risk",), "7": ("standards",),
}  # fmt: skip
"""Keys of `handoff.stated` that say something about an item."""


def _stated(facts: Facts, item: Item) -> Told:
    given = facts.get("stated") or {}
    keys = [key for key in STATED.get(item.number, ()) if given.get(key)]
    return [(f"{key.replace('_', ' ')}, as the owner stated it: {given[key]}", _files("bom.cdx.json")) for key in keys]


def _files(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names)


MAIN_PACKAGES = ("torch", "timm", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")


def _version(facts: Facts) -> Told:
    source = facts["provenance"]
    commit = source.get("commit") or f"not known ({source.get('commit_note') or 'no reason given'})"
    clean = {True: "nothing differs from it", False: "with files that differ from it"}.get(source.get("clean"), "")
    return [
        (f"name of the model: {facts['name']}", _files("provenance.json")),
        (f"code: commit {commit}{', ' + clean if clean else ''}", _files("provenance.json")),
        (f"model.onnx has sha256 {source['model_sha256']}", _files("provenance.json", "SHA256SUMS")),
    ]


def _software(facts: Facts) -> Told:
    environment = facts["provenance"]["environment"]
    packages = environment.get("packages", {})
    named = ", ".join(f"{name} {packages[name]}" for name in MAIN_PACKAGES if name in packages)
    others = len(packages) - sum(name in packages for name in MAIN_PACKAGES)
    return [
        (f"to run it: Python with {', '.join(facts['sample']['requires'])}", _files("requirements.txt")),
        (
            f"made with Python {environment.get('python')}, {named} and {others} more libraries",
            _files("provenance.json", "bom.cdx.json"),
        ),
        (f"dependencies lock: sha256 {facts['provenance']['lock_sha256']}", _files("provenance.json")),
    ]


def _forms(facts: Facts) -> Told:
    forms = "a folder with an ONNX model (opset {}) and a Python program that calls it".format(facts["export"]["opset"])
    served = "configuration for Triton Inference Server and for KServe"
    return [(forms, _files("model.onnx", "predict.py")), (served, _files("serving/triton", "serving/kserve.yaml"))]


def _hardware(facts: Facts) -> Told:
    source = facts["provenance"]["environment"]
    told = f"checked with ONNX Runtime on the CPU of a {source.get('system')} machine, {source.get('machine')}"
    size = f"the model takes {facts['export']['size_mb']} MB on disk"
    return [(told, _files("provenance.json")), (size, _files("model.onnx"))]


def _interface(facts: Facts) -> Told:
    usage = "; ".join(facts["sample"]["usage"])
    return [(f"a command line: {usage}", _files("predict.py", "card.md"))]


def _instructions(facts: Facts) -> Told:
    noun = facts["sample"]["noun"]
    return [
        ("how to install, verify and run it", _files("card.md")),
        (f"what goes in and comes out, and how {noun}s become the input", _files("signature.json")),
    ]


def _methods(facts: Facts) -> Told:
    record, chosen = facts["record"], facts["chosen"]
    return [
        (f"pretrained network: {chosen['title']}, chosen because: {chosen['why']}", _files("evaluation.json")),
        (f"its weights: {facts['base_weights']}", _files("provenance.json", "bom.cdx.json")),
        (
            f"trained by {shown(record['strategy'])}, {record['epochs']} epochs",
            _files("provenance.json", "evaluation.json"),
        ),
        (
            f"did transfer help the training{facts['shipped']['of']}? {facts['transfer'].get('headline')}",
            _files("evaluation.json", "metrics.json"),
        ),
    ]


def _design(facts: Facts) -> Told:
    decision, ladder = facts["decision"], facts.get("ladder") or {}
    return [
        *([(f"shipped as {ladder['variant']}: {ladder['why']}", _files("ladder.json"))] if ladder else []),
        (
            f"it answers with {decision['answer']}; its probabilities are {decision['formula']}",
            _files("signature.json"),
        ),
        (f"labels: {', '.join(map(str, facts['labels'][:20]))}", _files("labels.json")),
        ("every parameter of the run", _files("provenance.json")),
        (str(decision["limit"]), _files("card.md")),
    ]


def _architecture(facts: Facts) -> Told:
    cost, record = facts.get("cost") or {}, facts["record"]
    counted = f"{shown(cost.get('parameters_millions'))} million parameters, {shown(cost.get('gmacs'))} GMACs a sample"
    pins = facts["provenance"]["environment"].get("pins", {})
    return [
        (f"backbone {facts['chosen']['title']} with a linear head: {counted}", _files("bom.cdx.json")),
        ("the stages, what each read and wrote, by hash", _files("provenance.json")),
        (f"training: {record['num_samples_seen']} samples passed through the loss", _files("evaluation.json")),
        (f"arithmetic: {shown(pins)}, device asked for: {facts['device']}", _files("provenance.json")),
    ]


def _data(facts: Facts) -> Told:
    data, source = facts["data"], facts["provenance"]["data"]
    counts = f"{data['num_seen']} seen, {data['num_used']} used, {data['num_quarantined']} set aside"
    reasons = f" ({shown(data['reasons'])})" if data.get("reasons") else ""
    labels = shown(dict(list(data.get("labels", {}).items())[:20]))
    found = "; ".join(f"{f['severity']}, {f['check']}: {f['num_samples']} samples" for f in facts["findings"])
    return [
        (f"manifest of all samples: sha256 {source['manifest_sha256']}", _files("provenance.json")),
        (f"those accepted, with their splits: sha256 {source['accepted_sha256']}", _files("provenance.json")),
        (f"samples: {counts}{reasons}", _files("evaluation.json")),
        (f"splits: {shown(facts['splits'])}", _files("evaluation.json")),
        (f"samples by label: {labels}", _files("evaluation.json")),
        (
            f"cleaning: what cannot be read is set aside with a reason; checks found {found or 'nothing'}",
            _files("evaluation.json"),
        ),
    ]


def _oversight(facts: Facts) -> Told:
    own = facts["shipped"]
    ece = (own["measures"].get("ece") or {}).get("value")
    told = (
        f"probabilities are calibrated (expected calibration error of {own['title']}: {shown(ece)}), so that a limit "
        "can be set below which a person decides"
    )
    return [(told, _files("evaluation.json", "metrics.json"))]


def _testing(facts: Facts) -> Told:
    splits, own = facts["splits"], facts["shipped"]
    rules = [rule for verdict in facts["verdicts"] for rule in verdict.get("rules", ())]
    blessed = next((v for v in facts["verdicts"] if v["stage"] == "export"), None)
    held = sum(bool(rule["passed"]) for rule in rules)
    return [
        (f"{splits['validation']} validation and {splits['test']} test samples", _files("evaluation.json")),
        (str(own["headline"]), _files("evaluation.json", "metrics.json")),
        (f"measures: {', '.join(own['measures'])}, each with a {own['level']} interval", _files("evaluation.json")),
        (f"groups{own['of']}: {facts['groups'].get('headline')}", _files("evaluation.json", "metrics.json")),
        (
            f"shift of the data{own['of'] and ', as it reaches the float32 network'}: {facts['drift'].get('headline')}",
            _files("evaluation.json"),
        ),
        (f"{held} of {len(rules)} rules hold, each with its limit and margin", _files("evaluation.json")),
        *(
            (f"known of the float32 network alone, not of {own['title']}: {rule}", _files("evaluation.json"))
            for rule in ([] if own["exact"] else own.get("not_judged_again", []))
        ),
        *((_against(title, parity), _files("evaluation.json")) for title, parity in parities(facts).items()),
        *((f"{rule['name']}: {rule['why']}", _files("evaluation.json")) for rule in (blessed or {}).get("rules", ())),
    ]


def _against(title: str, parity: dict[str, Any]) -> str:
    return (
        f"{title} against the trained network in PyTorch: at most {shown(parity['relative'])} of the outputs' scale, "
        f"{parity['flips']} labels differ on {parity['num_samples']} samples"
    )


def _security(facts: Facts) -> Told:
    del facts
    return [
        ("every file by its hash, and a signature over them where the bundle was released", _files("SHA256SUMS")),
        ("a check of both in one script that a reader can read", _files("verify.py")),
        ("the parts and where they come from", _files("bom.cdx.json")),
    ]


def _limits(facts: Facts) -> Told:
    own = facts["shipped"]
    gaps = [
        f"{gap['measure']}{own['of']} by {gap['grouping']}: worst {gap['worst']}, gap {shown(gap['gap']['value'])}, "
        f"{gap['verdict']}"
        for gap in facts["groups"].get("gaps", ())
    ]
    small = f"{facts['groups']['num_small']} of {len(facts['groups']['groups'])} groups are too small to be judged"
    return [
        (str(own["headline"]), _files("evaluation.json", "metrics.json")),
        *((gap, _files("evaluation.json")) for gap in gaps[:20]),
        (small, _files("evaluation.json")),
        (f"input: {facts['sample']['input']}", _files("signature.json")),
        *((str(limit), _files("card.md")) for limit in (*facts["sample"]["limits"], *own["limits"])),
    ]


def _monitoring(facts: Facts) -> Told:
    profile = facts.get("profile")
    if not profile:
        return []
    told = (
        f"reference for drift: {profile['properties']['num']} training and {profile['outputs']['num']} validation "
        f"samples, as {facts['shipped']['title']} answers for them, with the detectors and thresholds that judged the "
        "test split"
    )
    return [(told, _files("profile/profile.json")), (profile["risk"], _files("card.md"))]


ITEMS = (
    Item("1(a)", "Intended purpose, provider, version", "the intended purpose, the provider's name, and how this "
         "version relates to earlier ones", _version),
    Item("1(b)", "Interaction with other hardware and software", "the systems that it is used with"),
    Item("1(c)", "Versions of software and firmware", "requirements for updates", _software),
    Item("1(d)", "Forms in which it is placed on the market", "which of these forms are used", _forms),
    Item("1(e)", "Hardware that it is to run on", "the hardware that it is meant for", _hardware),
    Item("1(f)", "As a component of a product: photographs, markings, layout", "whether it is one, and these"),
    Item("1(g)", "User interface provided to the deployer", "any other interface", _interface),
    Item("1(h)", "Instructions for use", "instructions for the deployer's own use", _instructions),
    Item("2(a)", "Methods and steps of development, and pre-trained systems of third parties", "", _methods),
    Item("2(b)", "Design: logic, choices, assumptions, trade-offs", "the reasons for these choices, the people that it "
         "is meant for, and the trade-offs that were made", _design),
    Item("2(c)", "Architecture, and computing resources used", "the machines, and the time and energy that they took",
         _architecture),
    Item("2(d)", "Data: provenance, scope, selection, labelling, cleaning", "how the data were obtained, selected and "
         "labelled, by whom, and under which terms", _data),
    Item("2(e)", "Human oversight", "the measures of oversight, and whether they are enough", _oversight),
    Item("2(f)", "Changes determined in advance", "which changes are planned, and how they keep to the requirements"),
    Item("2(g)", "Validation and testing: data, metrics, logs, reports", "the date, and the signature of the persons "
         "responsible for the tests", _testing),
    Item("2(h)", "Cybersecurity", "the measures where it runs", _security),
    Item("3", "Monitoring, functioning, control: limits, accuracy for groups, input", "foreseeable unintended "
         "outcomes, risks to health, safety and rights, and oversight where it runs", _limits),
    Item("4", "Why these metrics", "why these metrics are the right ones for this purpose"),
    Item("5", "Risk management system (Article 9)", "all of it"),
    Item("6", "Changes over the lifecycle", "the changes made; `python -m pipelines diff` lists those between two "
         "bundles, `python -m pipelines audit` those since the one before"),
    Item("7", "Harmonised standards applied", "the list, or how the requirements are met without them"),
    Item("8", "EU declaration of conformity (Article 47)", "a copy"),
    Item("9", "Performance after placing on the market (Article 72)", "the plan for it", _monitoring),
)  # fmt: skip
