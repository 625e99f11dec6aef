"""No secret value appears in plans, diffs, JSON, errors, saved plans or reports."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.cluster.kube.status_errors import error_of
from nimlab.errors import ClusterError, Rejected
from nimlab.objects.foreign_fields import foreign_fields
from nimlab.objects.mask_secrets import (
    hide_secrets,
    is_secret_name,
    mask,
    redact,
    redact_credentials,
    remember_credential,
    secrets_in,
)
from tests.support.api_proxy import Broken, Seen, run_proxy
from tests.support.lab import Lab

NAMES = ["API_TOKEN", "db-password", "SSH_KEY", "AWS_SECRET", "my.credentials", "passwd", "keyPassphrase",
         "DB_PASS", "PGPASS", "dbPass", "ADMIN_PASS_2", "DB_PWD", "userpwd", "REDIS_AUTH", "basicAuth",
         "HTTP_AUTHORIZATION", "GIT_SSH_PRIVATE", "SENTRY_DSN", "SESSION", "HTTP_COOKIE", "SIGNATURE",
         "WALLET_MNEMONIC", "JWT", "GITHUB_CREDS"]  # fmt: skip
ORDINARY = ["PEERS", "PATH", "PWD", "OLDPWD", "COMPASS", "BYPASS", "PASSES", "PASS_COUNT", "AUTHOR",
            "GF_AUTH_ANONYMOUS_ENABLED", "SESSION_TIMEOUT", "PRIVATE_NETWORK", "TLS_CERT", "5"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_values_of_secret_names_are_hidden_at_any_depth(name: str) -> None:
    pod = {"spec": {"containers": [{"name": "c", "env": [{"name": name, "value": "hunter2"}]}]}}
    assert is_secret_name(name)
    assert secrets_in(pod) == {"hunter2"}
    assert "hunter2" not in str(mask(pod))
    assert pod["spec"]["containers"][0]["env"] == [{"name": name, "value": "hunter2"}], (
        "the input is unchanged"
    )


@pytest.mark.parametrize("name", ORDINARY)
def test_names_that_only_contain_a_secret_word_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


def test_ordinary_values_and_references_to_secrets_are_shown() -> None:
    env = [{"name": "PEERS", "value": "5"}, {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s"}}}]
    assert mask({"env": env}) == {"env": env}
    assert secrets_in({"env": env}) == frozenset()


def test_secrets_are_hidden_encoded_and_decoded() -> None:
    secret = {"kind": "Secret", "data": {"a": "aHVudGVyMg==", "b": "//8=", "c": "no base64"}}
    secrets = secrets_in(secret, None)
    assert {"hunter2", "aHVudGVyMg==", "//8=", "no base64"} == secrets
    with pytest.raises(Rejected) as caught, hide_secrets(secret):
        raise Rejected("data.a: hunter2 (aHVudGVyMg==) is wrong", where="Secret/a/b")
    assert str(caught.value).startswith("Secret/a/b: error[rejected]: data.a: (hidden) ((hidden)) is wrong")
    assert "hunter2" not in repr(caught.value)


@given(st.sets(st.text(min_size=3), max_size=5), st.text())
def test_redacted_text_contains_no_secret(secrets: set[str], text: str) -> None:
    hidden = {s for s in secrets if len(" ".join(s.split())) >= 3 and not set(s) & set("(hidden)")}
    redacted = redact(text + "".join(hidden), frozenset(hidden))
    outside = redacted.split("(hidden)")
    assert not any(secret in part for secret in hidden for part in outside)


MANY_LINES = 'first line of it\nsecond  line,\t"quoted" \\ <e>\n'
GO_JSON = json.dumps(MANY_LINES)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e")
WRITTEN = {
    "as-it-is": MANY_LINES,
    "folded": " ".join(MANY_LINES.split()),
    "by-go": 'first line of it\\nsecond  line,\\t\\"quoted\\" \\\\ <e>\\n',
    "by-gos-json": GO_JSON,
    "by-json": json.dumps(MANY_LINES)[1:-1],
    "twice": json.dumps(json.dumps(MANY_LINES))[1:-1],
    "base64": base64.b64encode(MANY_LINES.encode()).decode(),
    "one-line": MANY_LINES.splitlines()[1],
    "without-its-last-line-end": MANY_LINES.rstrip(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_secret_is_redacted_in_each_form(form: str) -> None:
    words = re.findall(r"\w{4,}", WRITTEN[form])
    assert words
    for before, after in (("", ""), ('Invalid value: "', '": no'), ("x", "x"), ("a\n", " b")):
        shown = redact(before + WRITTEN[form] + after, frozenset({MANY_LINES}))
        assert not any(word in shown for word in words), shown
        assert shown.startswith(before)
        assert shown.endswith(after)


def test_quoted_non_ascii_secrets_are_redacted() -> None:
    for quoted in ("passé\\x00\\u200b", json.dumps("passé\0\u200b")[1:-1]):
        assert redact(f"is {quoted} wrong", frozenset({"passé\0\u200b"})) == "is (hidden) wrong"


@pytest.mark.parametrize("form", ["as-it-is", "folded", "by-go", "base64"])
def test_truncated_text_contains_no_fragment_of_a_secret(form: str) -> None:
    written = WRITTEN[form].strip()
    for size in range(4, len(written)):
        for text in (
            f"is: {written[:size]}",
            f"is: {written[:size]}…",
            f'"{written[:size]}..."',
            written[-size:] + ": no",
        ):
            shown = redact(text, frozenset({MANY_LINES}))
            assert len(re.sub(r"is:|no|\(hidden\)|[^\w]", "", shown)) < 4, (text, shown)


def test_secrets_are_redacted_before_truncation() -> None:
    """Only the start of a long message is shown. The cut may go through the secret."""
    value = "correct horse  battery\nstaple " * 9
    for padding in range(380, 520, 7):
        answer = {"message": f'{"x" * padding} "{value}" is wrong'}
        secret = {"kind": "Secret", "stringData": {"a": value}}
        with pytest.raises(ClusterError) as caught, hide_secrets(secret):
            raise error_of(422, answer, verb="patch", where="Secret/a/b", path="/x")
        message = str(caught.value) + repr(caught.value) + caught.value.full_message
        assert not any(word in message for word in ("corr", "horse", "battery", "staple"))


def test_value_that_another_manager_set_in_our_env_item_is_hidden() -> None:
    key = 'k:{"name":"API_TOKEN"}'
    path: dict[str, Any] = {"f:env": {key: {"f:value": {}}}}
    container = {'k:{"name":"c"}': path}
    entry = {
        "manager": "x",
        "operation": "Update",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": container}}}},
    }
    pod = {"containers": [{"name": "c", "env": [{"name": "API_TOKEN", "value": "hunter2"}]}]}
    live = {
        "kind": "StatefulSet",
        "metadata": {"managedFields": [entry]},
        "spec": {"template": {"spec": pod}},
    }
    desired = {
        "spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "API_TOKEN"}]}]}}}
    }
    (foreign,) = foreign_fields(desired, live)
    assert foreign.value == "hunter2"
    assert foreign.shown == "(hidden)"
    secret = {"kind": "Secret", "metadata": {"managedFields": [
        {"manager": "x", "operation": "Update", "fieldsV1": {"f:data": {"f:a": {}}}},
    ]}, "data": {"a": "aHVudGVyMg=="}}  # fmt: skip
    assert [f.shown for f in foreign_fields({}, secret)] == ["(hidden)"]


def all_output(lab: Lab, folder: Path) -> Iterator[str]:
    """Return all output and files of a plan, a status and a sync."""
    files = {name: folder / f"{name}.out" for name in ("out", "terraform", "junit", "codequality")}
    flags = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    for arguments in (
        ("sync", "--dry-run", "--verbose", *flags),
        ("sync", "--dry-run", "--remove-foreign", "--output", "json"),
        ("status", "blue"),
        ("status", "blue", "--output", "json"),
        ("list", "--output", "json"),
        ("sync", "--no-wait", "--output", "json", *flags[2:]),
        ("sync", "--no-wait", "--verbose", "--remove-foreign", *flags[2:]),
    ):
        answer = lab.run(*arguments)
        yield answer.out
        yield answer.err
    yield from (path.read_text(encoding="utf-8") for path in files.values())


def give_token(lab: Lab, value: str) -> None:
    """Add a token to the environment of every peer."""
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    lines = template.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "API_TOKEN" not in line]
    place = next(i for i, line in enumerate(kept) if line.strip() == "env:") + 1
    kept.insert(place, f"            - {{name: API_TOKEN, value: {value}}}\n")
    template.write_text("".join(kept), encoding="utf-8")


@pytest.mark.live
@pytest.mark.parametrize("broken", [False, True])
def test_no_output_of_any_command_contains_a_secret(lab: Lab, tmp_path: Path, broken: bool) -> None:
    """The secrets are old, new, drifted and foreign values, and values that the server repeats in errors."""
    give_token(lab, "hunter2-old")
    assert lab.run("sync", "--no-wait").code == 0
    lab.kubectl("set", "env", "statefulset/nimp2p-exp-blue", "DB_PASSWORD=hunter2-foreign")
    lab.kubectl("set", "env", "statefulset/nimp2p-exp-purple", "API_TOKEN=hunter2-drifted")
    give_token(lab, "hunter2-new")

    def echo(request: Seen) -> Broken | None:
        if not broken or request.method != "PATCH" or "/statefulsets/" not in request.path:
            return None
        old_values = "hunter2-drifted" if "purple" in request.path else "hunter2-old, hunter2-foreign"
        message = f"Invalid value: hunter2-new, {old_values} {'x' * 430} hunter2-new"
        return Broken(status=422, body={"kind": "Status", "code": 422, "message": message})

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = echo
        outputs = list(all_output(replace(lab, kubeconfig=proxy.kubeconfig), tmp_path))
    assert any("API_TOKEN" in text for text in outputs)
    assert any("(hidden" in text for text in outputs)
    if broken:
        assert any("Invalid value: (hidden)" in text for text in outputs)
    leaks = [line for text in outputs for line in text.splitlines() if "hunter2" in line]
    assert leaks == []


def test_short_credential_is_hidden_only_as_a_whole_word() -> None:
    remember_credential("one")
    remember_credential("longer-one-here")
    assert redact_credentials("password one, component; x-longer-one-here-x") == (
        "password (hidden), component; x-(hidden)-x"
    )
