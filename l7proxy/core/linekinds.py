"""Which header lines mean something to this proxy, and what. Of others it knows no more than that they go on.

One rule: both scanners, `scan.py` and the compiled one, take their names from here.
"""

from __future__ import annotations

import re

LONGEST_HOST = 261
"""Of a name 255 (RFC 3986 3.2.2), and a port: it is kept for each connection, and among the hosts that are known."""
MOST_ANSWER_LINES = 256
"""An answer with more is not ordinary: to cut lines out takes as long as there are lines, each time."""
_SHARED_LOGIN = re.compile(rb"(?i)(?:^|,)[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)")

# What a header line is to us; FULL is not ordinary. Plain numbers: a member of an Enum is looked up each time.
PASS, HOST, LENGTH, CONNECTION, CUT, CLAIM, VIA, REFERER, AGENT, CODING, DATE, LOGIN, FULL = range(13)

REQUEST: dict[bytes, int] = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"connection": CONNECTION,
    b"keep-alive": CUT,
    b"proxy-connection": CUT,
    b"proxy-authorization": CUT,
    b"proxy-authenticate": CUT,
    b"proxy-authentication-info": CUT,
    b"trailer": CUT,
    b"te": CUT,
    b"http2-settings": CUT,
    b"proxy": CUT,  # CGI makes it HTTP_PROXY, which programs obey (httpoxy, CVE-2016-5385)
    b"transfer-encoding": FULL,
    b"upgrade": FULL,
    b"expect": FULL,
    b"forwarded": CLAIM,
    b"x-real-ip": CLAIM,
    b"authorization": LOGIN,
    b"via": VIA,
    b"referer": REFERER,
    b"user-agent": AGENT,
}
CLAIMS = b"x-forwarded-"
"""How further names of a request begin that are CLAIM."""
RESPONSE: dict[bytes, int] = {
    b"content-length": LENGTH,
    b"connection": CONNECTION,
    b"keep-alive": CUT,
    b"proxy-connection": CUT,
    b"proxy-authenticate": CUT,
    b"proxy-authorization": CUT,
    b"proxy-authentication-info": CUT,
    b"trailer": CUT,
    b"te": CUT,
    b"http2-settings": CUT,
    b"upgrade": CUT,
    b"transfer-encoding": CODING,
    b"date": DATE,
    b"www-authenticate": LOGIN,
}


def names_shared_login(value: bytes) -> bool:
    """Whether a value of Authorization or WWW-Authenticate names a scheme that authenticates a connection: NTLM or
    Negotiate (RFC 4559), anywhere in a list.

    >>> names_shared_login(b'Basic realm="a, b", NTLM'), names_shared_login(b'Basic realm="ntlm"')
    (True, False)
    """
    return _SHARED_LOGIN.search(value) is not None
