"""Rules across experiments: unique names, and the lab's limits for all experiments together.

In: documents and the experiments built from them. Out: problems, and the experiments that remain usable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeAlias

from nimlab.errors import Problem
from nimlab.files.load.read_lab_folder import LoadState
from nimlab.files.load.source_document import Document
from nimlab.files.spec import BrokenFile, Experiment, Lab
from nimlab.units import format_cpu_m, format_memory_bytes

BuiltExperiment: TypeAlias = tuple[Document, Experiment]
"""An experiment, with the document that it was built from."""


def without_duplicates(
    state: LoadState, documents: list[Document], built: list[BuiltExperiment]
) -> list[BuiltExperiment]:
    """Return the experiments whose name is unique. If several files use a name, all of them are unusable."""
    by_name: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_name[document.name].append(document)
    duplicates = {
        name: documents_of_name for name, documents_of_name in by_name.items() if len(documents_of_name) > 1
    }
    reported = {broken.source for broken in state.broken}
    for name, documents_of_name in duplicates.items():
        for document in documents_of_name:
            others = ", ".join(other.path for other in documents_of_name if other is not document)
            what = f"the experiment `{name}` is also defined in {others}"
            state.problems.append(
                document.problem("duplicate-name", what, ("metadata", "name"), hint="rename one of them")
            )
            if document.path not in reported:
                state.broken.append(BrokenFile(name=name, source=document.path))
    return [(document, experiment) for document, experiment in built if experiment.name not in duplicates]


def total_problems(built: list[BuiltExperiment], lab: Lab) -> Iterator[Problem]:
    """Yield one problem for each limit that all experiments together exceed.

    The problem is located at the largest experiment. All experiments remain usable, because the user decides
    which experiment to reduce.
    """
    limits = lab.limits
    yield from _exceeded(built, lab, limits.peers_total, lambda e: e.peers, lambda n: f"{n} peers")
    yield from _exceeded(built, lab, limits.cpu_m_total, _cpu_m, lambda n: f"{format_cpu_m(n)} CPU")
    yield from _exceeded(
        built, lab, limits.memory_bytes_total, _memory_bytes, lambda n: f"{format_memory_bytes(n)} memory"
    )


def _exceeded(
    built: list[BuiltExperiment],
    lab: Lab,
    limit: int | None,
    cost_of: Callable[[Experiment], int],
    text_of: Callable[[int], str],
) -> Iterator[Problem]:
    total = sum(cost_of(experiment) for _, experiment in built)
    if limit is None or total <= limit:
        return
    document, _ = max(built, key=lambda pair: cost_of(pair[1]))
    what = f"all experiments together need {text_of(total)}; the lab allows {text_of(limit)}"
    hint = f"reduce this experiment, which needs the most, or raise the limit in {lab.source}"
    path = ("spec", "roles" if "roles" in document.data["spec"] else "peers")
    yield document.problem("limit", what, path, hint=hint)


def _cpu_m(experiment: Experiment) -> int:
    return sum(group.peers * group.cpu_m for group in experiment.groups)


def _memory_bytes(experiment: Experiment) -> int:
    return sum(group.peers * group.memory_bytes for group in experiment.groups)
