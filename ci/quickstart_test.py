#!/usr/bin/env python3
"""ci/quickstart is asked for its usage, and given what it does not know: neither may build anything."""
import subprocess
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "quickstart"


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=30)


class Quickstart(unittest.TestCase):
    def test_help_prints_usage_and_builds_nothing(self):
        for flag in ("--help", "-h"):
            done = run(flag)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith("usage: ci/quickstart\n"), done.stdout)

    def test_an_unknown_argument_is_an_error(self):
        done = run("--fast")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("unexpected argument '--fast'\nusage: ", done.stderr)


if __name__ == "__main__":
    unittest.main()
