"""The service's settings: one frozen value, which `environment` reads and checks."""

import ipaddress
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from consumer.core.rules import Rules
from consumer.tuning import Tuning

EngineChoice = Literal["auto", "python", "native"]
OutputName = Literal["state", "transitions", "dead_letters"]
OUTPUTS: Final[tuple[OutputName, ...]] = ("state", "transitions", "dead_letters")
SECRETS: Final = frozenset(("digest_key", "query_token", "sasl_password", "ssl_key_password"))
"""Settings whose values no text may show."""
SECRET_FILES: Final = frozenset(("sasl_oauth_client_secret_file", "sasl_oauth_token_file", "ssl_key_file"))
"""Settings that name a file with a secret in it."""

_RULES: Final = Rules()
_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:(?P<port>[0-9]{1,5}))?")
_PORT_MAX: Final = 65_535
_URL_CHARACTERS: Final = re.compile(r"[\x21-\x7e]+")

Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Settings(Struct, frozen=True, kw_only=True):
    """Every setting with its default. Units are last in the names."""

    bootstrap_servers: Annotated[str, Meta(min_length=1, description="Kafka brokers, `host:port` separated by commas")]
    input_topic: Annotated[
        str, Meta(min_length=1, description="topic of conversation updates, keyed by conversation id")
    ] = "conversation-updates"
    state_topic: Annotated[str, Meta(min_length=1, description="compacted topic of conversation states")] = (
        "conversation-state"
    )
    transitions_topic: Annotated[str, Meta(min_length=1, description="topic of ordered transitions")] = (
        "conversation-transitions"
    )
    dead_letters_topic: Annotated[str, Meta(min_length=1, description="topic of records that could not be used")] = (
        "conversation-dead-letters"
    )
    group_id: Annotated[str, Meta(min_length=1, description="consumer group, and the client id that brokers see")] = (
        "conversation-consumer"
    )
    group_instance_id: Annotated[
        str, Meta(description="static membership id, such as the pod's name in a StatefulSet; empty for dynamic")
    ] = ""
    engine: Annotated[
        EngineChoice,
        Meta(description="`auto` is the native engine where it is built, else the Python engine"),
    ] = "auto"
    delivery: Annotated[
        Literal["exactly_once", "at_least_once"],
        Meta(description="`at_least_once` is for brokers without transactions, effects may repeat"),
    ] = "exactly_once"

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="how to connect to the brokers")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        Meta(description="how to authenticate with SASL"),
    ] = "SCRAM-SHA-512"
    allow_cleartext_credentials: Annotated[
        Literal["no", "yes"],
        Meta(description="whether a password (PLAIN) or a token may be sent without TLS, where the network is trusted"),
    ] = "no"
    sasl_username: Annotated[str, Meta(description="user name for SASL")] = ""
    sasl_password: Annotated[str, Meta(description="password for SASL (secret)")] = ""
    sasl_oauth_token_file: Annotated[
        str, Meta(description="file of the token for OAUTHBEARER, read again for every connection")
    ] = ""
    sasl_oauth_token_endpoint: Annotated[
        str,
        Meta(
            description=(
                "`https://` URL (on this machine also `http://`) where tokens for OAUTHBEARER are fetched with client "
                "credentials, ahead of their expiry; in place of a token file"
            )
        ),
    ] = ""
    sasl_oauth_client_id: Annotated[str, Meta(description="client id for the token endpoint")] = ""
    sasl_oauth_client_secret_file: Annotated[
        str, Meta(description="file of the client's secret, read again for every token")
    ] = ""
    sasl_oauth_scope: Annotated[str, Meta(description="scope of the tokens; empty for the provider's default")] = ""
    sasl_oauth_ca_file: Annotated[
        str, Meta(description="PEM file of authorities to trust at the token endpoint; empty for the system's")
    ] = ""
    ssl_ca_file: Annotated[str, Meta(description="PEM file of authorities to trust; empty for the system's")] = ""
    ssl_cert_file: Annotated[str, Meta(description="PEM file of the client certificate")] = ""
    ssl_key_file: Annotated[str, Meta(description="PEM file of the client certificate's key")] = ""
    ssl_key_password: Annotated[str, Meta(description="password of that key (secret)")] = ""

    session_timeout_ms: Annotated[Count, Meta(description="silence after which the group gives a worker up")] = 45_000
    commit_timeout_s: Annotated[float, Meta(gt=0, description="longest wait for a whole commit")] = 20.0
    commit_interval_ms: Annotated[
        int,
        Meta(
            ge=0,
            description=(
                "time between commits of a lane; 0 chooses by the lanes owned, 100 ms and more; "
                "a second or more while it catches up"
            ),
        ),
    ] = 0
    commit_records_max: Annotated[Count, Meta(description="records that make a commit due at once")] = 5_000
    decompressed_bytes_max: Annotated[
        Count, Meta(description="largest batch that is read, once it is decompressed: small ones may hold gigabytes")
    ] = 67_108_864
    oversized_batches: Annotated[
        Literal["stop", "dead_letter"],
        Meta(
            description=(
                "what becomes of a larger batch of the input: the partition stops, or a dead letter takes its place"
            )
        ),
    ] = "stop"
    batch_bytes_max: Annotated[
        Count, Meta(description="size of a produced batch; below `max.message.bytes` of every output topic")
    ] = 900_000
    compression: Annotated[
        Literal["none", "snappy", "zstd"], Meta(description="codec of the output topics' batches")
    ] = "zstd"
    drain_s: Annotated[float, Meta(gt=0, description="time to finish after SIGTERM")] = 20.0

    dead_letter_payload: Annotated[
        Literal["keep", "drop"], Meta(description="whether dead letters carry the original bytes")
    ] = "keep"
    dead_letter_bytes_max: Annotated[
        Count,
        Meta(description="largest key and value that a dead letter carries; larger ones are left out"),
    ] = 8_388_608
    dead_letters_ratio_max: Annotated[
        float,
        Meta(gt=0, le=1, description="share of dead letters in the window that opens the breaker, by conversation"),
    ] = 0.5
    dead_letters_consecutive_max: Annotated[
        Count,
        Meta(description="conversations with nothing but dead letters in a row that open the breaker"),
    ] = 200

    digest_key: Annotated[
        str, Meta(description="key of the digests of session and room ids and of addresses, at most 64 bytes (secret)")
    ] = ""
    record_bytes_max: Annotated[Count, Meta(description="largest record value that is read")] = _RULES.record_bytes_max
    communications_max: Annotated[Count, Meta(description="communications kept per conversation")] = (
        _RULES.communications_max
    )
    state_bytes_max: Annotated[Count, Meta(description="largest state of one conversation")] = _RULES.state_bytes_max
    state_total_bytes_max: Annotated[
        int,
        Meta(
            ge=0,
            description=(
                "memory of all states of a worker, at which its lanes stop; 0 takes four fifths of what 128 MiB leave "
                "of the container's memory limit, and is no limit without one"
            ),
        ),
    ] = 0
    retention_ended_s: Annotated[Count, Meta(description="how long an ended conversation is kept")] = (
        _RULES.retention_ended_s
    )
    retention_idle_s: Annotated[Count, Meta(description="how long any other is kept without an update")] = (
        _RULES.retention_idle_s
    )

    admin_host: Annotated[str, Meta(min_length=1, description="address of probes and metrics")] = "127.0.0.1"
    admin_port: Annotated[Port, Meta(description="port of probes and metrics; 0 takes a free one")] = 8080
    query_host: Annotated[
        str, Meta(min_length=1, description="address of lookups of conversations; beyond loopback only with a token")
    ] = "127.0.0.1"
    query_port: Annotated[
        Port | Literal["off"],
        Meta(description="port of lookups of conversations; 0 takes a free one, `off` opens none"),
    ] = 8081
    query_advertised: Annotated[
        str,
        Meta(
            description=(
                "host or `host:port` at which other workers of the group reach the query port, so that each answers "
                "for all; empty for `CC_QUERY_HOST`, or the machine's name where that means all addresses, and for no "
                "address where it is loopback"
            )
        ),
    ] = ""
    query_token: Annotated[
        str,
        Meta(
            pattern=r"\A([A-Za-z0-9._~+/=-]{16,256})?\Z",
            description="bearer token of the query port: 16 to 256 letters, digits and `-._~+/=` (secret)",
        ),
    ] = ""
    query_audit: Annotated[
        Literal["off", "on"], Meta(description="whether a log line says who asks the query port for which conversation")
    ] = "off"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"

    tuning: Tuning = Tuning()
    """Not from the environment."""

    def __repr__(self) -> str:
        """Every setting but the secrets, and the files, which may be the secret itself by mistake."""
        values = {
            name: "..." if name in SECRETS or name.endswith("_file") else repr(getattr(self, name))
            for name in self.__struct_fields__
        }
        return f"Settings({', '.join(f'{name}={value}' for name, value in values.items())})"

    @property
    def is_encrypted(self) -> bool:
        """Whether connections to the brokers use TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def topics(self) -> tuple[str, str, str, str]:
        """The names of the four topics, the input's first."""
        return self.input_topic, self.state_topic, self.transitions_topic, self.dead_letters_topic

    @property
    def outputs(self) -> dict[OutputName, str]:
        """The names of the topics that a lane writes to, by what they hold."""
        return {
            "state": self.state_topic,
            "transitions": self.transitions_topic,
            "dead_letters": self.dead_letters_topic,
        }

    @property
    def heartbeat_interval_ms(self) -> int:
        """Time between heartbeats to the group."""
        return self.session_timeout_ms // self.tuning.heartbeats_per_session

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long a worker has to join a rebalance."""
        return int(self.commit_timeout_s * 1_000 * self.tuning.commits_per_rebalance)

    @property
    def transaction_timeout_ms(self) -> int:
        """Age at which the broker aborts a transaction."""
        return int(self.commit_timeout_s * 1_000 * self.tuning.commits_per_transaction)

    @property
    def max_poll_interval_ms(self) -> int:
        """How long a worker stays in the group without progress: no shorter than without a heartbeat."""
        return max(self.tuning.max_poll_interval_ms, self.session_timeout_ms)

    @property
    def fetch_records_max(self) -> int:
        """Records that are read at a time: no more than make a commit due."""
        return min(self.tuning.fetch_records_max, self.commit_records_max)

    def rules(self) -> Rules:
        """The settings that the core depends on."""
        return Rules(
            digest_key=self.digest_key.encode("utf-8", "surrogateescape"),
            record_bytes_max=self.record_bytes_max,
            communications_max=self.communications_max,
            state_bytes_max=self.state_bytes_max,
            retention_ended_s=self.retention_ended_s,
            retention_idle_s=self.retention_idle_s,
        )


def parse_address(text: str) -> tuple[str, int | None] | None:
    """The host and the port of `host`, `host:port`, an IPv6 address, or `[IPv6 address]:port`.

    None for the port if there is none, and for all of it if it is no such address.
    """
    found = _ADDRESS.fullmatch(text)
    host, port = (text, None) if found is None else (found["host"].strip("[]"), found["port"])
    if (":" in host or found is None) and not _is_ip(host):
        return None
    if port is not None and not 0 < int(port) <= _PORT_MAX:
        return None
    return host, None if port is None else int(port)


def is_token_endpoint(url: str) -> bool:
    """Whether a client's secret may be sent to this URL: over TLS, or to this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not _URL_CHARACTERS.fullmatch(url) or "@" in parts.netloc or not host or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def join_address(host: str, port: int) -> str:
    """The text that `parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unspecified(host: str) -> bool:
    """Whether a host stands for all addresses of the machine."""
    return _is_ip(host) and ipaddress.ip_address(host).is_unspecified


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from the same machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
