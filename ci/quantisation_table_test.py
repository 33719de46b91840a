#!/usr/bin/env python3
"""ci/quantisation_table.py over builds and judgements that a stand-in for assay makes up."""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "quantisation_table.py"
# Leaves what each verb would, and notes its arguments. Seed 1 answers a little worse; --bits 3 cannot be made.
ASSAY = r'''#!/usr/bin/env python3
import json, sys
from pathlib import Path
a = sys.argv[1:]
out = Path(a[a.index("--out") + 1] if "--out" in a else a[2])
with open(Path(__file__).parent / "calls", "a") as log: log.write(" ".join(a) + "\n")
kld = [{"lang": l, "part": "all", "kld": {"mean": {"value": 0.001}, "p99": {"value": 0.01}}, "top1_agreement": {"value": 0.99}} for l in ("all", "ja", "en", "zh")]
if a[0] == "quantize":
    if "--naive" in a: sys.exit(2)
    out.mkdir(parents=True)
    (out / "config.json").write_text("{}"); (out / "x.safetensors").write_bytes(b"0" * 2**20)
    (out / "quantisation.json").write_text(json.dumps({"expert_bits": {"code": 1.7, "total": 2.0}}))
elif a[0] == "diverge":
    out.write_text(json.dumps({"groups": kld, "noise_floor": {"groups": kld, "between": ["a", "b"], "n_texts": 48, "kld": kld[0]["kld"], "top1_agreement": {"value": 1}}}))
else:
    low = 0.97 if "seed1" in str(out) else 0.98
    share = {"estimate": low + 0.01, "lo": low, "hi": low + 0.015}
    out.mkdir(parents=True)
    row = lambda m: {"arm": "thinking", "language": "", "metric": m, "n": 100, "n_candidate": 98, "difference": -0.02, "lo": -0.03, "hi": 0.01}
    (out / "run.json").write_text(json.dumps({"metrics": [{"arm": "thinking", "language": "", "kind": "", "gated": True, "accuracy": share, "closed": {"n_true": 99, "n": 100}}], "comparison": {"rows": [row("accuracy"), row("closed")]}}))
'''


class QuantisationTable(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = Path(self.folder.name)
        (self.out / "assay").write_text(ASSAY)
        (self.out / "assay").chmod(0o755)
        (self.out / "texts.jsonl").write_text("")

    def tearDown(self):
        self.folder.cleanup()

    def table(self, *more):
        return subprocess.run([sys.executable, SCRIPT, "--out", self.out, "--assay", self.out / "assay", *more], capture_output=True, text=True)

    def test_every_row_has_the_widest_of_its_seeds_intervals(self):
        done = self.table("--arms", "ja-1.71,scalar", "--seeds", "0,1", "--jobs", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
        for arm in ("ja-1.71", "scalar"):
            self.assertIn("| 98.5 % [97.0, 99.5] | -2.0 [-3.0, +1.0] |", rows[arm])
        self.assertIn("| 99.0 % [98.0, 99.5] | | 99 of 100 |", rows["bf16"])

    def test_builds_at_a_time_share_the_cores(self):
        self.assertEqual(self.table("--arms", "ja-1.71", "--seeds", "0", "--jobs", "1000").returncode, 0)
        calls = (self.out / "calls").read_text().splitlines()
        self.assertTrue(all("--threads 1" in c for c in calls if "seed0" in c), calls)

    def test_one_that_cannot_be_made_ends_it_and_what_is_finished_is_kept(self):
        failed = self.table("--arms", "naive", "--seeds", "0,1,2,3,4,5,6,7,8")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("ended with 2; see", failed.stderr)
        calls = [c for c in (self.out / "calls").read_text().splitlines() if c.startswith("quantize")]
        self.assertLess(len(calls), 9)
        self.assertEqual(self.table("--arms", "no-such", "--table").returncode, 2)


if __name__ == "__main__":
    unittest.main()
