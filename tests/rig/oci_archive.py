"""Build a container image from a static program and folders: an OCI archive for `ctr images import`.

Equal inputs give equal bytes. Source: the image format specification of the Open Container Initiative, v1.1.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_TMP: Final = "/tmp"  # noqa: S108 -- a path in the image
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder in the image."""

    mode: int
    owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The name and content of an image; `target` is the path of its program in the image, the entrypoint."""

    name: str
    program: Path
    target: str
    user: str
    folders: Mapping[str, Folder] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    working_folder: str = "/"


def full_name(name: str) -> str:
    """Return the image name as containerd writes it: with a registry, by default docker.io."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def write_archive(image: Image, path: Path) -> None:
    """Write the archive atomically."""
    blobs: dict[str, bytes] = {}
    plain = _layer(image)
    layer = _add_blob(blobs, gzip.compress(plain, compresslevel=1, mtime=0), _LAYER)
    config = _add_blob(blobs, _json(_config(image, hashlib.sha256(plain).hexdigest())), _CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
    entry = _add_blob(blobs, _json(manifest), _MANIFEST)
    entry["annotations"] = {
        "io.containerd.image.name": full_name(image.name),
        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
    files |= {"index.json": _json(index), "oci-layout": _json({"imageLayoutVersion": "1.0.0"})}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with tarfile.open(fresh, "w") as archive:
        for name, data in sorted(files.items()):
            _add(archive, name, data, mode=0o644)
    fresh.replace(path)


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = {_TMP: Folder(mode=0o1777, owner=0), "/etc": Folder(mode=0o755, owner=0), **image.folders}
        for parent in Path(image.target).parents:
            folders.setdefault(str(parent), Folder(mode=0o755, owner=0))
        for name, folder in sorted(folders.items()):
            if name != "/":
                member = tarfile.TarInfo(name.lstrip("/"))
                member.type, member.mode = tarfile.DIRTYPE, folder.mode
                member.uid = member.gid = folder.owner
                archive.addfile(member)
        _add(archive, "etc/passwd", b"root:x:0:0::/:\nnobody:x:65534:65534::/:\n", mode=0o644)
        _add(archive, "etc/nsswitch.conf", b"hosts: files dns\n", mode=0o644)
        _add(archive, image.target.lstrip("/"), image.program.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, *, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _config(image: Image, layer: str) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "architecture": _MACHINES.get(machine, machine),
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": [image.target],
            "Cmd": list(image.arguments),
            "WorkingDir": image.working_folder,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
    }


def _add_blob(blobs: dict[str, bytes], data: bytes, media_type: str) -> dict[str, Any]:
    """Add a blob and return its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
