"""An existing run folder: its paths, and its experiment, tokenizer and model as objects.

config.json is the experiment as JSON. It is read strictly: unknown and missing fields are errors.
"""

import copy
import dataclasses
import difflib
import functools
import importlib
import json
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.experiment.definition import SECTIONS, Experiment, section_class
from configs.experiment.named_code import OWN_FILTERS, CodePolicy, leave_out_filter, settle_code
from lm.address_space import JAX, check_address_space
from lm.bounded import MOST_CONFIG_BYTES, parse_json, read_bounded
from lm.config import ModelConfig
from lm.errors import InputError, UsageError, shown
from lm.fields import code_names
from lm.run_paths import RunPaths
from lm.storage import Place, Url, file_inside, local_copy_of, local_folder, shown_place
from lm.terminal import listed
from lm.trusted_code import Code, code_hashes, module_code

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lm.formats.parameters import StoredParameters
    from lm.model.transformer import Transformer
    from lm.tokenizer import Tokenizer


RUNS = "*/config.json"
"""Pattern of run folders in a folder."""
PUBLISHED = (
    RunPaths.config_json, RunPaths.tokenizer, RunPaths.imported, RunPaths.funnel, RunPaths.metrics, RunPaths.evaluation
)  # fmt: skip
"""Files and folders of a run whose contents an export publishes, besides its parameters."""


def names_in(folder: Path, pattern: str) -> list[str]:
    """Sorted names of the files or run folders in `folder` that the pattern matches; [] if it cannot be read."""
    try:
        return sorted(one.relative_to(folder).parts[0] for one in folder.glob(pattern))
    except OSError:  # a name that is too long, or a folder that cannot be read
        return []


def similar_path(path: Path, pattern: str = RUNS) -> str:
    """Return " Did you mean X?" if there is a run with a similar name as the missing `path` next to it, or another file
    of that pattern; else ""."""
    similar = difflib.get_close_matches(path.name, names_in(path.parent, pattern), n=1, cutoff=0.75)
    return f" Did you mean {shown(str(path.parent / similar[0]), quotes=False)}?" if similar else ""


class Loaded(NamedTuple):
    """A trained model with everything that is needed to use it."""

    experiment: Experiment
    tokenizer: "Tokenizer"
    model: "Transformer"
    """Model whose parameters are sharded over `mesh`."""
    mesh: "Mesh"
    """Device mesh; trace computations with the model on it (lm.parallel.traced_on)."""
    step: int
    """Training step of the loaded checkpoint or snapshot."""
    one_device: str
    """Reason why only one of several devices is used; "" if all are, or the caller gave the mesh."""


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A run at the step of one checkpoint, whose files are intact. Parameters are read when they are used."""

    folder: "RunFolder"
    experiment: Experiment
    tokenizer: "Tokenizer"
    checkpoint: Place
    about: dict[str, Any]
    """Metadata in the checkpoint's manifest: losses, fingerprint of the tokenizer, library versions."""

    @property
    def config(self) -> ModelConfig:
        return self.experiment.model

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def step(self) -> int:
        return int(self.checkpoint.name)

    @functools.cached_property
    def parameters(self) -> "StoredParameters":
        """The parameters on the disk, one at a time. Raises InputError if they are of another model."""
        from lm.formats.parameters import StoredParameters
        from lm.formats.tensors import parameter_shapes

        parameters = StoredParameters(self.checkpoint)
        parameters.check(parameter_shapes(self.config))
        return parameters


@dataclasses.dataclass(frozen=True, init=False)
class RunFolder(RunPaths):
    """A run in the folder `root`: its paths, and methods that read its config, its tokenizer and its model."""

    @classmethod
    def to_read(cls, url: Url) -> "RunFolder":
        """Open a run in a bucket for reading, through a local copy. Downloads config.json now, other files when
        launch.run_folder.bucket fetches them; writes nothing to the bucket. Raises StorageError if it is unreadable."""
        folder = local_folder(url, "reading")
        files = local_copy_of(folder)
        assert files is not None
        files.refresh()
        files.fetch((), [cls.config_json, cls.stages])
        return cls(folder)

    @property
    def place(self) -> Place:
        """Run folder, or its URL if it is in a bucket."""
        return shown_place(self.root)

    @property
    def name(self) -> str:
        return self.place.resolve().name

    def fetch(self, *parts: str, published: bool = False) -> None:
        """Download files and folders of a run in a bucket. If they are `published`, raise InputError for links out of
        the run folder."""
        if files := local_copy_of(self.root):
            files.fetch((), parts)
        for part in parts if published else ():
            for path in (self.root / part, *(self.root / part).rglob("*")):
                file_inside(self.root, str(path.relative_to(self.root)))

    def load_tokenizer(self) -> "Tokenizer":
        """Load the tokenizer, without the model. Raises InputError if it is missing or damaged."""
        from lm.tokenizer import load

        self.fetch(RunPaths.tokenizer)
        return load(self.tokenizer)

    def experiment(self, policy: CodePolicy = "leave out") -> Experiment:
        """Return the Experiment in config.json, which is that of the last command that produced outputs here. By
        default, untrusted code in it is left out and not run (see CodePolicy in named_code.py).

        Raises UsageError if it is not a run folder, InputError if config.json is damaged or of another version.
        """
        return self.experiment_of(self.saved(), policy)[0]

    def saved(self) -> object:
        """Return the parsed config.json. Raises UsageError if it does not exist, InputError if it is damaged."""
        path = self.config_json
        try:
            return parse_json(read_bounded(path, MOST_CONFIG_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            place = shown_place(self.root)
            raise UsageError(
                f"{shown(str(place), quotes=False)} is not a run folder: it has no {path.name}."
                f"{similar_path(self.root)} Give a run folder, or a config file such as configs/demo.py."
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({error}). Give the run's config file instead of its folder (CONFIG.py --workdir "
                f"{self.root}); the next stage writes {path.name} again."
            ) from error

    def experiment_of(self, saved: object, policy: CodePolicy = "leave out") -> tuple[Experiment, list[Code]]:
        """Return (Experiment of the parsed config.json `saved`, the user's code in it that may run by `policy`). Raises
        InputError if it is of another version, UsageError for untrusted code if the policy refuses it."""
        saved, code = self.settled(saved, policy)
        return self.read(saved, (*SECTIONS, "fitted_to"), policy, Experiment), code

    def unread(self, saved: object, policy: CodePolicy) -> Experiment:
        """Like `experiment_of`, but read only the names of the sections now, and each section at its first use, as
        strictly: InputError is raised there."""
        saved, _ = self.settled(saved, policy)
        read = lambda names, make: self.read(saved, names, policy, make)
        return read(["fitted_to"], lambda fitted_to: Experiment.unread(saved, read, fitted_to))

    def settled(self, saved: object, policy: CodePolicy) -> tuple[Any, list[Code]]:
        """Return (copy of the parsed config.json `saved` without the code that `policy` leaves out, the code that may
        run). Raises UsageError for untrusted code if the policy refuses it."""
        if not isinstance(saved, dict):
            return saved, []
        saved = copy.deepcopy(saved)
        return saved, settle_code(saved, policy, str(self.root))

    def read[Made](self, saved: Any, names: Sequence[str], policy: CodePolicy, make: Callable[..., Made]) -> Made:
        """Return make(**{name: value}) of the fields `names` of the settled config.json `saved`. Raises InputError if
        it has other sections than Experiment, or if the values have other fields or are refused."""
        wrong, unknown, missing, kinds = [], list[str](), list[str](), {name: section_class(name) for name in names}
        if isinstance(saved, dict):
            saved = dict(saved)
            if "documents" in names:
                self.import_filters(saved, leave_out=policy in ("leave out", "read only"))
            elif isinstance(saved.get(OWN_FILTERS), dict):
                del saved[OWN_FILTERS]
            unknown = [name for name in saved if name not in (*SECTIONS, "fitted_to")]
            missing = [name for name in (*SECTIONS, "fitted_to") if name not in saved]
            if "documents" in names and isinstance(found := saved.get("documents"), dict):
                kinds["documents"] = documents_class(found)
            for name in [name for name in names if name in saved]:
                for field, is_unknown in differing_fields(kinds[name], saved[name], name):
                    (unknown if is_unknown else missing).append(field)
        else:
            wrong = [f"it holds {shown(saved)} instead of an object"]
        wrong += [f"it has {listed(unknown, 6)}, which is unknown to this version"] if unknown else []
        wrong += [f"it lacks {listed(missing, 6)}"] if missing else []
        if not wrong:
            try:
                return make(**{name: from_json(kinds[name], saved[name]) for name in names})
            except (UsageError, TypeError) as error:
                wrong = [f"this version refuses it: {str(error).removesuffix('.')}"]
        raise InputError(f"{self.config_json} was written by another version: {'; '.join(wrong)}. {self.remedy()}")

    def import_filters(self, saved: dict, leave_out: bool) -> None:
        """Import the user's filter classes in saved["own_filters"], {name: module and class}, and remove that key. The
        caller has checked that their code is trusted. If a class cannot be imported, remove its filter from `saved` if
        `leave_out` is true, else raise InputError."""
        from data_prep.config.filters import KNOWN, Filter

        if not isinstance(saved.get(OWN_FILTERS, {}), dict):
            return  # reported as an unknown field
        for name, path in saved.pop(OWN_FILTERS, {}).items():
            module, _, attribute = str(path).rpartition(".")
            try:
                module_code(module)  # raises ImportError before anything is imported
                kind = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                if leave_out:
                    leave_out_filter(saved, name)
                    continue
                raise InputError(
                    f"{self.config_json} names the filter {name}, your class {path}, which cannot be imported: "
                    f"{error}. Put its folder on PYTHONPATH, or give the run's config file instead of its folder "
                    f"(CONFIG.py --workdir {self.root})."
                ) from error
            if not (isinstance(kind, type) and issubclass(kind, Filter)):
                raise InputError(
                    f"{self.config_json} names the filter {name}, but {path} is not a filter class. {self.remedy()}"
                )
            KNOWN[name] = kind

    def remedy(self) -> str:
        return (
            f"Give the run's config file instead of its folder (CONFIG.py --workdir {self.root}), or use the git "
            "commit that wrote the run."
        )

    def open(self, step: int | None = None, experiment: Experiment | None = None) -> OpenedRun:
        """Open the run at a `step` (default: the newest) of its checkpoints or else snapshots, and verify its files.
        `experiment` defaults to that of the run.

        With several processes, all must call it. Raises InputError for files that are missing, damaged, or of another
        model or tokenizer, UsageError if there are only checkpoints of other steps.
        """
        from lm.checkpoints.manifest import folders_of, read_manifest
        from lm.checkpoints.reading import whole_parameters

        experiment = experiment or self.experiment()
        found = whole_parameters(folders_of(self), step)
        about, tokenizer = read_manifest(found)["about"], self.load_tokenizer()
        check_model_code(experiment.model, about, found)
        trained_with = about.get("tokenizer")
        if trained_with not in (None, tokenizer.fingerprint):
            raise InputError(
                f"{found} was trained with tokenizer {trained_with}, but {self.tokenizer} is {tokenizer.fingerprint}. "
                "Restore the tokenizer that the run was trained with."
            )
        if tokenizer.vocab_size > experiment.model.vocab_size:
            raise InputError(
                f"The tokenizer in {self.tokenizer} has ids up to {tokenizer.vocab_size - 1:,}, but model.vocab_size "
                f"= {experiment.model.vocab_size:,} in {self.config_json}. Restore the files that the run was trained "
                "with."
            )
        return OpenedRun(self, experiment, tokenizer, found, about)

    def open_to_publish(self, step: int | None = None, policy: CodePolicy = "leave out") -> OpenedRun:
        """Open the run for an export, as `open` does; also check its parameters. Raises InputError for links out of the
        run folder too."""
        self.fetch(*PUBLISHED, published=True)
        run = self.open(step, self.experiment(policy))
        _ = run.parameters
        return run

    def load(self, mesh: "Mesh | None" = None, step: int | None = None, experiment: Experiment | None = None) -> Loaded:
        """Open the run and load its model, sharded over `mesh`; by default over all devices as in train.mesh, or on one
        device if the devices do not fit train.mesh. Arguments and errors are otherwise those of `open`; raises
        InputError for parameters that are not finite."""
        check_address_space(JAX)
        from lm.checkpoints.reading import check_finite, read_parameters
        from lm.inference.devices import inference_mesh

        run, one_device = self.open(step, experiment), ""
        if mesh is None:
            mesh, one_device = inference_mesh(run.experiment.train.mesh, run.config)
        model = read_parameters(run.config, run.checkpoint, mesh)
        check_finite(model, run.checkpoint)
        return Loaded(run.experiment, run.tokenizer, model, mesh, run.step, one_device)


def check_model_code(config: ModelConfig, about: dict[str, Any], checkpoint: Place) -> None:
    """Raise InputError if the user's modules of the model have changed since training. `about` is the metadata of the
    checkpoint; without a list of modules, as in older versions, nothing is checked."""
    trained_with, now = about.get("model_code"), code_hashes(code_names(config, "model."))
    if trained_with not in (None, now):
        raise InputError(
            f"{checkpoint} was trained with another version of the code of its model: {json.dumps(trained_with)}, and "
            f"the code is now {json.dumps(now)}. Restore the module that the run was trained with, or train again."
        )


def experiment_json(experiment: Experiment) -> str:
    """Return the contents of config.json for `experiment`."""
    from configs.recipes.gristmill import FILTERS

    shipped = {type(one) for one in FILTERS}
    own = {one.name: type(one) for one in experiment.documents.filters if type(one) not in shipped}
    named = {name: f"{kind.__module__}.{kind.__qualname__}" for name, kind in own.items()}
    return json.dumps(dataclasses.asdict(experiment) | ({OWN_FILTERS: named} if named else {}), indent=1)


def documents_class(saved: dict) -> Any:
    """Return the subclass of DocumentsConfig with the filters that the JSON object `saved` has, in their order, because
    each recipe has its own filters."""
    from configs.recipes.gristmill import FILTERS
    from data_prep.config import DocumentsConfig
    from data_prep.config.documents import class_with
    from data_prep.config.filters import KNOWN

    fixed = {field.name for field in dataclasses.fields(DocumentsConfig)}
    filters = KNOWN | {one.name: type(one) for one in FILTERS}
    kinds = {name: filters[name] for name in saved if name in filters and name not in fixed}
    KNOWN.update(kinds)  # counts and reports look up filters there
    return class_with(tuple(kinds.values()))


def part_in(hint: Any) -> Any:
    """Return the dataclass in a type hint, X for `X` or `X | None`; None if there is none."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else [hint]
    return next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def differing_fields(hint: Any, saved: object, name: str) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, whether only `saved` has it) of the fields that only the parsed JSON `saved` or only the type
    `hint` has."""
    kind = part_in(hint)
    if kind is not None and isinstance(saved, dict):
        fields = [field.name for field in dataclasses.fields(kind)]
        yield from ((f"{name}.{key}", True) for key in saved if key not in fields)
        yield from ((f"{name}.{field}", False) for field in fields if field not in saved)
        hints = typing.get_type_hints(kind)
        for field in fields:
            if field in saved:
                yield from differing_fields(hints[field], saved[field], f"{name}.{field}")
    elif typing.get_origin(hint) is tuple and isinstance(saved, list):
        for number, one in enumerate(saved):
            yield from differing_fields(typing.get_args(hint)[0], one, f"{name}[{number}]")


def from_json(hint: Any, saved: Any) -> Any:
    """Convert parsed JSON to the type `hint`: objects to dataclasses, arrays to tuples. Raises UsageError for values
    that a dataclass refuses."""
    kind = part_in(hint)
    if kind is not None and isinstance(saved, dict):
        hints = typing.get_type_hints(kind)
        return kind(**{field: from_json(hints[field], value) for field, value in saved.items()})
    if typing.get_origin(hint) is tuple and isinstance(saved, list):
        item = typing.get_args(hint)[0]
        return tuple(from_json(item, one) for one in saved)
    return saved
