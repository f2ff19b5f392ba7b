"""The body of a request for completions: OpenAI's fields, and the sampling parameters that Tokenloom adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from tokenloom.errors import shortened
from tokenloom.generation.logprobs import MAX_TOP_LOGPROBS
from tokenloom.sampling_params import SMALLEST_TEMPERATURE
from tokenloom.serving.request_schema import Body, request_error
from tokenloom.strict_json import dump_json

MAX_SAMPLES = 128
MAX_STOPS, MAX_STOP_CHARACTERS = 256, 1024
LARGEST_TOKEN_COUNT = 2**31 - 1


def check_unicode(text: str) -> str:
    """The same text; an error if it has a lone surrogate, which JSON can hold but UTF-8 cannot."""
    surrogate = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
    if surrogate is not None:
        raise _error(f"the lone surrogate {surrogate!a} is not Unicode text")
    return text


UnicodeText = Annotated[str, AfterValidator(check_unicode)]
TokenId = Annotated[int, Field(ge=0, le=LARGEST_TOKEN_COUNT)]
Stop = Annotated[UnicodeText, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
PromptJson: TypeAlias = (
    str
    | Annotated[list[str], Field(min_length=1)]
    | Annotated[list[TokenId], Field(min_length=1)]
    | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    | None
)
Prompts: TypeAlias = Sequence[str | Sequence[int]]
"""One prompt or several, each a text or the ids of its tokens."""


class StreamOptions(Body):
    """What a stream contains besides the choices."""

    include_usage: bool | None = None
    """Send the number of tokens in an event of its own, before the end."""
    include_obfuscation: bool | None = None
    """Accepted and not used."""


def _prompts(value: object) -> Prompts:
    """One or several prompts from any of the forms that OpenAI's API accepts; an error names the element."""
    if value is None:
        return [""]
    if isinstance(value, str):
        return [_text(value, "prompt")]
    if not isinstance(value, list):
        raise _error("prompt must be a text, a list of texts, a list of token ids, or a list of such lists")
    items = cast("list[object]", value)
    if not items:
        raise _error("prompt is an empty list. Pass a text, or omit the prompt to begin a new text")
    if isinstance(items[0], str):
        return [_text(item, f"prompt[{number}]") for number, item in enumerate(items)]
    if isinstance(items[0], list):
        return [_ids(item, f"prompt[{number}]") for number, item in enumerate(items)]
    return [_ids(items, "prompt")]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _error(f"{name} must be a text like the first element, got {_described(value)}")
    return check_unicode(value)


def _ids(value: object, name: str) -> list[int]:
    if not isinstance(value, list):
        raise _error(f"{name} must be a list of token ids like the first element, got {_described(value)}")
    ids = cast("list[object]", value)
    if not ids:
        raise _error(f"{name} is an empty list. A prompt needs a token: pass that of <|endoftext|> to begin a new text")
    for number, token in enumerate(ids):
        if type(token) is not int or not 0 <= token <= LARGEST_TOKEN_COUNT:
            raise _error(f"{name}[{number}] must be a token id, a whole number from 0, got {_described(token)}")
    return cast("list[int]", ids)


def _stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _temperature(value: object) -> object:
    if isinstance(value, int | float) and 0 < value < SMALLEST_TEMPERATURE:
        raise _error(f"temperature must be 0 (greedy decoding) or at least {SMALLEST_TEMPERATURE:g}, got {value}")
    return value


def _no_suffix(value: object) -> None:
    if value is not None:
        raise _error("suffix is not supported: the model continues a text, it does not fill gaps. Omit it")


def _described(value: object) -> str:
    return shortened(dump_json(value), limit=40)


def _error(message: str, param: str | None = None) -> PydanticCustomError:
    return request_error(f"{message}.", param)


class CompletionRequest(Body):
    """A request for continuations of one or several prompts."""

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        "max_new_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "num_samples": "n",
    }

    model: UnicodeText | None = None
    """An id from GET /v1/models; the first one by default."""
    prompt: Annotated[Prompts, PlainValidator(_prompts, json_schema_input_type=PromptJson)] = ("",)
    """A text, token ids, or a list of either; empty or null begins a new text."""
    max_tokens: Annotated[int, Field(ge=0, le=LARGEST_TOKEN_COUNT)] | None = None
    """Most tokens to generate for each choice; 16 by default, or fewer if the context has no room for them."""
    temperature: Annotated[float, Field(ge=0, le=100), BeforeValidator(_temperature)] | None = None
    """Sampling temperature, 1 by default; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample from the smallest set of tokens whose probabilities add up to this."""
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    """Choices for each prompt, 1 by default."""
    best_of: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    """Only the value of n is supported."""
    stream: bool | None = None
    """Send the text as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Options of a stream."""
    stop: (
        Annotated[
            list[Stop], Field(max_length=MAX_STOPS), BeforeValidator(_stops, json_schema_input_type=Stop | list[Stop])
        ]
        | None
    ) = None
    """End a text before any of these strings."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    """Repeats a reply; without it, a new seed is chosen and returned."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Return the log-probability of every token, and as many of the most likely tokens at its position."""
    echo: bool | None = None
    """Return the prompt too, before the text."""
    logit_bias: dict[UnicodeText, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """Added to the logits of tokens, by their ids."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens that were generated before."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens as often as they were generated before."""
    user: UnicodeText | None = None
    """Accepted and not used."""
    suffix: Annotated[None, PlainValidator(_no_suffix, json_schema_input_type=None)] = None
    """Not supported: only null."""
    top_k: Annotated[int, Field(ge=-1, le=LARGEST_TOKEN_COUNT)] | None = None
    """Sample from the k most likely tokens; 0 and -1 mean all. An extension of OpenAI's API."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Sample from tokens at least this many times as likely as the most likely one. An extension."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    """Penalty for tokens of the prompt and the text, 1 by default. An extension."""

    @model_validator(mode="after")
    def _check_combinations(self) -> CompletionRequest:
        if self.best_of not in (None, self.n or 1):
            raise _error(f"best_of must be null or equal to n, got {self.best_of}: all choices are returned", "best_of")
        if self.stream_options is not None and not self.stream:
            raise _error("stream_options is allowed only with stream: true", "stream_options")
        return self
