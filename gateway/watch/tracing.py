"""OpenTelemetry traces, from the caller through the panel into vLLM. They hold names and numbers of
ours, never a word of a caller's. Without $OTEL_EXPORTER_OTLP_ENDPOINT nothing is recorded."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import propagate, trace

tracer = trace.get_tracer("consilium.gateway")
TRACED = "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ


def start() -> None:
    """Sends spans where the standard environment variables say, if they say so."""
    if not TRACED:
        return
    # Imported where it is used: most gateways are not traced.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "consilium")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def span(
    name: str, caller: Mapping[str, str] | None = None, **attributes: str | int | float
) -> AbstractContextManager[trace.Span]:
    """One step. `caller` are the headers of a request, whose traceparent it continues; a malformed
    one begins a trace anew."""
    if not TRACED:
        return nullcontext(trace.INVALID_SPAN)
    # Nothing else of the headers: a tracestate may hold any text.
    told = {"traceparent": (caller or {}).get("traceparent", "")}
    context = propagate.extract(told) if caller is not None else None
    # An error's words may quote a caller.
    return tracer.start_as_current_span(
        name,
        context=context,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    )


def outgoing() -> dict[str, str]:
    """The headers by which a model server continues the trace."""
    headers: dict[str, str] = {}
    if TRACED:
        propagate.inject(headers)
    return headers
