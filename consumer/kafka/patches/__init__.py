"""Everything that depends on the inside of aiokafka 0.14.

A function that reads or replaces a private attribute of aiokafka, or overrides one of its methods, is in this package
and nowhere else. Its docstring names the fact that forces it; a test in `tests/kafka/patches` fails when a new version
of aiokafka changes that fact.

| module             | subject                                                         |
| ------------------ | --------------------------------------------------------------- |
| `internals`        | what clients, members and producers know but do not make public |
| `connecting`       | one unreachable broker must not delay requests to the others    |
| `decompression`    | a small batch that holds too much is not decompressed           |
| `header_names`     | a header name that is not UTF-8 must not stop a partition       |
| `lost_responses`   | a request of a transaction is sent once                         |
| `packed_batches`   | records that an engine has packed are sent as they are          |
| `scram_iterations` | a broker does not choose freely how often a password is hashed  |
| `token_refusals`   | a refused OAUTHBEARER token is an error                         |
| `whole_batches`    | records are handed on without an object for each                |
| `zstd_level`       | the level costs no CPU that makes nothing smaller               |
"""

from consumer.kafka.patches import (
    connecting,
    decompression,
    header_names,
    scram_iterations,
    token_refusals,
    whole_batches,
    zstd_level,
)


def install(decompressed_bytes_max: int) -> None:
    """Apply the patches that hold for every client of this process. May be called again.

    `decompressed_bytes_max` is the largest size of a batch once it is decompressed.
    """
    connecting.install()
    header_names.install()
    decompression.install(decompressed_bytes_max)
    whole_batches.install()
    scram_iterations.install()
    token_refusals.install()
    zstd_level.install()
