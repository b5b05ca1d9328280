"""`check: {type: dns}`: a question, and the answer that a DNS server gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from director.kit.checks.base import NetworkSection
from director.kit.configfile import Section
from director.kit.shown import shown


@dataclass(frozen=True, slots=True)
class DnsProbe:
    """A question for `name` and `record`, which must be answered with one of `rcodes` (names, as in RFC 1035).

    `answers` are rdata as dnspython writes them: one of them must be in the answer, or with `every` all; where none are
    given, `some` asks for at least one record of the type.
    """

    name: str
    record: str = "A"
    tcp: bool = False
    recursion: bool = True
    rcodes: tuple[str, ...] = ("NOERROR",)
    answers: tuple[str, ...] = ()
    every: bool = False
    some: bool = True

    def __str__(self) -> str:
        return f"dns {self.name} {self.record}"


# dnspython is imported where it is used: most files have no such check, and it takes a while.
def _name(value: object) -> str:
    import dns.exception
    import dns.name

    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a domain name: write it as text, such as www.example.org")
    try:
        return dns.name.from_text(value).to_text()
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{shown(value)} is not a domain name: {error}") from None


def _record(value: object) -> str:
    import dns.exception
    import dns.rdatatype

    try:
        kind = dns.rdatatype.from_text(value) if isinstance(value, str) else None
    except (dns.exception.DNSException, ValueError):
        kind = None
    if kind is None or dns.rdatatype.is_metatype(kind) or not kind:
        raise ValueError(f"{shown(value)} is not a record type: use one such as A, AAAA, MX, NS, SOA, SRV or TXT")
    return dns.rdatatype.to_text(kind)


def _rcode(value: object) -> str:
    import dns.exception
    import dns.rcode

    try:
        code = dns.rcode.from_text(value) if isinstance(value, str) else None
    except (dns.exception.DNSException, ValueError):
        code = None
    if code is None or code > 15:
        raise ValueError(f"{shown(value)} is not a response code: use one such as NOERROR, NXDOMAIN or REFUSED")
    return dns.rcode.to_text(code)


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


Rcode = Annotated[str, BeforeValidator(_rcode)]
ONE_OR_SEVERAL = BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])


class DnsExpectSection(Section):
    """What an answer must be like."""

    rcode: Annotated[tuple[Rcode, ...], ONE_OR_SEVERAL, Field(min_length=1, max_length=16)] | None = Field(
        None,
        description="one response code or a list of them; where it is written and `answer` is not, it alone decides; "
        "default: NOERROR, with at least one record of the type",
    )
    answer: Annotated[tuple[str, ...], ONE_OR_SEVERAL, Field(min_length=1, max_length=64)] | None = Field(
        None, description="records, one or a list, written as in a zone file: `192.0.2.1`, `10 mail.example.org.`"
    )
    match: Literal["any", "all"] = Field(
        "any", description="any: one of these records must be in the answer; all: every one; others may be there too"
    )


class DnsCheckSection(NetworkSection):
    """`check: {type: dns, name: www.example.org}`; a server that the name's zone, or recursion, is asked of.

    Over udp the question is sent again after half of the timeout. Packets that are not its answer are ignored.
    """

    type: Literal["dns"]
    name: Annotated[str, BeforeValidator(_name)] = Field(description="the name to ask for")
    record: Annotated[str, BeforeValidator(_record)] = Field("A", description="the type of record to ask for")
    transport: Literal["udp", "tcp"] = "udp"
    recursion: bool = Field(True, strict=True, description="whether the server is to ask others (RD); default true")
    expect: DnsExpectSection = DnsExpectSection()

    @model_validator(mode="after")
    def _answers(self) -> DnsCheckSection:
        for text in self.expect.answer or ():
            canonical_record(self.record, text)
        return self

    def probe(self) -> DnsProbe:
        expected = self.expect
        answers = tuple(sorted({canonical_record(self.record, text) for text in expected.answer or ()}))
        return DnsProbe(
            name=self.name,
            record=self.record,
            tcp=self.transport == "tcp",
            recursion=self.recursion,
            rcodes=tuple(sorted(set(expected.rcode or ("NOERROR",)))),
            answers=answers,
            every=expected.match == "all",
            some=expected.rcode is None,
        )


def canonical_record(record: str, text: str) -> str:
    """A record's data as dnspython writes it, names absolute.

    Raises: ValueError.

    >>> canonical_record("MX", "10 mail.example.org"), canonical_record("AAAA", "2001:DB8:0::1")
    ('10 mail.example.org.', '2001:db8::1')
    """
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    try:
        kind = dns.rdatatype.from_text(record)
        data = dns.rdata.from_text(dns.rdataclass.IN, kind, text, origin=dns.name.root, relativize=False)
        return data.to_text()
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise ValueError(
            f"{shown(text)} is not the data of an {record} record: write it as in a zone file ({error})"
        ) from None
