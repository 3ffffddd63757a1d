# SPDX-License-Identifier: Apache-2.0
"""How to log in to an OpenStack: clouds.yaml with secure.yaml, or OS_* variables, as the openstack command reads them.

Described at https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html. Vendor profiles and federated logins are not read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError

PASSWORD, APPLICATION, TOKEN = "password", "application_credential", "token"
TYPES = {
    "password": PASSWORD,
    "v3password": PASSWORD,
    "v3applicationcredential": APPLICATION,
    "application_credential": APPLICATION,
    "token": TOKEN,
    "v3token": TOKEN,
}
SECRETS = ("password", "application_credential_secret", "token")
AUTH_KEYS = (
    "auth_url", "username", "user_id", "password", "user_domain_name", "user_domain_id", "project_name", "project_id", "project_domain_name",
    "project_domain_id", "domain_name", "domain_id", "default_domain", "application_credential_id", "application_credential_name",
    "application_credential_secret", "token",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where. ``auth`` is as in clouds.yaml, never shown; ``source``: the file or the variables it is from.

    ``verify``: None for the usual CAs, False, or a bundle's path; ``certificate``: files of a client's certificate and key.
    """

    auth_url: str
    method: str
    source: str
    auth: Mapping[str, str] = field(repr=False)
    regions: tuple[str, ...] = ()
    interface: str = "public"
    verify: bool | str | None = None
    certificate: tuple[str, str] | None = None
    compute_endpoint: str | None = None

    @property
    def who(self) -> str:
        """For errors."""
        auth = self.auth
        if self.method == APPLICATION:
            return f"application credential {auth.get('application_credential_id') or auth.get('application_credential_name')}"
        project = auth.get("project_name") or auth.get("project_id") or "none"
        return f"a token for project {project}" if self.method == TOKEN else f"user {auth.get('username') or auth.get('user_id')} of project {project}"

    @property
    def secrets(self) -> tuple[str | None, ...]:
        return tuple(self.auth.get(name) for name in SECRETS)

    def request(self) -> dict[str, Any]:
        """The body of POST /v3/auth/tokens."""
        auth = self.auth
        user: dict[str, Any] = {"id": auth["user_id"]} if auth.get("user_id") else {"name": auth.get("username"), "domain": _domain(auth, "user")}
        if self.method == APPLICATION:
            secret = {"secret": auth["application_credential_secret"]}
            if auth.get("application_credential_id"):
                credential: dict[str, Any] = {"id": auth["application_credential_id"], **secret}
            else:
                credential = {"name": auth["application_credential_name"], "user": user, **secret}
            # It is scoped to its project by itself, and refuses another scope.
            return {"auth": {"identity": {"methods": [APPLICATION], APPLICATION: credential}}}
        if self.method == TOKEN:
            identity: dict[str, Any] = {"methods": [TOKEN], TOKEN: {"id": auth["token"]}}
        else:
            identity = {"methods": [PASSWORD], PASSWORD: {"user": {**user, "password": auth["password"]}}}
        if auth.get("project_id"):
            project: dict[str, Any] = {"id": auth["project_id"]}
        else:
            project = {"name": auth["project_name"], "domain": _domain(auth, "project")}
        return {"auth": {"identity": identity, "scope": {"project": project}}}


def login(cloud: str | None, environment: Mapping[str, str] | None = None) -> Login:
    """The login of ``cloud`` (else OS_CLOUD), else of the OS_* variables, else of the only cloud of clouds.yaml.

    :raises CloudError: there is none, or it lacks something.
    """
    environment = os.environ if environment is None else environment
    name = cloud or environment.get("OS_CLOUD")
    if not name and environment.get("OS_AUTH_URL"):
        return _login(_of_variables(environment), "OS_* variables")
    file = _first([environment.get("OS_CLIENT_CONFIG_FILE"), *_places("clouds", environment)])
    if file is None:
        asked_for = f"cloud {name} is asked for, but there is no clouds.yaml" if name else "there are no credentials for OpenStack"
        raise CloudError(
            f"{asked_for}. Write {_places('clouds', environment)[1]} (or name a file by OS_CLIENT_CONFIG_FILE) and the option cloud, "
            "or set OS_AUTH_URL and the other OS_* variables of the cloud's openrc file."
        )
    clouds = _clouds(file)
    if not name:
        if len(clouds) != 1:
            raise CloudError(f"{file} has the clouds {', '.join(sorted(clouds))}. Name one of them in the option cloud (or OS_CLOUD).")
        name = next(iter(clouds))
    if name not in clouds:
        raise CloudError(f"{file} has no cloud {name}. It has {', '.join(sorted(clouds)) or 'none'}; correct the option cloud (or OS_CLOUD).")
    secure = _first([environment.get("OS_CLIENT_SECURE_FILE"), str(file.with_name("secure.yaml")), *_places("secure", environment)])
    raw = _merged(clouds[name], _clouds(secure).get(name, {}) if secure else {})
    return _login(raw, f"cloud {name} of {file}")


def _login(raw: Mapping[str, Any], source: str) -> Login:
    auth = {key: str(value) for key, value in (raw.get("auth") or {}).items() if value not in (None, "")}
    for old, new in (("tenant_name", "project_name"), ("tenant_id", "project_id")):
        if old in auth:
            auth.setdefault(new, auth[old])
    method = _method(str(raw.get("auth_type") or ""), auth, source)
    missing = [text for text, there in _needed(auth, method) if not there]
    if missing:
        raise CloudError(f"{source} lack {', '.join(missing)}. Add {'it' if len(missing) == 1 else 'them'} (as in the cloud's openrc file or clouds.yaml).")
    interface = str(raw.get("interface") or raw.get("endpoint_type") or "public").removesuffix("URL")
    if interface not in ("public", "internal", "admin"):
        raise CloudError(f"{source}: interface is {interface!r}. Allowed: public, internal and admin.")
    regions = (
        [raw["region_name"]] if raw.get("region_name") else [region["name"] if isinstance(region, Mapping) else region for region in raw.get("regions") or ()]
    )
    verify: bool | str | None = str(Path(str(raw["cacert"])).expanduser()) if raw.get("cacert") else None
    if raw.get("verify") is False or raw.get("insecure") is True:
        verify = False
    certificate = (str(raw["cert"]), str(raw["key"])) if raw.get("cert") and raw.get("key") else None
    # libcloud adds the version itself.
    url = auth["auth_url"].rstrip("/").removesuffix("/v3").removesuffix("/v2.0")
    endpoint = raw.get("compute_endpoint_override")
    return Login(url, method, source, auth, tuple(str(region) for region in regions), interface, verify, certificate, str(endpoint) if endpoint else None)


def _method(kind: str, auth: Mapping[str, str], source: str) -> str:
    if kind:
        if kind not in TYPES:
            raise CloudError(f"{source}: auth_type {kind} is not supported. Allowed: {', '.join(TYPES)}; an application credential suits programs best.")
        return TYPES[kind]
    if auth.get("application_credential_secret"):
        return APPLICATION
    return TOKEN if auth.get("token") and not auth.get("password") else PASSWORD


def _needed(auth: Mapping[str, str], method: str) -> list[tuple[str, Any]]:
    needed: list[tuple[str, Any]] = [("auth_url (OS_AUTH_URL)", auth.get("auth_url"))]
    if method == APPLICATION:
        by_name = auth.get("application_credential_name") and (auth.get("user_id") or auth.get("username"))
        identified = auth.get("application_credential_id") or by_name
        return [
            *needed,
            ("application_credential_id (OS_APPLICATION_CREDENTIAL_ID)", identified),
            ("application_credential_secret (OS_APPLICATION_CREDENTIAL_SECRET)", auth.get("application_credential_secret")),
        ]
    if method == PASSWORD:
        needed += [("username (OS_USERNAME)", auth.get("username") or auth.get("user_id")), ("password (OS_PASSWORD)", auth.get("password"))]
    else:
        needed += [("token (OS_TOKEN)", auth.get("token"))]
    return [*needed, ("project_name (OS_PROJECT_NAME)", auth.get("project_name") or auth.get("project_id"))]


def _domain(auth: Mapping[str, str], of: str) -> dict[str, str]:
    for kind in ("id", "name"):
        value = auth.get(f"{of}_domain_{kind}") or auth.get(f"domain_{kind}")
        if value:
            return {kind: value}
    return {"id": auth.get("default_domain") or "default"}


def _of_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    auth = {key: environment[f"OS_{key.upper()}"] for key in (*AUTH_KEYS, "tenant_name", "tenant_id") if environment.get(f"OS_{key.upper()}")}
    return {
        "auth": auth,
        "auth_type": environment.get("OS_AUTH_TYPE"),
        "region_name": environment.get("OS_REGION_NAME"),
        "interface": environment.get("OS_INTERFACE") or environment.get("OS_ENDPOINT_TYPE"),
        "cacert": environment.get("OS_CACERT"),
        "cert": environment.get("OS_CERT"),
        "key": environment.get("OS_KEY"),
        "insecure": environment.get("OS_INSECURE", "").lower() in ("1", "true", "yes"),
    }


def _places(name: str, environment: Mapping[str, str]) -> list[str]:
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".config")
    return [f"{name}.yaml", os.path.join(home, "openstack", f"{name}.yaml"), f"/etc/openstack/{name}.yaml"]


def _first(files: list[str | None]) -> Path | None:
    return next((Path(file).absolute() for file in files if file and os.path.isfile(file)), None)


def _clouds(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CloudError(f"{file} can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Without its words, which quote the file.
        mark = getattr(error, "problem_mark", None)
        raise CloudError(f"{file} is not YAML{f' (line {mark.line + 1})' if mark else ''}. Correct it.") from None
    clouds = raw.get("clouds") if isinstance(raw, Mapping) else None
    if not isinstance(clouds, Mapping) or not all(isinstance(cloud, Mapping) for cloud in clouds.values()):
        raise CloudError(f"{file} has no mapping of clouds at its top. Correct it; the openstack command reads the same file.")
    return dict(clouds)


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {key: _merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}
    return above
