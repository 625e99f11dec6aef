"""Loading of the lab's folder: files -> specs, and all problems of all files in one pass.

In: the lab's folder. Out: `LabFiles` with the specs of the usable files, and every problem with file, line
and column.

- `read_lab_folder` lists and reads the files; `yaml_strict` parses a file into a `source_document` with
  positions.
- `schema_cache` and `check_schema` validate a document by its JSON Schema.
- `build_lab`, `build_contract` and `build_experiment` make specs. They use `merge_defaults` and
  `build_pod_settings`.
- `value_relations`, `contract_rules`, `experiment_rules`, `pod_rules` and `cross_file_rules` find
  contradictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nimlab.errors import Problem, SpecError
from nimlab.files.git_worktree import HiddenFile
from nimlab.files.load.build_contract import build_contract
from nimlab.files.load.build_experiment import build_experiment
from nimlab.files.load.build_lab import build_lab
from nimlab.files.load.cross_file_rules import BuiltExperiment, total_problems, without_duplicates
from nimlab.files.load.experiment_rules import experiment_warnings, unsupported_settings
from nimlab.files.load.pod_rules import placement_problems
from nimlab.files.load.read_lab_folder import LoadState
from nimlab.files.load.source_document import Document, file_problem
from nimlab.files.load.value_relations import lab_problems
from nimlab.files.spec import BrokenFile, Contract, Experiment, Lab, LabFiles
from nimlab.stopwatch import stage
from nimlab.value_cache import ValueCache

__all__ = ["load_lab"]


def load_lab(
    root: Path,
    overlay: Mapping[str, str | None] | None = None,
    value_cache: ValueCache | None = None,
    hidden: Sequence[HiddenFile] = (),
) -> LabFiles:
    """Read `lab.yaml`, `contracts/` and `experiments/`, and return specs and problems.

    `overlay` maps paths relative to the root to texts that will be written; None means that the file will be
    removed. Documents in `value_cache` are not validated again. Each file in `hidden` is reported as a
    problem, because Git does not show whether a user deleted it. Raises SpecError with all problems if
    `lab.yaml` itself is unusable.
    """
    state = LoadState(root, overlay or {}, value_cache)
    state.add_hidden(hidden)
    lab = _read_lab(state)
    contracts = {contract.name: contract for contract in _read_contracts(state)}
    documents = list(state.read_folder("experiments", "experiment", state.broken))
    if lab is None:
        raise SpecError(tuple(state.problems))
    for document in state.invalid_documents:
        state.problems.extend(unsupported_settings(document, contracts))
    with stage("validate"):
        built = _build_experiments(state, documents, lab, contracts)
        built = without_duplicates(state, documents, built)
        state.problems.extend(total_problems(built, lab))
    return LabFiles(
        lab=lab,
        contracts=contracts,
        experiments=tuple(sorted((experiment for _, experiment in built), key=lambda e: e.name)),
        broken=tuple(sorted(state.broken, key=lambda broken: (broken.name, broken.source))),
        problems=_sorted(state.problems),
        warnings=_sorted(state.warnings),
    )


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    """Return the problems sorted by position. A problem that two rules reported is included once."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.location, p.code, p.what)))


def _read_lab(state: LoadState) -> Lab | None:
    document, problems = state.read_single("lab.yaml", "lab")
    if document is not None and not problems:
        problems = tuple(placement_problems(document, ("spec", "defaults")))
    state.problems.extend(problems)
    if problems or document is None:
        return None
    contradictions = lab_problems(document)
    state.warnings.extend(problem for problem in contradictions if problem.is_warning)
    errors = [problem for problem in contradictions if not problem.is_warning]
    state.problems.extend(errors)
    return None if errors else build_lab(document)


def _read_contracts(state: LoadState) -> Iterator[Contract]:
    sources: dict[str, str] = {}
    broken: list[BrokenFile] = []
    for document in state.read_folder("contracts", "contract", broken):
        name = document.name
        if name in sources:
            what = f"the contract `{name}` is also defined in {sources[name]}"
            state.problems.append(
                document.problem("duplicate-name", what, ("metadata", "name"), hint="rename one of them")
            )
            continue
        sources[name] = document.path
        built = build_contract(document)
        if isinstance(built, Contract):
            yield built
        else:
            state.problems.extend(built)
            broken.append(BrokenFile(name=name, source=document.path))
    for file in broken:
        state.bad_contracts |= {file.name: file.source, Path(file.source).stem: file.source}


def _build_experiments(
    state: LoadState, documents: list[Document], lab: Lab, contracts: Mapping[str, Contract]
) -> list[BuiltExperiment]:
    if documents and not contracts and not (state.root / "contracts").exists():
        what = "the folder `contracts` is missing; every experiment needs a contract"
        hint = "check `git status` for a deletion, or copy the contracts that nimlab ships"
        state.problems.append(file_problem("contracts", what, hint))
    result: list[BuiltExperiment] = []
    for document in documents:
        cause = _contract_at_fault(state, document, contracts)
        if cause is not None:
            state.broken.append(BrokenFile(name=document.name, source=document.path, cause=cause))
            continue
        built = build_experiment(document, lab, contracts)
        if isinstance(built, Experiment):
            result.append((document, built))
            state.warnings.extend(experiment_warnings(document, lab, contracts))
        else:
            state.problems.extend(built)
            state.broken.append(BrokenFile(name=document.name, source=document.path))
    return result


def _contract_at_fault(state: LoadState, document: Document, contracts: Mapping[str, Contract]) -> str | None:
    """Return the file or folder whose problem makes the experiment's contract unusable, or None.

    The problem is reported once, instead of once per experiment.
    """
    name = document.data["spec"]["contract"]
    if name in contracts:
        return None
    is_folder_bad = any(problem.location.path == "contracts" for problem in state.problems)
    return state.bad_contracts.get(name, "contracts" if is_folder_bad else None)
