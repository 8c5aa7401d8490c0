"""A server on this machine that speaks the Hub's protocol for data sets, with faults on demand."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

CALLS = {
    "create": r"POST /api/repos/create",
    "validate": r"POST /api/validate-yaml",
    "preupload": r"POST /api/datasets/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)",
    "batch": r"POST /datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
    "put": r"PUT /lfs/(?P<oid>\w+)",
    "verify": r"POST /lfs-verify",
    "commit": r"POST /api/datasets/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)",
    "tag": r"POST /api/datasets/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>[^/]+)",
    "tree": r"GET /api/datasets/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<path>.*))?",
    "paths": r"POST /api/datasets/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)",
    "info": r"GET /api/datasets/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?",
    "resolve": r"(HEAD|GET) /datasets/(?P<repo>[^/]+/[^/]+)"
    r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
    "blob": r"(HEAD|GET) /lfs/(?P<oid>\w+)",
}
LFS = (".parquet", ".png")


@dataclass
class Hub:
    """The state of the server. faults: what to do wrong at the next calls of a kind, in order."""

    blobs: dict[str, bytes] = field(default_factory=dict)  # content by SHA-256 or git's hash
    # name: revision: path: oid
    repos: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    injected: list[tuple[str, str]] = field(default_factory=list)
    calls: Counter = field(default_factory=Counter)
    puts: Counter = field(default_factory=Counter)  # PUTs begun, by oid
    completed: Counter = field(default_factory=Counter)  # PUTs whose content was stored
    commits: list[list[str]] = field(default_factory=list)  # paths of each commit to main
    lock: threading.RLock = field(default_factory=threading.RLock)

    def serve(self) -> tuple[ThreadingHTTPServer, str]:
        """Start in a thread; the server and its address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_port}"

    def published(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return {path: self.blobs[oid] for path, oid in self.repos[repo][revision].items()}

    def fault(self, call: str) -> str | None:
        with self.lock:
            self.calls[call] += 1
            if not self.faults.get(call):
                return None
            fault = self.faults[call].pop(0)
            self.injected.append((call, fault))
            return fault


class RefusalError(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_call(self) -> None:
            path = unquote(urlsplit(self.path).path)
            for call, pattern in CALLS.items():
                match = re.fullmatch(pattern, f"{self.command} {path}")
                if match:
                    return self.answer(call, match.groupdict())
            return self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        do_GET = do_HEAD = do_POST = do_PUT = handle_call  # noqa: N815

        def answer(self, call: str, parts: dict[str, str]) -> None:
            fault = hub.fault(call)
            length = int(self.headers.get("Content-Length") or 0)
            if call == "put":
                with hub.lock:
                    hub.puts[parts["oid"]] += 1
            if fault == "cut":
                self.rfile.read(length // 2)
                return self.cut()
            body = self.rfile.read(length)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.chunks()
            if fault and fault.isdigit():
                headers = {"Retry-After": "1"} if fault == "429" else {}
                return self.reply(int(fault), b'{"error": "injected"}', headers)
            try:
                with hub.lock:
                    status, content, headers = ROUTES[call](hub, self, parts, body)
            except RefusalError as refusal:
                return self.reply(refusal.status, b"{}", {"X-Error-Code": refusal.code})
            if fault == "lost":
                return self.cut()
            return self.reply(status, content, headers)

        def chunks(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def cut(self) -> None:
            """Reset the connection."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


Answer = tuple[int, bytes, dict[str, str]]


def _json(content: object) -> Answer:
    return 200, json.dumps(content).encode(), {"Content-Type": "application/json"}


def _address(request: BaseHTTPRequestHandler) -> str:
    return f"http://{request.headers['Host']}"


def _storage(request: BaseHTTPRequestHandler) -> str:
    """The same server by another name: large files are on another host than the Hub."""
    return _address(request).replace("127.0.0.1", "localhost")


def _sha(files: dict[str, str]) -> str:
    return hashlib.sha1(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(hub: Hub, parts: dict[str, str]) -> dict[str, str]:
    if parts["repo"] not in hub.repos:
        raise RefusalError(404, "RepoNotFound")
    revisions = hub.repos[parts["repo"]]
    revision = parts.get("revision") or "main"
    by_sha = {_sha(files): files for files in revisions.values()}
    if revision not in revisions and revision not in by_sha:
        raise RefusalError(404, "RevisionNotFound")
    return revisions.get(revision) or by_sha.get(revision) or {}


def _create(hub: Hub, request: BaseHTTPRequestHandler, _: dict, body: bytes) -> Answer:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    status = 409 if name in hub.repos else 200
    hub.repos.setdefault(name, {"main": {}})
    return status, _json({"url": f"{_address(request)}/datasets/{name}"})[1], {}


def _preupload(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, body: bytes) -> Answer:
    there = _files(hub, parts)
    return _json(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                    "shouldIgnore": False,
                    "oid": there.get(file["path"]),
                }
                for file in json.loads(body)["files"]
            ]
        }
    )


def _batch(hub: Hub, request: BaseHTTPRequestHandler, _: dict, body: bytes) -> Answer:
    where = _address(request)

    def entry(asked: dict) -> dict:
        if asked["oid"] in hub.blobs:
            return asked
        upload = {"href": f"{_storage(request)}/lfs/{asked['oid']}"}
        return asked | {"actions": {"upload": upload, "verify": {"href": f"{where}/lfs-verify"}}}

    objects = [entry(asked) for asked in json.loads(body)["objects"]]
    return _json({"transfer": "basic", "objects": objects})


def _put(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, body: bytes) -> Answer:
    if hashlib.sha256(body).hexdigest() != parts["oid"]:
        raise RefusalError(400)
    hub.blobs[parts["oid"]] = body
    hub.completed[parts["oid"]] += 1
    return 200, b"", {}


def _verify(hub: Hub, _: BaseHTTPRequestHandler, __: dict, body: bytes) -> Answer:
    asked = json.loads(body)
    if len(hub.blobs.get(asked["oid"], b"")) != asked["size"]:
        raise RefusalError(404)
    return _json({})


def _commit(hub: Hub, request: BaseHTTPRequestHandler, parts: dict, body: bytes) -> Answer:
    files = dict(_files(hub, parts))
    paths = []
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "lfsFile":
            if value["oid"] not in hub.blobs:
                raise RefusalError(400)
            files[value["path"]] = value["oid"]
        elif item["key"] == "file":
            content = base64.b64decode(value["content"])
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            hub.blobs[oid] = content
            files[value["path"]] = oid
        elif item["key"] == "deletedFile":
            del files[value["path"]]
        paths += [value["path"]] if "path" in value else []
    hub.repos[parts["repo"]]["main"] = files
    hub.commits.append(paths)
    where = f"{_address(request)}/datasets/{parts['repo']}/commit/{_sha(files)}"
    return _json({"commitUrl": where, "commitOid": _sha(files)})


def _tag(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, body: bytes) -> Answer:
    tag = json.loads(body)["tag"]
    if tag in hub.repos[parts["repo"]]:
        raise RefusalError(409)
    hub.repos[parts["repo"]][tag] = dict(_files(hub, parts))
    return _json({})


def _entry(hub: Hub, path: str, oid: str) -> dict:
    size = len(hub.blobs[oid])
    lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if len(oid) == 64 else {}
    return {"type": "file", "path": path, "oid": oid[:40], "size": size} | lfs


def _tree(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, __: bytes) -> Answer:
    prefix = f"{parts['path']}/" if parts["path"] else ""
    files = {p: o for p, o in _files(hub, parts).items() if p.startswith(prefix)}
    if prefix and not files:
        raise RefusalError(404, "EntryNotFound")
    folders = {
        p[: m.start()] for p in files for m in re.finditer("/", p) if m.start() > len(prefix)
    }
    return _json(
        [
            *(
                {"type": "directory", "path": f, "oid": "0" * 40, "size": 0}
                for f in sorted(folders)
            ),
            *(_entry(hub, path, oid) for path, oid in sorted(files.items())),
        ]
    )


def _paths(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, body: bytes) -> Answer:
    files = _files(hub, parts)
    asked = json.loads(body)["paths"]
    return _json([_entry(hub, path, files[path]) for path in asked if path in files])


def _info(hub: Hub, _: BaseHTTPRequestHandler, parts: dict, __: bytes) -> Answer:
    files = _files(hub, parts)
    return _json(
        {
            "id": parts["repo"],
            "sha": _sha(files),
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }
    )


def _resolve(hub: Hub, request: BaseHTTPRequestHandler, parts: dict, _: bytes) -> Answer:
    files = _files(hub, parts)
    if parts["path"] not in files:
        raise RefusalError(404, "EntryNotFound")
    oid = files[parts["path"]]
    content = hub.blobs[oid]
    headers = {"X-Repo-Commit": _sha(files), "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
    if len(oid) == 64:
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return 302, b"", headers | linked | {"Location": f"{_storage(request)}/lfs/{oid}"}
    return _ranged(request, content, headers)


def _blob(hub: Hub, request: BaseHTTPRequestHandler, parts: dict, _: bytes) -> Answer:
    return _ranged(request, hub.blobs[parts["oid"]], {"ETag": f'"{parts["oid"]}"'})


def _ranged(request: BaseHTTPRequestHandler, content: bytes, headers: dict) -> Answer:
    if request.command == "HEAD":
        return 200, b"", headers | {"Content-Length": str(len(content))}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return 200, content, headers
    start, stop = int(asked[1]), int(asked[2] or len(content) - 1) + 1
    stop = min(stop, len(content))
    return (
        206,
        content[start:stop],
        headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"},
    )


Route = Callable[[Hub, BaseHTTPRequestHandler, dict, bytes], Answer]
ROUTES: dict[str, Route] = {
    "create": _create,
    "validate": lambda *_: _json({"errors": [], "warnings": []}),
    "preupload": _preupload,
    "batch": _batch,
    "put": _put,
    "verify": _verify,
    "commit": _commit,
    "tag": _tag,
    "tree": _tree,
    "paths": _paths,
    "info": _info,
    "resolve": _resolve,
    "blob": _blob,
}
