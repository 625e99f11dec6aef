"""Hostile templates: a map from names to texts for `templates/experiment/x.yaml.j2`.

nimlab rejects most of them before the guard. `changed` contains templates that only the guard rejects.
"""

from __future__ import annotations

from typing import Final

METADATA: Final = "metadata: {name: {{ full_name | json }}, namespace: {{ namespace | json }}, labels: {{ labels | json }}}\n"
CONFIG: Final = "apiVersion: v1\nkind: ConfigMap\n" + METADATA
POD: Final = (
    "apiVersion: apps/v1\nkind: StatefulSet\n"
    + METADATA
    + "spec: {selector: {matchLabels: {{ selector | json }}}, template: {metadata: {labels: {{ labels | json }}}, spec: %s}}\n"
)


def named(old: str, new: str) -> str:
    """Return a ConfigMap template with a replaced text in its metadata."""
    assert old in CONFIG
    return CONFIG.replace(old, new)


TEMPLATES: Final[dict[str, str]] = {
    # templates that try to escape from the sandbox
    "class": "a: {{ ''.__class__ }}\n",
    "mro": "a: {{ ''.__class__.__mro__[1].__subclasses__() }}\n",
    "attr filter": "a: {{ ''|attr('__class__') }}\n",
    "globals": "a: {{ cycler.__init__.__globals__.os.popen('id').read() }}\n",
    "lipsum": "a: {{ lipsum.__globals__['os'].system('id') }}\n",
    "self": "a: {{ self.__init__.__globals__ }}\n",
    "format string": "a: {{ '{0.__class__}'.format(name) }}\n",
    "format map": "a: {{ '{a.__class__}'.format_map({'a': name}) }}\n",
    "generator frame": "a: {{ (x for x in name).gi_frame }}\n",
    "change a list": "a: {{ ports.append(1) }}\n",
    "change a map": "a: {{ labels.update({'a': 'b'}) }}\n",
    "unknown name": "a: {{ password }}\n",
    "unknown filter": "a: {{ name | shell }}\n",
    "unknown attribute": "a: {{ network.secret }}\n",
    "config": "a: {{ config.items() }}\n",
    "environment": "a: {{ environ['HOME'] }}\n",
    # templates that try to read other files
    "include": "{% include '/etc/passwd' %}\n",
    "include above": "{% include '../../lab.yaml' %}\n",
    "include a contract": "{% include 'nimp2p.yaml' %}\n",
    "import": "{% import '/etc/passwd' as p %}a: {{ p }}\n",
    "from": "{% from '../x' import y %}a: {{ y }}\n",
    "extends": "{% extends '/etc/passwd' %}\n",
    "include itself": "{% include 'x.yaml.j2' %}\n",
    "extends itself": "{% extends 'x.yaml.j2' %}\n",
    # templates that would use too much time or memory
    "long loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}\n",
    "range": "a: {{ range(10000000) | list }}\n",
    "long text": "a: {{ 'x' * 1000000000 }}\n",
    "long list": "a: {{ [0] * 1000000000 }}\n",
    "power": "a: {{ 7 ** 100000000 }}\n",
    "tower": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}a: {{ n.x }}\n",
    "doubling": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}a: {{ n.x }}\n",
    "doubling by plus": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}a: {{ n.x }}\n",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}a: {{ n.x }}\n",
    "wide format": "a: {{ '%999999999d' % 1 }}\n",
    "wide format method": "a: {{ '{:>999999999}'.format(1) }}\n",
    "wide centre": "a: {{ 'x' | center(999999999) }}\n",
    "wide indent": "a: {{ 'x\\nx' | indent(999999999) }}\n",
    "replace": "{% set a = 'x' * 100000 %}a: {{ a | replace('x', a) }}\n",
    "join": "{% set a = 'x' * 100000 %}a: {{ range(99999) | join(a) }}\n",
    "batch": "a: {{ [1] | batch(100000000, 'x') | list }}\n",
    "slice": "a: {{ [1] | slice(100000000) | list }}\n",
    "lipsum text": "a: {{ lipsum(n=100000) }}\n",
    "many references": "a: [{% for i in range(99999) %}{{ spec_as_run | json }},{% endfor %}]\n",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}a: {{ m() }}\n",
    "recursive loop": "{% set n = namespace(x=[1]) %}{% for i in n.x recursive %}{{ loop([1]) }}{% endfor %}\n",
    "deep brackets": "a: " + "[" * 100_000 + "\n",
    "deep expression": "a: {{ " + "(" * 5000 + "1" + ")" * 5000 + " }}\n",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000 + "\n",
    "huge template": "{# " + "x" * 400_000 + " #}\na: 1\n",
    "alias bomb": "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(30)),
    "self-reference": "a: &a [*a]\n",
    # templates that render no valid object
    "two objects": CONFIG + "---\n" + CONFIG,
    "a list": "- 1\n",
    "text": "text\n",
    "broken YAML": "a: [\n",
    "broken Jinja": "a: {{ name\n",
    "python tag": CONFIG + "data: {a: !!python/name:os.system }\n",
    "binary tag": CONFIG + "data: {a: !!binary aGk= }\n",
    "set tag": CONFIG + "data: !!set {a}\n",
    "date": CONFIG + "data: {a: 2026-01-01}\n",
    "infinite": CONFIG + "data: {a: .inf}\n",
    "number key": CONFIG + "data: {1: a}\n",
    "null key": CONFIG + "data: {~: a}\n",
    "duplicate key": CONFIG + "data: {a: b}\ndata: {c: d}\n",
    "duplicate by value": CONFIG + "data: {{ '{' }}{{ name | json }}: a, {{ name | json }}: b}\n",
    "value as key": "{{ labels | json }}: a\n",
    "no name": "apiVersion: v1\nkind: ConfigMap\nmetadata: {labels: {{ labels | json }}}\n",
    "name is a list": named("{{ full_name | json }}", "[a]"),
    "name is a map": named("{{ full_name | json }}", "{a: b}"),
    "name is a number": named("{{ full_name | json }}", "5"),
    "name is null": named("{{ full_name | json }}", "null"),
    "namespace is a list": named("{{ namespace | json }}", "[a]"),
    "labels are text": named("{{ labels | json }}", "x"),
    "labels are a list": named("{{ labels | json }}", "[a]"),
    "label is a number": named("{{ labels | json }}", "{experiment: 5}"),
    "kind is a list": CONFIG.replace("kind: ConfigMap", "kind: [ConfigMap]"),
    "kind is a map": CONFIG.replace("kind: ConfigMap", "kind: {a: b}"),
    "apiVersion is a number": CONFIG.replace("apiVersion: v1", "apiVersion: 1"),
    "metadata is a list": "apiVersion: v1\nkind: ConfigMap\nmetadata: [a]\n",
    "spec is text": "apiVersion: apps/v1\nkind: StatefulSet\n" + METADATA + "spec: x\n",
    "spec is a list": "apiVersion: apps/v1\nkind: StatefulSet\n" + METADATA + "spec: [1]\n",
    "template is text": "apiVersion: apps/v1\nkind: StatefulSet\n" + METADATA + "spec: {template: x}\n",
    "containers are a map": POD % "{containers: {a: b}}",
    "container is text": POD % "{containers: [x]}",
    "ports are text": "apiVersion: v1\nkind: Service\n" + METADATA + "spec: {ports: x}\n",
    "quantity": POD % "{containers: [{name: c, image: 'a:1', resources: {limits: {cpu: much}}}]}",
    # objects that an experiment may not contain
    "the set's parent": named("{{ full_name | json }}", "nimlab-experiments"),
    "reserved label": named("{{ labels | json }}", "{experiment: {{ name | json }}, applyset.kubernetes.io/part-of: x}"),
    "reserved annotation": named("labels:", "annotations: {nimlab.dev/member: x}, labels:"),
    "cluster role": "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n" + METADATA,
    "cluster role binding": "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n" + METADATA,
    "role": "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n" + METADATA,
    "secret": "apiVersion: v1\nkind: Secret\n" + METADATA,
    "pod": "apiVersion: v1\nkind: Pod\n" + METADATA,
    "daemon set": "apiVersion: apps/v1\nkind: DaemonSet\n" + METADATA,
    "namespace": "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {{ labels | json }}}\n",
    "webhook": "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\n" + METADATA,
    "own kind": "apiVersion: example.org/v1\nkind: Thing\n" + METADATA,
}  # fmt: skip
