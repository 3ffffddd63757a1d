# SPDX-License-Identifier: Apache-2.0
"""The internet of these tests: publishers' release pages as they really are, behind TLS by a CA of their own, reached through an HTTP proxy.

`PUBLISHERS` is written down from what the projects publish, not from artifact.yml, so that the two can disagree.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import io
import ipaddress
import json
import socket
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .conftest import Web, handler

HOSTS = ("github.com", "release-assets.githubusercontent.com", "api.github.com", "dl.k8s.io", "cdn.dl.k8s.io", "releases.hashicorp.com", "dl.grafana.com")
VARIABLES = ("https_proxy", "http_proxy", "no_proxy", "all_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
GITHUB = "github.com/{}/releases/download/v{{v}}/"


def many(files: dict[str, bytes]) -> bytes:
    """sha256sum of all files of a release, which are more than ours."""
    every = {"another-file.txt": b"something else"} | files
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(every.items())).encode()


def alone(files: dict[str, bytes]) -> bytes:
    (data,) = files.values()
    return hashlib.sha256(data).hexdigest().encode() + b"\n"


def alone_512(files: dict[str, bytes]) -> bytes:
    (data,) = files.values()
    return hashlib.sha512(data).hexdigest().encode()


def below_dist(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  dist/{name}\n" for name, data in files.items()).encode()


def signed(files: dict[str, bytes]) -> bytes:
    sums = "".join(f"{hashlib.sha256(data).hexdigest()} *{name}\n" for name, data in sorted(files.items()))
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{sums}-----BEGIN PGP SIGNATURE-----\n\niQEzBAEBCAAdFiEE\n-----END PGP SIGNATURE-----\n".encode()
    )


def github_api(files: dict[str, bytes]) -> bytes:
    assets = [{"name": name, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)} for name, data in files.items()]
    return json.dumps({"tag_name": "v1", "assets": [{"name": "components.yaml", "digest": None}, *assets]}).encode()


@dataclass(frozen=True)
class Publisher:
    """A release: where, the file for an architecture, what is in it ((): it is the program), the checksum file beside it and how that is written."""

    base: str
    asset: str
    content: tuple[str, ...]
    checksums: str
    write: Callable[[dict[str, bytes]], bytes] = many

    def files(self, version: str) -> dict[str, bytes]:
        """Everything that is to be had of a version, by host and path."""
        found: dict[str, bytes] = {}
        listed: dict[str, dict[str, bytes]] = {}
        for architecture in ("amd64", "arm64"):
            base, asset = self._fill(self.base, version, architecture), self._fill(self.asset, version, architecture)
            found[base + asset] = self.archive(version, architecture)
            if self.checksums:
                name = self._fill(self.checksums, version, architecture)
                listed.setdefault(name if name.startswith("api.") else base + name, {})[asset] = found[base + asset]
        return found | {place: self.write(files) for place, files in listed.items()}

    def archive(self, version: str, architecture: str) -> bytes:
        architecture = architecture if "{a}" in self.asset else "any"
        members = {path: content(path, version, architecture) for path in (self._fill(item, version, architecture) for item in self.content)}
        buffer = io.BytesIO()
        if not members:
            return content(self._fill(self.asset, version, architecture), version, architecture)
        if self.asset.endswith(".zip"):
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
                for path, data in members.items():
                    zipped.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
        else:
            # The same bytes whenever it is packed.
            with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
                for path, data in members.items():
                    entry = tarfile.TarInfo(path)
                    entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
                    entry.size = 0 if path.endswith("/") else len(data)
                    archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()

    def _fill(self, text: str, version: str, architecture: str) -> str:
        name = text.replace("{asset}", self.asset)
        return name.replace("{v}", version).replace("{a}", architecture)


def content(path: str, version: str, architecture: str) -> bytes:
    """Bytes that belong to one file of one release alone."""
    return f"{path.rstrip('/').rpartition('/')[2]} {version} {architecture}\n".encode() * 3000


def prometheus(name: str, *programs: str) -> Publisher:
    folder = f"{name}-{{v}}.linux-{{a}}"
    inside = tuple(f"{folder}/{file}" for file in (*programs, "LICENSE", "NOTICE"))
    return Publisher(GITHUB.format(f"prometheus/{name}"), f"{folder}.tar.gz", (f"{folder}/", *inside), "sha256sums.txt")


CNI = ("bandwidth bridge dhcp dummy firewall host-device host-local ipvlan loopback macvlan portmap ptp sbr static tap tuning vlan vrf").split()
KUBERNETES = ("apiextensions-apiserver kube-aggregator kube-apiserver kube-controller-manager kube-log-runner kube-proxy kube-scheduler kubeadm kubectl "
              "kubelet mounter kube-apiserver.docker_tag kube-apiserver.tar").split()  # fmt: skip
PUBLISHERS = {
    "alertmanager": prometheus("alertmanager", "alertmanager", "amtool", "alertmanager.yml"),
    "cni_plugins": Publisher(
        GITHUB.format("containernetworking/plugins"), "cni-plugins-linux-{a}-v{v}.tgz",
        ("./", *(f"./{name}" for name in CNI), "./LICENSE", "./README.md"), "{asset}.sha256",
    ),
    "consul": Publisher("releases.hashicorp.com/consul/{v}/", "consul_{v}_linux_{a}.zip", ("LICENSE.txt", "consul"), "consul_{v}_SHA256SUMS"),
    "consul_template": Publisher(
        "releases.hashicorp.com/consul-template/{v}/", "consul-template_{v}_linux_{a}.zip", ("LICENSE.txt", "consul-template"), "consul-template_{v}_SHA256SUMS"
    ),
    "containerd": Publisher(
        GITHUB.format("containerd/containerd"), "containerd-static-{v}-linux-{a}.tar.gz",
        ("bin/", "bin/containerd", "bin/containerd-shim-runc-v2", "bin/containerd-stress", "bin/ctr"), "{asset}.sha256sum",
    ),
    "coredns": Publisher(GITHUB.format("coredns/coredns"), "coredns_{v}_linux_{a}.tgz", ("coredns",), "{asset}.sha256"),
    "crictl": Publisher(GITHUB.format("kubernetes-sigs/cri-tools"), "crictl-v{v}-linux-{a}.tar.gz", ("crictl",), "{asset}.sha256", alone),
    "etcd": Publisher(
        GITHUB.format("etcd-io/etcd"), "etcd-v{v}-linux-{a}.tar.gz",
        tuple(f"etcd-v{{v}}-linux-{{a}}/{name}" for name in ("", "README.md", "Documentation/README.md", "etcd", "etcdctl", "etcdutl")), "SHA256SUMS",
    ),
    "flannel": Publisher(GITHUB.format("flannel-io/flannel"), "flannel-v{v}-linux-{a}.tar.gz", ("flanneld", "mk-docker-opts.sh", "README.md"), ""),
    "grafana": Publisher(
        "dl.grafana.com/oss/release/", "grafana-{v}.linux-{a}.tar.gz", ("grafana-{v}/bin/grafana", "grafana-{v}/VERSION"), "{asset}.sha256", alone,
    ),
    "grafana_victorialogs": Publisher(
        GITHUB.format("VictoriaMetrics/victorialogs-datasource"), "victoriametrics-logs-datasource-v{v}.zip",
        ("victoriametrics-logs-datasource/plugin.json", "victoriametrics-logs-datasource/module.js"),
        "victoriametrics-logs-datasource-v{v}_checksums_zip.txt", below_dist,
    ),
    "kube_bench": Publisher(
        GITHUB.format("aquasecurity/kube-bench"), "kube-bench_{v}_linux_{a}.tar.gz",
        ("kube-bench", *(f"cfg/cis-1.9/{file}.yaml" for file in ("config", "controlplane", "etcd", "master", "node", "policies"))),
        "kube-bench_{v}_checksums.txt",
    ),
    "kubernetes": Publisher(
        "dl.k8s.io/v{v}/", "kubernetes-server-linux-{a}.tar.gz",
        ("kubernetes/", *(f"kubernetes/server/bin/{name}" for name in KUBERNETES), "kubernetes/kubernetes-src.tar.gz"), "{asset}.sha512", alone_512,
    ),
    "metrics_server": Publisher(
        GITHUB.format("kubernetes-sigs/metrics-server"), "metrics-server-linux-{a}", (),
        "api.github.com/repos/kubernetes-sigs/metrics-server/releases/tags/v{v}", github_api,
    ),
    "node_exporter": prometheus("node_exporter", "node_exporter"),
    "opentofu": Publisher(
        GITHUB.format("opentofu/opentofu"), "tofu_{v}_linux_{a}.tar.gz", ("CHANGELOG.md", "LICENSE", "README.md", "tofu"), "tofu_{v}_SHA256SUMS"
    ),
    "prometheus": prometheus("prometheus", "prometheus", "prometheus.yml", "promtool"),
    "runc": Publisher(GITHUB.format("opencontainers/runc"), "runc.{a}", (), "runc.sha256sum", signed),
    "terraform_provider_openstack": Publisher(
        GITHUB.format("terraform-provider-openstack/terraform-provider-openstack"), "terraform-provider-openstack_{v}_linux_{a}.zip",
        ("CHANGELOG.md", "LICENSE", "README.md", "terraform-provider-openstack_v{v}"), "terraform-provider-openstack_{v}_SHA256SUMS",
    ),
    "victorialogs": Publisher(
        GITHUB.format("VictoriaMetrics/VictoriaLogs"), "victoria-logs-linux-{a}-v{v}.tar.gz", ("victoria-logs-prod",),
        "victoria-logs-linux-{a}-v{v}_checksums.txt",
    ),
}  # fmt: skip


@dataclass
class Proxy:
    """An HTTP proxy for CONNECT. Whatever name is asked for, the one local server answers. ``password``: user:password it wants."""

    address: str = ""
    password: str = ""
    asked: list[str] = field(default_factory=list)


@dataclass
class Internet:
    """The web, the proxy in front of it, and the file of the CA that signed its servers' certificates."""

    web: Web
    proxy: Proxy
    authority: Path

    def publish(self, files: dict[str, bytes]) -> None:
        """Put files (by host and path) where GitHub and Kubernetes have them: behind a redirect to another host."""
        for place, data in files.items():
            host, _, path = place.partition("/")
            behind = {"github.com": "release-assets.githubusercontent.com", "dl.k8s.io": "cdn.dl.k8s.io"}.get(host)
            if behind:
                self.web.redirects[place] = f"https://{behind}/{path}?token=1"
                place = f"{behind}/{path}?token=1"
            self.web.files[place] = data


def certificates(folder: Path) -> tuple[Path, Path]:
    """A CA and a server's certificate with its key, for every host there is."""
    now = datetime.datetime.now(datetime.UTC)

    def issue(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        names = [*(x509.DNSName(host) for host in HOSTS), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )  # fmt: skip
        if authority:
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
            )
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca, server = issue("Test CA", ca_key, "Test CA", ca_key, True), issue("server", key, "Test CA", ca_key, False)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM) + private)
    return folder / "ca.pem", folder / "server.pem"


def serve(web: Web, certificate: Path) -> ThreadingHTTPServer:
    """``web`` behind TLS; shut it down in the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: socket.socket, client: object) -> None:  # type: ignore[override]
            # In the connection's own thread: a client that refuses the certificate holds up nobody else.
            try:
                with context.wrap_socket(request, server_side=True) as secured:
                    self.RequestHandlerClass(secured, client, self)  # type: ignore[arg-type]
            except OSError:
                pass

    server = Server(("127.0.0.1", 0), handler(web))
    web.address = f"https://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def forward(proxy: Proxy, port: int) -> ThreadingHTTPServer:
    """``proxy`` in front of 127.0.0.1:``port``; shut it down in the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            proxy.asked.append(self.path)
            if proxy.password and self.headers.get("Proxy-Authorization") != "Basic " + base64.b64encode(proxy.password.encode()).decode():
                self.send_error(407, "Proxy Authentication Required")
                return
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                self.send_response(200, "Connection established")
                self.end_headers()
                back = threading.Thread(target=pump, args=(upstream, self.connection), daemon=True)
                back.start()
                pump(self.connection, upstream)
                back.join()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificates(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def internet(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """The environment of a user behind a proxy whose CA is not the system's."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    web, proxy = Web(hosts=True), Proxy()
    server = serve(web, keys[1])
    middle = forward(proxy, server.server_address[1])
    monkeypatch.setenv("https_proxy", proxy.address)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(keys[0]))
    yield Internet(web, proxy, keys[0])
    for one in (middle, server):
        one.shutdown()
        one.server_close()
