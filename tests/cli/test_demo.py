"""The demo, as `make demo` runs it but shorter: the real worker, at least once, on the embedded broker."""

import re
import subprocess
import sys
import urllib.request

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_ends_in_the_state_of_true_order() -> None:
    command = [sys.executable, "-m", "consumer", "demo", "--seconds", "10", "--rate", "300", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        heading = "".join(iter(process.stdout.readline, "\n"))
        assert "at_least_once" in heading
        page, metrics = re.findall(r"http://\S+", heading)
        with urllib.request.urlopen(metrics, timeout=60) as answer:
            assert b"conversation_records_total" in answer.read()
        with urllib.request.urlopen(page, timeout=60) as answer:
            assert b"What is live?" in answer.read()
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "a correction: " in output
    assert "all 3000 records accounted for: yes" in output
    assert "final state equals that of the same records in true order: yes" in output


def test_only_the_demo_needs_librdkafka() -> None:
    blocked = "import sys; sys.modules['confluent_kafka'] = None; from consumer.__main__ import main; main()"
    answers = [
        subprocess.run(
            [sys.executable, "-c", blocked, *arguments], capture_output=True, text=True, timeout=300, check=False
        )
        for arguments in (["run", "--help"], ["demo"])
    ]
    assert [answer.returncode for answer in answers] == [0, 1]
    assert "install conversation-consumer[demo]" in answers[1].stderr
