"""A real broker that refuses what is not allowed: TLS, SASL and access control, with certificates of its own."""

import re
import time
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from consumer.kafka.acls import Grant
from tests.live.authority import Authority
from tests.live.broker import LocalBroker
from tests.live.tokens import AUDIENCE, ISSUER, TokenIssuer

_ADMIN_S = 60
_LOGIN = "org.apache.kafka.common.security"


class SecureBroker(LocalBroker):
    """Its own port is for the tests: clients there may do everything, all others nothing.

    Certificates are for `localhost`, so that 127.0.0.1 is a name they do not have.
    """

    def __init__(self, jars: Path) -> None:
        super().__init__(jars, more_ports=4)
        self._tls, self._sasl, self._expired, self._misnamed = self._more_ports
        self.authority = Authority(self._home, "authority")
        self.tokens = TokenIssuer()
        keys = self._home / "keys.json"
        keys.write_text(self.tokens.key_set())
        self._keys_url = keys.as_uri()
        self._java_options.append(f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys_url}")

    @property
    def tls(self) -> str:
        """Asks for a client certificate; its subject is the user, such as `CN=worker`."""
        return f"localhost:{self._tls}"

    @property
    def sasl(self) -> str:
        """SCRAM-SHA-512 and OAUTHBEARER, over TLS."""
        return f"localhost:{self._sasl}"

    @property
    def expired(self) -> str:
        """As `sasl`, but its certificate has expired."""
        return f"localhost:{self._expired}"

    @property
    def misnamed(self) -> str:
        """As `sasl`, but it sends its clients on to an address that its certificate does not have."""
        return f"localhost:{self._misnamed}"

    def add_user(self, name: str, password: str) -> None:
        """A user of SCRAM-SHA-512, or a new password for one."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
        admin = self._admin()
        changed = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(name, scram, password.encode())])
        changed[name].result(_ADMIN_S)

    def allow(self, user: str, grants: Iterable[Grant]) -> None:
        """Let a user do what is granted, and nothing more. The user is as the broker names it, such as `CN=worker`."""
        admin = self._admin()
        wanted = [acl for grant in grants for acl in _acls(user, grant)]
        for change in admin.create_acls(wanted).values():
            change.result(_ADMIN_S)
        deadline = time.monotonic() + _ADMIN_S
        for acl in wanted:  # the controller has them before the broker
            while not admin.describe_acls(_of(user, acl)).result(_ADMIN_S):
                assert time.monotonic() < deadline, "the broker does not hear of new permissions"
                time.sleep(0.02)

    def forbid(self, user: str, grant: Grant) -> None:
        """Take a grant away."""
        admin = self._admin()
        filters = [_of(user, acl) for acl in _acls(user, grant)]
        for change in admin.delete_acls(filters).values():
            assert change.result(_ADMIN_S), "there was no such grant"

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _properties(self) -> dict[str, str]:
        basic = super()._properties()
        ports = {"TLS": self._tls, "SASL": self._sasl, "EXPIRED": self._expired, "MISNAMED": self._misnamed}
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
        advertised = listeners.replace("127.0.0.1", "localhost").replace("MISNAMED://localhost", "MISNAMED://127.0.0.1")
        return basic | {
            "listeners": f"{basic['listeners']},{listeners}",
            "advertised.listeners": f"{basic['advertised.listeners']},{advertised}",
            "listener.security.protocol.map": (
                f"{basic['listener.security.protocol.map']},TLS:SSL,SASL:SASL_SSL,EXPIRED:SASL_SSL,MISNAMED:SASL_SSL"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.authority.issue("broker", "localhost").both_file),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca_file),
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.expired.ssl.keystore.type": "PEM",
            "listener.name.expired.ssl.keystore.location": str(
                self.authority.issue("expired-broker", "localhost", expired=True).both_file
            ),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
            "sasl.oauthbearer.jwks.endpoint.url": self._keys_url,
            "sasl.oauthbearer.expected.issuer": ISSUER,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "sasl.oauthbearer.clock.skew.seconds": "0",
            **_logins("sasl"),
            **_logins("expired"),
            **_logins("misnamed"),
        }


def _logins(listener: str) -> dict[str, str]:
    scram, oauth = (f"listener.name.{listener}.{mechanism}" for mechanism in ("scram-sha-512", "oauthbearer"))
    return {
        f"{scram}.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
        f"{oauth}.sasl.jaas.config": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required;",
        f"{oauth}.sasl.server.callback.handler.class": f"{_LOGIN}.oauthbearer.OAuthBearerValidatorCallbackHandler",
        f"{oauth}.connections.max.reauth.ms": "3600000",  # a connection lives no longer than its token
    }


def _acls(user: str, grant: Grant) -> list[AclBinding]:
    kind = ResourceType[grant.resource.upper().replace("-", "_")]
    pattern = ResourcePatternType.PREFIXED if grant.is_prefix else ResourcePatternType.LITERAL
    operations = [AclOperation[_snake_case(name)] for name in grant.operations]
    return [
        AclBinding(kind, grant.name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]


def _of(user: str, acl: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        acl.restype, acl.name, acl.resource_pattern_type, f"User:{user}", acl.host, acl.operation, acl.permission_type
    )


def _snake_case(operation: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
