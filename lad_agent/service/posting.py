"""How a part comes in: as an image in a form, or as a path; once, however often it is sent."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from lad_agent import images, nearest
from lad_agent.errors import Conflict
from lad_agent.inputs import Item
from lad_agent.recipe import Recipe
from lad_agent.service.problems import Problem, invalid
from lad_agent.service.services import Services
from lad_agent.store import Inspected, access

ARRIVES_WITHIN_S = 60.0
"""Whoever sends a body slower than this gives the place to others."""

P = TypeVar("P", bound="Part")

IMAGE_TYPES = ("image/", "application/octet-stream")


class Part(BaseModel):
    """What a form says about its image. `recipe` is the product's name."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(min_length=1, max_length=64, examples=["screw_bag"])
    part_id: str = Field(min_length=1, max_length=200, examples=["bag-00017"])
    lot: str | None = Field(default=None, max_length=100, examples=["2026-22"])


class PartByPath(Part):
    """A part whose image lies where the service may read it."""

    path: str = Field(min_length=1, max_length=4096, examples=["/data/line-1/00017.png"])


class Open(BaseModel):
    """An inspection that is taken in and not recorded yet."""

    id: str
    status: Literal["open"] = "open"
    part_id: str
    product: str
    station: str
    lot: str | None
    recipe_version: str
    opened_at: str


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        **Part.model_json_schema()["properties"],
                        "lot": {"type": "string", "maxLength": 100},
                    },
                    "required": ["image", "recipe", "part_id"],
                    "additionalProperties": False,
                }
            },
            "application/json": {"schema": PartByPath.model_json_schema()},
        },
    }
}
"""What a request's body may be, as OpenAPI says it."""


@dataclass(frozen=True)
class Accepted:
    """The inspection of a request; `replayed` if an earlier one of the same key made it."""

    id: str
    replayed: bool


def as_open(row: Inspected) -> Open:
    """What is told of an inspection while it is open."""
    intake = row.intake
    return Open(
        id=row.id,
        part_id=intake.part_id,
        product=intake.product,
        station=intake.station,
        lot=intake.lot,
        recipe_version=intake.recipe_version,
        opened_at=row.opened_at,
    )


def no_recipe(product: str, recipes: Mapping[str, Recipe]) -> str:
    """That there is none, and which there are."""
    return f"no recipe for {product!r}; {nearest.hint(product, sorted(recipes))}"


async def accept(request: Request, services: Services, by: str, key: str | None) -> Accepted:
    """Read a request, take its part in, and begin to inspect it.

    Raises:
        Problem: 429 before the body is read, where the queue is full; 4xx for what the body is.
        StoreError: nothing was taken in.
    """
    with services.inspecting.reserve() as place:
        try:
            async with asyncio.timeout(ARRIVES_WITHIN_S):
                part, item, fingerprint = await _read(request, services)
        except TimeoutError as error:
            raise Problem(408, "too-slow", "the body did not arrive in time") from error
        scoped = _scoped(by, key, fingerprint)
        earlier = await asyncio.to_thread(
            services.store.ask, lambda session: access.accepted(session, scoped)
        )
        if earlier is not None and key is not None:
            if earlier.fingerprint != fingerprint:
                raise _other_body()
            return Accepted(earlier.inspection_id, replayed=True)
        accepted = await services.inspecting.accept(place, item, by=by, lot=part.lot)
        try:
            await services.inspecting.remember(scoped, fingerprint, accepted)
        except Conflict as error:
            raise _other_body() from error
        return Accepted(accepted, replayed=False)


async def _read(request: Request, services: Services) -> tuple[Part, Item, str]:
    """The part, its image with its recipe, and a hash of all that was said."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=10, max_part_size=10_000) as form:
            part, image = _form(form)
            recipe = _recipe(part, services)
            content = await image.read()
        suffix = PurePath(image.filename or "").suffix.lower()
        path = await asyncio.to_thread(
            services.store.keep_content, content, suffix if suffix in images.SUFFIXES else ""
        )
        said = hashlib.sha256(content).hexdigest()
    elif kind == "application/json":
        named = _checked(PartByPath, await _json(request))
        part, said = named, named.path
        recipe = _recipe(part, services)
        path = await asyncio.to_thread(_allowed, said, services.settings.image_roots)
    else:
        raise Problem(
            415,
            "unsupported-media-type",
            "send multipart/form-data with an image, or application/json with a path",
            headers={"Accept-Post": "multipart/form-data, application/json"},
        )
    fields = json.dumps([kind, said, part.recipe, part.part_id, part.lot])
    fingerprint = hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()
    return part, Item(part.part_id, path, recipe), fingerprint


def _form(form: FormData) -> tuple[Part, UploadFile]:
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise Problem(422, "invalid", "image: the form has no file of that name")
    kind = image.content_type or IMAGE_TYPES[-1]
    if not kind.startswith(IMAGE_TYPES):
        raise Problem(415, "unsupported-media-type", f"image: {kind} is no image")
    names = [name for name, _ in form.multi_items()]
    if len(set(names)) < len(names):
        raise Problem(422, "invalid", "a field was sent twice")
    return _checked(Part, {name: form[name] for name in names if name != "image"}), image


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise Problem(400, "bad-request", "the body is not JSON") from error


def _checked(form: type[P], content: object) -> P:
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise invalid(error.errors()) from error


def _recipe(part: Part, services: Services) -> Recipe:
    found = services.recipes.get(part.recipe)
    if found is None:
        raise Problem(404, "unknown-recipe", no_recipe(part.recipe, services.recipes))
    return found


def _allowed(name: str, roots: tuple[Path, ...]) -> Path:
    """The file that is meant, its links followed, if it lies below one of the roots."""
    try:
        path = Path(name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        path = None
    inside = path is not None and any(path.is_relative_to(root.resolve()) for root in roots)
    if path is None or not inside or not path.is_file():
        # One answer for all, so that nobody learns what lies elsewhere.
        raise Problem(
            403, "path-not-allowed", "path: no file there below the service's image_roots"
        )
    return path


def _scoped(by: str, key: str | None, fingerprint: str) -> str:
    """Keys of different callers are different; without a key the content stands for it."""
    content = json.dumps([by, key, None if key else fingerprint])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _other_body() -> Problem:
    return Problem(
        422, "key-reused", "the idempotency key was used for another request; use a new key"
    )
