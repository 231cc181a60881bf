"""The page at `/`, on which a person tries what is served: one file, no outside resource.

It asks the server's own endpoints: `:predict` for texts, `/v1/completions` and
`/v1/chat/completions` for text that grows.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .chat_text import NEEDED, chat_template_of
from .refused import Refused
from .served import Servable, ServedModels

MODELS_PATH = "/page/models.json"
_HERE = Path(__file__).parent
_SCRIPTS = ("page.js", "page_chat.js")


def routes(served: ServedModels) -> list[Route]:
    """Gives the routes of the page and of what it needs to know about the models.

    Args:
        served: what is shown.
    """

    async def page(request: Request) -> Response:
        text, policy = _page()
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(text, media_type="text/html", headers=headers)

    async def models(request: Request) -> Response:
        found = []
        for name in served.names():
            try:
                with served.use(name) as servable:
                    found.append(_about(servable))
            except (Refused, KeyError, TypeError, OSError):
                continue  # no version of it answers now, or its manifest is damaged
        return JSONResponse({"models": found}, headers={"Cache-Control": "no-store"})

    return [Route("/", page, methods=["GET"]), Route(MODELS_PATH, models, methods=["GET"])]


def _about(servable: Servable) -> dict[str, Any]:
    manifest, signatures = servable.manifest, servable.model.signatures
    generates = all(name in signatures for name in NEEDED)
    instances = manifest.example_request.get("instances")
    example = instances[0] if isinstance(instances, list) and instances else {}
    return {
        "name": servable.name,
        "version": servable.version,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "example": {"text": example} if isinstance(example, str) else example,
        "generates": generates,
        "chat": generates and chat_template_of(servable) is not None,
        "signatures": {
            name: {"inputs": _specs(signature.inputs), "outputs": _specs(signature.outputs)}
            for name, signature in signatures.items()
        },
    }


def _specs(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"dtype": spec.dtype, "shape": list(spec.shape or ())}
        for name, spec in tensors.items()
    }


@cache
def _page() -> tuple[str, str]:
    """Gives the page, and the policy under which nothing but its own script and style runs."""
    script = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    page = page.replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
