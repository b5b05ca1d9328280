"""Notifications as they are written, refused and meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.event import Event, EventKind
from director.core.notifying import DEFAULT_TOPICS, Mail, MailTls, Notification, Script, Topic, Trust, Webhook
from director.core.notifyschema import parse_relay
from director.kit.configfile import InvalidConfigError

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web: {address: 192.0.2.10, port: 80, forward: nat, real_servers: {a: {address: 10.0.0.1}}}
notifications:
"""


def parsed(text: str) -> tuple[Notification, ...]:
    return parse_config(f"{FILE}  it: {text}\n", "f").notifications


def refused(text: str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        parsed(text)
    (line,) = caught.value.lines()
    place, _, said = line.partition(": ")
    assert place.startswith("f:5:")
    return said.partition(": ")[2]


def test_each_type_means_its_value() -> None:
    assert parsed("{type: script, command: [/bin/x, a b], user: ops, timeout: 2s}") == (
        Notification("it", Script(("/bin/x", "a b"), "ops", 2.0)),
    )
    hook = "{type: webhook, url: 'https://chat:8443/x?y', headers: {X-A: b}, header_files: {Authorization: /s}"
    assert parsed(f"{hook}, verify: false, on: [wish, daemon], give_up: 1h}}") == (
        Notification(
            "it",
            Webhook("https://chat:8443/x?y", (("X-A", "b"),), (("Authorization", "/s"),), 5.0, Trust(verify=False)),
            frozenset({"wish", "daemon"}),
            give_up_s=3600.0,
        ),
    )
    mail = "{type: email, relay: mail.example.org, from: d@example.org, to: ops@example.org, virtual_servers: [web]"
    receiver = Mail("mail.example.org", 25, "d@example.org", ("ops@example.org",))
    assert parsed(mail + "}") == (Notification("it", receiver, virtual_servers=frozenset({"web"})),)
    more = ", tls: starttls, username: u, password_file: /p, ca_file: /ca, bundle: 1m}"
    (found,) = parsed(mail + more)
    assert found.receiver == Mail(
        "mail.example.org",
        587,
        "d@example.org",
        ("ops@example.org",),
        MailTls.STARTTLS,
        "u",
        "/p",
        30.0,
        60.0,
        Trust(True, "/ca"),
    )


def test_without_notifications_there_are_none() -> None:
    assert parse_config(FILE.replace("notifications:", "exclusive: false"), "f").notifications == ()


def test_the_example_of_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "director.md").read_text()
    (example,) = re.findall(r"^```yaml\n(notifications:.*?)```", text, re.MULTILINE | re.DOTALL)
    found = parse_config(FILE.replace("notifications:\n", example), "docs/director.md").notifications
    assert [type(each.receiver) for each in found] == [Script, Webhook, Mail]


WEBHOOK = "type: webhook, url: 'https://h/'"
MAIL = "type: email, relay: r, from: d@h, to: [o@h]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{type: sms}", "'sms' is not known: use one of script, webhook, email"),
        ("{type: script, command: notify}", "'notify' is not a command: write a list"),
        ("{type: script, command: [notify]}", "'notify' is not a program's path: begin with /"),
        ("{type: script, command: []}", "a list is not a command"),
        ("{type: webhook}", "key 'url' is missing: add it"),
        ("{type: webhook, url: ftp://h/}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 7}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://'}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://h:99999/'}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://[::1/'}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://h/a b'}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://h/ä'}", "the URL is not one that can be posted to"),
        ("{type: webhook, url: 'https://u:p@h/'}", "the URL holds a user's name or password"),
        (f"{{{WEBHOOK}, headers: {{'a b': x}}}}", "'a b' is not a header's name"),
        (f"{{{WEBHOOK}, headers: {{Content-Length: '1'}}}}", "'Content-Length' is the director's own to set"),
        (f'{{{WEBHOOK}, headers: {{A: "x\\ny"}}}}', "a header's value is not a text of printable ASCII"),
        (f"{{{WEBHOOK}, headers: {{A: b}}, header_files: {{a: /c}}}}", "header 'a' stands here twice"),
        (f"{{{WEBHOOK}, header_files: {{A: c}}}}", "'c' is not an absolute path"),
        (f"{{{WEBHOOK}, verify: false, ca_file: /c}}", "ca_file is of no use with `verify: false`"),
        (f"{{{WEBHOOK}, on: [heath]}}", "'heath' is not known: did you mean 'health'?"),
        (f"{{{WEBHOOK}, on: []}}", "has too few entries: it needs at least one"),
        (f"{{{WEBHOOK}, virtual_servers: [wbe]}}", "there is no virtual server 'wbe': did you mean 'web'?"),
        (f"{{{MAIL}, to: []}}".replace(", to: [o@h]", ""), "has too few entries: it needs at least one"),
        (f"{{{MAIL.replace('r,', 'a b,', 1)}}}", "'a b' is not a relay"),
        (f"{{{MAIL.replace('o@h', 'Ops <o@h>')}}}", "'Ops <o@h>' is not a mail address"),
        (f"{{{MAIL.replace('o@h', '-f@h@h')}}}", "'-f@h@h' is not a mail address"),
        (f"{{{MAIL}, username: u}}", "username and password_file belong together"),
        (f"{{{MAIL}, username: u, password_file: /p}}", "the password would go over the network in clear"),
        (f"{{{MAIL}, verify: false}}", "verify and ca_file belong to TLS"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(text: str, said: str) -> None:
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        "{type: webhook, url: 'https://user:hidden@h/'}",
        "{type: webhook, url: 'hidden'}",
        "{type: webhook, url: [hidden]}",
        f"{{{WEBHOOK}, headers: {{A: 'hidden ä'}}}}",
        f"{{{WEBHOOK}, headers: {{A: [hidden]}}}}",
        f"{{{WEBHOOK}, headers: {{A: 123hidden}}, header_files: {{A: /x}}}}",
    ],
)
def test_no_message_tells_a_secret(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parsed(text)
    assert "hidden" not in str(caught.value)


def test_no_value_shows_a_secret() -> None:
    hook = Webhook("https://h:1/hidden?hidden", (("A", "hidden"),))
    assert "hidden" not in f"{Notification('it', hook)!r} {hook} {Script(('/x', 'hidden'))!r}"
    assert str(hook) == "webhook https://h:1"


@given(st.text(max_size=40))
def test_a_relay_is_one_or_is_refused(text: str) -> None:
    try:
        host, port = parse_relay(text)
    except ValueError:
        return
    assert host
    assert port is None or 0 < port < 65536


def test_topics_are_the_kinds_and_the_refused_configuration() -> None:
    assert {*get_args(Topic)} == {*(kind.value for kind in EventKind), "configuration_refused"}
    assert {*DEFAULT_TOPICS} <= {*get_args(Topic)}


@pytest.mark.parametrize("kind", EventKind)
def test_a_topic_is_told_if_asked_for(kind: EventKind) -> None:
    event = Event(0, kind, "web", now="refused")
    mine = Notification("it", Script(("/x",)), on=frozenset({kind.value}))
    assert mine.wants(event)
    others: frozenset[Topic] = frozenset({*get_args(Topic)} - {kind.value, "configuration_refused"})
    assert not Notification("it", Script(("/x",)), on=others).wants(event)


def test_a_notification_does_not_tell_of_itself() -> None:
    on: frozenset[Topic] = frozenset({"notification"})
    mine = Notification("it", Script(("/x",)), on=on)
    assert not mine.wants(Event(0, EventKind.NOTIFICATION, now="fails", check=mine.label))
    assert mine.wants(Event(0, EventKind.NOTIFICATION, now="fails", check="notification other"))
