"""nimlab and kubectl make the same of a kubeconfig: the same server, the same user, the same refusal.

`NIMLAB_KUBECONFIGS=2000` tries so many; `NIMLAB_KUBECONFIGS_SEED` starts elsewhere.
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
    """The sandbox's server and administrator, and two accounts without any rights."""
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
    """Return what is wrong with our verdict; None if nothing is."""
    if theirs.user is None and ours.user is None:
        return None
    if case.stricter and ours.user is None:
        return None if case.stricter in ours.text else f"the error doesn't name {case.stricter}: {ours.text}"
    if ours == theirs:
        return None
    return f"kubectl: {theirs.user or theirs.text}\n  nimlab: {ours.user or ours.text}"


@pytest.mark.live
@pytest.mark.timeout(3600)
def test_random_kubeconfigs_mean_what_they_mean_to_kubectl(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    cases = [Maker(seed, world, tmp_path / str(seed)).make() for seed in range(FIRST, FIRST + CASES)]
    with ThreadPoolExecutor(4) as pool:
        theirs = list(pool.map(lambda case: by_kubectl(case, tmp_path), cases))
    by_proxy = set(world.proxy.seen)
    world.proxy.seen.clear()
    ours = [by_nimlab(case, monkeypatch) for case in cases]
    found = [
        f"{case.path.parent.name} ({case.what}): {wrong}"
        for case, one, other in zip(cases, theirs, ours, strict=True)
        if (wrong := difference(case, one, other)) is not None
    ]
    let_in = {
        f"case{case.path.parent.name}"
        for case, one, other in zip(cases, theirs, ours, strict=True)
        if one.user is not None and other.user is not None
    }
    found += [f"{name}: not by the same way" for name in sorted((by_proxy ^ world.proxy.seen) & let_in)]
    kinds = Counter(
        (("kubectl refuses" if one.user is None else "kubectl is let in"),
         ("nimlab refuses" if other.user is None else "nimlab is let in"))
        for one, other in zip(theirs, ours, strict=True)
    )  # fmt: skip
    figure(f"kubeconfigs: {CASES} tried, {dict(kinds)}, {len(by_proxy)} by a proxy, {len(found)} differences")
    assert not found, "\n".join(found)
    credentials = [*world.tokens, world.admin["client-key-data"]]
    assert not [one.text for one in ours if any(secret in one.text for secret in credentials)]
