"""For every alert: what it fires on, and what is so close to that that it must not.

One rule: series are written as `promtool test rules` takes them, a sample each 15 s; every alert of the rule file has
its line here.
"""

from __future__ import annotations

from dataclasses import dataclass

VS = 'instance="a", virtual_server="web"'
RS = 'instance="a", virtual_server="web", real_server="one"'
UP = 'instance="p", upstream="shop"'
BE = 'instance="p", upstream="shop", backend="b0"'


@dataclass(frozen=True, slots=True)
class Case:
    """`bad` and `good` are series by name with their values; it fires after `minutes` of `bad`."""

    bad: dict[str, str]
    good: dict[str, str]
    minutes: float


def _level(series: str, bad: str, good: str, minutes: float) -> Case:
    """One number that stands."""
    return Case({series: f"{bad}x400"}, {series: f"{good}x400"}, minutes)


def _requests(failed: int, answered: int) -> dict[str, str]:
    return {
        f'l7proxy_requests_total{{{UP}, route="r", code="5xx"}}': f"0+{failed}x400",
        f'l7proxy_requests_total{{{UP}, route="r", code="2xx"}}': f"0+{answered}x400",
    }


def _durations(slow: int) -> dict[str, str]:
    """Of 100 requests in 15 s, how many take 2.5 to 5 s."""
    buckets = {"1": 100 - slow, "2.5": 100 - slow, "5": 100, "+Inf": 100}
    family = "l7proxy_request_duration_seconds_bucket"
    return {f'{family}{{{UP}, le="{le}"}}': f"0+{count}x400" for le, count in buckets.items()} | _requests(0, 100)


CASES = {
    "DirectorAbsent": _level('up{job="director", instance="a"}', "0", "1", 3),
    "DirectorNotScraped": Case({}, {'up{job="director", instance="a"}': "0x400"}, 11),
    "VirtualServerDown": _level(f"director_virtual_server_up{{{VS}}}", "0", "1", 1),
    "VirtualServerBelowQuorum": Case(
        {f"director_virtual_server_quorum{{{VS}}}": "0x400", f"director_virtual_server_up{{{VS}}}": "1x400"},
        {f"director_virtual_server_quorum{{{VS}}}": "0x400", f"director_virtual_server_up{{{VS}}}": "0x400"},
        2,
    ),
    "VirtualServerPanic": _level(f"director_virtual_server_panic{{{VS}}}", "1", "0", 2),
    # What the operator has taken out may be down.
    "RealServerDown": Case(
        {
            f"director_real_server_up{{{RS}}}": "0x400",
            f"director_real_server_drained{{{RS}}}": "0x400",
            f"director_real_server_maintenance{{{RS}}}": "0x400",
        },
        {
            f"director_real_server_up{{{RS}}}": "1x400",
            f'director_real_server_up{{{VS}, real_server="two"}}': "0x400",
            f'director_real_server_drained{{{VS}, real_server="two"}}': "1x400",
            f'director_real_server_up{{{VS}, real_server="three"}}': "0x400",
            f'director_real_server_maintenance{{{VS}, real_server="three"}}': "1x400",
        },
        3,
    ),
    "RealServerWarning": _level(f"director_real_server_warning{{{RS}}}", "1", "0", 61),
    "DirectorReconcileFails": _level('director_failures{instance="a"}', "2", "0", 3),
    # What somebody else has changed may stand, where the file says so.
    "DirectorWeightsNotWritten": Case(
        {f"director_real_server_entries_wrong{{{RS}}}": "1x400", f"director_virtual_server_drift{{{VS}}}": "0x400"},
        {
            f"director_real_server_entries_wrong{{{RS}}}": "1x400",
            f"director_virtual_server_drift{{{VS}}}": "1x400",
            'director_real_server_entries_wrong{instance="a", virtual_server="db", real_server="one"}': "0x400",
            'director_virtual_server_drift{instance="a", virtual_server="db"}': "0x400",
        },
        3,
    ),
    # It was read at the beginning, and not again; and it is read again each time.
    "DirectorKernelSilent": Case(
        {'director_kernel_read_timestamp_seconds{instance="a"}': "0x400"},
        {'director_kernel_read_timestamp_seconds{instance="a"}': "0+15x400"},
        3,
    ),
    "VipMissing": _level(f"director_virtual_server_vip_present{{{VS}}}", "0", "1", 3),
    "DirectorDriftRepeated": Case(
        {'director_drift_repaired_total{instance="a"}': "0+1x400"},
        {'director_drift_repaired_total{instance="a"}': "0x20 4x380"},
        16,
    ),
    "DirectorDriftStands": _level(f"director_virtual_server_drift{{{VS}}}", "1", "0", 31),
    "DirectorReloadRefused": _level('director_config_last_reload_successful{instance="a"}', "0", "1", 6),
    "DirectorProbesLate": Case(
        {
            'director_probes_due_total{instance="a"}': "0+100x400",
            'director_probes_on_time_total{instance="a"}': "0+90x400",
        },
        {
            'director_probes_due_total{instance="a"}': "0+100x400",
            'director_probes_on_time_total{instance="a"}': "0+99x400",
        },
        16,
    ),
    "DirectorNotificationFails": _level('director_notification_failing{instance="a", notification="n"}', "1", "0", 11),
    "DirectorHookFails": Case(
        {f"director_hook_failures_total{{{VS}}}": "0x20 1x380"}, {f"director_hook_failures_total{{{VS}}}": "3x400"}, 6
    ),
    "DirectorDescriptorsNearLimit": Case(
        {'process_open_fds{job="director"}': "90x400", 'process_max_fds{job="director"}': "100x400"},
        {'process_open_fds{job="other"}': "90x400", 'process_max_fds{job="other"}': "100x400"},
        11,
    ),
    "RealServerForgotten": _level(f"director_real_server_drained{{{RS}}}", "1", "0", 24 * 60 + 1),
    "L7proxyAllAbsent": Case(
        {'up{job="l7proxy", instance="p"}': "0x400", 'up{job="l7proxy", instance="q"}': "0x400"},
        {'up{job="l7proxy", instance="p"}': "0x400", 'up{job="l7proxy", instance="q"}': "1x400"},
        1,
    ),
    "L7proxyAbsent": _level('up{job="l7proxy", instance="p"}', "0", "1", 3),
    "L7proxyNotScraped": Case({}, {'up{job="l7proxy", instance="p"}': "0x400"}, 11),
    # One is down, and the other at weight 0: nobody is left.
    "UpstreamWithoutBackends": Case(
        {
            f"l7proxy_backend_up{{{BE}}}": "0x400",
            f"l7proxy_backend_weight{{{BE}}}": "1x400",
            f'l7proxy_backend_up{{{UP}, backend="b1"}}': "1x400",
            f'l7proxy_backend_weight{{{UP}, backend="b1"}}': "0x400",
        },
        {f"l7proxy_backend_up{{{BE}}}": "1x400", f"l7proxy_backend_weight{{{BE}}}": "1x400"},
        1,
    ),
    "BackendDown": Case(
        {f"l7proxy_backend_up{{{BE}}}": "0x400", f"l7proxy_backend_weight{{{BE}}}": "1x400"},
        {
            f"l7proxy_backend_up{{{BE}}}": "1x400",
            f"l7proxy_backend_weight{{{BE}}}": "1x400",
            f'l7proxy_backend_up{{{UP}, backend="drained"}}': "0x400",
            f'l7proxy_backend_weight{{{UP}, backend="drained"}}': "0x400",
        },
        3,
    ),
    "BackendEjected": _level(f"l7proxy_backend_ejected{{{BE}}}", "1", "0", 6),
    "BreakerOpen": _level(f"l7proxy_breaker_open{{{UP}}}", "1", "0", 2),
    # One in ten of many; and one in two of few.
    "ErrorRatioHigh": Case(_requests(10, 90), _requests(1, 1), 11),
    "LatencyHigh": Case(_durations(5), _durations(0), 16),
    "QueueFull": Case(
        {f'l7proxy_errors_total{{{UP}, cause="queue_timeout"}}': "0+3x400"},
        {
            f'l7proxy_errors_total{{{UP}, cause="client_left"}}': "0+3x400",
            f'l7proxy_errors_total{{{UP}, cause="connection_limit"}}': "0x18 20x380",  # one burst
        },
        8,
    ),
    "QueueWaits": _level(f"l7proxy_queue_waiting{{{UP}}}", "3", "0", 6),
    "RequestsLimited": Case(
        {'l7proxy_limited_total{instance="p", route="r", limit="rate"}': "0+30x400"},
        {'l7proxy_limited_total{instance="p", route="r", limit="rate"}': "0+5x400"},
        16,
    ),
    "ConnectionsNearLimit": Case(
        {'l7proxy_client_connections': '90x400', 'l7proxy_client_connections_limit': '100x400'},
        {'l7proxy_client_connections': '70x400', 'l7proxy_client_connections_limit': '100x400'},
        6,
    ),
    "DescriptorsNearLimit": Case(
        {'l7proxy_open_descriptors{instance="p"}': "90x400", 'l7proxy_descriptors_limit{instance="p"}': "100x400"},
        {'l7proxy_open_descriptors{instance="p"}': "70x400", 'l7proxy_descriptors_limit{instance="p"}': "100x400"},
        6,
    ),
    # The tests' clock begins at 0.
    "CertificateEnds": _level(
        'l7proxy_certificate_expiry_seconds{instance="p", listener="l", certificate="c"}', "1000000", "9000000", 61
    ),
    "CertificateEndsNow": _level(
        'l7proxy_certificate_expiry_seconds{instance="p", listener="l", certificate="c"}', "100000", "1000000", 11
    ),
    "CertificateProblem": _level('l7proxy_certificate_problems{instance="p"}', "1", "0", 6),
    "WorkersDie": Case(
        {'l7proxy_worker_deaths_total{instance="p"}': "0x20 1x380"},
        {'l7proxy_worker_deaths_total{instance="p"}': "4x400"},
        6,
    ),
    "L7proxyReloadRefused": _level('l7proxy_config_last_reload_successful{instance="p"}', "0", "1", 6),
    "AccessLogDropped": Case(
        {'l7proxy_access_log_dropped_total{instance="p"}': "0+1x400"},
        {'l7proxy_access_log_dropped_total{instance="p"}': "7x400"},
        16,
    ),
    "L7proxyDraining": _level('l7proxy_draining{instance="p"}', "1", "0", 61),
}  # fmt: skip


def document(rule_file: str) -> dict[str, object]:
    """What `promtool test rules` reads."""
    tests: list[object] = []
    for name, case in CASES.items():
        interval_s = 15 if case.minutes < 90 else 300
        for series, fires in ((case.bad, True), (case.good, False)):
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is silent'}",
                    "interval": f"{interval_s}s",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) > bool 0 or vector(0)',
                            "eval_time": f"{case.minutes:g}m",
                            "exp_samples": [{"labels": "{}", "value": float(fires)}],
                        }
                    ],
                }
            )
    return {"rule_files": [rule_file], "evaluation_interval": "1m", "tests": tests}
