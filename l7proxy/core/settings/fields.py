"""Kinds of values that keys of l7proxy.yaml take.

One rule: what a value alone can get wrong is said here, with what to write instead.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from director.kit.net import is_host_name, parse_endpoint, split_address

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _endpoint(text: str) -> str:
    if parse_endpoint(text).port == 0:
        raise ValueError(f"{text!r} has port 0: use 1 to 65535")
    return text


def _address(text: str) -> str:
    if is_host_name(text.rpartition(":")[0]):
        split_address(text)
        return text
    return _endpoint(text)


def no_port_alone(host: str) -> BeforeValidator:
    """Refuses a number for an endpoint, and says how it is written with `host` before it."""

    def refuse(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            raise ValueError(f'{value} is a port without an address: write "{host}:{value}"')
        if isinstance(value, str) and value.removeprefix("*")[:1] == ":" and value.lstrip("*:").isdigit():
            raise ValueError(f'{value!r} has no address: write "{host}:{value.lstrip("*:")}"')
        return value

    return BeforeValidator(refuse, json_schema_input_type=str)


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network: {error}; write one such as 10.0.0.0/8 or 192.0.2.7") from None
    return text


def _absolute(text: str) -> str:
    if not PurePath(text).is_absolute():
        raise ValueError(f"{text!r} is not an absolute path: begin with /")
    return text


def header_name(text: str) -> str:
    """`text`, if it can name a header. Raises: ValueError."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} cannot name a header: use letters, digits and `-`")
    return text


def header_value(text: str) -> str:
    """`text`, if it can stand in a header. Raises: ValueError."""
    if _CONTROLS.search(text):
        raise ValueError(f"{text!r} cannot stand in a header: write it without line breaks and control characters")
    return text


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def no_truth_value(value: object) -> None:
    """Refuses `on` and its like, which are text in YAML 1.2. Raises: ValueError."""
    if isinstance(value, str) and value.lower() in {"on", "off", "yes", "no"}:
        raise ValueError(f"{value!r} is text in YAML: write true or false")


def _plain_true(value: object) -> object:
    if value is True:
        return {}
    no_truth_value(value)
    return None if value is False else value


def true_or_more(section: type[BaseModel]) -> BeforeValidator:
    """`true` is a section without keys, `false` none at all."""
    return BeforeValidator(_plain_true, json_schema_input_type=bool | section | None)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
EndpointText = Annotated[str, AfterValidator(_endpoint)]
AddressText = Annotated[str, AfterValidator(_address)]
ONE_OR_SEVERAL = BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
BindTexts = Annotated[
    tuple[Annotated[EndpointText, no_port_alone("0.0.0.0")], ...], ONE_OR_SEVERAL, Field(min_length=1)
]
Flag = Annotated[bool, Field(strict=True)]
FileText = Annotated[str, AfterValidator(_absolute)]
Count = Annotated[int, Field(strict=True, ge=0)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], ONE_OR_SEVERAL, Field(validate_default=False)
]
