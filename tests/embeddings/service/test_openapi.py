"""The OpenAPI document is true: calls that follow from it get the answers that it names, and no other status."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ionbed.embeddings.index import Index
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.settings import ServiceSettings

from .conftest import LIMITS
from .running import running

EXAMPLES = int(os.environ.get("IONBED_SCHEMATHESIS_EXAMPLES", "12"))
"""Calls of each route; more by hand."""
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_calls_that_follow_from_the_document(folder, mode):
    app = create_app(Index.open(folder), ServiceSettings(limits=LIMITS, readers=1, warm=False))
    statuses = Counter()
    with running(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for operation in (result.ok() for result in schema.get_all_operations()):

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case):
                answer = case.call(timeout=20)
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)
                assert answer.status_code < 500 or answer.status_code == 503, answer.text

            try:
                call()
            except Unsatisfiable:  # there is no wrong call of a route without parameters
                assert mode == GenerationMode.NEGATIVE
    assert statuses.total() > 8 * EXAMPLES
    assert statuses[200] if mode == GenerationMode.POSITIVE else statuses[422], statuses


def test_every_route_is_in_the_document(client):
    told = client.get("/openapi.json").json()
    assert told["openapi"] == "3.0.3", "Swagger UI of the installed package shows no later one"
    operations = {(method, path) for path, methods in told["paths"].items() for method in methods}
    assert operations == {
        ("post", "/api/search"),
        ("post", "/api/search/peaks"),
        ("post", "/api/search/usi"),
        ("post", "/api/mirror"),
        ("post", "/api/jobs"),
        ("get", "/api/jobs/{job_id}"),
        ("delete", "/api/jobs/{job_id}"),
        ("get", "/api/jobs/{job_id}/hits"),
        ("get", "/api/library/{row}"),
        ("get", "/api/library/{row}/structure.svg"),
        ("get", "/api/structure.svg"),
        ("get", "/api/info"),
        ("get", "/api/example"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/metrics"),
    }
    text = client.get("/openapi.json").text
    assert '"type":"null"' not in text.replace(" ", "")
    assert "HTTPValidationError" not in text
    for methods in told["paths"].values():
        for operation in methods.values():
            assert operation["description"].endswith(".")
            for status, answer in operation["responses"].items():
                if status.startswith("4"):
                    assert answer["content"]["application/json"]["schema"] == {
                        "$ref": "#/components/schemas/ErrorModel"
                    }


def test_the_document_says_that_a_key_is_needed(index):
    told = create_app(index, ServiceSettings(api_key="0123456789abcdef")).openapi()
    assert told["paths"]["/api/info"]["get"]["security"] == [{"key": []}, {"bearer": []}]
    assert "security" not in told["paths"]["/health/live"]["get"]


def test_the_documentation_needs_no_other_host(client):
    page = client.get("/docs").text
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert "//" not in address
        assert client.get(f"/{address}").status_code == 200
    assert "<script>" not in page, "no script stands in the page itself"
    assert "url: 'openapi.json'" in client.get("/docs/start.js").text
    etag = client.get("/docs/swagger-ui.css").headers["etag"]
    assert client.get("/docs/swagger-ui.css", headers={"If-None-Match": etag}).status_code == 304
