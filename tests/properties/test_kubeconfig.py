"""nimlab and kubectl interpret random kubeconfigs equally: same server, same user, or both reject them.

`NIMLAB_KUBECONFIGS` sets the number of kubeconfigs, `NIMLAB_KUBECONFIGS_SEED` the first seed.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
import yaml

from tests.properties.kubeconfigs import (
    Case,
    Maker,
    Verdict,
    World,
    by_kubectl,
    by_nimlab,
    run_relay,
)
from tests.support.lab import Lab

CASES = int(os.environ.get("NIMLAB_KUBECONFIGS", "150"))
FIRST = int(os.environ.get("NIMLAB_KUBECONFIGS_SEED", "0"))


@pytest.fixture
def world(lab: Lab) -> Iterator[World]:
    """Yield the sandbox's server and administrator, and two accounts without permissions."""
    document = yaml.safe_load(lab.kubeconfig.read_text(encoding="utf-8"))
    names = [f"fuzz-{secrets.token_hex(3)}" for _ in range(2)]
    for name in names:
        lab.kubectl("-n", "default", "create", "serviceaccount", name)
    with run_relay() as proxy:
        yield World(
            cluster=document["clusters"][0]["cluster"],
            admin=document["users"][0]["user"],
            tokens=tuple(lab.kubectl("-n", "default", "create", "token", name).strip() for name in names),
            proxy=proxy,
            other_ca=base64.b64encode(trustme.CA().cert_pem.bytes()).decode(),
        )
    for name in names:
        lab.kubectl("-n", "default", "delete", "serviceaccount", name)


def difference(case: Case, theirs: Verdict, ours: Verdict) -> str | None:
    """Return the difference between the results of kubectl and nimlab; None if they are equal."""
    if theirs.user is None and ours.user is None:
        return None
    if case.stricter and ours.user is None:
        return None if case.stricter in ours.text else f"the error does not name {case.stricter}: {ours.text}"
    if ours == theirs:
        return None
    return f"kubectl: {theirs.user or theirs.text}\n  nimlab: {ours.user or ours.text}"


@pytest.mark.live
@pytest.mark.timeout(3600)
def test_random_kubeconfigs_are_interpreted_as_in_kubectl(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    cases = [Maker(seed, world, tmp_path / str(seed)).make() for seed in range(FIRST, FIRST + CASES)]
    with ThreadPoolExecutor(4) as pool:
        theirs = list(pool.map(lambda case: by_kubectl(case, tmp_path), cases))
    by_proxy = set(world.proxy.seen)
    world.proxy.seen.clear()
    ours = [by_nimlab(case, monkeypatch) for case in cases]
    verdicts = list(zip(cases, theirs, ours, strict=True))
    differences = [
        f"{case.path.parent.name} ({case.what}): {text}"
        for case, kubectl, nimlab in verdicts
        if (text := difference(case, kubectl, nimlab)) is not None
    ]
    accepted = {
        f"case{case.path.parent.name}"
        for case, kubectl, nimlab in verdicts
        if kubectl.user is not None and nimlab.user is not None
    }
    other_route = sorted((by_proxy ^ world.proxy.seen) & accepted)
    differences += [f"{name}: only one of kubectl and nimlab used the proxy" for name in other_route]
    kinds = Counter(
        (("kubectl is rejected" if kubectl.user is None else "kubectl is accepted"),
         ("nimlab is rejected" if nimlab.user is None else "nimlab is accepted"))
        for _, kubectl, nimlab in verdicts
    )  # fmt: skip
    figure(
        f"kubeconfigs: {CASES} tried, {dict(kinds)}, {len(by_proxy)} by a proxy, "
        f"{len(differences)} differences"
    )
    assert not differences, "\n".join(differences)
    credentials = [*world.tokens, world.admin["client-key-data"]]
    assert not [verdict.text for verdict in ours if any(secret in verdict.text for secret in credentials)]
