"""TLS towards clients: its keys.

One rule: what files hold is looked at by `certificates.py`; here stands what is asked for.
"""

from __future__ import annotations

from pydantic import Field

from director.kit.configfile import Section
from l7proxy.core.settings.fields import FileText


class TlsSection(Section):
    """`{certificate: /etc/ssl/shop.pem, key: /etc/ssl/shop.key}`"""

    certificate: FileText = Field(description="a PEM file: the certificate, then its chain")
    key: FileText = Field(description="a PEM file with its key, without a passphrase")
