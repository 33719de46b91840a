#!/usr/bin/env python3
"""ci/nightly as it is used: three nights with the bundled model, the third with a planted regression; and everything
else that can happen in a night, with a stand-in for assay that ends as it is told.

    ci/nightly_test.py path/to/assay
"""
import array
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "golden/micro-glm/model"
ASSAY = None  # from the command line

# Ends as <model>/plan.json says, and leaves what assay would.
STAND_IN = r"""#!/usr/bin/env python3
import json, sys, time
from pathlib import Path
argv = sys.argv[1:]
after = lambda flag: argv[argv.index(flag) + 1] if flag in argv else ""
if argv == ["--version"]:
    sys.exit(print("stand-in 1"))
if argv[0] == "compare":
    plan = json.loads(Path(json.loads((Path(argv[2]) / "run.json").read_text())["options"]["model"], "plan.json").read_text())
    Path(after("--out")).write_text(json.dumps({"verdict": {"state": "pass", "summary": "second stage"}}))
    sys.exit(plan["compare"])
resumed = after("--resume")
out = Path(resumed or after("--out"))
old = json.loads((out / "run.json").read_text()) if resumed else None
options = old["options"] if old else {"model": after("--model"), "baseline": after("--baseline")}
plan_file = Path(options["model"], "plan.json")
if not plan_file.exists():
    sys.exit(print("assay: error: no model there") or 2)
plan = json.loads(plan_file.read_text())
if options["baseline"] and plan.get("not_comparable"):
    sys.exit(print("assay run: not comparable") or 3)
out.mkdir(parents=True, exist_ok=True)
(out / "run.json").write_text(json.dumps({"status": "running", "options": options}))
time.sleep(0 if resumed else plan.get("sleep", 0))
n = plan.get("suspected", 0)
state = {0: "pass", 1: "regression", 3: "invalid"}[plan["run"]]
(out / "run.json").write_text(json.dumps({"status": "complete", "options": options, "resumed": bool(resumed), "samples": {"n": 7},
    "verdict": {"state": state, "summary": "told so", "problems": ["p"] * (n + plan.get("other_problems", 0))},
    "comparison": {"rows": [{"verdict": "suspected"}] * n}}))
error = '<error message="m" type="suspected"/>' if n else ""
(out / "junit.xml").write_text('<testsuites><testsuite name="baseline" tests="1" failures="0" errors="0" skipped="0" '
    'time="1.5"><testcase classname="c" name="n" time="1.5">' + error + "</testcase></testsuite></testsuites>")
(out / "summary.md").write_text("## page of the run\n")
(out / "report.html").write_text("<!doctype html>")
sys.exit(plan["run"])
"""


class NightlyTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="assay-nightly-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.history = self.folder / "history"
        self.stand_in = self.folder / "assay"
        self.stand_in.write_text(STAND_IN)
        self.stand_in.chmod(0o755)

    def profile(self, models, **changes):
        profile = {"format": 1, "suites": ["arithmetic"], "profile": "quick", "keep": 5, "models": models, **changes}
        (self.folder / "profile.json").write_text(json.dumps(profile))

    def model(self, name, **plan):
        path = self.folder / "models" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "plan.json").write_text(json.dumps(plan))
        return {"name": name, "path": str(path)}

    def command(self, *more, assay=None):
        return [ROOT / "ci/nightly", "--profile-file", self.folder / "profile.json", "--history", self.history,
                "--assay", assay or self.stand_in, *more]

    def nightly(self, *more, assay=None):
        while self.nights() and self.nights()[-1] == time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()):
            time.sleep(0.1)  # a night's name has seconds
        done = subprocess.run(self.command(*more, assay=assay), capture_output=True, text=True)
        self.said = done.stdout + done.stderr
        self.assertNotIn("Traceback", self.said)
        return done.returncode

    def nights(self):
        return sorted(f.name for f in self.history.glob("2*Z")) if self.history.exists() else []

    def junit(self):
        root = xml.parse(self.history / self.nights()[-1] / "junit.xml").getroot()
        for suite in root:
            cases = suite.findall("testcase")
            self.assertEqual(int(suite.get("tests")), len(cases))
            self.assertEqual(int(suite.get("errors")), len(suite.findall("testcase/error")))
            self.assertEqual(int(suite.get("failures")), len(suite.findall("testcase/failure")))
        return root

    def summary(self):
        return (self.history / self.nights()[-1] / "summary.md").read_text()


class ThreeNights(NightlyTest):
    """With the real program and model."""

    def plant(self, model):
        """Four times the weights of every expert's down projection: a build that went wrong."""
        file = model / "model.safetensors"
        data = bytearray(file.read_bytes())
        n_header = int.from_bytes(data[:8], "little")
        n = 0
        for name, tensor in json.loads(data[8:8 + n_header]).items():
            if re.search(r"mlp\.experts\.\d+\.down_proj\.weight$", name):
                self.assertEqual(tensor["dtype"], "BF16")
                begin, end = (8 + n_header + offset for offset in tensor["data_offsets"])
                values = array.array("H", bytes(data[begin:end]))
                data[begin:end] = array.array("H", (v + 0x100 if v & 0x7F80 else v for v in values)).tobytes()
                n += 1
        self.assertGreater(n, 0)
        file.write_bytes(data)

    def test_the_third_has_a_regression(self):
        model = self.folder / "model"
        shutil.copytree(MODEL, model)
        self.profile([{"name": "micro-glm", "path": str(model)}], keep=1,
                     options=["--arms", "thinking", "--limit", "45"])

        self.assertEqual(self.nightly(assay=ASSAY), 0, self.said)
        self.assertIn("no baseline is pinned", self.said)
        self.assertEqual(self.nightly("--pin", "latest", assay=ASSAY), 0, self.said)
        first = self.nights()[0]

        self.assertEqual(self.nightly(assay=ASSAY), 0, self.said)
        self.assertIn(f"against {self.history / first}", self.said)
        self.assertEqual(len(self.nights()), 2, "the pinned night is older than the last one, and stays")
        second = self.nights()[1]
        run = json.loads((self.history / second / "micro-glm/run/run.json").read_text())
        self.assertEqual(run["comparison"]["n_same_tokens"], 45)
        junit = self.junit()
        self.assertEqual((junit.get("failures"), junit.get("errors")), ("0", "0"))

        self.plant(model)
        self.assertEqual(self.nightly(assay=ASSAY), 1, self.said)
        self.assertEqual([first, self.nights()[1]], self.nights(), "the second went: it was not pinned")
        self.assertNotIn(second, self.nights())
        run = json.loads((self.history / self.nights()[1] / "micro-glm/run/run.json").read_text())
        rows = {row["metric"]: row["verdict"] for row in run["comparison"]["rows"] if not row["language"]}
        self.assertEqual(rows["accuracy"], "regression")
        junit = self.junit()
        self.assertGreater(int(junit.get("failures")), 1)
        failed = [case.get("classname") for case in junit.iter("testcase") if case.find("failure") is not None]
        self.assertIn("night", failed)
        self.assertIn("micro-glm.baseline.arithmetic.thinking", failed)
        self.assertTrue(self.summary().startswith("# ❌ assay nightly"), self.summary())
        self.assertIn("### Against the baseline", self.summary())
        self.assertEqual((self.history / "latest.txt").read_text().strip(), self.nights()[1])
        print(self.said)


class Verdicts(NightlyTest):
    def test_a_regression_is_never_hidden_and_what_did_not_run_comes_next(self):
        good, bad = self.model("good", run=0), self.model("bad", run=1)
        invalid, missing = self.model("invalid", run=3, other_problems=2), {"name": "missing", "path": str(self.folder / "nowhere")}
        for models, code in (([good], 0), ([invalid, good], 3), ([missing, invalid, good], 2),
                             ([good, missing, invalid, bad], 1)):
            self.profile(models)
            self.assertEqual(self.nightly(), code, self.said)
            record = json.loads((self.history / self.nights()[-1] / "night.json").read_text())
            self.assertEqual(set(record["models"]), {m["name"] for m in models}, "one that fails stops no other")
            self.assertEqual(record["exit_code"], code)
            if invalid in models:
                self.assertTrue(record["models"]["invalid"]["note"].startswith("p (and 1 more); no baseline"))
            junit = self.junit()
            self.assertEqual(int(junit.get("failures")) + int(junit.get("errors")) > 0, code != 0)
        self.assertIn("no model there", self.summary())

    def suspected(self, **plan):
        model = self.model("m", run=0)
        self.profile([model])
        self.assertEqual(self.nightly(), 0)
        self.assertEqual(self.nightly("--pin", "latest"), 0)
        self.model("m", run=3, suspected=2, **plan)
        code = self.nightly()
        return code, self.junit()

    def test_a_suspicion_that_is_confirmed_is_a_regression(self):
        code, junit = self.suspected(compare=1)
        self.assertEqual((code, junit.get("failures")), (1, "1"))
        self.assertIn("confirmed: second stage", self.said)

    def test_a_suspicion_that_is_not_confirmed_passes_and_nothing_stays_red(self):
        code, junit = self.suspected(compare=0)
        self.assertEqual((code, junit.get("failures"), junit.get("errors")), (0, "0", "0"))
        self.assertIn("not confirmed", self.summary())
        self.assertEqual(self.nightly("--pin", "latest"), 0, self.said)  # cleared is as good as passed

    def test_the_second_stage_lifts_the_suspicion_and_nothing_else(self):
        self.assertEqual(self.suspected(compare=0, other_problems=1)[0], 3)

    def test_a_second_stage_that_cannot_be_asked_leaves_the_night_inconclusive(self):
        self.assertEqual(self.suspected(compare=2)[0], 3)
        self.assertIn("could not be confirmed", self.said)
        self.assertEqual(self.suspected(compare=3)[0], 3)

    def test_a_baseline_of_another_suite_is_said_and_a_record_is_made_all_the_same(self):
        self.profile([self.model("m", run=0)])
        self.nightly()
        self.nightly("--pin", "latest")
        self.model("m", run=0, not_comparable=True)
        self.assertEqual(self.nightly(), 3)
        self.assertIn("not comparable. It ran without the baseline", self.said)
        self.assertEqual(self.nightly("--pin", "latest"), 0, self.said)


class Keeping(NightlyTest):
    def test_the_last_n_and_what_is_pinned(self):
        self.profile([self.model("m", run=0)], keep=2)
        (self.history / "mine").mkdir(parents=True)
        (self.history / "20200101T000000Z").mkdir()  # not a night: no night.json
        for _ in range(3):
            self.nightly()
        kept = self.nights()[1:]
        self.assertEqual(len(kept), 2)
        self.nightly("--pin", kept[0])
        self.nightly()
        self.nightly()
        self.assertIn(kept[0], self.nights())
        self.assertEqual(len(self.nights()), 1 + 1 + 2)
        self.assertTrue((self.history / "mine").exists())

    def test_a_pin_is_explicit_and_checked(self):
        self.profile([self.model("m", run=0), self.model("bad", run=3)])
        self.assertEqual(self.nightly("--pin", "latest"), 2)
        self.assertIn("has no night yet", self.said)
        self.nightly()
        self.assertFalse((self.history / "pins.json").exists(), "never by itself")
        self.assertEqual(self.nightly("--pin", "20200101T000000Z"), 2)
        self.assertIn(f"there are: {self.nights()[0]}", self.said)
        self.assertEqual(self.nightly("--pin", "latest"), 2)
        self.assertIn("the run of bad is invalid", self.said)
        self.assertEqual(self.nightly("--pin", "latest", "--model", "other"), 2)
        self.assertEqual(self.nightly("--pin", "latest", "--model", "m"), 0)
        self.assertEqual(json.loads((self.history / "pins.json").read_text()), {"m": self.nights()[0]})
        shutil.rmtree(self.history / self.nights()[0])
        self.assertEqual(self.nightly(), 2, "a night without its baseline would pass unseen")
        self.assertIn("whose run is gone", self.said)


class Interruptions(NightlyTest):
    def start(self):
        child = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(200):
            time.sleep(0.05)
            if list(self.history.glob("*/slow/run/run.json")):
                return child
        self.fail("it does not start")

    def test_two_nights_are_kept_apart(self):
        self.profile([self.model("slow", run=0)])
        self.history.mkdir()
        with open(self.history / ".lock", "w") as held:
            held.write("process 7 on somewhere since 2026-11-25T03:00:00Z\n")
            held.flush()
            fcntl.flock(held, fcntl.LOCK_EX)
            self.assertEqual(self.nightly(), 3)
            self.assertIn("held by process 7 on somewhere since 2026-11-25T03:00:00Z", self.said)
            self.assertEqual(self.nights(), [])
        self.assertEqual(self.nightly(), 0, self.said)

    def test_the_next_call_goes_on_with_the_same_night(self):
        self.profile([self.model("first", run=0), self.model("slow", run=0, sleep=60), self.model("last", run=0)])
        child = self.start()
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(), 130)
        self.assertIn("goes on with this night", child.stdout.read())
        child.stdout.close()
        before = (self.history / self.nights()[0] / "first/run/run.json").stat().st_mtime_ns
        self.assertEqual(self.nightly(), 0, self.said)
        self.assertEqual(len(self.nights()), 1)
        night = self.history / self.nights()[0]
        self.assertEqual((night / "first/run/run.json").stat().st_mtime_ns, before, "what is done is not done again")
        self.assertTrue(json.loads((night / "slow/run/run.json").read_text())["resumed"])
        self.assertTrue((night / "last/run/run.json").exists())

    def test_a_damaged_record_is_named_and_nothing_is_lost(self):
        self.profile([self.model("slow", run=0)])
        self.assertEqual(self.nightly(), 0, self.said)
        record = self.history / self.nights()[0] / "night.json"
        whole = record.read_text()
        for damage in (whole[:40], "[]", '{"status": 7}'):
            record.write_text(damage)
            self.assertEqual(self.nightly(), 2, self.said)
            self.assertIn("night.json", self.said)
            self.assertIn("Move its", self.said)
            self.assertEqual(self.nightly("--pin", self.nights()[0]), 2, self.said)
            self.assertIn("night.json", self.said)
        record.write_text(whole)
        self.assertEqual(self.nightly(), 0, self.said)

    def test_a_killed_night_is_not_joined_while_its_assay_still_writes(self):
        self.profile([self.model("slow", run=0, sleep=3)])
        child = self.start()
        child.kill()
        child.wait()
        child.stdout.close()
        self.assertEqual(self.nightly(), 3, self.said)
        for _ in range(100):
            time.sleep(0.1)
            if self.nightly() != 3:
                break
        self.assertIn("exit code 0", self.said)
        self.assertEqual(len(self.nights()), 1)

    def test_another_profile_starts_another_night(self):
        self.profile([self.model("slow", run=0, sleep=60)])
        child = self.start()
        child.send_signal(signal.SIGINT)
        child.wait()
        child.stdout.close()
        self.profile([self.model("slow", run=0)], keep=3)
        self.assertEqual(self.nightly(), 0, self.said)
        self.assertIn("stays as it is", self.said)
        self.assertEqual(len(self.nights()), 2)


class BrokenProfiles(NightlyTest):
    def test_one_message_says_what_and_where(self):
        good = {"format": 1, "suites": ["all"], "profile": "quick", "keep": 3,
                "models": [{"name": "m", "path": "p"}]}
        twice = [{"name": "m", "path": "p"}] * 2
        for text, said in ((None, "cannot read"), ("{\n  \"format\": 1,,\n}", ":2:15: not JSON"), ("[]", "expected an object"),
                           (good | {"kep": 1}, "unknown key \"kep\""), (good | {"keep": "3"}, "keep: expected a whole number"),
                           (good | {"keep": True}, "keep: expected a whole number"), (good | {"keep": 0}, "at least 1"),
                           (good | {"format": 2}, "format: expected 1, got 2"), (good | {"profile": "fast"}, "nightly, full"),
                           (good | {"models": []}, "at least one suite and one model"), (good | {"models": twice}, "there twice"),
                           (good | {"models": [{"name": "../x", "path": "p"}]}, "models[0].name"),
                           (good | {"models": [{"name": "m"}]}, "models[0]: \"path\" is missing"),
                           (good | {"suites": [1]}, "suites: expected texts"),
                           (good | {"options": ["--out=x"]}, "--out=x comes from")):
            (self.folder / "profile.json").unlink(missing_ok=True)
            if text is not None:
                (self.folder / "profile.json").write_text(text if isinstance(text, str) else json.dumps(text))
            self.assertEqual(self.nightly(), 2, text)
            self.assertIn(said, self.said)
            self.assertEqual(self.said.count("nightly: error: "), 1)
            self.assertFalse(self.history.exists(), "nothing is begun")

    def test_the_bundled_profile_is_good(self):
        (self.folder / "profile.json").write_text((ROOT / "profiles/nightly.json").read_text())
        for model in json.loads((self.folder / "profile.json").read_text())["models"]:
            self.assertTrue((ROOT / model["path"] / "config.json").exists())
        self.assertEqual(self.nightly(assay=self.folder / "none"), 2)
        self.assertIn("build it with ci/build release", self.said)


if __name__ == "__main__":
    ASSAY = Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
