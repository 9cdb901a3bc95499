"""The API is what its schema says: schemathesis draws requests from it and looks for lies."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.schemas import BaseSchema

from tests.service.conftest import API, Running, serving

TOKEN = {"Authorization": "Bearer token-all"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> object:
    with serving(tmp_path_factory.mktemp("service")) as running:
        running.add_user("anna", "admin", "token-all")
        yield running


@pytest.fixture(scope="module")
def schema(service: Running) -> BaseSchema:
    found = schemathesis.openapi.from_url(f"{service.url}{API}/openapi.json", headers=TOKEN)
    # A stream has no end, and signing out ends what the others test with.
    return found.exclude(path=f"{API}/events").exclude(path=f"{API}/session")


def test_every_answer_is_as_documented(schema: BaseSchema) -> None:
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        count += 1

        @given(case=operation.as_strategy())
        @settings(
            max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def check(case: Case) -> None:
            case.call_and_validate(headers=TOKEN)

        check()
    assert count > 10


def test_every_route_has_a_summary_and_its_problems(service: Running) -> None:
    document = httpx.get(f"{service.url}{API}/openapi.json", trust_env=False).json()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["description"], (path, method)
            assert "application/problem+json" in route["responses"]["default"]["content"]
    body = document["paths"][f"{API}/inspections"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
