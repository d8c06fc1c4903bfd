"""What the API answers, and what becomes of it: refusals with a way out, watches, and servers that are not there."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from api_server import Answer, ApiServer, listen

from shoal.engines.kubernetes.api import Access, Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.credentials import FileToken, StaticToken
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, SECRET
from shoal.engines.kubernetes.api.refusals import KubernetesConflict, KubernetesUnavailable, refusal
from shoal.errors import EngineUnavailable
from tests.tls_keys import listening, make_keys

PODS = "GET /api/v1/namespaces/shop/pods"


@asynccontextmanager
async def client_of(server: ApiServer) -> AsyncGenerator[Kubernetes]:
    async with listen(server) as url, Kubernetes(Access(url, None, StaticToken("Bearer t")), "shop") as kubernetes:
        yield kubernetes


def refused(status: int, message: str, reason: str = "", **more: Any) -> Answer:
    told = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": status}
    return Answer({**told, **more}, status)


async def test_what_is_asked() -> None:
    """In the namespace, with the token, and strictly: what the API does not know is a mistake of ours."""
    made = {"metadata": {"name": "web"}}
    server = ApiServer({
        "POST /apis/apps/v1/namespaces/shop/deployments": Answer(made, 201),
        "PATCH /apis/apps/v1/namespaces/shop/deployments/web": Answer(made),
        "GET /api/v1/namespaces/shop": Answer({"metadata": {"name": "shop"}}),
        "GET /version": Answer({"major": "1", "minor": "34+"}),
    })  # fmt: skip
    async with client_of(server) as kubernetes:
        assert await kubernetes.create(DEPLOYMENT, made) == made
        await kubernetes.apply(DEPLOYMENT, made, force=True)
        await kubernetes.get(NAMESPACE, "shop")
        assert await kubernetes.version() == (1, 34)
    created, applied, *_ = server.asked
    assert {each.headers["Authorization"] for each in server.asked} == {"Bearer t"}
    assert created.body == made and created.params == {"fieldManager": "shoal", "fieldValidation": "Strict"}
    assert applied.headers["Content-Type"] == "application/apply-patch+yaml"
    assert applied.params == {"fieldManager": "shoal", "fieldValidation": "Strict", "force": "true"}


async def test_who_may_not_act_looks_on() -> None:
    """Nothing is sent that would change something, in the middle of what was begun neither; to look goes on."""
    made = {"metadata": {"name": "web"}}
    server = ApiServer({"POST /api/v1/namespaces/shop/configmaps": Answer(made, 201), f"{PODS}/web": Answer(made)})
    rights = [True, False]

    def require() -> None:
        if not rights.pop(0):
            raise EngineUnavailable("another one may act")

    async with (
        listen(server) as url,
        Kubernetes(Access(url, None, StaticToken(None)), "shop", before_write=require) as kubernetes,
    ):
        await kubernetes.create(CONFIG_MAP, made)
        with pytest.raises(EngineUnavailable, match="another one may act"):
            await kubernetes.create(CONFIG_MAP, made)
        await kubernetes.get(POD, "web")
    assert [each.what.split()[0] for each in server.asked] == ["POST", "GET"]


async def test_the_right_to_act_ends_while_a_request_is_made() -> None:
    """It took long to get credentials, or a connection: what was allowed before that is not sent."""
    rights = [True]

    class SlowToken(StaticToken):
        async def authorization(self, tls: ssl.SSLContext | None) -> str | None:
            rights[:] = [False]
            return await super().authorization(tls)

    def require() -> None:
        if not rights[0]:
            raise EngineUnavailable("another one may act")

    server = ApiServer({})
    async with (
        listen(server) as url,
        Kubernetes(Access(url, None, SlowToken(None)), "shop", before_write=require) as kubernetes,
    ):
        with pytest.raises(EngineUnavailable, match="another one may act"):
            await kubernetes.create(CONFIG_MAP, {"metadata": {"name": "web"}})
    assert server.asked == []


async def test_lists() -> None:
    """What has all labels, and is what it was asked for; of what is large or secret only what is said about it."""
    listed = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]}
    server = ApiServer({PODS: Answer(listed), "GET /api/v1/namespaces/shop/secrets": Answer(listed)})
    async with client_of(server) as kubernetes:
        items, version = await kubernetes.list(POD, {"b": "2", "a": ""}, fields="status.phase=Running")
        assert (items, version) == ([{"metadata": {"name": "a"}, "kind": "Pod", "apiVersion": "v1"}], "7")
        assert [each["metadata"]["name"] for each in await kubernetes.list_metadata(SECRET, {"a": "1"})] == ["a"]
    asked, about = server.asked
    assert asked.params == {"labelSelector": "a,b=2", "fieldSelector": "status.phase=Running", "limit": "500"}
    assert about.headers["Accept"].startswith("application/json;as=PartialObjectMetadataList;")


async def test_long_lists_come_in_pages() -> None:
    """Until the server says that there are no more."""
    pages = [
        {"metadata": {"resourceVersion": "7", "continue": "rest"}, "items": [{"metadata": {"name": "a"}}]},
        {"metadata": {"resourceVersion": "7", "continue": ""}, "items": [{"metadata": {"name": "b"}}]},
    ]
    server = ApiServer({PODS: [Answer(each) for each in pages]})
    async with client_of(server) as kubernetes:
        items, version = await kubernetes.list(POD, {"a": "1"})
    assert ([each["metadata"]["name"] for each in items], version) == (["a", "b"], "7")
    first, second = server.asked
    assert "continue" not in first.params and second.params == {**first.params, "continue": "rest"}


async def test_a_conflict_names_the_owner() -> None:
    """Of each field that somebody else applied."""
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "argocd"', "field": ".spec.replicas"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using apps/v1', "field": ".spec.paused"},
    ]
    answer = refused(409, "Apply failed with 2 conflicts", "Conflict", details={"causes": causes})
    server = ApiServer({"PATCH /apis/apps/v1/namespaces/shop/deployments/web": answer})
    async with client_of(server) as kubernetes:
        with pytest.raises(KubernetesConflict) as caught:
            await kubernetes.apply(DEPLOYMENT, {"metadata": {"name": "web"}})
    assert str(caught.value).startswith(
        "apply Deployment web: .spec.replicas belongs to argocd, .spec.paused belongs to kubectl; let go of it"
    )


async def test_who_was_first_is_a_conflict() -> None:
    """A version that is another one by now, and a name that is taken."""
    path = "/api/v1/namespaces/shop/configmaps"
    server = ApiServer({
        f"PUT {path}/a": refused(409, "the object has been modified", "Conflict"),
        f"POST {path}": refused(409, 'configmaps "a" already exists', "AlreadyExists"),
    })  # fmt: skip
    async with client_of(server) as kubernetes:
        with pytest.raises(KubernetesConflict, match=r"refused update ConfigMap a: the object has been modified$"):
            await kubernetes.replace(CONFIG_MAP, {"metadata": {"name": "a"}})
        with pytest.raises(KubernetesConflict) as caught:
            await kubernetes.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    assert caught.value.reason == "AlreadyExists"


async def test_a_right_that_is_missing_is_told() -> None:
    """Verb and resource, as a Role has to say them."""
    said = (
        'deployments.apps is forbidden: User "system:serviceaccount:shop:shoal" cannot patch resource "deployments" in '
        'API group "apps" in the namespace "shop"'
    )
    server = ApiServer({"PATCH /apis/apps/v1/namespaces/shop/deployments/web": refused(403, said, "Forbidden")})
    async with client_of(server) as kubernetes:
        with pytest.raises(KubernetesError) as caught:
            await kubernetes.patch(DEPLOYMENT, "web", {})
    assert caught.value.status == 403 and not isinstance(caught.value, EngineUnavailable)
    assert str(caught.value).endswith(
        "(system:serviceaccount:shop:shoal lacks the right to patch deployments.apps here: let a Role with that verb "
        "be bound to it)"
    )


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('pods "a" is forbidden: exceeded quota: q, requested: cpu=1', "kubectl describe quota"),
        (
            'pods "a" is forbidden: failed quota: q: must specify limits.cpu for: agent; limits.memory for: agent',
            "`resources.memory` is its limit of memory too; what no file says, limits of CPU and those of Shoal's own "
            "pods, has to come from a LimitRange",
        ),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest"', "pod-security.kubernetes.io/enforce"),
        ('namespaces "shop" not found', "`shoal up` makes it"),
        ("unable to create new content in namespace shop because it is being terminated", "wait until it is gone"),
        ('admission webhook "x" denied the request: no', "an admission controller"),
        ("ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no", "an admission controller"),
        (
            'user "x" is attempting to grant RBAC permissions not currently held:\n{}',
            "let who has these run `shoal up`",
        ),
    ],
)
def test_refusals_have_a_way_out(said: str, remedy: str) -> None:
    """Those that people meet."""
    assert remedy in str(refusal("https://k", "create Pod a", 403, {"message": said}))


@pytest.mark.parametrize(
    ("status", "answer", "away"),
    [
        (503, "apiserver not ready", True),
        (500, {"message": "etcdserver: request timed out"}, True),
        (500, {"message": "Internal error occurred: failed calling webhook: exploded"}, False),
        (404, {"message": "pods not found", "reason": "NotFound"}, False),
        (502, "", True),
    ],
)
def test_who_answers_but_cannot_serve_is_away(status: int, answer: object, away: bool) -> None:
    """Nothing is wrong with what was asked, so it may be asked again."""
    error = refusal("https://k", "get Pod a", status, answer)
    assert isinstance(error, KubernetesUnavailable) == away and error.status == status


async def test_a_server_that_is_busy_is_asked_again() -> None:
    """When it says; for ever it is not."""
    busy = refused(429, "too many requests", "TooManyRequests")
    busy.headers = {"Retry-After": "0"}
    listed = Answer({"metadata": {}, "items": []})
    server = ApiServer({PODS: [busy, busy, listed, busy]})
    async with client_of(server) as kubernetes:
        assert await kubernetes.list(POD) == ([], "")
        assert len(server.asked) == 3
        with pytest.raises(KubernetesUnavailable, match="refused list pods: too many requests"):
            await kubernetes.list(POD)
    assert len(server.asked) == 7


async def test_what_is_missing() -> None:
    """`None` for who asks whether there is one, nothing for who wants it gone; other refusals stay."""
    path = "/api/v1/namespaces/shop/configmaps"
    server = ApiServer({
        f"GET {path}/a": refused(404, "not found", "NotFound"), f"DELETE {path}/a": refused(404, "no", "NotFound"),
        f"GET {path}/b": refused(403, "no", "Forbidden"), f"DELETE {path}/b": refused(403, "no", "Forbidden"),
    })  # fmt: skip
    async with client_of(server) as kubernetes:
        assert await kubernetes.find(CONFIG_MAP, "a") is None
        await kubernetes.delete(CONFIG_MAP, "a")
        for asking in (kubernetes.find(CONFIG_MAP, "b"), kubernetes.delete(CONFIG_MAP, "b")):
            with pytest.raises(KubernetesError, match="refused"):
                await asking


def event(kind: str, version: str) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": "a", "resourceVersion": version}}}


async def test_a_watch_tells_what_happens() -> None:
    """From the version on, bookmarks included; it ends when the server ends it."""
    lines = [event("ADDED", "8"), event("BOOKMARK", "11"), event("DELETED", "12")]
    server = ApiServer({PODS: Answer(lines=lines)})
    async with client_of(server) as kubernetes:
        told = [
            (kind, item["metadata"]["resourceVersion"]) async for kind, item in kubernetes.watch(POD, {"a": "1"}, "7")
        ]
    assert told == [("ADDED", "8"), ("BOOKMARK", "11"), ("DELETED", "12")]
    (asked,) = server.asked
    assert asked.params["resourceVersion"] == "7" and asked.params["labelSelector"] == "a=1"
    assert asked.params["watch"] == "1" and asked.params["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(lines=[{"type": "ERROR", "object": {"code": 410, "message": "too old resource version: 7 (99)"}}]),
        refused(410, "too old resource version: 7 (99)", "Expired"),
    ],
    ids=["within", "at once"],
)
async def test_a_version_that_is_too_old_is_told(answer: Answer) -> None:
    """Who watches lists anew then."""
    async with client_of(ApiServer({PODS: answer})) as kubernetes:
        with pytest.raises(KubernetesError, match="too old resource version") as caught:
            async for _ in kubernetes.watch(POD, {}, "7"):
                pass
    assert caught.value.status == 410


async def test_a_watch_that_breaks_off() -> None:
    """What came before counts; then it is known that nothing is heard."""
    server = ApiServer({PODS: Answer(lines=[event("ADDED", "8")], cut=True)})
    told: list[str] = []
    async with client_of(server) as kubernetes:
        with pytest.raises(EngineUnavailable, match="can't be reached"):
            async for kind, _ in kubernetes.watch(POD, {}, "7"):
                told.append(kind)
    assert told == ["ADDED"]


async def test_nobody_there() -> None:
    """Server and context are named, and what to look at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Kubernetes(Access(url, None, StaticToken(None), context="prod"), "shop") as kubernetes:
            with pytest.raises(EngineUnavailable) as caught:
                await kubernetes.get(POD, "a")
    assert str(caught.value).startswith(f"Kubernetes at {url} (context prod) can't be reached: ")
    assert "`kubectl get nodes`" in str(caught.value)


async def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """As what it is: the server is there."""
    keys = make_keys(tmp_path / "keys")
    async with listen(ApiServer({}), keys) as url:
        access = Access(url, ssl.create_default_context(), StaticToken(None))
        async with Kubernetes(access, "shop") as kubernetes:
            with pytest.raises(EngineUnavailable, match=r"its certificate is not trusted: .*certificate-authority"):
                await kubernetes.get(POD, "a")


async def test_a_watch_that_is_left_leaves_no_connection(tmp_path: Path) -> None:
    """Of a server that is too busy to end TLS with it: the client's end is closed with the client."""
    keys = make_keys(tmp_path / "keys")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    line = json.dumps({"type": "ADDED", "object": {}}).encode() + b"\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def serve() -> None:
        accepted, _ = listener.accept()
        with tls.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(1 << 16)
            connection.sendall(head + f"{len(line):x}\r\n".encode() + line + b"\r\n")
            with socket.socket(fileno=os.dup(connection.fileno())) as below:
                below.settimeout(10)
                while below.recv(1 << 16):
                    pass

    async with asyncio.TaskGroup() as tasks:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = tasks.create_task(asyncio.to_thread(serve))
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            access = Access(url, ssl.create_default_context(cafile=keys / "ca.pem"), StaticToken(None))
            async with Kubernetes(access, "shop") as kubernetes, aclosing(kubernetes.watch(POD, {}, "1")) as events:
                assert await anext(events) == ("ADDED", {})
            await serving


async def test_a_token_that_was_renewed_meanwhile(tmp_path: Path) -> None:
    """Who is refused looks at its file once more, and asks again; refused again, it says so."""
    file = tmp_path / "token"
    file.write_text("old\n")
    unauthorized = refused(401, "Unauthorized", "Unauthorized")
    server = ApiServer(
        {
            PODS: [
                Answer({"metadata": {}, "items": []}),
                unauthorized,
                Answer({"metadata": {}, "items": []}),
                unauthorized,
            ]
        }
    )
    async with listen(server) as url, Kubernetes(Access(url, None, FileToken(file)), "shop") as kubernetes:
        await kubernetes.list(POD)
        file.write_text("new\n")
        await kubernetes.list(POD)
        assert [each.headers["Authorization"] for each in server.asked] == ["Bearer old", "Bearer old", "Bearer new"]
        with pytest.raises(KubernetesError, match="your credentials are not accepted: log in again"):
            await kubernetes.list(POD)


async def test_those_that_hold_a_connection_do_not_keep_others_waiting() -> None:
    """Where any number may be held."""
    held, all_are, over = 0, asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal held
        if not request.path.endswith("/log"):
            return web.json_response({"metadata": {"name": "web"}})
        response = web.StreamResponse()
        await response.prepare(request)
        held += 1
        if held == 80:
            all_are.set()
        await over.wait()
        return response

    async with (
        listening(answer, None) as port,
        Kubernetes(Access(f"http://127.0.0.1:{port}", None, StaticToken(None)), "shop", connections=0) as kubernetes,
        asyncio.TaskGroup() as tasks,
    ):
        following = [tasks.create_task(_drain(kubernetes.logs("web", params={}, follow=True))) for _ in range(80)]
        async with asyncio.timeout(20):
            await all_are.wait()
            assert (await kubernetes.get(POD, "web"))["metadata"]["name"] == "web"
        over.set()
        for each in following:
            each.cancel()


async def _drain(lines: AsyncGenerator[str]) -> None:
    async for _ in lines:
        pass
