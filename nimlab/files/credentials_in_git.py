"""Search for credentials in the files of the lab's folder that Git tracks.

In: the lab's folder. Out: at most one warning per file, and one warning for all files in nimlab's own
folders. The content of a file is read from Git's index. A warning never contains the credential itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from nimlab.errors import Location, Problem
from nimlab.files.forbidden_text import is_visible
from nimlab.files.git_command import git_paths, run_git

_FILE_LIMIT: Final = 20  # maximum number of files whose content is searched
_CANDIDATE: Final = (
    '-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----|LS0tLS1CRUdJTiB|"?client-key-data"?:|"?kind"?: *"?Config"?'
)
_KEY: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\n)*[A-Za-z0-9+/=-]{16,}")
_ENCODED: Final = re.compile(r"LS0tLS1CRUdJTiB[A-Za-z0-9+/]{45,}")
_CONFIG: Final = re.compile(
    r"""\A\s*[{\[].*["']?\bkind["']?\s*:\s*["']?Config\b"""  # JSON, or YAML in flow style
    r"""|^\s*kind\s*:\s*["']?Config["']?\s*(?:\#.*)?$""",
    re.MULTILINE | re.DOTALL,
)
_FIELDS: Final = "(?:client-key-data|token|password)"
_CREDENTIAL: Final = re.compile(
    rf"""(?:"{_FIELDS}"|'{_FIELDS}')\s*:\s*["'][^"']{{3,}}["']"""  # JSON
    rf"""|(?:^|[\s{{,]){_FIELDS}\s*:\s*["']?[\w+/=.~:-]{{3,}}["']?\s*(?:$|[,}}\#])"""
    rf"""|(?:^|\s){_FIELDS}\s*:\s*[|>][-+0-9]*\s*\n\s+\S+""",
    re.MULTILINE,
)
_OWN_FOLDER: Final = ".nimlab"
_DATABASE: Final = re.compile(r"(?:^|/)member/(?:snap/db|wal/[^/]+\.wal)$")


def tracked_secrets(root: Path) -> tuple[Problem, ...]:
    """Return warnings about files that Git tracks and that contain private keys, credentials or etcd data."""
    paths = git_paths(root, "ls-files", "-z") or ()
    own = [path for path in paths if _OWN_FOLDER in PurePosixPath(path).parts[:-1]]
    own = [path for path in own if not path.endswith("/.gitignore")]
    warnings = [
        _warning(path, "a database of etcd", 1)
        for path in paths
        if _DATABASE.search(path) and path not in own
    ]
    if own:
        others = f" and {len(own) - 1} others" if len(own) > 1 else ""
        warnings.append(_warning(own[0], f"this file{others} in nimlab's own folder, which contains keys", 1))
    return (*warnings, *(warning for warning in _in_content(root) if warning.location.path not in own))


def _in_content(root: Path) -> Iterator[Problem]:
    names = git_paths(root, "grep", "--cached", "-I", "-l", "-z", "-E", "-e", _CANDIDATE, "--", ".") or ()
    for path in names[:_FILE_LIMIT]:
        content = run_git(root, "show", f":./{path}")
        if content is None or content.returncode != 0:
            continue
        for what, start in _secrets(content.stdout):
            yield _warning(path, what, content.stdout.count("\n", 0, start) + 1)
            break


def _secrets(text: str) -> Iterator[tuple[str, int]]:
    """Yield a description and the offset of each credential in a text."""
    credential = _CREDENTIAL.search(text)
    if credential is not None and _CONFIG.search(text):
        yield "a kubeconfig with a credential", credential.start()
    for match in _KEY.finditer(text):
        yield "a private key", match.start()
    for match in _ENCODED.finditer(text):
        if _is_key(match[0]):
            yield "a private key", match.start()


def _is_key(encoded: str) -> bool:
    try:
        return b"PRIVATE KEY" in base64.b64decode(encoded[:60])
    except binascii.Error:
        return False


def _warning(path: str, what: str, line: int) -> Problem:
    shown = path if is_visible(path) else ascii(path)[1:-1]
    return Problem(
        code="secret",
        what=f"Git tracks {what}",
        location=Location(path=shown, line=line),
        hint=(
            f"`git rm --cached {shown}`, add it to .gitignore, and replace the key, "
            "because the history still contains it"
        ),
        is_warning=True,
    )
