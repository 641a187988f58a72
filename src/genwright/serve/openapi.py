"""The OpenAPI document of the gateway: what is checked, and every status that can come back."""

from __future__ import annotations

from typing import Any

from genwright import __version__
from genwright.serve.checks import MOST_MESSAGES, MOST_TOKENS, ROLES

TEXT = {"type": "string"}
ERROR = {
    "type": "object", "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type"], "properties": {
        "message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}},
}  # fmt: skip

GENERATION: dict[str, Any] = {
    "model": {"type": "string", "minLength": 1, "maxLength": 256, "default": "auto",
              "description": "auto, an expert's name, or the base's"},
    "max_tokens": {"type": ["integer", "null"], "minimum": 0, "maximum": MOST_TOKENS},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 1},
    "seed": {"type": ["integer", "null"]},
    "stream": {"type": ["boolean", "null"]},
    "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "stop": {"anyOf": [TEXT, {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 16}, {"type": "null"}]},
    "user": {"type": ["string", "null"]},
}  # fmt: skip

MESSAGE = {
    "type": "object", "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": list(ROLES)},
        "content": {"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["type", "text"],
            "properties": {"type": {"type": "string", "enum": ["text"]}, "text": TEXT}}}]},
        "tool_call_id": TEXT, "name": TEXT,
    },
}  # fmt: skip

TOOL = {
    "type": "object", "required": ["type", "function"],
    "properties": {"type": {"type": "string", "enum": ["function"]}, "function": {
        "type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1}, "description": TEXT, "parameters": {"type": "object"}}}},
}  # fmt: skip

CHAT = {
    "type": "object", "required": ["messages"],
    "properties": {
        "messages": {"type": "array", "minItems": 1, "maxItems": MOST_MESSAGES, "items": MESSAGE}, **GENERATION,
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 0, "maximum": MOST_TOKENS},
        "tools": {"type": ["array", "null"], "items": TOOL},
        "tool_choice": {"anyOf": [{"type": "string", "enum": ["none", "auto", "required"]}, {"type": "object"}, {"type": "null"}]},
        "response_format": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["type"], "properties": {
            "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]}, "json_schema": {"type": "object"}}}]},
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
    },
}  # fmt: skip

COMPLETION = {"type": "object", "required": ["prompt"], "properties": {"prompt": TEXT, **GENERATION}}

EMBEDDING = {
    "type": "object", "required": ["input"],
    "properties": {"model": GENERATION["model"], "input": {"anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MOST_MESSAGES}]}},
}  # fmt: skip

ANSWER = {
    "type": "object",
    "required": ["choices"],
    "properties": {"choices": {"type": "array"}, "genwright": {"type": "object"}},
}

EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
"""Of a stream: `data` is an ANSWER in pieces, an error, or [DONE]."""


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Genwright gateway", "version": __version__},
        "security": [{}, {"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/chat/completions": {"post": _post("Answer a conversation", CHAT, streams=True)},
            "/v1/completions": {"post": _post("Continue a text", COMPLETION, streams=True)},
            "/v1/embeddings": {"post": _post("Vectors of texts", EMBEDDING, streams=False)},
            "/v1/models": {"get": _get("Models that may be named", "application/json", 401)},
            "/v1/models/{name}": {"get": {
                **_get("One of them", "application/json", 401, 404),
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": TEXT}]}},
            "/health": {"get": _get("The gateway lives", "application/json")},
            "/ready": {"get": _get("The first token can be produced", "application/json", 503)},
            "/metrics": {"get": _get("Prometheus metrics", "text/plain")},
            "/openapi.json": {"get": _get("This document", "application/json")},
        },
    }  # fmt: skip


def _post(summary: str, body: dict[str, Any], *, streams: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": ANSWER if streams else {"type": "object"}}}
    content |= {"text/event-stream": {"itemSchema": EVENT}} if streams else {}
    statuses = (400, 401, 403, 404, 408, 413, 415, 429, 431, 501, 503)
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The answer", "content": content}, **_errors(*statuses)},
    }


def _get(summary: str, kind: str, *statuses: int) -> dict[str, Any]:
    schema = TEXT if kind == "text/plain" else {"type": "object"}
    answer = {"description": summary, "content": {kind: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, **_errors(*statuses)}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {
        str(status): {"description": "Refused, and why", "content": {"application/json": {"schema": ERROR}}}
        for status in statuses
    }
