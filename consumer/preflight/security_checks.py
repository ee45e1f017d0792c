"""What a stranger could read or find out: secrets in files, ids behind digests, traffic to the brokers."""

from collections.abc import Mapping

from aiokafka.conn import collect_hosts

from consumer import secret_files
from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings, is_loopback


def all_checks(settings: Settings, files: Mapping[str, str]) -> list[CheckResult]:
    """The results of all of them. The addresses of the brokers have to be valid."""
    return [check_files(files), check_digest_key(settings), check_encryption(settings)]


def check_encryption(settings: Settings) -> CheckResult:
    """Whether records and credentials stay on this machine or are encrypted. The addresses have to be valid."""
    remote = [host for host, _, _ in collect_hosts(settings.bootstrap_servers) if not is_loopback(host)]
    if settings.is_encrypted or not remote:
        return CheckResult("encryption", "pass", "nothing leaves this machine in clear text")
    return CheckResult(
        "encryption",
        "warn",
        f"CC_SECURITY_PROTOCOL={settings.security_protocol} sends customers' conversations in clear text",
        "use SSL or SASL_SSL, unless no other host can listen or write between here and the brokers",
    )


def check_files(files: Mapping[str, str]) -> CheckResult:
    """Whether other users of this machine may read the files of secrets, which are given by variable."""
    exposed = [variable for variable, path in files.items() if secret_files.is_exposed(path)]
    if not exposed:
        return CheckResult("files", "pass", "the files of secrets are not for every user of this machine")
    return CheckResult(
        "files",
        "warn",
        f"every user of this machine may read the files of {', '.join(exposed)}",
        "take the right to read away from others (`chmod o-r`, in Kubernetes `defaultMode: 0440`)",
    )


def check_digest_key(settings: Settings) -> CheckResult:
    """Whether an id can be found again by digesting all that are possible, which takes seconds for seven digits."""
    if settings.digest_key:
        return CheckResult("digests", "pass", "session and room ids are digested with a key")
    return CheckResult(
        "digests",
        "warn",
        "CC_DIGEST_KEY is empty: a session or room id can be found from its digest by trying all of them",
        "set a random one before the first record, for another key changes every digest: see Starting over in "
        "deploy/README.md",
    )
