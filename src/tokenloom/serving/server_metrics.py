"""The metrics of the server, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tokenloom.serving.engine_thread import EngineThread

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class ServerMetrics:
    """Counts requests and tokens, and measures how long they take."""

    def __init__(self, engine: EngineThread) -> None:
        self._registry = registry = CollectorRegistry()
        self.replies = Counter("tokenloom_replies", "Replies by status.", ["status"], registry=registry)
        self.prompt_tokens = Counter("tokenloom_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.completion_tokens = Counter("tokenloom_completion_tokens", "Tokens generated.", registry=registry)
        self.first_token_seconds = Histogram(
            "tokenloom_first_token_seconds",
            "Seconds from a request for completions to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.completion_seconds = Histogram(
            "tokenloom_completion_seconds",
            "Seconds from a request for completions to the end of its reply.",
            buckets=_SECONDS,
            registry=registry,
        )
        running = Gauge("tokenloom_running_sequences", "Sequences that generate now.", registry=registry)
        accepted = Gauge("tokenloom_accepted_sequences", "Sequences that generate or wait.", registry=registry)
        running.set_function(lambda: engine.running)
        accepted.set_function(lambda: engine.accepted)

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)
