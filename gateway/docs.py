"""Blueprint: the OpenAPI document, and a page to read it without anything from elsewhere."""

import json
from base64 import b64encode
from hashlib import sha256
from typing import Final

from flask import Blueprint, Response, render_template_string

from gateway import openapi
from gateway.settings import Settings

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff; }
h2 { border-top: 1px solid #bbb; padding-top: 1rem; } code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { background: #f4f4f2; padding: 1rem; overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #ddd; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; } pre { background: #262626; } }
"""
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ doc.info.title }}: the API</title><style>{{ style | safe }}</style></head><body>
<h1>{{ doc.info.title }}: the API</h1>
<p>{{ doc.info.description }} The same for programs: <a href="/openapi.json">openapi.json</a>.</p>
{% for path, methods in doc.paths.items() %}{% for method, operation in methods.items() %}
<h2 id="{{ operation.operationId }}"><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ operation.summary }} {{ operation.description }}</p>
{% if operation.requestBody %}<p>Body: {% for type in operation.requestBody.content %}<code>{{ type }}</code>
{% endfor %}</p>{% endif %}
<table><tr><th>Parameter</th><th>In</th><th></th></tr>
{% for parameter in operation.parameters %}
{% set parameter = doc.components.parameters[parameter["$ref"].split("/")[-1]] if "$ref" in parameter else parameter %}
<tr><td><code>{{ parameter.name }}</code></td><td>{{ parameter.in }}</td><td>{{ parameter.description }}
{% for value in parameter.schema.get("items", parameter.schema).enum or () %}<code>{{ value }}</code> {% endfor %}
</td></tr>
{% endfor %}</table>
<table><tr><th>Status</th><th></th></tr>{% for status, answer in operation.responses.items() %}
<tr><td>{{ status }}</td><td>{{ answer.description }}</td></tr>{% endfor %}</table>
{% endfor %}{% endfor %}
<h2 id="schemas">Schemas</h2>
{% for name, schema in doc.components.schemas.items() %}
<h3><code>{{ name }}</code></h3><pre>{{ schema | tojson(2) }}</pre>{% endfor %}
</body></html>
"""
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()


def blueprint(settings: Settings) -> Blueprint:
    """The two routes."""
    routes = Blueprint("docs", __name__)
    document = openapi.document(settings)

    @routes.get("/openapi.json")
    def openapi_json() -> Response:
        return Response(json.dumps(document), content_type="application/json")

    @routes.get("/docs")
    def page() -> Response:
        answer = Response(render_template_string(_PAGE, doc=document, style=_STYLE), content_type="text/html")
        answer.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"
        )
        return answer

    return routes
