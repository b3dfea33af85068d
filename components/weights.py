"""Where pretrained weights come from, and how they are found, checked and read; shared by the backbones.

Nothing here executes what a file holds: safetensors are tensors alone, and of a pickle only tensors are taken, and
those only where its hash is pinned (components/model_files.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components import model_files, params
from components.contracts import InputError

if TYPE_CHECKING:
    import torch


READ = ("*.json", "*.txt", "*.model", "*.spm", "README.md")
"""What is read of a model's folder beside its weights, and fetched of a repository: configurations, tokenizers, the
licence."""


class WeightsError(InputError):
    """Weights that are not there, are not the pinned ones, or do not fit the model."""


class Weights(params.Params):
    """Where the pretrained weights come from. A backbone with more to say of a file makes a subclass."""

    source: Literal["hub", "file", "package", "random"] = "hub"
    """hub: huggingface.co at `revision`. file: `path`. package: `path` (a glob) in it. random: none."""
    package: str | None = None
    """Import name of an installed package that holds the file."""
    path: str | None = None
    """The file, relative to the project; with `package`, a glob inside that."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Refuse a file with another hash. Needed with source file: DVC sees a changed file by it."""

    hashed: ClassVar[str] = "write what `sha256sum {path}` prints"
    """How `sha256` is found."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source in ("file", "package") and not self.path:
            raise ValueError(f"weights from a {self.source} need `path`")
        if self.source == "file" and self.path and not self.sha256:
            raise ValueError(
                "weights from a file need `sha256`, as DVC sees params.yaml and not the file: "
                f"{self.hashed.format(path=self.path)}"
            )
        if self.source == "package" and not self.package:
            raise ValueError("weights from a package need `package`, its import name")
        problem = _leads_out(self)
        if problem:
            raise ValueError(problem)
        if self.source in ("hub", "random") and self.path:
            raise ValueError(f"`path` has no effect with source {self.source}; take it out")
        if self.source != "package" and self.package:
            raise ValueError(f"`package` has no effect with source {self.source}; take it out")
        if self.source == "random" and self.sha256:
            raise ValueError("`sha256` has no effect with source random; take it out")
        return self


class FolderWeights(Weights):
    """Where a folder with the pretrained weights, their configuration and their tokenizer comes from."""

    package: str | None = None
    """Import name of an installed package that holds the folder."""
    path: str | None = None
    """The folder, relative to the project; with `package`, a glob inside that."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Refuse a folder of which any file that is read (see `files_read`) is another: the hash of what `sha256sum a b
    ...` prints for them, run in the folder, in the order of their names. Needed with source file: DVC sees a changed
    file by it. Write 64 zeros where you do not know it: the refusal names the command, and its result."""

    hashed: ClassVar[str] = "write 64 zeros, and the refusal names the command that makes it of {path}, and its result"


def weights_file(weights: Weights) -> Path:
    """The one file that `file` or `package` weights name.

    Raises:
        WeightsError: the package or the file is not there, or the glob fits several.
    """
    return _the_one(weights, "file", Path.is_file)


def weights_folder(weights: Weights) -> Path:
    """The one folder that `file` or `package` weights name.

    Raises:
        WeightsError: the package or the folder is not there, or the glob fits several.
    """
    return _the_one(weights, "folder", Path.is_dir)


def _leads_out(weights: Weights) -> str:
    """Why the file is not looked for: a package within another would be found by running that one's code, and a
    glob must stay inside the package. Empty: it is."""
    if weights.source != "package":
        return ""
    if not str(weights.package).isidentifier():
        return f"`package` must be the name of one installed package, without dots; got {weights.package!r}"
    parts = PurePosixPath(str(weights.path)).parts
    if not parts or parts[0] == "/" or ".." in parts:
        return f"`path` must be a glob inside the package {weights.package}; got {weights.path!r}"
    return ""


def _the_one(weights: Weights, what: str, fits: Callable[[Path], bool]) -> Path:
    if weights.source == "package":
        if problem := _leads_out(weights):
            raise WeightsError(f"weights: {problem}")
        place = importlib.util.find_spec(str(weights.package))
        if place is None or not place.submodule_search_locations:
            raise WeightsError(
                f"the package {weights.package!r} is not installed; see pyproject.toml for those that are"
            )
        folder = Path(next(iter(place.submodule_search_locations)))
        found = sorted(folder.glob(str(weights.path)))
    else:
        folder = Path.cwd()
        found = [folder / str(weights.path)]
    found = [p for p in found if fits(p)]
    if len(found) != 1:
        told = ", ".join(p.name for p in found) or "none"
        raise WeightsError(f"weights path {weights.path!r} must name one {what} in {folder}; found: {told}")
    return found[0]


def hub_file(repository: str, revision: str | None, names: Sequence[str]) -> Path:
    """The first of these files that a repository has at a commit, from the hub or its cache on this machine.

    Raises:
        WeightsError: neither has one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        for name in names:
            try:
                return Path(hf_hub_download(repository, name, revision=revision))
            except RemoteEntryNotFoundError:
                continue
    except Exception as error:  # the hub's client has many ways to fail
        raise hub_refusal(repository, revision, error) from None
    told = f"neither {' nor '.join(names)}" if len(names) > 1 else f"no {names[0]}"
    raise hub_refusal(repository, revision, f"the repository holds {told}")


def hub_folder(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The files of a repository at a commit that fit the patterns, from the hub or its cache on this machine.

    Raises:
        WeightsError: neither has the repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client has many ways to fail
        raise hub_refusal(repository, revision, error) from None


def hub_refusal(repository: str, revision: str | None, why: Exception | str) -> WeightsError:
    """What a user reads when the hub does not give what was asked for."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(why, LocalEntryNotFoundError):
        told = "there is no connection to it, and its cache on this machine does not hold them"
    else:
        told = str(why).strip().splitlines()[0][:300] if str(why).strip() else type(why).__name__
    return WeightsError(
        f"could not get the weights of {repository} at {revision} from the hub: {told}. "
        "Without a network use `weights: {source: file, path: ...}`."
    )


def files_read(root: Path, weights: Iterable[Path], places: Iterable[str] = ("",)) -> list[Path]:
    """What a model rests on in its folder: its weights, and READ in each of the `places` inside. A pin covers them
    all, because configuration and tokenizer decide as much as the weights."""
    beside = {p for place in places for pattern in READ for p in (root / place).glob(pattern) if p.is_file()}
    return sorted({*weights, *beside})


def checked_hash(weights: Weights, file: Path) -> str:
    """The hash of a weights file.

    Raises:
        WeightsError: it is not the pinned one.
    """
    digest = _hash(file)
    _refuse_other(weights, digest, f"{file.name} has sha256")
    return digest


def checked_hashes(weights: Weights, files: Iterable[Path], root: Path) -> str:
    """The hash of several files: that of the lines which sha256sum prints for them in `root`, by name.

    Raises:
        WeightsError: it is not the pinned one.
    """
    found = {p.relative_to(root).as_posix(): _hash(p) for p in files}
    digest = hashlib.sha256("".join(f"{found[n]}  {n}\n" for n in sorted(found)).encode()).hexdigest()
    command = f"cd {shlex.quote(str(root))} && sha256sum {shlex.join(sorted(found))} | sha256sum"
    _refuse_other(weights, digest, f"`{command}` gives")
    return digest


def _refuse_other(weights: Weights, digest: str, told: str) -> None:
    if weights.sha256 and digest != weights.sha256:
        raise WeightsError(f"{told} {digest}, but weights.sha256 pins {weights.sha256}")


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_state(path: Path, weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; or of a state dict in a pickle, where `weights.sha256` pins it.

    Raises:
        UnsafeFile: it is neither; nothing of it was read.
        WeightsError: its tensors have no names, or the library cannot read it.
    """
    import torch
    from safetensors.torch import load_file

    how = f"{weights.hashed.format(path=path)}: that is the value of `weights.sha256`"
    todo = f"Save the tensors as safetensors, or, if you trust who made the file, pin it ({how})"
    kinds = model_files.PINNED if weights.sha256 else model_files.TENSORS
    kind = model_files.check(path, kinds, key="weights.path" if weights.path else "weights", pin=todo)
    try:
        if kind == "safetensors":
            state = load_file(path)
        else:
            with path.open("rb") as stream:  # of a path, torch would go by the name
                state = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path.name} cannot be read ({type(error).__name__}). Save it as safetensors.") from None
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path.name} holds something else than named tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def misfit(file: str, model: str, missing: Iterable[str], unknown: Iterable[str], wrong: Iterable[str]) -> WeightsError:
    """What a user reads when a file is not this model's: the names that differ, at most eight of a kind."""
    lines = [f"{file} does not fit {model}; nothing was loaded."]
    kinds = {"missing in the file": missing, "unknown to the model": unknown, "not fitting": wrong}
    for what, names in kinds.items():
        if found := list(names):
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            lines.append(f"  {what}: {', '.join(found[:8])}{more}")
    return WeightsError("\n".join(lines))


def shapes(name: str, own: Any, given: Any) -> str:
    """One tensor that the model has in another shape than the file."""
    return f"{name}: the model has {tuple(own)}, the file {tuple(given)}"
