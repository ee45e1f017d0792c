"""The worker where cramjam is not installed: `python -m tests.live.without_codecs`, then as `run`."""

import sys

if __name__ == "__main__":
    sys.modules["cramjam"] = None  # type: ignore[assignment]  # an import of it fails from now on

    from consumer.__main__ import main

    main(["run"], prog_name="conversation-consumer")
