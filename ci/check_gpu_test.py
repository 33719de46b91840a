#!/usr/bin/env python3
"""ci/check-gpu without a GPU: with programs in the place of the driver's, ctest and a build, each section that fails,
and a test that is skipped, is exit code 1, and nothing else is."""
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "check-gpu"
SANITIZED = "echo '[  PASSED  ] 3 tests.'; echo '========= ERROR SUMMARY: 0 errors'"
SECTIONS = ["tests", "ranks", "goldens", "sanitizers", "races", "speed"]


class CheckGpu(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="assay-check-gpu-"))
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "ci").mkdir()
        shutil.copy(SCRIPT, self.root / "ci")
        self.program("bin/nvidia-smi", "echo 'A GPU, 1'; echo 'A GPU, 1'")
        self.program("bin/ctest", "echo '100% tests passed'")
        self.program("bin/compute-sanitizer", SANITIZED)
        self.program("build/assay", "echo 'golden x: as before'")
        self.program("build/kernels/cuda_kernels_test", "")
        self.program("build/kernels/bench/assay-kernels", "echo row")

    def program(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)

    def run_it(self, *arguments):
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.run([self.root / "ci/check-gpu", *arguments], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PATH": path})

    def expect_failed(self, *sections):
        done = self.run_it("--build", "build", *SECTIONS)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn(f"::: FAILED: {' '.join(sections)}\n", done.stdout)

    def test_all_of_it_passes(self):
        done = self.run_it("--build", "build")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for section in SECTIONS:
            self.assertIn(f"::: {section}\n", done.stdout)

    def test_a_failed_test_is_a_failure(self):
        self.program("bin/ctest", "echo '1 tests failed'; exit 8")
        self.expect_failed("tests", "ranks")

    def test_a_skipped_test_is_a_failure(self):
        self.program("bin/ctest", "echo '1/2 Test #1: x ...***Skipped 0.1 sec'")
        self.expect_failed("tests", "ranks")

    def test_a_sanitizers_error_is_a_failure(self):
        self.program("bin/compute-sanitizer", "echo '========= ERROR SUMMARY: 1 error'; exit 9")
        self.expect_failed("sanitizers", "races")
        self.program("bin/compute-sanitizer", f'{SANITIZED}; [[ $2 != racecheck || $GTEST_SHARD_INDEX != 1 ]]')
        self.expect_failed("races")

    def test_a_sanitizer_that_saw_no_test_is_a_failure(self):
        self.program("bin/compute-sanitizer", SANITIZED.replace("PASSED  ] 3", "PASSED  ] 0"))
        self.expect_failed("sanitizers", "races")

    def test_a_hazard_is_a_failure_whatever_the_exit_code(self):
        self.program("bin/compute-sanitizer", SANITIZED.replace("SUMMARY: 0", "SUMMARY: 1"))
        self.expect_failed("sanitizers", "races")

    def test_a_golden_that_departs_is_a_failure(self):
        self.program("build/assay", "echo 'golden x: departs'; exit 1")
        self.expect_failed("goldens")

    def test_a_wrong_benchmark_is_a_failure(self):
        self.program("build/kernels/bench/assay-kernels", "exit 1")
        self.expect_failed("speed")

    def test_what_cannot_be_asked_is_exit_code_2(self):
        for arguments in (["--build"], ["--build", "nowhere"], ["--fast"]):
            done = self.run_it(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn("ci/check-gpu: ", done.stderr)
        self.program("bin/nvidia-smi", "exit 9")
        done = self.run_it("--build", "build")
        self.assertEqual((done.returncode, "finds no GPU" in done.stderr), (2, True))


if __name__ == "__main__":
    unittest.main()
