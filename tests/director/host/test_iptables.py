"""What iptables' own words are taken to mean, as its versions 1.8 say them, of either kind."""

from __future__ import annotations

import pytest

from director.host.iptables import UnusableError, failure

pytestmark = pytest.mark.unit

NFT, LEGACY = "iptables-nft-restore v1.8.9 (nf_tables): ", "iptables-restore v1.8.9 (legacy): "


@pytest.mark.parametrize(
    "errors",
    [
        f"{NFT}\nline 2: TABLE_ADD failed (Operation not supported): table nat",
        f"{NFT}Could not fetch rule set generation id: Invalid argument",
        f"{NFT}table `nat' is incompatible, use 'nft' tool.",
        f"{LEGACY}iptables-restore: unable to initialize table 'mangle'\nError occurred at line: 1",
        "iptables-save v1.8.9 (legacy): Cannot initialize: Table does not exist (do you need to insmod?)",
    ],
)
def test_kernel_without_tables_of_this_kind_leads_to_the_other_kind(errors: str) -> None:
    error = failure("iptables-restore", errors)
    assert isinstance(error, UnusableError)
    assert "cannot be used with this kernel and its tables" in str(error)


@pytest.mark.parametrize(
    "errors",
    [
        f"Warning: Extension ipvs revision 0 not supported, missing kernel module?\n{NFT}\nline 3: RULE_APPEND failed",
        "Warning: Extension ipvs revision 0 not supported, missing kernel module?\niptables-restore: line 4 failed",
        f"{LEGACY}Couldn't load match `ipvs':No such file or directory",
    ],
)
def test_missing_match_is_named_with_what_to_do(errors: str) -> None:
    error = failure("iptables-restore", errors)
    assert isinstance(error, UnusableError)
    assert "modprobe xt_ipvs" in str(error)


@pytest.mark.parametrize(
    ("errors", "advice"),
    [
        ("iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied (you must be root)", "run as root"),
        (f"{NFT}Could not fetch rule set generation id: Permission denied (you must be root)", "run as root"),
        ("Fatal: can't open lock file /run/xtables.lock: Permission denied", "run as root"),
        ("Another app is currently holding the xtables lock. Stopped waiting after 5s.", "fuser /run/xtables.lock"),
        ("iptables-restore: line 3 failed", "iptables-restore: iptables-restore: line 3 failed"),
        (f"{NFT}\nline 2: RULE_DELETE failed (No such file or directory): rule in chain X", "RULE_DELETE failed"),
        ("", "it gave no reason"),
    ],
)
def test_other_failures_are_no_reason_for_the_other_kind(errors: str, advice: str) -> None:
    error = failure("iptables-restore", errors)
    assert not isinstance(error, UnusableError)
    assert advice in str(error)
